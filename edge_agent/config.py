"""agent.toml as a frozen struct."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from broker.connection import BrokerSettings
from edge_agent.live.settings import DeviceSource
from identity.settings import DeviceIdentity
from models.budget import MOST_PARAMETERS
from models.data.ring_file import ENDING
from models.data.source import FilePath
from models.job import MOST_LABELS, Name
from models.nets.factory import Factory

LEAST_EVERY_S = 1.0


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Which nets may run here: [models]."""

    allow: tuple[Factory, ...] = ()
    """Factories ("package.module:factory") that a job may name."""
    framework: Literal["numpy", "torch"] = "numpy"
    """What computes a job that leaves it open."""
    inference: bool = True
    """Export ONNX and hold a session as the job's deploy policy says."""
    bases: Annotated[tuple[FilePath, ...], Meta(max_length=1024)] = ()
    """Files of tensors that jobs may freeze, known by SHA-256: NPZ, or *.base. What is not in them is fetched once."""
    keep: Annotated[int, Meta(ge=1)] | None = None
    """How many model slots of jobs that are not at work here stay, the last installed first; all when not given."""


class DeviceLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent may take of its device: [limits]."""

    checkpoint_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Seconds of training between checkpoints on disk, which a death may cost; 0 for one after every step."""
    presence_s: Annotated[float, Meta(ge=0.1, le=86_400)] = 30.0
    """Shortest time between two presence messages, after a first few."""
    outbox_bytes: Annotated[int, Meta(ge=2**16, le=2**40)] = 64 * 2**20
    """Most bytes that an update may take on disk."""
    model_parameters: Annotated[int, Meta(ge=1, le=2**31 - 1)] = MOST_PARAMETERS
    """The most parameters that the net of a job may have."""
    memory_bytes: Annotated[int, Meta(ge=2**20, le=2**50)] | None = None
    """Most memory that this process may take; by what the machine has when not given (models/budget.py)."""
    disk_bytes: Annotated[int, Meta(ge=2**20, le=2**60)] | None = None
    """Most room on the disk that its jobs may take; what is free when not given."""


class VitalsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent says of how the device is, for people who look on: [vitals]."""

    every_s: Annotated[float, Meta(ge=0, le=86_400)] = 900.0
    """Shortest time between two words of it, in seconds; 0: it says nothing of it."""

    def __post_init__(self) -> None:
        """Refuse what would be a flood."""
        if 0.0 < self.every_s < LEAST_EVERY_S:
            raise ValueError(f"every_s: {self.every_s:g} is too often: {LEAST_EVERY_S:g} or more, or 0 for never")


class AgentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    fleet: Name
    device: Name | None = None
    """The device's id; its host name when not given."""
    state_dir: FilePath = "agent-state"
    broker: BrokerSettings = BrokerSettings()
    identity: DeviceIdentity = DeviceIdentity()
    data: dict[Name, DeviceSource] = {}
    """What this device can train on: [data.NAME]. The rows never leave it."""
    labels: Annotated[dict[Name, Name], Meta(max_length=MOST_LABELS)] = {}
    models: ModelSettings = ModelSettings()
    limits: DeviceLimits = DeviceLimits()
    vitals: VitalsSettings = VitalsSettings()

    def __post_init__(self) -> None:
        """Place live sources that name no folder in the state directory."""
        if any(not source.path for source in self.data.values()):
            placed = {
                name: source if source.path else structs.replace(source, path=f"{self.state_dir}/live/{name}{ENDING}")
                for name, source in self.data.items()
            }
            structs.force_setattr(self, "data", placed)
