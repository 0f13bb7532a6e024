"""How a device scores a version on the rows that it holds back: in steps, as it trains, into a section of its update.

The same version and rows come to the same bytes, whatever was paused in between: rows are taken in blocks that follow
from the model alone, and what blocks come to adds up exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from models.data.dataset import Dataset
from models.job import JobSpec
from models.measures import tally
from models.nets.batches import quietly
from models.nets.net import Net
from models.params import Params
from models.sections import curves_of, scores_versions
from models.statistic import FEWEST

ROWS = 4096
"""Scored in one step, at most."""
CELLS = 2**20
"""Inputs and outputs of the rows of one step, about: 4 MB each."""


MOST_TRAINED_ON = 4096
"""Rows that are scored though they are trained on, where a device that finds anomalies holds too few back."""


def rows_of(data: Dataset, spec: JobSpec) -> Dataset | None:
    """Return the rows that versions are scored on, as the net takes them; None where there are none.

    Those that are held back; or, for the threshold of a fleet that finds anomalies, where these are fewer than FEWEST,
    some of those that are trained on, at equal distances.
    """
    held_out = data.held_out if spec.contract.validation else None
    if not spec.model.finds_anomalies or (held_out is not None and len(held_out.y) >= FEWEST):
        return held_out
    step = -(-len(data.y) // MOST_TRAINED_ON)
    return Dataset(data.X[::step], data.y[::step], data.source)


class Scoring:
    """One version, scored by one device. Where nothing is held back it is over before it has begun."""

    __slots__ = ("_at", "_held_out", "_net", "_params", "_spec", "_tally")

    def __init__(self, net: Net, params: Callable[[], Params], held_out: Dataset | None, spec: JobSpec) -> None:
        """Begin. params: makes those of the version, if there is something to score. held_out: `rows_of` its data."""
        self._net = net
        self._params = params
        self._held_out = held_out if scores_versions(spec) else None
        self._spec = spec
        self._tally: tally.Tally | None = None
        self._at = 0

    def steps(self) -> Iterator[None]:
        """Score a block of rows at each step; what is begun once more goes on where it stood."""
        model = self._spec.model
        n = 0 if self._held_out is None else len(self._held_out.y)
        rows = max(1, min(ROWS, CELLS // max(model.inputs, model.outputs)))
        params = self._params() if self._at < n else {}
        while self._at < n and self._held_out is not None:
            some = slice(self._at, self._at + rows)
            with quietly():
                answers = self._net.predict(params, self._held_out.X[some])
            here = tally.tally(model, answers, self._held_out.y[some], curves=curves_of(self._spec))
            self._tally = here if self._tally is None else tally.merged((self._tally, here))
            self._at += rows
            yield

    @property
    def section(self) -> bytes:
        """What it has come to, as a section of an update; empty where nothing is held back, or of scores too little."""
        if self._tally is None:
            return b""
        least = FEWEST if self._spec.model.finds_anomalies else 1
        return tally.to_bytes(tally.rounded(self._tally)) if self._tally.n >= least else b""
