"""FedAdam (Reddi et al. 2021, algorithm 2): the mean update is a gradient, to which the server applies Adam.

    m = beta1 * m + (1 - beta1) * mean,    v = beta2 * v + (1 - beta2) * mean^2,    x += rate * m / (sqrt(v) + epsilon)

As in the paper m begins with 0, v with epsilon^2, and neither is corrected for that. What is kept of v is its root, by
which the step divides: rounded to a grid, as a snapshot does, it moves the divisor by half a grid step and no more.
Both lie on the optimizers' lattice (fixed.py). Between two roundings onto it all is elementwise float64, each operation
rounded as IEEE 754 has it, in the order of BODY.md: the same bits on every machine.

State: m, an array for each tensor; then sqrt(v), an array for each tensor. 16 bytes a coordinate, on devices too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from models.codec.coding import Tensors
from models.codec.decoded import CodecError, Decoded
from models.codec.steps import step_near
from models.integers import Int64, bits
from models.params import Spec
from models.strategies import fixed
from models.strategies.state import State, StateError, read
from models.strategies.strategy import Gains, Strategy
from models.sums import Sum

if TYPE_CHECKING:
    from models.job import AggregateSpec, JobSpec

FORM = "fedadam 1"
FASTEST = 0.5
"""A rate beyond it is that of another strategy: it is about how far each weight moves in one version."""
PARTS_OF_EPSILON = 16
"""Grid steps of the root in one epsilon, at least: a snapshot moves no divisor by more than 1/32 of itself."""
UNIT = 2.0**-fixed.EXPONENT
SLAB = 2**14
"""Coordinates at a time: in float64 the state of a whole tensor would be the most that a device ever holds."""
_SHARES = 2**36
"""Parts into which a square below 1 is cut, so that those of 2**26 coordinates add up in an int64."""


def _refusal(job: JobSpec) -> str:
    rate = job.aggregate.server_learning_rate
    if rate > FASTEST:
        return (
            f'[aggregate] server_learning_rate = {rate:g}: strategy = "fedadam" moves every weight by about so much in '
            f"each version: say one of at most {FASTEST:g}, such as 0.01"
        )
    return ""


def _init(spec: Spec, rules: AggregateSpec) -> State:
    root = round(rules.server_epsilon * UNIT)
    zeros = (np.zeros(tensor.shape, np.int64) for tensor in spec)
    return State((*zeros, *(np.full(tensor.shape, root, np.int64) for tensor in spec)), FORM)


def step(published: Tensors, state: State, rules: AggregateSpec) -> tuple[Tensors, State]:
    """Return the step and the next state. Raises CodecError where either leaves its lattice."""
    n = len(published)
    found = [_tensor(*of_one, rules) for of_one in zip(published, state.arrays[:n], state.arrays[n:], strict=True)]
    moments, roots, steps = (fixed.bounded(arrays) for arrays in zip(*found, strict=True))
    return tuple(Decoded(values, fixed.EXPONENT) for values in steps), State((*moments, *roots), FORM)


def _tensor(published: Decoded, moment: Int64, root: Int64, rules: AggregateSpec) -> tuple[Int64, Int64, Int64]:
    """Return the next m and sqrt(v), and the step."""
    fixed.check_room(published)
    beta1, beta2, epsilon = rules.server_beta1, rules.server_beta2, rules.server_epsilon * UNIT
    after = np.empty((3, published.integers.size), np.int64)
    before = (published.integers.reshape(-1), moment.reshape(-1), root.reshape(-1))
    for at in range(0, published.integers.size, SLAB):
        slab = slice(at, at + SLAB)
        said, m, s = (row[slab].astype(np.float64) for row in before)
        delta = np.ldexp(said, published.exponent - fixed.EXPONENT)
        m = np.rint(beta1 * m + (1.0 - beta1) * delta)
        s = np.rint(np.sqrt(beta2 * (s * s) + (1.0 - beta2) * (delta * delta)))
        moved = np.rint((rules.server_learning_rate * UNIT) * m / (s + epsilon))
        if not (np.abs(moved) < 2.0**fixed.MOST_BITS).all():
            raise CodecError("a step is too large for the server's optimizer")
        after[:, slab] = m, s, moved
    return after[0].reshape(moment.shape), after[1].reshape(moment.shape), after[2].reshape(moment.shape)


def _is_plain(rules: AggregateSpec) -> bool:  # noqa: ARG001
    return False


def _reach(state: State, rules: AggregateSpec) -> float:
    """Return the root mean square of 1 / (sqrt(v) + epsilon). Added up as integers: in any order the same."""
    epsilon, total, d = rules.server_epsilon * UNIT, 0, 0
    for root in state.arrays[len(state.arrays) // 2 :]:
        row = root.reshape(-1)
        d += row.size
        for at in range(0, row.size, SLAB):
            share = epsilon / (row[at : at + SLAB] + epsilon)
            total += int(np.rint(share * share * _SHARES).astype(np.int64).sum())
    return math.sqrt(max(total, 1) / (max(d, 1) * _SHARES)) / rules.server_epsilon


def _gains(state: State, rules: AggregateSpec) -> Gains:
    in_all = rules.server_learning_rate * _reach(state, rules)
    return Gains(1.0, (1 - rules.server_beta1) * in_all, in_all)


def _metrics(state: State, rules: AggregateSpec) -> tuple[tuple[str, float], ...]:
    return (("server_gain", _gains(state, rules).in_all),)


def _rows(rules: AggregateSpec) -> int:  # noqa: ARG001
    return 2


def _grid(size: float, state: State, rules: AggregateSpec) -> int:
    """An m that is off by so much moves the model by gain / (1 - beta1) times that in the end."""
    return step_near(max(size * (1 - rules.server_beta1) / _gains(state, rules).in_all, 2.0**fixed.EXPONENT))


def _of_root(word: int, rules: AggregateSpec) -> int:
    """The root has the grid of m, since m is hardly ever larger; where epsilon is small, one that is finer."""
    return min(word, step_near(rules.server_epsilon / PARTS_OF_EPSILON))


def _counts(state: State, word: int, rules: AggregateSpec) -> Iterator[Int64]:
    n = len(state.arrays) // 2
    for at, values in enumerate(state.arrays):
        yield fixed.counted(values, word if at < n else _of_root(word, rules))


def _restored(counts: Iterable[Int64], word: int, spec: Spec, rules: AggregateSpec) -> State:
    cells = iter(counts)
    moments = tuple(fixed.measured(of_one, word) for of_one in islice(cells, len(spec)))
    roots = tuple(fixed.measured(of_one, _of_root(word, rules)) for of_one in cells)
    if any((root < 0).any() for root in roots):
        raise CodecError("a snapshot has a root below 0")
    return State((*moments, *roots), FORM)


def _read(parts: Sequence[bytes], spec: Spec) -> State:
    state = read(parts, spec, form=FORM, rows=2, what="state of FedAdam")
    if any(bits(array) > fixed.MOST_BITS for array in state.arrays):
        raise StateError("its state of FedAdam is beyond its lattice")
    if any((root < 0).any() for root in state.arrays[len(spec) :]):
        raise StateError("its state of FedAdam has a root below 0")
    return state


FEDADAM = Strategy(
    keys=frozenset({"server_learning_rate", "server_beta1", "server_beta2", "server_epsilon"}),
    refusal=_refusal,
    combine=Sum,
    init=_init,
    step=step,
    is_plain=_is_plain,
    gains=_gains,
    metrics=_metrics,
    rows=_rows,
    grid=_grid,
    counts=_counts,
    restored=_restored,
    read=_read,
)
