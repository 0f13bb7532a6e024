"""Live sources over real brokers: one of the site, one of the fleet."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from msgspec import structs

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from broker.mailbox import ClientLimits
from broker.messages import Beacon, Presence
from broker.transport import Transport
from broker.wire import Wire
from edge_agent.live import listener as at_work
from edge_agent.live import session
from edge_agent.live.listeners import Listeners
from edge_agent.live.settings import DeviceSource, TopicSettings, live_sources
from models.data import ring_file
from models.data.ring_file import segments

WIRE = Wire("home")


class Says(Protocol):
    def say(self, topic: str, *payloads: str | bytes, retain: bool = False) -> None: ...


Publish = Callable[[BrokerSettings], Says]


def connect(broker: BrokerSettings, client_id: str, limits: ClientLimits) -> Transport:
    return MqttTransport(broker, client_id, limits=limits, first_retry_s=0.05, last_retry_s=0.2)


class Device:
    """The live source "hall" of device "d"."""

    def __init__(self, folder: Path, site: BrokerSettings, fleet: BrokerSettings, **mqtt: Any) -> None:
        known = {name: getattr(site, name) for name in ("host", "port", "username", "password_file")}
        settings = TopicSettings(**{"topics": {"t": "hall/t"}, "sync_s": 0.0, "stall_s": 1.0, **known, **mqtt})
        self.folder = folder / "hall.ring"
        self.sources = live_sources({"hall": DeviceSource(path=str(self.folder), mqtt=settings)})
        self.live = Listeners(self.sources, WIRE, "d", fleet, connect)

    @property
    def trouble(self) -> str:
        return dict(self.live.trouble()).get("hall", "")

    def rows(self) -> list[dict[str, Any]]:
        if not segments(self.folder):
            return []
        ring = ring_file.Ring(str(self.folder))
        try:
            return list(ring.rows())
        finally:
            ring.close()

    def column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self.rows()]


Begin = Callable[..., Device]
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def until() -> Until:
    from time import monotonic, sleep

    def wait(holds: Callable[[], bool]) -> None:
        give_up_at = monotonic() + 120.0
        while not holds():
            assert monotonic() < give_up_at, "it does not come true"
            sleep(0.02)

    return wait


@pytest.fixture
def begin(tmp_path: Path, mosquitto: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Start listening; the trial of a connection is short, but where a test says otherwise."""
    monkeypatch.setattr(session, "PROOF_S", 0.05)
    begun: list[Device] = []

    def make(site: BrokerSettings, fleet: BrokerSettings | None = None, **mqtt: Any) -> Device:
        device = Device(tmp_path, site, fleet or BrokerSettings(port=mosquitto.port), **mqtt)
        begun.append(device)
        device.live.start()
        return device

    yield make
    for device in begun:
        device.live.stop()
    assert [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("live-", "mqtt-home-d-hall"))
    ] == []


def where(broker: EmbeddedBroker) -> BrokerSettings:
    return BrokerSettings(port=broker.port)


def listens(device: Device, publisher: Says, until: Until) -> None:
    """Wait until the device hears what is published."""

    def heard() -> bool:
        publisher.say("hall/t", "0")
        return bool(device.rows())

    until(heard)


def test_readings_of_the_sites_broker_come_into_the_ring_and_others_do_not(
    begin: Begin, site: EmbeddedBroker, publish: Publish, until: Until
) -> None:
    device, publisher = begin(where(site)), publish(where(site))
    listens(device, publisher, until)
    publisher.say("hall/other", "99")
    publisher.say("hall/t", "1", "2.5")
    until(lambda: device.column("t")[-2:] == [1, 2.5])
    assert 99 not in device.column("t")


def test_topics_of_json_are_joined_with_a_retained_label(
    begin: Begin, site: EmbeddedBroker, publish: Publish, until: Until
) -> None:
    publisher = publish(where(site))
    publisher.say("hall/mode", "run", retain=True)
    publisher.say("hall/3/state", '{"temp": 1}', retain=True)
    device = begin(where(site), topics=("hall/+/state",), fields={"t": "temp"}, period_s=0.05, label_topic="hall/mode")

    def heard() -> bool:
        publisher.say("hall/3/state", json.dumps({"temp": 2.5}))
        return bool(device.rows())

    until(heard)
    assert {(row["group"], row["t"], row["y"]) for row in device.rows()} == {("3", 2.5, "run")}


def test_a_site_lets_in_who_has_its_credentials_and_another_is_told(
    begin: Begin, guarded_site: tuple[EmbeddedBroker, BrokerSettings], publish: Publish, until: Until, tmp_path: Path
) -> None:
    site, reader = guarded_site
    publisher = publish(reader)
    (tmp_path / "wrong").write_text("guess\n")
    stranger = begin(structs.replace(reader, password_file=str(tmp_path / "wrong")))
    until(
        lambda: f"no connection to 127.0.0.1:{site.port}" in stranger.trouble and "not authorised" in stranger.trouble
    )
    stranger.live.stop()
    device = begin(reader)
    listens(device, publisher, until)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_the_fleets_broker_is_refused_by_its_address(
    begin: Begin, mosquitto: EmbeddedBroker, until: Until, host: str
) -> None:
    device = begin(BrokerSettings(host=host, port=mosquitto.port))
    until(lambda: "the broker of the fleet itself" in device.trouble)
    assert not device.folder.exists()


