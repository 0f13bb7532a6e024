"""A site's broker, a real mosquitto beside the fleet's, and somebody who publishes there."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker, start_broker
from broker.transport import Online, Packet

PATIENCE_S = 120.0


class Publisher:
    """Publishes; what it was given is at the broker when `said` returns."""

    def __init__(self, broker: BrokerSettings) -> None:
        self.transport = MqttTransport(broker, "sensor")
        self.transport.open()
        until(lambda: isinstance(self.transport.take(0.1), Online))

    def say(self, topic: str, *payloads: str | bytes, retain: bool = False) -> None:
        for payload in payloads:
            data = payload.encode() if isinstance(payload, str) else payload
            until(lambda data=data: self.transport.publish(Packet(topic, data, retain)))  # type: ignore[misc]
        until(lambda: self.transport.room >= 256)


def until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at, "it does not come true"
        time.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with start_broker(tmp_path / "site", prefer="mosquitto") as broker:
        yield broker


@pytest.fixture
def guarded_site(tmp_path: Path) -> Iterator[tuple[EmbeddedBroker, BrokerSettings]]:
    """A site whose broker knows its people: its address, and the credentials of a reader."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(folder / "passwords"), "reader", "secret"], check=True, capture_output=True
    )
    (folder / "passwords").chmod(0o600)
    (folder / "password").write_text("secret\n")
    lines = ["allow_anonymous false", f"password_file {folder / 'passwords'}"]
    with start_broker(folder, prefer="mosquitto", config_lines=lines) as broker:
        settings = BrokerSettings(port=broker.port, username="reader", password_file=str(folder / "password"))
        yield broker, settings


@pytest.fixture
def publish() -> Iterator[Callable[[BrokerSettings], Publisher]]:
    with contextlib.ExitStack() as stack:

        def make(broker: BrokerSettings) -> Publisher:
            publisher = Publisher(broker)
            stack.callback(publisher.transport.close)
            return publisher

        yield make
