"""A job and the data that it trains on, dealt out to devices: what runs on this machine begins with one."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct, structs

from fleet.problems.examples import DATA, Split, find_job, load_split, split_rows
from fleet.problems.partition import PartitionError, Rows, by_column, check_devices, deal
from fleet.problems.tables import Rows as TableRows
from fleet.problems.tables import Share, by_owner, read_rows, stretches, usable
from models.data import dataset, npz_file
from models.data.dataset import Dataset, DatasetError
from models.data.source import DataSource
from models.data.source import load as load_source
from models.data.source import read as read_source
from models.job import JobSpec, StopSpec
from models.measures import table as measures
from models.statistic import FEWEST
from runtime.settings import SettingsError, convert, inline, load

SERIES_TEST = 5
"""One row in so many is to test on; of a series the last ones."""


MANY_DEVICES = 5
"""Among more, a version that one device alone has made says little of the others."""


class Problem(Struct, frozen=True):
    """A job and data dealt out to devices."""

    spec: JobSpec
    shares: list[Dataset]
    test: Dataset
    refused: dict[str, str] = {}
    """Whose share cannot be used, and why: these devices are left out."""
    notes: tuple[str, ...] = ()
    """What was found out about the file by looking."""
    files: list[Share] = []
    """The shares as they are in the file, where that is a table by the job's contract: a device can have it as a file
    of its own;"""
    test_file: Share | DataSource | None = None
    """and what versions are scored on, so that the aggregator reads it by the contract too."""


def read_problem(
    job: Path,
    data: str,
    *,
    how: str = "iid",
    n_devices: int = 10,
    test: Path | None = None,
    features: str | None = None,
    label: str | None = None,
    source: str | None = None,
    seed: int | None = None,
    rounds: int | None = None,
    target: float | str | None = None,
) -> Problem:
    """Read a job and data, and deal the data out; seed, rounds, target, features and label stand in for the job's own.

    features: names with commas between them. source: more keys of the file's source, as TOML has them in one line.
    target: a number, or of another measure "rmse=4".

    Raises SettingsError, PartitionError, DatasetError or ModelError.
    """
    spec = _adapted(load(find_job(job), JobSpec), seed, rounds, target)
    if data in DATA:
        if features is not None or label is not None or source is not None or how.startswith("column:"):
            raise SettingsError(f"the data set {data} has no other arrays than X and y: name a file with --data")
        split, owners = load_split(data), None
        return _plain(
            spec,
            split if test is None else split._replace(test=load_source(source_of(str(test)))),
            owners,
            how,
            n_devices,
        )
    spec = _renamed(spec, features, label)
    settings = source_of(data, features, label, source)
    kind, _, column = how.partition(":")
    found = read_rows(settings, spec.contract, spec.model, column if kind == "column" else None)
    if found is None:
        labelled = not spec.model.finds_anomalies
        split, owners = _read_arrays(settings, how, spec.seed, whole=test is not None, labelled=labelled)
        if test is not None:
            split = split._replace(test=load_source(_beside(settings, test), labelled=labelled))
        return _plain(spec, split, owners, how, n_devices)
    rows, cells = found
    if cells is None and kind == "column":  # an array beside features and labels that have no names
        cells = _column_of(settings, column, len(rows))
    return _of_table(spec, rows, cells, how, n_devices, None if test is None else _beside(settings, test))


def source_of(
    data: str, features: str | None = None, label: str | None = None, source: str | None = None
) -> DataSource:
    """Return a file as a device's agent.toml would name it. Raises SettingsError."""
    keys: dict[str, object] = {"path": data}
    if source is not None:
        keys |= inline(source, "--source")
    settings = convert(keys, DataSource, f"--source {source}" if source is not None else data)
    names = None if features is None else names_of(features)
    try:
        settings = structs.replace(settings, label=settings.label if label is None else label)
    except ValueError as error:
        raise SettingsError(f"--label {label}: {error}") from error
    if names is None:
        return settings
    try:
        return structs.replace(settings, features=names[0] if len(names) == 1 else tuple(names))
    except ValueError as error:
        raise SettingsError(f"--features {features}: {error}") from error


def names_of(features: str) -> list[str]:
    """Return the names in a list with commas; one with a comma in it stands in quotes. Raises SettingsError."""
    found = [name.strip() for name in next(csv.reader([features], skipinitialspace=True), [])]
    if not found or not all(found):
        raise SettingsError(f"--features {features}: write names with commas between them, such as --features temp,vib")
    return found


def _renamed(spec: JobSpec, features: str | None, label: str | None) -> JobSpec:
    """Return the job with these columns in place of those that its contract names."""
    contract = spec.contract
    others: dict[str, object] = {}
    if features is not None and contract.features:
        others["features"] = tuple(names_of(features))
    if label is not None and contract.labels:
        others["label"] = label
    try:
        return structs.replace(spec, contract=structs.replace(contract, **others))
    except ValueError as error:
        option = f"--features {features}" if label is None else f"--label {label}"
        raise SettingsError(f"{option}: {error}") from error


