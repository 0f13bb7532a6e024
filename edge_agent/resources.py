"""What a device makes for itself, and what many devices in one process may share instead.

A device builds the net and the versions of each of its jobs for itself: `Resources`, as it stands. In a simulation all
devices hold the same versions; it hands one object to all of them, which does each of these things once
(`fleet/simulation/shared.py`). What is given out is never changed by who gets it.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from msgspec import Struct

from broker.messages import Job
from edge_agent.config import ModelSettings
from edge_agent.resend import Jitter
from models.buffers import first_of
from models.chain import Chain
from models.frozen import Find
from models.job import JobSpec
from models.nets import table as nets
from models.nets.net import Net
from runtime import machine
from runtime.settings import convert


class Condition(Struct, frozen=True):
    """How a device is, as far as it can be read."""

    disk_free: int | None = None
    """Bytes that this user may still write where its state lies."""
    heat: float | None = None
    """Degrees Celsius."""
    load: float | None = None
    """Processes that run or wait to, for each processor."""


class Resources:
    """How things are made where nothing is shared."""

    def spec(self, job: Job) -> JobSpec:
        """Return the specification of a job that has one. Raises SettingsError."""
        return convert(job.spec, JobSpec, job.job)

    def chain(self, job: str, spec: JobSpec, models: ModelSettings, find: Find | None = None) -> tuple[Net, Chain]:  # noqa: ARG002 -- who shares it asks for which
        """Return the net of a job and its chain of versions. find: gives what is frozen of it (`nets.of_job`).

        Raises ModelError, and what `find` raises.
        """
        net = nets.of_job(spec, framework=models.framework, allow=models.allow, find=find)
        return net, Chain(net.spec, spec, first_of(net))

    def jitter(self, seed: str) -> Jitter:
        """Return the numbers that follow from a seed."""
        return random.Random(seed)  # noqa: S311 -- jitter, no secret

    def condition(self, folder: Path) -> Condition:
        """Return how the device is whose state lies in a folder. Raises nothing: what cannot be read is left out."""
        return Condition(machine.free_bytes(folder), machine.heat(), machine.load())

    def wall_clock(self) -> float:
        """Return the seconds since 1970 by the device's own clock, which nobody need trust."""
        return time.time()
