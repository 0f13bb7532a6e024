"""What the fleets train on: files that are given, scikit-learn's sets, and how rows are dealt out to devices.

    iid, shards:K, dirichlet:A    as `fleet.problems.partition` deals them
    zipf                          a shuffle in shares of 1, 1/2, 1/3, ... of the rows, in a random order
    natural                       one device for each person or place of the file

Features of activity and air, and the columns of windows, are standardised by the mean and the deviation of all rows to
train on and cut at 8 deviations. Of activity and windows whole executions of every device are held out, about a fifth;
air has its own test split. The same seed gives the same shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fleet.problems.examples import load_split, split_rows
from fleet.problems.partition import PartitionError, Rows, by_column, deal
from models.data import npz_file, source
from models.data.dataset import Dataset, DatasetError
from models.data.source import DataSource

Files = Mapping[str, Path]
"""Data set or part of one -> its file: mnist_train, mnist_test, har_spsw, beijing_air."""

NEEDS: dict[str, tuple[str, ...]] = {
    "mnist": ("mnist_train", "mnist_test"),
    "activity": ("har_spsw",),
    "windows": ("har_spsw",),
    "air": ("beijing_air",),
}
"""The files that a data set is read from; others come from scikit-learn."""

EXECUTIONS_SEED = 77
MOST_DEVIATIONS = 8.0


class Source(NamedTuple):
    """A data set as it is dealt out. owners: (n,) who each row to train on belongs to, where the file says."""

    train: Dataset
    test: Dataset
    owners: npt.NDArray[Any] | None = None


def read(name: str, files: Files) -> Source:
    """Read a data set by its name. Raises DatasetError, or SettingsError where scikit-learn is missing."""
    return SOURCES[name](files) if name in SOURCES else Source(*load_split(name))


def cut(how: str, source: Source, n_devices: int, seed: int) -> list[Rows]:
    """Return each device's rows of the data set: every row goes to one device. Raises PartitionError."""
    y = source.train.y
    if how == "zipf":
        return _zipf(len(y), n_devices, np.random.default_rng(seed))
    if how != "natural":
        return deal(how, y, n_devices, seed)
    if source.owners is None:
        raise PartitionError(f"{source.train.source} does not say whose its rows are")
    shares = by_column(source.owners)
    if len(shares) != n_devices:
        raise PartitionError(f"{source.train.source} has rows of {len(shares)} devices, not of {n_devices}")
    return shares


def digest(arrays: Sequence[npt.NDArray[Any]]) -> str:
    """Return a hash of the arrays' types, shapes and values."""
    state = hashlib.sha256()
    for values in arrays:
        state.update(f"{values.dtype.str} {values.shape} ".encode())
        state.update(np.ascontiguousarray(values).data)
    return state.hexdigest()


def _zipf(n: int, n_devices: int, rng: np.random.Generator) -> list[Rows]:
    """Return shares of a shuffle whose sizes go as 1/rank, the ranks in a random order, none empty."""
    if n_devices > n:
        raise PartitionError(f"{n_devices} devices are more than the {n} examples there are")
    weights = 1.0 / np.arange(1, n_devices + 1)
    sizes = 1 + np.floor((n - n_devices) * weights / weights.sum()).astype(np.int64)
    sizes[0] += n - sizes.sum()
    ends = np.cumsum(rng.permutation(sizes))
    return [np.sort(rows) for rows in np.split(rng.permutation(n), ends[:-1])]


# The data sets.


def _mnist(files: Files) -> Source:
    train, test = (_flat(source.load(DataSource(str(files[part])))) for part in NEEDS["mnist"])
    return Source(train, test)


def _activity(files: Files) -> Source:
    path = files["har_spsw"]
    X, y, device, execution = _arrays(path, ("F", "y", "device", "execution"))
    return _standardised(path, X, y, device, _whole_executions(device, execution))


def _windows(files: Files) -> Source:
    """Return the windows that the features of `activity` are made of: 50 moments of 6 columns, in the same order."""
    path = files["har_spsw"]
    X, y, device, execution = _arrays(path, ("X", "y", "device", "execution"))
    return _standardised(path, X, y, device, _whole_executions(device, execution))