def _adapted(spec: JobSpec, seed: int | None, rounds: int | None, target: float | str | None) -> JobSpec:
    rules = spec.rounds
    if rounds is not None:
        rules = structs.replace(rules, max_rounds=rounds)
    try:
        if target is not None:
            rules = structs.replace(rules, stop=_stop_at(spec, target))
        return structs.replace(spec, rounds=rules, seed=spec.seed if seed is None else seed)
    except ValueError as error:
        raise SettingsError(f"--target {target}: {error}") from error


def _stop_at(spec: JobSpec, target: float | str) -> StopSpec:
    """Return the rule to stop at a target: on the measure that it names, else on that of the job's own rule.

    A bare number is never the loss of a model of classes: 0.9 is an accuracy to everybody (an AUC where anomalies are
    found). Raises ValueError.
    """
    own, text = spec.rounds.stop, str(target)
    name, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        raise ValueError("write a number, or a measure and a number, such as rmse=4 or recall:fault=0.9") from None
    if equals:
        metric = name.strip()
        measures.check(metric, spec.model, spec.contract.class_names)
    elif own.is_set and not (own.metric == "loss" and spec.model.classifies):
        metric = own.metric
    else:
        metric = "auc" if spec.model.finds_anomalies else "accuracy"
    same = own if own.metric == metric else StopSpec(metric)
    return structs.replace(same, target=value)


# Arrays without names and without a contract, and the data sets that come along.


def _plain(spec: JobSpec, split: Split, owners: list[Rows] | None, how: str, n_devices: int) -> Problem:
    train, held = dataset.fit(split.train, spec.model), dataset.fit(split.test, spec.model)
    shares = deal(how, train.y, n_devices, spec.seed) if owners is None else owners
    return Problem(spec, dealt(train, shares), held)


def _read_arrays(
    settings: DataSource, how: str, seed: int, *, whole: bool, labelled: bool
) -> tuple[Split, list[Rows] | None]:
    """Read a file; unless all of it is to train on, hold a fifth back. Give the rows by column, if that is how.

    labelled: whether rows need labels.
    """
    data = load_source(settings, labelled=labelled)
    y = data.y
    train, test = (np.arange(len(y)), np.arange(0)) if whole else split_rows(len(y), y, seed)
    split = Split(_taken(data, train), _taken(data, test))
    kind, _, column = how.partition(":")
    if kind != "column":
        return split, None
    path = Path(settings.path)
    values = npz_file.read_arrays(path, (column,))[column]
    if len(values) != len(y):
        raise DatasetError(f"{path}: {len(values)} rows in {column} but {len(y)} in y")
    return split, by_column(values[train])


def _beside(settings: DataSource, test: Path) -> DataSource:
    """Return the source of a file to test on: read as the other one is, where it is of the same format."""
    try:
        return structs.replace(settings, path=str(test.absolute()))
    except ValueError:
        return source_of(str(test.absolute()), label=settings.label)


def _taken(data: Dataset, rows: Rows) -> Dataset:
    return data if len(rows) == len(data.y) else Dataset(data.X[rows], data.y[rows], data.source)


# Tables, by the job's contract.


def _column_of(settings: DataSource, column: str, n: int) -> list[str]:
    """Return an array of an NPZ file as text. Raises DatasetError."""
    values = npz_file.read_arrays(Path(settings.path), (column,))[column]
    if values.ndim != 1 or len(values) != n:
        raise DatasetError(f"{settings.path}: {column} has shape {values.shape}, where there are {n} rows")
    return [str(value) for value in values.tolist()]


def _of_table(
    spec: JobSpec, rows: TableRows, cells: Sequence[str] | None, how: str, n_devices: int, test: DataSource | None
) -> Problem:
    if rows.is_series and cells is None and how != "iid":
        raise PartitionError(
            f"partition {how} tears the series apart that the job's windows are cut from: choose iid, which gives each "
            "device a stretch of them, or column:NAME"
        )
    split = _split_series if rows.is_series else _split_rows
    owned, held_back = split(spec, rows, cells, how, n_devices, whole=test is not None)
    kept, shares, refused = usable([rows.share(part, owner) for owner, part in owned.items()], Share.read)
    if not kept:
        owner, why = next(iter(refused.items()))
        if len(set(refused.values())) == 1:
            raise DatasetError(why)
        raise DatasetError(f"no device can use its share of the rows; {owner}: {why}")
    if test is not None:
        whole = structs.replace(spec.contract, validation=0.0)
        tested = read_source(test, spec.model, whole)
        return Problem(spec, shares, tested, refused, rows.notes, kept, test)
    assert held_back is not None  # noqa: S101 -- there is no other file to test on
    return Problem(spec, shares, held_back.read(whole=True), refused, rows.notes, kept, held_back)


