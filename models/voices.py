"""The buffers of a fleet's next version: the mean of what devices say, by what their updates weigh.

    mean = sum_k w_k x_k / sum_k w_k        added exactly, and then rounded: the same bits in whatever order

What a device claims is held against the others', as what it says of its rows is (agreement.py). Once FEWEST_VOICES
devices speak, those are left out that lie FAR times further from the middle than the third quarter of all of them does
(of three: than the second). Of BatchNorm that goes channel by channel, by the mean and the standard deviation together,
as of the columns of a table: reach = |mean - middle| + sqrt(variance). Of any other buffer it goes by the whole of it,
reach = max|x - middle| + max|x|: it has no spread that would say what is usual of one number.

So where fewer than a quarter lie, or one of three, they shift a number by no more than their share of FAR times what is
usual. Of two nobody can say which one is right, and both count.

Where the job's strategy is the median, which goes by no claim of a weight, it is the median of each number, and of an
even number of devices the mean of the middle two.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.agreement import FAR, FEWEST_VOICES, QUARTERS
from models.buffers import Buffers, Float64, frozen, statistics
from models.params import Float32

MOST_VOICES = 1024
"""Devices whose buffers are used in one round: those whose hashes are lowest, others in every round."""
FEWEST_HEARD = 16
MOST_BYTES = 2**23
"""Of the buffers that are held until a round ends: of large ones fewer devices are heard."""
CELLS_AT_ONCE = 2**18
"""Numbers that are added in one go: each takes some 100 bytes then."""
_HALF = 27
"""Bits of the lower half of a weight."""
Kept = npt.NDArray[np.bool_]


class Voice(NamedTuple):
    """What one device says, and what it weighs."""

    device: str
    weight: int
    buffers: Buffers


class Heard:
    """The buffers that have come to one base, of no more devices than there is room for. Mutable."""

    def __init__(self, base: Buffers, number: int) -> None:
        """Begin with nothing. base: the buffers of the version of this number."""
        self._base = base
        self._number = number
        n_bytes = sum(value.nbytes for value in base.values)
        self._most = min(MOST_VOICES, max(FEWEST_HEARD, MOST_BYTES // max(1, n_bytes)))
        self._said: dict[str, Buffers] = {}

    def add(self, device: str, said: Buffers) -> None:
        """Note what a device says. Who is heard does not hang on who came first."""
        self._said[device] = said
        if len(self._said) > self._most:
            del self._said[max(self._said, key=self._precedence)]

    def mean(self, weights: Mapping[str, int], *, median: bool = False) -> Outcome:
        """Return what comes of it. weights: by device; who has none does not count."""
        voices = [
            Voice(device, weights[device], said) for device, said in sorted(self._said.items()) if weights.get(device)
        ]
        return mean(voices, self._base, median=median)

    def _precedence(self, device: str) -> tuple[bytes, str]:
        return hashlib.sha256(f"{self._number}/{device}".encode()).digest(), device


class Outcome(NamedTuple):
    """What devices have come to. far: of each buffer that some were left out of, its name and their devices."""

    buffers: Buffers
    far: tuple[tuple[str, tuple[str, ...]], ...] = ()


def mean(voices: Sequence[Voice], base: Buffers, *, median: bool = False) -> Outcome:
    """Return the buffers that follow those of the base; the same ones where nobody has spoken."""
    if not voices or not base:
        return Outcome(base)
    found, kept = [], _kept(voices, base)
    for at, tensor in enumerate(base.spec):
        said = [voice.buffers.values[at] for voice in voices]
        if all(value is base.values[at] for value in said):
            found.append(base.values[at])
            continue
        values = np.stack([value.reshape(-1) for value in said])
        weights = [voice.weight for voice in voices]
        numbers = _median(values, kept[at]) if median else _mean(values, weights, kept[at])
        found.append(frozen(numbers.astype(np.float32).reshape(tensor.shape)))
    return Outcome(Buffers(base.spec, tuple(found)), _named_far(voices, base, kept))


def _named_far(voices: Sequence[Voice], base: Buffers, kept: Sequence[Kept]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found = []
    for tensor, ours in zip(base.spec, kept, strict=True):
        out = np.flatnonzero(~ours.all(axis=1)).tolist()
        if out:
            found.append((tensor.name, tuple(voices[at].device for at in out)))
    return tuple(found)


# Who is held to be one of them.


def _kept(voices: Sequence[Voice], base: Buffers) -> list[Kept]:
    """Return of each buffer whether each device counts, (devices, numbers) or (devices, 1)."""
    n = len(voices)
    kept: list[Kept] = [np.ones((n, 1), np.bool_) for _ in base.spec]
    if n < FEWEST_VOICES:
        return kept
    pairs = statistics(base.spec)
    for means, variances in pairs.items():
        kept[means] = kept[variances] = _near(_reach(_stacked(voices, means), _stacked(voices, variances)))
    for at in set(range(len(base.spec))) - pairs.keys() - set(pairs.values()):
        if any(voice.buffers.values[at] is not base.values[at] for voice in voices):
            values = _stacked(voices, at)
            far = _reach(values).max(axis=1, initial=0.0) + np.abs(values).max(axis=1, initial=0.0)
            kept[at] = _near(far[:, np.newaxis])
    return kept


def _stacked(voices: Sequence[Voice], at: int) -> Float64:
    return np.stack([voice.buffers.values[at].reshape(-1) for voice in voices]).astype(np.float64)


def _reach(centres: Float64, variances: Float64 | None = None) -> Float64:
    """Return how far what each device says reaches from the middle, (devices, numbers)."""
    middle = np.sort(centres, axis=0)[(len(centres) - 1) // 2]
    apart: Float64 = np.abs(centres - middle)
    return apart if variances is None else apart + np.sqrt(np.maximum(variances, 0.0))


def _near(reach: Float64) -> Kept:
    n, (share, parts) = len(reach), QUARTERS
    usual = np.sort(reach, axis=0)[min(-(-n * share // parts) - 1, n - 2)]
    near: Kept = reach <= FAR * usual
    return near


# What comes of it.


def _mean(values: Float32, weights: Sequence[int], kept: Kept) -> Float64:
    """Return the mean by weight of each number, of those that are kept: (devices, numbers) -> (numbers,)."""
    n, kept = max(1, CELLS_AT_ONCE // len(values)), np.broadcast_to(kept, values.shape)
    parts = [slice(at, at + n) for at in range(0, values.shape[1], n)]
    return np.concatenate([np.empty(0), *(_mean_of(values[:, part], weights, kept[:, part]) for part in parts)])


def _mean_of(values: Float32, weights: Sequence[int], kept: Kept) -> Float64:
    # a weight below 2**53 in two halves: its products with 24 bits of a number are exact, and fsum adds exactly
    halves = np.array([(weight >> _HALF, weight & (1 << _HALF) - 1) for weight in weights])
    high, low = ((halves[:, at, np.newaxis] * kept) for at in (0, 1))
    wide = values.astype(np.float64)
    terms = np.concatenate([wide * np.ldexp(high.astype(np.float64), _HALF), wide * low])
    of = zip(high.sum(axis=0).tolist(), low.sum(axis=0).tolist(), strict=True)
    return np.array([math.fsum(ours) / ((a << _HALF) + b) for ours, (a, b) in zip(terms.T.tolist(), of, strict=True)])


def _median(values: Float32, kept: Kept) -> Float64:
    wide = np.where(kept, values.astype(np.float64), np.nan)
    found: Float64 = np.nanmedian(wide, axis=0)
    return found
