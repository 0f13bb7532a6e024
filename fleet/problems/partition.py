"""Dealing one data set out to simulated devices.

    iid            each device gets an equal share of a shuffle
    shards:K       sorted by label, cut into devices x K shards, K to each device (McMahan et al. 2017, section 3)
    dirichlet:A    of each class the devices' shares are drawn from Dirichlet(A); small A: each device few classes
                   (Hsu et al. 2019, arXiv 1909.06335)
    column:NAME    one device for each value of an array of the file: its user, its site, its sensor

A share is a sorted array of row numbers. Shares are disjoint, cover every row, and none is empty. The same seed gives
the same shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.settings import SettingsError

Rows = npt.NDArray[np.int64]

HOW = "iid, shards:K, dirichlet:A or column:NAME"
MAX_DEVICES = 100_000


class PartitionError(SettingsError):
    """Data that cannot be dealt out as asked; the message says why."""


def deal(how: str, y: npt.NDArray[Any], n_devices: int, seed: int) -> list[Rows]:
    """Return for each of n_devices its rows. y: (n,) labels; how: anything but column. Raises PartitionError."""
    kind, _, value = how.partition(":")
    if n_devices > len(y):
        raise PartitionError(f"{n_devices} devices are more than the {len(y)} examples there are")
    rng = np.random.default_rng(seed)
    match kind:
        case "iid" if not value:
            return _sorted(np.array_split(rng.permutation(len(y)), n_devices))
        case "shards":
            return _shards(_classes(y), n_devices, _count(how, value), rng)
        case "dirichlet":
            return _dirichlet(_classes(y), n_devices, _positive(how, value), rng)
    raise PartitionError(f"partition {how} is none of {HOW}")


def by_column(values: npt.NDArray[Any]) -> list[Rows]:
    """Return the rows of each value of a column, in the order of the values. Raises PartitionError."""
    if values.ndim != 1:
        raise PartitionError(f"a column of shape {values.shape} names no device a row")
    _, owners = np.unique(values, return_inverse=True)
    n_devices = int(owners.max()) + 1
    check_devices(n_devices)
    return [np.flatnonzero(owners == owner) for owner in range(n_devices)]


def check_devices(n_devices: int) -> None:
    """Raise PartitionError where a column has too many values."""
    if n_devices > MAX_DEVICES:
        raise PartitionError(f"the column has {n_devices} values: that many devices cannot be simulated")


def _shards(y: npt.NDArray[Any], n_devices: int, per_device: int, rng: np.random.Generator) -> list[Rows]:
    n_shards = n_devices * per_device
    if n_shards > len(y):
        raise PartitionError(f"{n_devices} devices x {per_device} shards are more than the {len(y)} examples there are")
    # Shuffled before the stable sort, so that the shards of one class are alike.
    shuffled = rng.permutation(len(y))
    shards = np.array_split(shuffled[np.argsort(y[shuffled], kind="stable")], n_shards)
    order = rng.permutation(n_shards).reshape(n_devices, per_device)
    return _sorted([np.concatenate([shards[shard] for shard in row]) for row in order])


def _dirichlet(y: npt.NDArray[Any], n_devices: int, alpha: float, rng: np.random.Generator) -> list[Rows]:
    parts: list[list[Rows]] = [[] for _ in range(n_devices)]
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        weights = rng.dirichlet(np.full(n_devices, alpha))
        cuts = np.round(np.cumsum(weights)[:-1] * len(rows)).astype(np.int64)
        for part, share in zip(parts, np.split(rows, cuts), strict=True):
            part.append(share)
    return _sorted(_fill([np.concatenate(part) for part in parts]))


def _fill(shares: list[Rows]) -> list[Rows]:
    """Return every empty-handed device one row of whoever has most."""
    for device, share in enumerate(shares):
        if not len(share):
            richest = max(range(len(shares)), key=lambda other: len(shares[other]))
            shares[device], shares[richest] = shares[richest][:1], shares[richest][1:]
    return shares


def _sorted(shares: Sequence[Rows]) -> list[Rows]:
    return [np.sort(share) for share in shares]


def _classes(y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if y.ndim != 1:
        raise PartitionError(f"labels of shape {y.shape} are no classes: choose iid or column:NAME")
    return y


def _count(how: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MAX_DEVICES):
        raise PartitionError(f"partition {how}: write shards:K with a positive number, such as shards:2")
    return int(text)


def _positive(how: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1e-3 <= value <= 1e6:
        raise PartitionError(f"partition {how}: write dirichlet:A with A from 0.001 to 1e6, such as dirichlet:0.5")
    return value