def _split_rows(
    spec: JobSpec, rows: TableRows, cells: Sequence[str] | None, how: str, n_devices: int, *, whole: bool
) -> tuple[dict[str, Rows], Share | None]:
    """Return the rows of each device, and a fifth of all to test on."""
    y = rows.labels
    train, test = (np.arange(len(y)), np.arange(0)) if whole else split_rows(len(y), y, spec.seed)
    if cells is not None:
        owned = _by_column(cells, train, how)
    else:
        parts = deal(how, y[train], n_devices, spec.seed)
        owned = {name: train[part] for name, part in zip(device_names(n_devices), parts, strict=True)}
    return owned, None if whole else rows.share(test, "the rows to test on")


def _split_series(
    _spec: JobSpec, rows: TableRows, cells: Sequence[str] | None, how: str, n_devices: int, *, whole: bool
) -> tuple[dict[str, Rows], Share | None]:
    """Return the rows of each device, stretches of the series, and the last fifth of each to test on."""
    if cells is not None:
        owned = _by_column(cells, np.arange(len(rows)), how)
    else:
        owned = dict(zip(device_names(n_devices), stretches(rows, n_devices), strict=True))
    if whole:
        return owned, None
    ordered = {owner: rows.in_order(part) for owner, part in owned.items()}
    last = {owner: part[len(part) - len(part) // SERIES_TEST :] for owner, part in ordered.items()}
    train = {owner: np.sort(part[: len(part) - len(part) // SERIES_TEST]) for owner, part in ordered.items()}
    test = np.concatenate(list(last.values()))
    whose = np.concatenate([np.full(len(part), at) for at, part in enumerate(last.values())])
    order = np.argsort(test, kind="stable")
    return train, Share(rows, test[order], "the rows to test on", whose[order])


def _by_column(cells: Sequence[str], rows: Rows, how: str) -> dict[str, Rows]:
    """Return the rows of each value of a column, called by the device that gets them and by the value."""
    found = by_owner(cells, rows)
    check_devices(len(found))
    names = device_names(len(found))
    column = how.partition(":")[2]
    return {f"{name} ({column} {owner})": part for name, (owner, part) in zip(names, found.items(), strict=True)}


def told_of(problem: Problem) -> list[str]:
    """Return in words what one should know of the data before anything is trained on them: a line each."""
    found = [f"the file: {'; '.join(problem.notes)}"] if problem.notes else []
    if refused := problem.refused:
        owner, why = next(iter(refused.items()))
        found.append(f"{len(refused)} of {len(refused) + len(problem.shares)} devices are left out: {owner}: {why}")
    if problem.spec.rounds.quorum == 1 and len(problem.shares) > MANY_DEVICES:
        n = len(problem.shares)
        found.append(
            f"note: quorum = 1: where the other {n - 1} devices are refused or late, one device alone makes a version; "
            f"quorum = {n // 2 + 1} in [rounds] wants more than half of them"
        )
    few = sum(len(share.y) < FEWEST for share in problem.shares)
    if few and problem.spec.contract.agrees:
        what = "so that nothing is" if few == len(problem.shares) else "the others'"
        found.append(
            f"note: {few} of {len(problem.shares)} devices have fewer than {FEWEST} examples and have no say in what "
            f"normalise and class_weight go by, {what}"
            + (" normalised" if few == len(problem.shares) else " rows count")
        )
    told = list(dict.fromkeys(share.told for share in problem.shares if share.told))
    if told:
        others = f" (and {len(told) - 1} devices more)" if len(told) > 1 else ""
        found.append(f"{told[0]}{others}")
    return found


def dealt(data: Dataset, shares: Sequence[Rows]) -> list[Dataset]:
    """Return each device its rows of the data."""
    pairs = enumerate(shares)
    return [Dataset(data.X[rows], data.y[rows], f"{data.source}, device {device}") for device, rows in pairs]


def device_names(n: int) -> list[str]:
    """Return the names of n devices. Who is drawn and how it shuffles depend on its name."""
    width = max(2, len(str(n - 1)))
    return [f"device-{number:0{width}d}" for number in range(n)]


def for_all(spec: JobSpec, n_devices: int) -> JobSpec:
    """Return a job that waits for all devices before its first round, so that every draw is from all of them.

    Raises SettingsError where it wants more than there are.
    """
    if spec.rounds.quorum > n_devices:
        raise SettingsError(f"job {spec.name}: quorum = {spec.rounds.quorum} is more than the {n_devices} devices")
    return structs.replace(spec, rounds=structs.replace(spec.rounds, min_devices=n_devices))
