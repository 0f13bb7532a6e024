"""What an aggregator has for its jobs: its budget, and what a job takes of an aggregator (models/needs.py)."""

from __future__ import annotations

from pathlib import Path

from aggregator.config import AggregatorConfig
from models.budget import Limits, Room
from models.job import JobSpec
from models.needs import AGGREGATOR_BYTES, Needs, of_aggregator
from models.nets.size import Size
from models.nets.table import framework_of


def room_of(config: AggregatorConfig) -> Room:
    """Return the room of the aggregator with this configuration, by what this machine has."""
    return room(config.limits, Path(config.state_dir))


def room(limits: Limits, folder: Path | None) -> Room:
    """Return the room of an aggregator with these limits; of its disk nothing is known without a folder."""
    return Room(limits, folder, _needs, AGGREGATOR_BYTES)


def _needs(spec: JobSpec, size: Size, rows: int | None) -> Needs:
    return of_aggregator(spec, size, torch=framework_of(spec.model) == "torch", rows=rows)
