"""Whether this machine has the memory for a whole fleet, before anything of it is made (models/budget.py)."""

from __future__ import annotations

from edge_agent.config import DeviceLimits
from models import budget, needs
from models.budget import said
from models.job import JobSpec
from models.nets.size import Size
from models.nets.table import framework_of
from runtime.settings import SettingsError


def check_simulation(job: JobSpec, size: Size, n_devices: int, n_tests: int) -> None:
    """Raise SettingsError for a job that cannot be simulated here. n_tests: rows of the test split."""
    torch = framework_of(job.model) == "torch"
    need = needs.AGGREGATOR_BYTES + needs.of_simulation(job, size, devices=n_devices, torch=torch, rows=n_tests)
    _check(job, size, f"{n_devices} simulated devices", need)


def check_demo(job: JobSpec, size: Size, n_devices: int) -> None:
    """Raise SettingsError for a job that cannot be shown here, with a process for each device.

    What the processes take whatever the job is does not count: people know how many devices they have asked for.
    """
    device = needs.of_device(job, size).alone_bytes - (needs.CHILD_BYTES if job.deploy != "never" else 0)
    _check(
        job,
        size,
        f"an aggregator and {n_devices} devices",
        needs.of_aggregator(job, size).alone_bytes + n_devices * device,
    )


def _check(job: JobSpec, size: Size, who: str, need: int) -> None:
    found = budget.found(DeviceLimits(), None)
    if found.memory_bytes is not None and need > found.memory_bytes:
        raise SettingsError(
            f"job {job.name}: {who} with a net of {size.parameters:,} parameters take about {said(need)} of memory, "
            f"where there are {said(found.memory_bytes)} ({found.memory_from}): say fewer --devices, or a smaller net"
        )
