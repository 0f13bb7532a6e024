"""Brokers on loopback for whoever speaks MQTT. Each test gets one of its own, on a free port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.embedded import EmbeddedBroker, start_broker


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with start_broker(tmp_path / "mosquitto", prefer="mosquitto") as broker:
        yield broker


@pytest.fixture
def amqtt(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with start_broker(tmp_path / "amqtt", prefer="amqtt") as broker:
        yield broker
