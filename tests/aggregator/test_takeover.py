"""Client ids that are taken over, on a real mosquitto."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from aggregator.takeover import MOST_KEPT, Takeover
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.occupant import Occupant
from broker.transport import Offline, Online, Packet, SessionTakenOver, TransportEvent

WAIT_S = 120.0
Mosquitto = Any


@pytest.fixture
def client(mosquitto: Mosquitto) -> Iterator[Callable[..., MqttTransport]]:
    with ExitStack() as stack:

        def make(name: str, will: Packet | None = None) -> MqttTransport:
            transport = MqttTransport(BrokerSettings(port=mosquitto.port), name, will, first_retry_s=0.02)
            stack.callback(transport.close)
            return transport

        yield make


def takeover_at(port: int, wake: Callable[[], None] = lambda: None) -> Takeover:
    return Takeover(lambda name: Occupant(BrokerSettings(port=port), name), wake)


def wait_for(transport: MqttTransport, *kinds: type[TransportEvent]) -> TransportEvent:
    until = time.monotonic() + WAIT_S
    while not isinstance(event := transport.take(WAIT_S), kinds):
        assert time.monotonic() < until, event
    assert event is not None
    return event


def test_a_live_connection_is_cut_and_its_will_fires(
    mosquitto: Mosquitto, client: Callable[..., MqttTransport]
) -> None:
    ear = client("ear")
    ear.subscribe("gone")
    ear.open()
    wait_for(ear, Online)
    victim = client("victim", Packet("gone", b"x"))
    victim.open()
    wait_for(victim, Online)
    takeover_at(mosquitto.port).cut(["nobody", "victim"])
    wait_for(victim, Offline, SessionTakenOver)
    assert wait_for(ear, Packet) == Packet("gone", b"x")


def test_why_it_cannot_be_done_is_told_and_wakes_whoever_waits(
    mosquitto: Mosquitto, client: Callable[..., MqttTransport]
) -> None:
    waiting = client("waiting")
    waiting.open()
    wait_for(waiting, Online)
    mosquitto.stop()
    wait_for(waiting, Offline)
    takeover = takeover_at(mosquitto.port, waiting.wake)
    takeover.cut(["a"])
    while (event := waiting.take(WAIT_S)) is not None:
        assert isinstance(event, Offline)
    (why,) = takeover.failures()
    assert "nobody listens" in why
    assert takeover.failures() == []


def until(done: Callable[[], object]) -> None:
    ends = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_who_comes_back_is_cut_again_until_the_id_is_given_up(mosquitto: Mosquitto) -> None:
    takeover, settings = takeover_at(mosquitto.port), BrokerSettings(port=mosquitto.port)
    takeover.cut(["victim"], 3600.0)
    victim = Occupant(settings, "victim")
    for _ in range(20):
        victim.enter()
        assert victim.is_out(WAIT_S)
    takeover.release()
    until(lambda: not takeover._kept)
    victim.enter()
    assert not victim.is_out(0.2)
    victim.close()


def test_an_id_is_kept_no_longer_than_it_is_held_off_and_the_later_end_holds(mosquitto: Mosquitto) -> None:
    takeover = takeover_at(mosquitto.port)
    takeover.cut(["a"], 3600.0)
    takeover.cut(["a"], 0.0)
    assert takeover._left_s("a") > 3000.0
    takeover.cut(["b"], 0.1)
    until(lambda: "b" not in takeover._kept)
    assert takeover.failures() == []
    takeover.release()


def test_of_more_than_it_can_keep_each_is_cut_once(mosquitto: Mosquitto) -> None:
    takeover = takeover_at(mosquitto.port)
    takeover.cut([f"a-{number}" for number in range(MOST_KEPT)], 3600.0)
    victim = Occupant(BrokerSettings(port=mosquitto.port), "one-more")
    victim.enter()
    takeover.cut(["one-more"], 3600.0)
    assert victim.is_out(WAIT_S)
    victim.enter()
    assert not victim.is_out(0.2)
    victim.close()
    takeover.release()


def test_while_the_broker_is_away_it_is_tried_again_and_told_once(mosquitto: Mosquitto) -> None:
    mosquitto.stop()
    takeover, told = takeover_at(mosquitto.port), []
    takeover.cut(["a"], 3600.0)
    until(lambda: told.extend(takeover.failures()) or told)
    mosquitto.start()
    victim = Occupant(BrokerSettings(port=mosquitto.port), "a")
    until(lambda: _enters(victim))
    assert victim.is_out(WAIT_S)
    victim.close()
    assert takeover.failures() == []
    takeover.release()


def _enters(occupant: Occupant) -> bool:
    try:
        occupant.enter()
    except OSError:
        return False
    return True
