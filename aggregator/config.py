"""aggregator.toml as a frozen struct."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aggregator.looking_on import HomeAssistantSettings, NotifySettings, ObserverSettings, WebSettings
from broker.connection import BrokerSettings
from identity.settings import ServerIdentity
from models.budget import MOST_PARAMETERS
from models.data.source import DataSource, FilePath
from models.job import Name
from models.nets.factory import Factory

ENVELOPE_BYTES = 1024
"""What a packet has beside its piece of a body, at most: topic, JSON and MQTT's own header."""


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Which factories may run here: [models]."""

    allow: tuple[Factory, ...] = ()
    bases: Annotated[tuple[FilePath, ...], Meta(max_length=1024)] = ()
    """Files of tensors that jobs may freeze, known by SHA-256: NPZ, or *.base as devices keep them."""


class ServerLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Quotas and paces: [limits]."""

    chunk_bytes: Annotated[int, Meta(ge=1024, le=16_000_000)] = 100_000
    """Largest piece of a body in one message; AWS IoT Core takes 128 kB, mosquitto far more, our own client 16 MiB."""
    unassembled_bytes: Annotated[int, Meta(ge=2**20, le=2**40)] = 256 * 2**20
    """Updates of all devices that are on their way in pieces: the first 4 MiB in memory, the others on disk."""
    heartbeat_s: Annotated[float, Meta(ge=0.1, le=86_400)] = 30.0
    """How often an open round is announced again."""
    spread_s: Annotated[float, Meta(ge=0, le=86_400)] = 2.0
    """Window over which devices spread their answers when the aggregator or the broker comes back."""
    body_grace_s: Annotated[float, Meta(ge=0, le=2_592_000)] = 60.0
    """How long the bodies of an outdated version stay at the broker."""
    offers_a_minute: Annotated[int, Meta(ge=10, le=1_000_000)] = 120
    """Offers of one device in a minute, for each job at work; two more for each round that was opened meanwhile."""
    words_a_minute: Annotated[int, Meta(ge=10, le=1_000_000)] = 240
    """The same for its presences, and for chunks that it was not asked for."""
    flood_a_minute: Annotated[int, Meta(ge=0, le=100_000_000)] = 10_000
    """Who says more than this is thrown off and kept out for a while (quotas.py says what counts); 0: nobody is."""

    evaluation_s: Annotated[float, Meta(ge=1, le=2_592_000)] = 3600.0
    """How long a version may be evaluated on the test split before its job goes on without its score."""
    model_parameters: Annotated[int, Meta(ge=1, le=2**31 - 1)] = MOST_PARAMETERS
    """The most parameters that the net of a job may have."""
    memory_bytes: Annotated[int, Meta(ge=2**20, le=2**50)] | None = None
    """Most memory that this process may take; by what the machine has when not given (models/budget.py)."""
    disk_bytes: Annotated[int, Meta(ge=2**20, le=2**60)] | None = None
    """Most room on the disk that its jobs may take; what is free when not given."""

    def cut_for(self, packet_bytes: int | None) -> int:
        """Return how finely to cut bodies for a broker that takes packets of so many bytes (None: of any length)."""
        if packet_bytes is None:
            return self.chunk_bytes
        return max(1, min(self.chunk_bytes, packet_bytes - ENVELOPE_BYTES))


class AggregatorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    fleet: Name
    state_dir: FilePath = "aggregator-state"
    broker: BrokerSettings = BrokerSettings()
    identity: ServerIdentity = ServerIdentity()
    tests: dict[Name, DataSource] = {}
    """The test split that the aggregator holds for a data source: [tests.NAME]."""
    models: ModelSettings = ModelSettings()
    limits: ServerLimits = ServerLimits()
    executor: Literal["inline", "threads", "processes"] = "threads"
    """Where versions are evaluated on the test split: "inline", "threads" or "processes" (executor.py)."""
    observer: ObserverSettings = ObserverSettings()
    web: WebSettings = WebSettings()
    notify: NotifySettings = NotifySettings()
    homeassistant: HomeAssistantSettings = HomeAssistantSettings()
