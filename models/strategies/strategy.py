"""What a strategy is: a row of pure functions over explicit state, which is passed in and returned.

    updates ──combine──▶ mean ──▶ published sum, the body of the version ──step──▶ what is added to the model

The updates are combined by the server alone. The step is computed by everybody who holds the versions, devices too, and
has to come to the same SHA-256: integers, or elementwise IEEE arithmetic in float64, which rounds the same everywhere.
No float is added up in an order of the machine's choosing, and none is so small that hardware may call it 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from models.codec.coding import Coding, Tensors, Update
from models.integers import Int64
from models.lattice import Model
from models.params import Spec
from models.strategies.state import State
from models.sums import Mean

if TYPE_CHECKING:
    from models.job import AggregateSpec, JobSpec


class Combined(Protocol):
    """The updates of a round, as far as they have come. Their order has no say in anything that it returns."""

    coding: Coding

    @property
    def weight(self) -> int:
        """The sum of the weights."""

    def add(self, update: Update, weight: int) -> None:
        """Add a decoded update. Raises FoldError, and is then as it was, where there is no room for it."""

    def take_out(self, update: Update, weight: int) -> None:
        """Take so much of the weight of an update that was added out again. Raises FoldError."""

    def mean(self) -> Mean:
        """Return what they come to. Raises FoldError where there are none."""

    def zero(self) -> Mean:
        """Return what updates come to that are all zero."""

    def mean_energy(self) -> float:
        """Return |mean|^2, the same bits on every machine."""


class Gains(NamedTuple):
    """What becomes of a mean update of length 1: the noise of coding it is measured by that (steering.py)."""

    published: float
    """Its length in the published sum."""
    at_once: float
    """How far one of length 1 in the published sum moves the model in its own version; about, as a root mean square."""
    in_all: float
    """How far the mean itself moves the model in the end, over all versions."""


def _no_metrics(state: State, rules: AggregateSpec) -> tuple[tuple[str, float], ...]:  # noqa: ARG001 -- a row's face
    return ()


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A row of the table. rules: the job's [aggregate]. state: never empty, unless the strategy keeps none."""

    keys: frozenset[str]
    """Of [aggregate], those of a server optimizer that it reads: the others are refused."""
    refusal: Callable[[JobSpec], str]
    """Return why it cannot be the strategy of a job, as a sentence that says what to do; "" where it can."""
    combine: Callable[[Coding, Model], Combined]
    """Return the combination of no updates to a base, which are coded so."""
    init: Callable[[Spec, AggregateSpec], State]
    """Return the state before the first step."""
    step: Callable[[Tensors, State, AggregateSpec], tuple[Tensors, State]]
    """Return what the published sum adds to the model, and the state after it. Raises CodecError where either is
    beyond its lattice. A device pays for what it computes: what is measured for people has a function of its own."""
    is_plain: Callable[[AggregateSpec], bool]
    """Return whether the step is the published sum itself, and nothing is kept from one to the next."""
    gains: Callable[[State, AggregateSpec], Gains]
    """Return what becomes of a mean update that comes upon this state."""
    weighs: bool = True
    """Whether what an update weighs has a say in what they come to."""
    metrics: Callable[[State, AggregateSpec], tuple[tuple[str, float], ...]] = _no_metrics
    """Return what is noted of a version with this state, by name."""

    # How the state is rounded, and said in a snapshot: one word for its grid, and counts.
    rows: Callable[[AggregateSpec], int]
    """Return how many counts a coordinate of the net has in a snapshot of the state, at most MOST_ROWS; 0: none."""
    grid: Callable[[float, State, AggregateSpec], int]
    """Return the word by which the state is rounded where the model is to steps of this size; 0 where there is none.
    The rounding is to move later versions by no more than that of the model does."""
    counts: Callable[[State, int, AggregateSpec], Iterator[Int64]]
    """Return the state in counts, tensor by tensor, row after row. Raises CodecError for a word that does not suit."""
    restored: Callable[[Iterable[Int64], int, Spec, AggregateSpec], State]
    """Return the state that these counts say. Raises CodecError for counts that no state has: they are hostile."""

    most_held_bytes: int = 0
    """Bytes that the server takes for the updates of a round, each by itself, at most; 0: it only adds them up."""

    # How it is stored: `State.parts` writes it.
    read: Callable[[Sequence[bytes], Spec], State]
    """Read what was stored, by this fedge or an earlier one. Raises StateError."""


MOST_ROWS = 4
