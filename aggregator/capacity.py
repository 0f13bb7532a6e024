"""What an aggregator has for its jobs: its budget, and what a job takes of an aggregator (models/needs.py)."""

from __future__ import annotations

from pathlib import Path

from aggregator.config import AggregatorConfig
from models.budget import Capacity, Limits
from models.job import JobSpec
from models.needs import AGGREGATOR_BYTES, Needs, of_aggregator
from models.nets.size import Size
from models.nets.table import framework_of


def capacity_of(config: AggregatorConfig) -> Capacity:
    """Return the capacity of the aggregator with this configuration, by what this machine has."""
    return capacity(config.limits, Path(config.state_dir))


def capacity(limits: Limits, folder: Path | None) -> Capacity:
    """Return the capacity of an aggregator with these limits; of its disk nothing is known without a folder."""
    return Capacity(limits, folder, _needs, AGGREGATOR_BYTES, exports=True)


def _needs(spec: JobSpec, size: Size, rows: int | None) -> Needs:
    return of_aggregator(spec, size, torch=framework_of(spec.model) == "torch", rows=rows)
