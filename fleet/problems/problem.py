"""A job and the data that it trains on, dealt out to devices: what `fedge simulate` and the benchmarks run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct, structs

from fleet.problems.examples import DATA, Split, find_job, load_split, split_rows
from fleet.problems.partition import Rows, by_column, deal
from models.data import dataset, npz_file
from models.data.dataset import Dataset, DatasetError
from models.data.source import DataSource
from models.data.source import load as load_source
from models.job import JobSpec, StopSpec
from runtime.settings import SettingsError, load


class Problem(Struct, frozen=True):
    """A job and data dealt out to devices."""

    spec: JobSpec
    shares: list[Dataset]
    test: Dataset


def read_problem(
    job: Path,
    data: str,
    *,
    how: str = "iid",
    n_devices: int = 10,
    test: Path | None = None,
    features: str | None = None,
    seed: int | None = None,
    rounds: int | None = None,
    target: float | None = None,
) -> Problem:
    """Read a job and data, and deal the data out; seed, rounds and target stand in for the job's own.

    Raises SettingsError, PartitionError, DatasetError or ModelError.
    """
    spec = _adapted(load(find_job(job), JobSpec), seed, rounds, target)
    if data in DATA:
        if features is not None or how.startswith("column:"):
            raise SettingsError(f"the data set {data} has no other arrays than X and y: name an NPZ file with --data")
        split, owners = load_split(data), None
    else:
        split, owners = _read_file(Path(data), how, features, spec.seed, whole=test is not None)
    if test is not None:
        split = split._replace(test=_loaded(test, features))
    train, held = dataset.fit(split.train, spec.model), dataset.fit(split.test, spec.model)
    shares = deal(how, train.y, n_devices, spec.seed) if owners is None else owners
    return Problem(spec, dealt(train, shares), held)


def _adapted(spec: JobSpec, seed: int | None, rounds: int | None, target: float | None) -> JobSpec:
    rules = spec.rounds
    if rounds is not None:
        rules = structs.replace(rules, max_rounds=rounds)
    try:
        if target is not None:
            same = rules.stop if rules.stop.metric == "accuracy" else StopSpec()
            rules = structs.replace(rules, stop=structs.replace(same, target=target))
        return structs.replace(spec, rounds=rules, seed=spec.seed if seed is None else seed)
    except ValueError as error:
        raise SettingsError(f"--target {target}: {error}") from error


def _read_file(
    path: Path, how: str, features: str | None, seed: int, *, whole: bool
) -> tuple[Split, list[Rows] | None]:
    """Read a file; unless all of it is to train on, hold a fifth back. Give the rows by column, if that is how."""
    data = _loaded(path, features)
    y = data.y
    train, test = (np.arange(len(y)), np.arange(0)) if whole else split_rows(len(y), y, seed)
    split = Split(_taken(data, train), _taken(data, test))
    kind, _, column = how.partition(":")
    if kind != "column":
        return split, None
    values = npz_file.read_arrays(path, (column,))[column]
    if len(values) != len(y):
        raise DatasetError(f"{path}: {len(values)} rows in {column} but {len(y)} in y")
    return split, by_column(values[train])


def _loaded(path: Path, features: str | None) -> Dataset:
    """Read a file as a device would whose agent.toml names it."""
    try:
        return load_source(DataSource(str(path), features=features))
    except DatasetError:
        raise
    except ValueError as error:
        if features is not None:
            raise SettingsError(f"--features {features}: {error}") from error
        raise SettingsError(f"{path}: {error}; there is none here: export the rows to CSV or NPZ") from error


def _taken(data: Dataset, rows: Rows) -> Dataset:
    return data if len(rows) == len(data.y) else Dataset(data.X[rows], data.y[rows], data.source)


def dealt(data: Dataset, shares: Sequence[Rows]) -> list[Dataset]:
    """Return each device its rows of the data."""
    pairs = enumerate(shares)
    return [Dataset(data.X[rows], data.y[rows], f"{data.source}, device {device}") for device, rows in pairs]


def device_names(n: int) -> list[str]:
    """Return the names of n devices. Who is drawn and how it shuffles depend on its name."""
    width = max(2, len(str(n - 1)))
    return [f"device-{number:0{width}d}" for number in range(n)]


def for_all(spec: JobSpec, n_devices: int) -> JobSpec:
    """Have a job wait for all devices before its first round, so that every draw is from all of them.

    Raises SettingsError where it wants more than there are.
    """
    if spec.rounds.quorum > n_devices:
        raise SettingsError(f"job {spec.name}: quorum = {spec.rounds.quorum} is more than the {n_devices} devices")
    return structs.replace(spec, rounds=structs.replace(spec.rounds, min_devices=n_devices))
