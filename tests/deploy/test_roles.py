"""People with certificates at a broker with locked.conf: what `fedge job ...` does for each role; and the product's own
client, by which devices and the aggregator come in.
"""

from __future__ import annotations

import re
import shlex
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.errors import WireError
from broker.messages import Beacon, Command, Jobs, Message, Presence, Query, Reply, Stop
from broker.transport import Online, Packet
from broker.wire import Wire
from fleet.authority.cut import cut
from fleet.console import operator
from fleet.console.operator import DeniedError, OperatorConfig, OperatorError
from tests.deploy.locked import Site
from tests.deploy.raw import WAIT_S, Raw, Refused

WIRE = Wire("home")


def settings(site: Site, who: str, listener: str) -> BrokerSettings:
    certificate, key = site.files(who)
    files = {"certificate_file": str(certificate), "key_file": str(key), "ca_file": str(site.ca / "root.crt")}
    return BrokerSettings("localhost", site.ports[listener], **files)


class Played:
    """An aggregator that is played: it leads, has no job, and answers whatever it hears under these words."""

    def __init__(self, broker: BrokerSettings, words: tuple[str, ...]) -> None:
        self.obeyed: list[Command] = []
        self._transport = MqttTransport(broker, "home-aggregator-1")
        self._transport.subscribe(*map(WIRE.filter_for, words))
        self._transport.open()
        assert isinstance(self._transport.take(WAIT_S), Online)
        self.say(Beacon(7, "n0", online=True))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def say(self, message: Message) -> None:
        assert self._transport.publish(WIRE.pack(message))

    def _run(self) -> None:
        while not self._over.is_set():
            event = self._transport.take(0.02)
            if not isinstance(event, Packet):
                continue
            try:
                command = WIRE.unpack(event)
            except WireError:
                continue
            if isinstance(command, Command):
                self.obeyed.append(command)
                data = {"jobs": []} if isinstance(command, Jobs) else {}
                self.say(Reply(command.client, command.request, ok=True, text="done", data=data))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.say(Beacon(7, "n0", online=False))
        self._transport.close()


@pytest.fixture
def play(locked_broker: Site) -> Iterator[Callable[..., Played]]:
    with ExitStack() as stack:

        def start(*words: str) -> Played:
            played = Played(settings(locked_broker, "aggregator", "server"), words)
            stack.callback(played.close)
            return played

        yield start


def config(site: Site, who: str) -> OperatorConfig:
    return OperatorConfig("home", settings(site, who, "people"))


@pytest.mark.parametrize("who", ["olga", "otto", "ada"])
def test_everybody_lists_jobs_and_observers_stop_none(
    locked_broker: Site, play: Callable[..., Played], who: str
) -> None:
    played = play("command", "query")
    assert operator.jobs(config(locked_broker, who)) == []
    if who == "olga":
        with pytest.raises(DeniedError, match=r"the broker refuses .*/command/operator-.*; observers may only look"):
            operator.stop(config(locked_broker, who), "digits")
    else:
        assert operator.stop(config(locked_broker, who), "digits") == "done"
    assert [type(command) for command in played.obeyed] == [Jobs] + [Stop] * (who != "olga")


