"""The coordinate-wise median of the updates (Yin et al. 2018, algorithm 1, option I), instead of their mean.

    mean_k = median over devices i of update_i,k,    of an even number the mean of the two in the middle

Fewer than half of the devices of a round, whatever they send, move no coordinate beyond what honest ones send. Each has
one vote: weights have no say, since how many examples a device has is its own claim. From there on it is federated
averaging, with the server's learning rate and momentum.

The server has to see each update by itself, so it holds all those of a round: 4 bytes a coordinate and update, and no
more than MOST_BYTES. Updates beyond are refused, with how many there is room for. Nothing is kept of a round but what
the store has of it: after a restart the same updates are collected again. A sketch is refused for a job: each update by
itself would mostly be noise, which only a sum of many takes out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.codec.coding import Coding, Update
from models.codec.plain import SLAB, Floats, magnitude
from models.codec.plan import Float64
from models.codec.sketch import Sketch
from models.fold import MAX_WEIGHT, FoldError, norm_of_floats
from models.lattice import Model
from models.params import Float32
from models.strategies.fedavg import FEDAVG
from models.sums import Mean

if TYPE_CHECKING:
    from models.job import JobSpec

MOST_BYTES = 2**29
"""Of the updates of a round: 5 of the largest built-in net, 1,300 of 100,000 parameters."""
LARGEST = 2.0**127
"""No coordinate is as large: a float32 has room for it."""


class Collector:
    """The updates to one base, each by itself. Mutable: `add` changes it, or raises and does not."""

    def __init__(self, coding: Coding, model: Model) -> None:  # noqa: ARG002 -- a float has its own exponent
        """Start with none. model: the base."""
        self.coding = coding
        self.weight = 0
        """The sum of the weights, which have no other say."""
        self._rows: list[Float32] = []
        self._median: Float64 | None = None

    @property
    def room(self) -> int:
        """Updates that there is room for."""
        return MOST_BYTES // max(1, 4 * self.coding.d)

    def add(self, update: Update, weight: int) -> None:
        """Add a decoded update. Raises FoldError for a weight or coordinate that does not fit, or where it is full."""
        if not 1 <= weight <= MAX_WEIGHT:
            raise FoldError(f"weight {weight} is outside 1..{MAX_WEIGHT}")
        if len(self._rows) >= self.room:
            raise FoldError(
                f"a median holds each update of a round by itself, and there is room for {self.room} of this net: "
                f"say target = {max(1, self.room)} or less in [rounds] of the job"
            )
        self._rows.append(self._row(update))
        self.weight += weight
        self._median = None

    def take_out(self, update: Update, weight: int) -> None:  # noqa: ARG002 -- no weight has a say
        """Note that one weighs so much less. Raises FoldError for a weight that it cannot have."""
        if not 1 <= weight <= self.weight - len(self._rows):
            raise FoldError(f"weight {weight} is more than can be taken out of {self.weight}")
        self.weight -= weight

    def _row(self, update: Update) -> Float32:
        if isinstance(update, Sketch):
            raise FoldError("a sketch by itself is mostly noise, and no vote")
        if isinstance(update, Floats):
            return update.row
        values = np.concatenate([tensor.values().reshape(-1) for tensor in update]) if update else np.empty(0)
        if not magnitude(values) < LARGEST:
            raise FoldError("a coordinate is too large for a float32")
        return values.astype(np.float32)  # exact: an int8 times a step has 15 bits

    def mean(self) -> Mean:
        """Return the median, float64, shape (d,). Raises FoldError where there are no updates."""
        if not self._rows:
            raise FoldError("an empty round has no median")
        if self._median is None:
            self._median = _median(self._rows)
        return Mean(self._median, {})

    def zero(self) -> Mean:
        """Return the median of updates that are all zero."""
        return Mean(np.zeros(self.coding.d), {})

    def mean_energy(self) -> float:
        """Return |median|^2, the same bits on every machine; 0 where there are no updates."""
        length = norm_of_floats(Floats(self.mean().values.astype(np.float32))) if self._rows else 0.0
        return length * length


def _median(rows: list[Float32]) -> Float64:
    """Return the coordinate-wise median: of numbers in their order, so that it has no other."""
    n, d = len(rows), rows[0].size
    low, high = (n - 1) // 2, n // 2
    found = np.empty(d)
    for at in range(0, d, SLAB):
        slab = slice(at, at + SLAB)
        cells = np.partition(np.stack([row[slab] for row in rows]), (low, high), axis=0)
        middle = cells[low].astype(np.float64) if low == high else (cells[low].astype(np.float64) + cells[high]) / 2
        found[slab] = middle + 0.0  # there is only one zero: which of them lies in the middle hangs on who came first
    return found


def _refusal(job: JobSpec) -> str:
    if job.coding.codec != "sketch":
        return ""
    named = (
        f'compression = "{job.compression}"' if isinstance(job.compression, str) else '[compression] codec = "sketch"'
    )
    return (
        f'[aggregate] strategy = "median" looks at each update by itself, which with {named} is mostly noise: '
        'say compression = "off", or codec = "int8" in [compression]'
    )


MEDIAN = replace(FEDAVG, refusal=_refusal, combine=Collector, weighs=False, most_held_bytes=MOST_BYTES)
