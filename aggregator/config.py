"""aggregator.toml as a frozen struct."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from broker.connection import BrokerSettings
from models.job import Name, Positive
from models.source import DataSource


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Which factories may run here: [models]."""

    allow: tuple[str, ...] = ()


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Quotas and paces: [limits]."""

    chunk_bytes: Annotated[int, Meta(ge=1024, le=64 * 2**20)] = 100_000
    """Largest piece of a body in one message; AWS IoT Core takes 128 kB, mosquitto far more."""
    unassembled_bytes: Annotated[int, Meta(ge=2**20)] = 256 * 2**20
    """Chunks of all devices that wait for their missing neighbours, in memory."""
    heartbeat_s: Positive = 30.0
    """How often an open round is announced again."""
    spread_s: Annotated[float, Meta(ge=0)] = 2.0
    """Window over which devices spread their answers when the aggregator or the broker comes back."""
    body_grace_s: Annotated[float, Meta(ge=0)] = 60.0
    """How long the bodies of an outdated version stay at the broker."""


class AggregatorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    fleet: Name
    state_dir: str = "aggregator-state"
    broker: BrokerSettings = BrokerSettings()
    tests: dict[Name, DataSource] = {}
    """The test split that the aggregator holds for a data source: [tests.NAME]."""
    models: ModelSettings = ModelSettings()
    limits: Limits = Limits()
