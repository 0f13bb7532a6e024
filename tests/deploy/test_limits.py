"""The limits of locked.conf and mosquitto.conf: for each the attack that it prevents, tried with the limit as it is or,
so that the attack is quick, with a smaller one.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.locked import Site, mark
from tests.deploy.raw import PUBLISH, Raw, Refused

OWN = "fedge/1/home/device/pi-1"
ENDLESS = b"\xff\xff\xff\x7f"
"""The length of a packet of 268,435,455 bytes."""

Start = Callable[..., Site]


@pytest.fixture
def start(site: Site, tmp_path: Path) -> Iterator[Start]:
    """Start a broker with smaller limits, on ports of its own."""
    ports = site.ports
    with ExitStack() as stack:

        def start_with(**changed: int) -> Site:
            one = Site.beside(site)
            stack.callback(one.stop)
            one.start(tmp_path / "broker", **changed)
            return one

        yield start_with
    assert site.ports == ports


def megabytes(broker: Site) -> float:
    """Return the most memory that a broker has had."""
    assert broker.process is not None
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_a_packet_of_256_megabytes_is_not_waited_for(locked_broker: Site) -> None:
    with locked_broker.client("devices", "pi-1") as device:
        device.publish(OWN, bytes(300_000))
        device.send_bytes(bytes([PUBLISH << 4 | 2]) + ENDLESS)
        assert device.is_hung_up_on()


def test_nor_is_one_before_it_is_known_who_sends_it(locked_broker: Site) -> None:
    stranger = Raw(locked_broker.ports["devices"], locked_broker.context("pi-1"))
    stranger.send_bytes(b"\x10" + ENDLESS)
    assert stranger.is_hung_up_on()
    stranger.die()


def test_who_acknowledges_nothing_has_20_messages_under_way(locked_broker: Site) -> None:
    with locked_broker.client("devices", "pi-1") as device:
        device.subscribe(OWN)
        device.acknowledges = False
        for _ in range(50):
            device.publish(OWN, mark())
        device.ping()
        assert len(device.heard) == 20
        device.acknowledges = True
        device.acknowledge()
        device.ping()
        assert len(device.heard) > 20


def all_that_waits(device: Raw) -> int:
    """Acknowledge whatever comes until no more does, and return how many messages that were."""
    device.acknowledges = True
    n = -1
    while len(device.heard) > n:
        n = len(device.heard)
        device.acknowledge()
        device.ping()
    return n


@pytest.mark.parametrize(
    ("limit", "fits"),
    [({"max_queued_messages": 50}, 20 + 50), ({"max_queued_bytes": 300_000}, 20 + 30)],
    ids=["messages", "bytes"],
)
def test_who_subscribes_and_does_not_read_has_so_much_waiting(start: Start, limit: dict[str, int], fits: int) -> None:
    broker = start(**limit)
    with broker.client("devices", "pi-1") as device:
        device.subscribe(OWN)
        device.acknowledges = False
        for _ in range(100):
            device.publish(OWN, bytes(10_000))
        assert 20 < all_that_waits(device) <= fits
    with broker.client("devices", "pi-1") as device:
        device.subscribe(OWN)
        for _ in range(100):
            device.publish(OWN, bytes(10_000))
        assert all_that_waits(device) == 100


@pytest.mark.parametrize("asked_s", [0, 65_535])
def test_the_broker_sets_the_keepalive_of_who_wants_to_give_no_sign_of_life(locked_broker: Site, asked_s: int) -> None:
    server_keepalive = b"\x13" + struct.pack(">H", 3600)
    raw = Raw(locked_broker.ports["devices"], locked_broker.context("pi-1"))
    assert server_keepalive in raw.connect("c", keepalive_s=asked_s)
    raw.close()
    raw = Raw(locked_broker.ports["devices"], locked_broker.context("pi-1"))
    assert server_keepalive not in raw.connect("c", keepalive_s=600)
    raw.close()


@pytest.mark.parametrize("listener", ["devices", "people"])
def test_nothing_is_begun_at_qos_2(locked_broker: Site, listener: str) -> None:
    who, topic = {"devices": ("pi-1", OWN), "people": ("otto", "fedge/1/home/command/x")}[listener]
    packet = struct.pack(">H", len(topic)) + topic.encode() + b"\0\1\0x"
    with locked_broker.client(listener, who) as raw:
        raw.send(PUBLISH << 4 | 2, packet)
        assert not raw.is_hung_up_on()
        raw.send(PUBLISH << 4 | 4, packet)
        assert raw.is_hung_up_on()


def test_a_name_leaves_one_session_behind_whatever_client_ids_it_says(locked_broker: Site) -> None:
    found = []
    for client_id in ("a", "b", "c"):
        raw = Raw(locked_broker.ports["devices"], locked_broker.context("pi-1"), version=4)
        found.append(raw.connect(client_id, clean=False)[0])
        raw.close()
    assert found == [0, 1, 1], "the session before is there again"
    raw = Raw(locked_broker.ports["devices"], locked_broker.context("pi-1"), version=4)
    raw.connect("a", clean=True)
    raw.close()


def test_whoever_takes_all_connections_of_devices_keeps_neither_aggregator_nor_people_out(start: Start) -> None:
    broker = start(max_connections=5)
    broker.client("devices", "pi-1").close()
    with ExitStack() as stack:
        for _ in range(20):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", broker.ports["devices"]), timeout=120))
        assert plain.recv(1) == b"", "the twentieth is closed at once"
        with pytest.raises(Refused):
            broker.client("devices", "pi-1")
        for listener, who in (("server", "aggregator"), ("people", "otto")):
            broker.client(listener, who).close()


def retain_junk(device: Raw) -> None:
    for n in itertools.count():
        device.publish(f"fedge/1/home/offer/j-1/pi-1/{n}", bytes(100_000), retain=True)


def subscribe_without_end(device: Raw) -> None:
    for n in itertools.count():
        device.subscribe(f"{'a' * 60_000}/{n}")


@pytest.mark.parametrize("attack", [retain_junk, subscribe_without_end])
def test_who_fills_the_memory_ends_at_the_limit_and_the_broker_lives(
    start: Start, attack: Callable[[Raw], None]
) -> None:
    broker = start(memory_limit=30_000_000)
    device = broker.client("devices", "pi-1")
    with pytest.raises(Refused):
        attack(device)
    device.die()
    assert broker.process is not None
    assert broker.process.poll() is None
    assert 20 < megabytes(broker) < 60


def test_what_fills_the_memory_can_be_cleared_again(start: Start) -> None:
    broker = start(memory_limit=30_000_000)
    device = broker.client("devices", "pi-1")
    with pytest.raises(Refused):
        retain_junk(device)
    device.die()
    with broker.client("all", None) as everything:
        for n in range(400):
            everything.publish(f"fedge/1/home/offer/j-1/pi-1/{n}", b"", retain=True)
    with broker.client("devices", "pi-2") as honest:
        assert honest.publish("fedge/1/home/offer/j-1/pi-2/9", bytes(100_000)) < 128