def test_the_fleets_broker_is_recognised_by_its_beacon_under_an_address_that_nobody_knows(
    begin: Begin, site: EmbeddedBroker, publish: Publish, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings name another port for the fleet, as for one with two listeners; what lies there gives it away."""
    monkeypatch.setattr(session, "PROOF_S", 3600.0)
    publisher = publish(where(site))
    for message in (Beacon(1, "n", online=True), Presence("d", 1, online=False, incarnation="0" * 8, nonce="0" * 8)):
        packet = WIRE.pack(message)
        publisher.say(packet.topic, packet.payload, retain=True)
        device = begin(where(site))
        until(lambda device=device: "so it is the broker of the fleet itself" in device.trouble)
        publisher.say("hall/t", "1")
        device.live.stop()
        assert device.rows() == []
        publisher.say(packet.topic, b"", retain=True)


def test_a_broker_that_turns_out_to_be_the_fleets_later_is_left_and_what_is_not_on_disk_yet_is_dropped(
    begin: Begin, site: EmbeddedBroker, publish: Publish, until: Until
) -> None:
    """As where the aggregator is started for the first time after its devices."""
    device, publisher = begin(where(site), sync_s=3600.0), publish(where(site))
    until(lambda: "no reading" in device.trouble)

    def heard() -> bool:
        publisher.say("hall/t", "5")
        return device.trouble == ""

    until(heard)
    beacon = WIRE.pack(Beacon(1, "n", online=True))
    publisher.say(beacon.topic, beacon.payload, retain=True)
    until(lambda: "so it is the broker of the fleet itself" in device.trouble)
    device.live.stop()
    assert device.rows() == []


def test_the_same_credentials_as_at_the_fleets_broker_are_refused(
    begin: Begin,
    guarded_site: tuple[EmbeddedBroker, BrokerSettings],
    mosquitto: EmbeddedBroker,
    until: Until,
    tmp_path: Path,
) -> None:
    _, reader = guarded_site
    (tmp_path / "fleet-password").write_text("secret\n")
    fleet = BrokerSettings(port=mosquitto.port, username="reader", password_file=str(tmp_path / "fleet-password"))
    device = begin(reader, fleet)
    until(lambda: "username and password are those of the fleet's broker" in device.trouble)


def test_a_stalled_topic_and_rubbish_are_told_and_told_no_more_when_they_are_over(
    begin: Begin, site: EmbeddedBroker, publish: Publish, until: Until
) -> None:
    device, publisher = begin(where(site)), publish(where(site))
    listens(device, publisher, until)
    until(lambda: device.trouble.startswith("no reading from topic hall/t since"))
    listens_again = iter(range(10**6))

    def well() -> bool:
        publisher.say("hall/t", str(next(listens_again)))
        return device.trouble == ""

    until(well)
    publisher.say("hall/t", *[b"\xff secret"] * 40)
    until(lambda: "are no number, and are passed over" in device.trouble)
    assert "secret" not in device.trouble
    assert all(isinstance(value, int | float) for value in device.column("t"))


def test_a_flood_is_left_alone_and_told_and_the_other_rows_stay(
    begin: Begin, site: EmbeddedBroker, publish: Publish, until: Until
) -> None:
    device, publisher = begin(where(site), max_per_s=1.0), publish(where(site))
    listens(device, publisher, until)
    publisher.say("hall/t", *["7"] * 300)
    until(lambda: "it is not listened to for 60 s" in device.trouble)
    assert "says more than max_per_s = 1 messages a second" in device.trouble
    assert 1 <= len(device.rows()) < 150
    until(lambda: not any(thread.name.startswith("mqtt-home-d-hall") for thread in threading.enumerate()))


def test_huge_and_deeply_nested_messages_cost_nothing_but_themselves(
    begin: Begin, site: EmbeddedBroker, publish: Publish, until: Until
) -> None:
    device, publisher = begin(where(site), topics=("hall/j",), fields=("t",), protocol="3.1.1"), publish(where(site))

    def heard() -> bool:
        publisher.say("hall/j", b'{"t":' * 12_000, b"[" * 60_000, b"9" * 200_000, b'{"t": 1e308}', b'{"t": 5}')
        return bool(device.rows())

    until(heard)
    assert set(device.column("t")) == {5}


def test_an_outage_of_the_sites_broker_is_a_gap_and_listening_goes_on_after_it(
    begin: Begin, site: EmbeddedBroker, publish: Publish, until: Until
) -> None:
    device, publisher = begin(where(site)), publish(where(site))
    listens(device, publisher, until)
    site.kill()
    until(lambda: f"no connection to 127.0.0.1:{site.port} since" in device.trouble)
    before = len(device.rows())
    site.start()

    def heard() -> bool:
        publisher.say("hall/t", "5")
        return len(device.rows()) > before

    until(heard)
    until(lambda: device.trouble == "" or publisher.say("hall/t", "5") is not None)


def test_what_was_heard_last_is_on_disk_when_it_stops(
    begin: Begin, site: EmbeddedBroker, publish: Publish, until: Until
) -> None:
    device, publisher = begin(where(site), sync_s=3600.0, stall_s=1.0), publish(where(site))
    until(lambda: "no reading" in device.trouble)

    def heard() -> bool:
        publisher.say("hall/t", "5")
        return device.trouble == ""

    until(heard)
    assert device.rows() == []
    device.live.stop()
    assert set(device.column("t")) == {5}


def test_a_ring_that_cannot_be_made_is_told_and_stops_nothing(
    begin: Begin, site: EmbeddedBroker, until: Until, tmp_path: Path
) -> None:
    (tmp_path / "hall.ring").write_text("a file")
    device = begin(where(site))
    until(lambda: "its ring cannot be written" in device.trouble)


def test_a_fault_of_the_program_is_told_and_the_thread_lives_on(
    begin: Begin, site: EmbeddedBroker, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(at_work, "Ring", fail)
    device = begin(where(site))
    until(lambda: "a fault of this program: ZeroDivisionError: planted" in device.trouble)
