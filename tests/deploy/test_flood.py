"""A device that floods, at deploy's mosquitto: an aggregator on its own listener clears after it, and throws it off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from aggregator.config import AggregatorConfig, ServerLimits
from aggregator.service import Aggregator, SessionTakenOverError
from aggregator.store import Store
from aggregator.takeover import Takeover
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.occupant import Occupant
from broker.wire import Wire
from tests.deploy.locked import Site

WAIT_S = 120.0
Connect = Callable[..., Any]
LIMITS = ServerLimits(offers_a_minute=10, flood_a_minute=100)


def leave(takeover: Takeover) -> None:
    """Have it give up all ids: it would cut the devices of the next test."""
    takeover.release()
    until = time.monotonic() + WAIT_S
    while takeover._kept:
        assert time.monotonic() < until
        time.sleep(0.01)


class Leader:
    """An aggregator that this test drives."""

    def __init__(self, broker: Any, folder: Path, port: int, stack: ExitStack) -> None:
        password = broker.folder / "secrets" / "aggregator.password"
        settings = BrokerSettings(port=port, username="aggregator", password_file=str(password))
        config = AggregatorConfig(fleet="home", state_dir=str(folder), broker=settings, limits=LIMITS)
        store = Store(folder)
        stack.callback(store.close)
        transport = MqttTransport(settings, "home-aggregator-0badcafe")
        takeover = Takeover(lambda name: Occupant(settings, name), transport.wake)
        self.service = Aggregator(config, store, transport, Wire("home"), nonce="n", cutter=takeover, take_over=True)
        stack.callback(leave, takeover)
        stack.callback(self.service.stop)
        self.service.start()
        self.until(lambda: self.service.leads)
        for _ in range(20):
            self.service.step(0.05)

    def until(self, done: Callable[[], object]) -> None:
        until = time.monotonic() + WAIT_S
        while not done():
            assert time.monotonic() < until, self.service.doing
            self.service.step(0.05)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def offers(device: Any, n: int, *, retain: bool = False) -> None:
    for number in range(n):
        device.paho.publish(f"fedge/1/home/offer/j-00000000/pi-1/{number}", b"junk", qos=0, retain=retain)


def test_who_floods_is_cut_and_nobody_else(broker: Any, connect: Connect, tmp_path: Path, stack: ExitStack) -> None:
    device, other = connect("pi-1"), connect("pi-2")
    leader = Leader(broker, tmp_path, broker.inner_port, stack)
    offers(device, 1000)
    leader.until(lambda: not device.ended.empty())
    assert other.publish("fedge/1/home/device/pi-2")
    assert other.ended.empty()
    assert leader.service.leads


def test_who_was_cut_and_comes_back_is_cut_again(
    broker: Any, connect: Connect, tmp_path: Path, stack: ExitStack
) -> None:
    device = connect("pi-1")
    leader = Leader(broker, tmp_path, broker.inner_port, stack)
    offers(device, 1000)
    for _ in range(5):  # paho connects again by itself
        leader.until(lambda: not device.ended.empty())
        device.ended.get()


def retained(connect: Connect) -> set[str]:
    """Return the topics of offers and chunks under which the broker has something."""
    operator, last = connect("operator"), b"%d" % time.monotonic_ns()
    operator.subscribe("fedge/1/home/offer/#", "fedge/1/home/chunk/#", "fedge/1/home/command/cli")
    assert operator.publish("fedge/1/home/command/cli", last)
    heard = operator.hear_until(last)
    operator.close()
    return {topic for topic, payload in heard.items() if payload}


def test_what_a_device_retains_is_cleared(broker: Any, connect: Connect, tmp_path: Path, stack: ExitStack) -> None:
    device = connect("pi-1")
    offers(device, 200, retain=True)
    assert device.publish("fedge/1/home/chunk/j-00000000/pi-1/ffffffffffffffff/0", b"junk", retain=True)
    until = time.monotonic() + WAIT_S
    while len(retained(connect)) < 201:
        assert time.monotonic() < until
    leader = Leader(broker, tmp_path, broker.inner_port, stack)
    leader.until(lambda: not retained(connect))
    assert leader.service.guard.strays.cleared >= 201


def test_on_a_listener_where_client_ids_are_not_free_it_says_so_and_goes_on(
    broker: Any, connect: Connect, tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """There its own connection is cut. A broker that says why ends the process by it, the first time."""
    device = connect("pi-1")
    leader = Leader(broker, tmp_path, broker.port, stack)

    def flood_on() -> bool:
        offers(device, 20)
        return "own connection" in caplog.text

    try:
        leader.until(flood_on)
    except SessionTakenOverError:
        assert leader.service.store.note("takeover") == "tried"
    else:
        leader.until(lambda: leader.service._out.online and leader.service.leads)
    assert device.ended.empty()


def test_with_certificates_who_was_cut_and_comes_back_is_cut_again(locked_broker: Site) -> None:
    certificate, key = locked_broker.files("aggregator")
    settings = BrokerSettings(
        host="localhost",
        port=locked_broker.ports["server"],
        ca_file=str(locked_broker.ca / "root.crt"),
        certificate_file=str(certificate),
        key_file=str(key),
    )
    takeover = Takeover(lambda name: Occupant(settings, name), lambda: None)
    with locked_broker.client("devices", "pi-2") as other:
        takeover.cut(["pi-1", "home-pi-1"], 3600.0)
        try:
            for _ in range(5):
                with locked_broker.client("devices", "pi-1") as device:
                    until = time.monotonic() + WAIT_S
                    while not device.is_hung_up_on():
                        assert time.monotonic() < until
        finally:
            leave(takeover)
        other.ping()
    assert takeover.failures() == []