def test_an_older_aggregator_is_asked_as_it_expects(
    locked_broker: Site, play: Callable[..., Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "RESEND_S", 0.3)
    played = play("command")
    assert operator.jobs(config(locked_broker, "otto")) == []
    assert all(isinstance(command, Query) for command in played.obeyed)


def test_an_observer_learns_that_an_older_aggregator_does_not_hear_him(
    locked_broker: Site, play: Callable[..., Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "RESEND_S", 0.1)
    monkeypatch.setattr(operator, "PATIENCE_S", 5.0)  # a busy machine connects within it
    play("command")
    with (
        pytest.raises(OperatorError, match="no aggregator of fleet home answers"),
        operator.Console(config(locked_broker, "olga")) as fleet,
    ):
        fleet.ask(Jobs(fleet.client, "r"))


def test_a_device_and_the_aggregator_hear_each_other(locked_broker: Site) -> None:
    device = MqttTransport(settings(locked_broker, "pi-1", "devices"), "home-pi-1")
    aggregator = MqttTransport(settings(locked_broker, "aggregator", "server"), "home-aggregator-1")
    try:
        for transport, heard, said in (
            (aggregator, "device", Presence("pi-1", 1, online=True)),
            (device, "aggregator", Beacon(7, "n0", online=True)),
        ):
            transport.subscribe(WIRE.filter_for(heard))
            transport.open()
            assert isinstance(transport.take(WAIT_S), Online)
            if transport is device:
                assert device.publish(WIRE.pack(Presence("pi-1", 1, online=True)))
                assert aggregator.publish(WIRE.pack(said))
        for transport, kind in ((aggregator, Presence), (device, Beacon)):
            packet = transport.take(WAIT_S)
            assert isinstance(packet, Packet)
            assert isinstance(WIRE.unpack(packet), kind)
    finally:
        device.close()
        aggregator.close()


def test_the_template_names_every_role(locked_broker: Site) -> None:
    staff = (locked_broker.ca / "broker" / "acl.staff").read_text().splitlines()
    devices = (locked_broker.ca / "broker" / "acl.devices").read_text().splitlines()
    assert {line for line in staff if line.startswith("user ")} == {
        f"user {name}" for name in ("aggregator", "authority", "olga", "otto", "ada")
    }
    assert not any(line.startswith("pattern") for line in staff)
    assert all(line.startswith(("pattern ", "#")) for line in devices)


def test_both_configurations_have_the_same_limits() -> None:
    folder = Path(__file__).parents[2] / "deploy" / "mosquitto"
    tails = [
        (folder / f"{name}.conf").read_text().partition("# --- What it remembers")[2]
        for name in ("mosquitto", "locked")
    ]
    assert tails[0] == tails[1]
    assert "memory_limit" in tails[0]


def test_without_containers_nothing_points_into_one() -> None:
    deploy = Path(__file__).parents[2] / "deploy"
    pattern = r"^sed (-e .*) \\\n +(mosquitto/\S+) \| sudo tee"
    edits = re.findall(pattern, (deploy / "README.md").read_text(), re.MULTILINE)
    assert {file for _, file in edits} == {"mosquitto/mosquitto.conf", "mosquitto/locked.conf"}
    for expressions, file in edits:
        made = subprocess.run(
            ["sed", *shlex.split(expressions), file], cwd=deploy, capture_output=True, text=True, check=True
        )
        settings_ = [line for line in made.stdout.splitlines() if not line.startswith("#")]
        assert not any("/mosquitto/config" in line for line in settings_)
        assert [line for line in settings_ if line.startswith("listener") and line.endswith("127.0.0.1")]


def test_who_is_revoked_is_cut_off_and_stays_out(locked_broker: Site) -> None:
    site = locked_broker
    site.enroll("pi-3")
    device = site.client("devices", "pi-3")
    device.publish("fedge/1/home/device/pi-3", b"x", retain=True)
    site.revoke("pi-3")
    steps = cut(settings(site, "authority", "server"), "home", "pi-3")
    assert all(step.done for step in steps), steps
    assert device.is_hung_up_on()
    device.die()
    with pytest.raises(Refused):
        site.client("devices", "pi-3")
    with site.client("all", None) as everything:
        everything.subscribe("fedge/1/home/device/pi-3")
        assert everything.heard == []


def test_past_its_date_a_list_of_the_revoked_lets_nobody_in(site: Site, tmp_path: Path) -> None:
    broker = Site.beside(site)
    try:
        broker.start(tmp_path / "broker", swap={f"{site.ca}/broker/devices.crl": str(site.stale_list())})
        with pytest.raises(Refused, match=r"certificate|EOF|hung up"):
            broker.client("devices", "pi-1")
        broker.client("server", "aggregator").close()
    finally:
        broker.stop()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_listener_takes_tls_1_2_as_well_where_it_is_told_to(
    site: Site, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    broker = Site.beside(site)
    try:
        broker.start(tmp_path / "broker", swap={"tls_version tlsv1.3": "tls_version tlsv1.2"})
        with Raw(broker.ports["devices"], broker.context("pi-1", version=version)) as raw:
            raw.connect("x")
            assert raw.publish("fedge/1/home/device/pi-1", b"x") < 128
    finally:
        broker.stop()
