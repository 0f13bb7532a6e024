"""The configurations that the authority writes: agent.toml, aggregator.toml and operator.toml, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from identity.adoption import ETC, FOLDER
from identity.record import BrokerSide

AGENT = """\
# Made by `fedge enroll`; agent.toml in the folder deploy of the source explains every key.
fleet = "{fleet}"
device = "{device}"
state_dir = "/var/lib/fedge-agent"

[broker]
host = "{host}"
port = {port}
ca_file = "{folder}/ca.crt"
certificate_file = "{folder}/device.crt"
key_file = "{folder}/device.key"

[identity]
trust = "{folder}/trust.json"
message_key = "{folder}/message.key"

# The rows that a job may train on, which never leave this device.
#[data.digits]
#path = "/srv/fedge/digits.npz"
"""
STAFF = """\
# Made by `fedge ca`.{hint}
fleet = "{fleet}"
{more}
[broker]
host = "{host}"
port = {port}
ca_file = "{folder}ca.crt"
certificate_file = "{folder}{name}.crt"
key_file = "{folder}{name}.key"
"""
KEYS = """\

[identity]
trust = "{folder}trust.json"
message_key = "{folder}message.key"
"""
REGISTRY = 'registry = "{folder}registry.json"\n'
HINT = "\n# Start `fedge job ... --config operator.toml` in this folder, or write the whole paths of the files."


def agent(fleet: str, device: str, host: str, port: int, labels: Mapping[str, str]) -> str:
    """Return agent.toml."""
    text = AGENT.format(fleet=fleet, device=device, host=host, port=port, folder=f"{ETC}/{FOLDER}")
    if labels:
        text += "\n[labels]\n" + "".join(f'{name} = "{value}"\n' for name, value in labels.items())
    return text


def aggregator(fleet: str, broker: BrokerSide, folder: Path) -> str:
    """Return aggregator.toml. folder: where its keys are."""
    words = {"fleet": fleet, "host": broker.inner_host, "port": broker.inner_port, "folder": f"{folder}/"}
    more = '# Made by systemd under aggregator.service.\nstate_dir = "/var/lib/fedge-aggregator"\n'
    return (STAFF + KEYS + REGISTRY).format(name="aggregator", hint="", more=more, **words)


def operator(fleet: str, name: str, host: str, port: int, *, signs: bool) -> str:
    """Return operator.toml. host, port: of the listener for people. signs: whether there is a message key."""
    words = {"fleet": fleet, "host": host, "port": port, "folder": ""}
    keys = KEYS if signs else KEYS.replace('message_key = "{folder}message.key"\n', "")
    return (STAFF + keys).format(name=name, hint=HINT, more="", **words)
