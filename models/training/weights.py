"""How much each example of a device counts in the loss that it trains on: by its row, and by its class.

    w_i = s * r_i / mean(r) * c(y_i),       loss = (1/n) sum_i w_i l_i

    r_i    the weight of the row, `Dataset.weights`: of the source's own column; 1 where it has none
    c(y)   the weight of the class, the same on all devices (`class_weight` of the contract)
             as the job says it:  its number; 1 for a class that it does not name
             "balanced":          N / (K N_c): N rows in the fleet, N_c of the class, K classes that occur at all
    s      1, or less, so that the mean of all w_i is MOST_MEAN at most

A device's say among the others is how many rows it has, whatever weights it has. With w_k the weights of device k, the
mean of the first steps of all, each as often as it has rows, is then the step on

    sum_k n_k (1/n_k) sum_i w_ki l_ki  =  sum of w l over all rows of the fleet

which is the loss that the job means, up to its length, as long as what is in w is on one scale in the whole fleet.
Classes are: the numbers are the job's, or the fleet's (which then have the mean 1 over the fleet). So they are not
scaled to anything on a device: one with many rows of a rare class takes longer steps, as it should. Rows are not: what
one source calls 1 another may call 1000, and nobody may gain say by it, or a longer step; so their mean is 1 on every
device. The exception is s: a device all of whose rows are of a very rare class would take steps so long that it
diverges, where the same rows among others would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.nets.losses import Labels
from models.params import Float32

MOST_MEAN = 4.0
"""So many times as long as the learning rate says are a device's steps at most."""
ROWS_AT_ONCE = 2**16
"""Rows whose weights are in memory at once, while their mean is worked out."""


class WeightError(ValueError):
    """Weights that cannot be had; the message says why."""


class Weights(NamedTuple):
    """The weights of one device's examples, worked out a batch at a time."""

    rows: Float32 | None
    """(n,): of each row, or None where all are alike. May lie in a file."""
    classes: Float32 | None
    """(k,): of each class, or None."""
    scale: float
    """What the product of both is multiplied by."""

    def of(self, rows: npt.NDArray[np.int64] | slice, y: Labels) -> Float32:
        """Return the weights of these examples, (b,) float32. y: their labels."""
        if self.classes is None:
            assert self.rows is not None, "weights of nothing"  # noqa: S101 -- `weights_of` gives none then
            return self.rows[rows] * np.float32(self.scale)
        found = self.classes[y]
        if self.rows is not None:
            found *= self.rows[rows]
        found *= np.float32(self.scale)
        return found


def weights_of(data: Dataset, contract: ContractSpec, counts: Sequence[int] = ()) -> Weights | None:
    """Return the weights of a device's examples, as its job's model takes them; None where all count alike.

    counts: the rows of each class in the fleet, in the order of the model's outputs, which "balanced" goes by. Raises
    WeightError where it has none, where a label is of none of them, or where the weights of the rows have no mean.
    """
    classes = class_weights(contract, counts)
    if data.weights is None and classes is None:
        return None
    rows, mean = data.weights, 1.0
    if rows is not None:
        mean = sum(float(rows[part].sum(dtype=np.float64)) for part in _parts(len(rows))) / len(rows)
        if not 0 < mean < np.inf:
            raise WeightError(f"{data.source}: the weights of its rows have the mean {mean:g}, which is no weight")
    if classes is None:
        return Weights(rows, None, 1.0 / mean)
    if (last := int(data.y.max())) >= len(classes):
        raise WeightError(f"{data.source}: label {last}, where the weights of {len(classes)} classes are known")
    found = Weights(rows, classes, 1.0 / mean)
    in_all = sum(float(found.of(part, data.y[part]).sum(dtype=np.float64)) for part in _parts(len(data.y)))
    return found._replace(scale=found.scale * min(1.0, MOST_MEAN * len(data.y) / in_all))


def class_weights(contract: ContractSpec, counts: Sequence[int] = ()) -> Float32 | None:
    """Return the weight of each class, (k,) float32; None where all count alike.

    With "balanced" a class that did not occur when the fleet's rows were counted has 1: late joiners may have it. Where
    no device had enough rows to say how many of each class, all count alike. Raises WeightError where there are no
    counts.
    """
    said = contract.class_weight
    if said == "none" or not said:
        return None
    if isinstance(said, dict):
        return np.array([said.get(name, 1.0) for name in contract.classes], np.float32)
    n_rows, n_classes = sum(counts), sum(count > 0 for count in counts)
    if not counts:
        raise WeightError('class_weight = "balanced" goes by the fleet\'s counts of classes, which are not known here')
    if not n_rows:
        return None
    return np.array([n_rows / (n_classes * count) if count else 1.0 for count in counts], np.float32)


def _parts(n: int) -> Iterator[slice]:
    return (slice(at, at + ROWS_AT_ONCE) for at in range(0, n, ROWS_AT_ONCE))