def _whole_executions(device: npt.NDArray[Any], execution: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which windows are held out: windows of one execution overlap, so they go one way together."""
    held, rng = np.zeros(len(device), np.bool_), np.random.default_rng(EXECUTIONS_SEED)
    for owner in np.unique(device):
        rows = np.flatnonzero(device == owner)
        executions, n_held = rng.permutation(np.unique(execution[rows])), 0
        for one in executions:
            windows = rows[execution[rows] == one]
            if n_held >= 0.2 * len(rows) or len(executions) < 2:
                break
            if n_held + len(windows) <= 0.35 * len(rows):
                held[windows] = True
                n_held += len(windows)
    return held


def _air(files: Files) -> Source:
    path = files["beijing_air"]
    X, y, device, test = _arrays(path, ("X", "y", "device", "test"))
    return _standardised(path, X, y, device, test.astype(np.bool_))


def _arrays(path: Path, names: Sequence[str]) -> list[npt.NDArray[Any]]:
    arrays = list(npz_file.read_arrays(path, names).values())
    for name, values in zip(names, arrays, strict=True):
        if len(values.shape) == 0 or len(values) != len(arrays[0]):
            raise DatasetError(f"{path}: {name} of shape {values.shape} has not a row for each of {names[0]}")
    return arrays


def _standardised(
    path: Path, X: npt.NDArray[Any], y: npt.NDArray[Any], device: npt.NDArray[Any], held: npt.NDArray[np.bool_]
) -> Source:
    if held.all() or not held.any():
        raise DatasetError(f"{path}: nothing to train on, or nothing to test on")
    X, y, each = X.astype(np.float32), y.astype(np.int64), tuple(range(X.ndim - 1))
    mean, deviation = X[~held].mean(axis=each), X[~held].std(axis=each) + np.float32(1e-6)
    X = np.clip((X - mean) / deviation, -MOST_DEVIATIONS, MOST_DEVIATIONS).astype(np.float32).reshape(len(X), -1)
    if not np.isfinite(X).all():
        raise DatasetError(f"{path}: a feature is not a finite number")
    return Source(Dataset(X[~held], y[~held], str(path)), Dataset(X[held], y[held], str(path)), device[~held])


def _diabetes(_files: Files) -> Source:
    """Return 442 patients by 10 measures, and how far their illness had gone a year later, standardised."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True)
    return _regression("diabetes", X, y)


def _friedman(_files: Files) -> Source:
    """Return 2,000 made-up rows of 10 features, of which five make y, by a sine, a square and sums."""
    from sklearn.datasets import make_friedman1

    X, y = make_friedman1(n_samples=2000, noise=1.0, random_state=42)
    return _regression("friedman", X, y)


def _regression(name: str, X: npt.NDArray[Any], y: npt.NDArray[Any]) -> Source:
    X, y = (((values - values.mean(axis=0)) / values.std(axis=0)).astype(np.float32) for values in (X, y))
    train, test = split_rows(len(y), y, 0)
    return Source(Dataset(X[train], y[train, np.newaxis], name), Dataset(X[test], y[test, np.newaxis], name))


def _classes(_files: Files) -> Source:
    """Return 6,000 made-up rows of 32 features, 8 classes of two clusters each."""
    from sklearn.datasets import make_classification

    X, y = make_classification(
        n_samples=6000, n_features=32, n_informative=12, n_redundant=8, n_classes=8, class_sep=1.5, random_state=42
    )
    X, y = (X / X.std(axis=0)).astype(np.float32), y.astype(np.int64)
    train, test = split_rows(len(y), y, 0)
    return Source(Dataset(X[train], y[train], "classes"), Dataset(X[test], y[test], "classes"))


def _flat(data: Dataset) -> Dataset:
    return data._replace(X=data.X.reshape(len(data.X), -1))


SOURCES: dict[str, Callable[[Files], Source]] = {
    "mnist": _mnist,
    "activity": _activity,
    "windows": _windows,
    "air": _air,
    "diabetes": _diabetes,
    "friedman": _friedman,
    "classes": _classes,
}
"""Those that `fleet.problems.examples` does not have."""
