"""A fleet's server as deploy/ has it, on loopback: mosquitto with either configuration, and who is who by an authority.

    FOLDER/ca/                     of `fedge ca init`: for the broker, the aggregator and the admin
    FOLDER/etc/DEVICE/identity/    what `fedge agent adopt` makes of the bundle of `fedge enroll`
    FOLDER/passwords/              mosquitto's file, and the password of each user in one of its own
    FOLDER/KIND/                   configuration and log of a broker

The commands are those that a person gives. Of deploy's files nothing is changed but ports and paths.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from broker.connection import BrokerSettings
from broker.embedded import find_mosquitto
from broker.errors import StartError
from fleet import cli
from fleet.local.processes import Child, Children, tail
from identity.settings import IdentitySettings
from runtime.disk import write_private

DEPLOY = Path(__file__).parents[1] / "deploy" / "mosquitto"
HOST = "127.0.0.1"
OPERATOR = "operator"
"""As deploy/mosquitto/acl calls whoever has a password, so that the admin has the same name."""
_START_S = 15.0
_PORTS = {"passwords": (1883, 1884, 1884), "certificates": (8883, 8884, 8885)}
"""The listeners of either configuration: for devices, for the aggregator, for people."""


class Identities:
    """The keys and certificates of a fleet, as its commands make them; a `fleet.local.stage.Keys`."""

    def __init__(self, folder: Path, fleet: str, devices: Sequence[str]) -> None:
        """Make all of them. Raises StartError where a command fails; OSError."""
        self.ca, self._etc = folder / "ca", folder / "etc"
        _fedge(
            *("ca", "init", self.ca, "--fleet", fleet, "--server", HOST, "--operator", OPERATOR),
            *("--acl", DEPLOY / "acl"),
        )
        for device in devices:
            bundle = folder / f"{device}.tar"
            _fedge("enroll", device, "--ca", self.ca, "--out", bundle)
            _fedge("agent", "adopt", bundle, "--into", self._etc / device)
            bundle.unlink()

    def of_device(self, device: str) -> dict[str, str]:
        """Return the table [identity] of a device."""
        folder = self._etc / device / "identity"
        return {"trust": str(folder / "trust.json"), "message_key": str(folder / "message.key")}

    @property
    def of_aggregator(self) -> dict[str, str]:
        """The table of the aggregator."""
        folder = self.ca / "aggregator"
        names = {"trust": "trust.json", "message_key": "message.key", "registry": "registry.json"}
        return {key: str(folder / name) for key, name in names.items()}

    @property
    def of_operator(self) -> IdentitySettings:
        """The table of the operator."""
        folder = self.ca / "operators" / OPERATOR
        return IdentitySettings(str(folder / "trust.json"), str(folder / "message.key"))

    def broker_of(self, name: str, port: int) -> BrokerSettings:
        """Return how a device, "aggregator" or the operator reaches the broker with its certificate."""
        folder, stem = {
            "aggregator": (self.ca / "aggregator", "aggregator"),
            OPERATOR: (self.ca / "operators" / OPERATOR, OPERATOR),
        }.get(name, (self._etc / name / "identity", "device"))
        ca, certificate, key = (str(folder / file) for file in ("ca.crt", f"{stem}.crt", f"{stem}.key"))
        return BrokerSettings(HOST, port, ca_file=ca, certificate_file=certificate, key_file=key)


class Passwords:
    """A password for each user, as mosquitto.conf asks for them."""

    def __init__(self, folder: Path, users: Sequence[str]) -> None:
        """Make all of them. Raises StartError without mosquitto_passwd, OSError."""
        self._folder = folder
        self.file = folder / "passwd"
        folder.mkdir(parents=True)
        if shutil.which("mosquitto_passwd") is None:
            raise StartError("mosquitto_passwd is needed: `apt install mosquitto` brings it")
        write_private(self.file, "".join(f"{user}:{user}\n" for user in users).encode())
        subprocess.run(["mosquitto_passwd", "-U", str(self.file)], check=True)
        for user in users:
            write_private(folder / f"{user}.password", f"{user}\n".encode())

    def broker_of(self, user: str, port: int) -> BrokerSettings:
        """Return how a user reaches the broker."""
        return BrokerSettings(HOST, port, username=user, password_file=str(self._folder / f"{user}.password"))


class Broker:
    """A mosquitto of one of the two configurations, which runs and answers."""

    def __init__(self, folder: Path, children: Children, files: Identities | Passwords) -> None:
        """Start it. Raises StartError without one, ChildDiedError where it ends at once."""
        self._files = files
        kind = "certificates" if isinstance(files, Identities) else "passwords"
        defaults = sorted(set(_PORTS[kind]))
        ports = dict(zip([*defaults, "health"], _free_ports(len(defaults) + 1), strict=True))
        self.device_port, self._server_port, self._people_port = (ports[port] for port in _PORTS[kind])
        self.child = _start(folder, children, _written(ports, files))
        until = time.monotonic() + _START_S
        for port in defaults:
            while not _answers(ports[port]):
                children.check()
                if time.monotonic() > until:
                    raise StartError(f"mosquitto does not answer after {_START_S:g} s: {tail(self.child.log)}")
                time.sleep(0.02)

    def settings(self, name: str, device_port: int | None = None) -> BrokerSettings:
        """Return how a role, or the operator, reaches it. device_port: of a proxy before the devices' listener."""
        port = {"aggregator": self._server_port, OPERATOR: self._people_port}.get(name, device_port or self.device_port)
        return self._files.broker_of(name, port)


def _fedge(*arguments: object) -> None:
    """Do as `fedge` does, and say nothing. Raises StartError."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main([str(argument) for argument in arguments])
    if code != 0:
        raise StartError(f"fedge {' '.join(map(str, arguments))} ended with {code}: {said.getvalue().strip()}")


def _written(ports: dict[object, int], files: Identities | Passwords) -> str:
    """Return the configuration of deploy/, with these ports and paths."""
    if isinstance(files, Identities):
        text = (DEPLOY / "locked.conf").read_text(encoding="utf-8")
        edits = {"/mosquitto/config/broker/": f"{files.ca}/broker/", "/mosquitto/config/nobody$": f"{DEPLOY}/nobody"}
        edits[r"^listener 1883 127\.0\.0\.1$"] = f"listener {ports['health']} {HOST}"
    else:
        text = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8")
        edits = {"/mosquitto/config/passwd$": str(files.file), "/mosquitto/config/acl$": f"{DEPLOY}/acl"}
    edits |= {rf"^listener {old}$": f"listener {new} {HOST}" for old, new in ports.items() if old != "health"}
    for pattern, instead in edits.items():
        text, n = re.subn(pattern, instead, text, flags=re.MULTILINE)
        if n == 0:
            raise StartError(f"deploy's configuration has nothing like {pattern}: this module has to follow it")
    # Started by root it would become the user mosquitto, who may not look into our folder.
    return text + ("\nuser root\n" if os.geteuid() == 0 else "")


def _start(folder: Path, children: Children, text: str) -> Child:
    program = find_mosquitto()
    if program is None:
        raise StartError("mosquitto is needed: `apt install mosquitto` brings it")
    folder.mkdir(parents=True)
    conf = folder / "mosquitto.conf"
    conf.write_text(text, encoding="utf-8")
    return children.start("mosquitto", [program, "-c", str(conf)], folder / "mosquitto.log")


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
