"""Brokers on loopback for whoever speaks MQTT. Each test gets one of its own, on a free port.

An example of Hypothesis may take as long as it takes: a busy machine is no fault of the code.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from broker.embedded import EmbeddedBroker, start_broker

settings.register_profile(
    "unhurried", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_collection() -> None:
    gc.disable()  # ten thousand tests that come to stay: a third of the time was spent looking for garbage among them


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with start_broker(tmp_path / "mosquitto", prefer="mosquitto") as broker:
        yield broker


@pytest.fixture
def amqtt(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with start_broker(tmp_path / "amqtt", prefer="amqtt") as broker:
        yield broker
