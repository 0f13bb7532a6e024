"""Client ids that are taken over, on a real mosquitto."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from aggregator.takeover import Takeover
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.transport import Offline, Online, Packet, SessionTakenOver, TransportEvent

WAIT_S = 20.0
Mosquitto = Any


@pytest.fixture
def client(mosquitto: Mosquitto) -> Iterator[Callable[..., MqttTransport]]:
    with ExitStack() as stack:

        def make(name: str, will: Packet | None = None) -> MqttTransport:
            transport = MqttTransport(BrokerSettings(port=mosquitto.port), name, will, first_retry_s=0.02)
            stack.callback(transport.close)
            return transport

        yield make


def wait_for(transport: MqttTransport, *kinds: type[TransportEvent]) -> TransportEvent:
    until = time.monotonic() + WAIT_S
    while not isinstance(event := transport.take(WAIT_S), kinds):
        assert time.monotonic() < until, event
    assert event is not None
    return event


def test_a_live_connection_is_cut_and_its_will_fires(client: Callable[..., MqttTransport]) -> None:
    ear = client("ear")
    ear.subscribe("gone")
    ear.open()
    wait_for(ear, Online)
    victim = client("victim", Packet("gone", b"x"))
    victim.open()
    wait_for(victim, Online)
    Takeover(client, lambda: None).cut(["nobody", "victim"])
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
    takeover = Takeover(client, waiting.wake)
    takeover.cut(["a"])
    while (event := waiting.take(WAIT_S)) is not None:
        assert isinstance(event, Offline)
    (why,) = takeover.failures()
    assert "nobody listens" in why
    assert takeover.failures() == []
