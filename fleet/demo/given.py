"""What a demo is of: a job that comes along with its data, or the user's own job on the user's own rows."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from aggregator.looking_on import page_is_installed
from fleet.problems.examples import load_split
from fleet.problems.partition import deal
from fleet.problems.problem import Problem, dealt, for_all, read_problem
from models.data import dataset
from models.job import JobSpec
from runtime.settings import load

PARTITION = "dirichlet:0.5"
"""Of the data that come along: each device has few classes."""
PAGE_PORT = 8080


class Data(NamedTuple):
    """What to train on, as the command line says it."""

    file: str
    partition: str | None = None
    features: str | None = None
    label: str | None = None
    source: str | None = None
    test: Path | None = None
    """Rows of their own to test on, such as those of people whom no device has seen; else a fifth of the file."""


def problem_of(job: Path, devices: int, data: Data | None) -> Problem:
    """Return the job with its data, dealt out. Raises SettingsError, PartitionError or DatasetError."""
    if data is not None:
        return read_problem(
            *(job, data.file),
            how=data.partition or "iid",
            n_devices=devices,
            features=data.features,
            label=data.label,
            source=data.source,
            test=data.test,
        )
    spec = load(job, JobSpec)
    split = load_split(spec.data_name)
    train, test = dataset.fit(split.train, spec.model), dataset.fit(split.test, spec.model)
    return Problem(spec, dealt(train, deal(PARTITION, train.y, devices, spec.seed)), test)


def for_devices(spec: JobSpec, n_devices: int) -> JobSpec:
    """Return the job with a first round that waits for all devices, however many there are."""
    quorum = min(spec.rounds.quorum, n_devices)
    return for_all(structs.replace(spec, rounds=structs.replace(spec.rounds, quorum=quorum)), n_devices)


def page_address() -> str:
    """Return where the page of the demo can be: at the usual port, or a free one; "" where its packages are missing."""
    if not page_is_installed():
        return ""
    for port in (PAGE_PORT, 0):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                tried.bind(("127.0.0.1", port))
                return f"127.0.0.1:{tried.getsockname()[1]}"
    return ""
