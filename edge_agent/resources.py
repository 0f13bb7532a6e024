"""What a device makes for itself, and what many devices in one process may share instead.

A device builds the net and the versions of each of its jobs for itself: `Resources`, as it stands. In a simulation all
devices hold the same versions; it hands one object to all of them, which does each of these things once
(`fleet/simulation/shared.py`). What is given out is never changed by who gets it.
"""

from __future__ import annotations

import random

from broker.messages import Job
from edge_agent.config import ModelSettings
from edge_agent.resend import Jitter
from models.buffers import first_of
from models.chain import Chain
from models.frozen import Find
from models.job import JobSpec
from models.nets import table as nets
from models.nets.net import Net
from runtime.settings import convert


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
