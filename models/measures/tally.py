"""A tally: one scoring of a version as sums and counts, which add up exactly, in any order.

    answers, labels ──tally──▶ Tally ──to_bytes──▶ a few bytes ──from_bytes──▶ Tally ──merged──▶ Tally ──▶ measures

All of it are whole numbers, so the tally of two halves of the rows, merged, is that of all rows, bit for bit. What its
counts are follows from the model (`layout`), never from the bytes:

    classes   up to 64 classes: the confusion matrix, a row for each true class, a column for each answer, the last one
              for rows whose answer is not finite ("no answer"); beyond: right, wrongly answered, missed of each class
              up to 32 classes: of each class a histogram of its scores, over rows of other classes and over its own, in
              256 bins of equal width in asinh(log(p / (1 - p))); of two classes, that of the second
              sums of the log loss and of the Brier score, in 2**-20
    labels    several labels a row, each there or not: of each one right, wrongly answered and missed, and up to 32 a
              histogram; an answer is "there" above 1/2; a row whose answer is not finite has every label wrong
    values    of each value, up to 64, and beyond of all together: sums of squares and magnitudes of the errors, of the
              labels, and of their squares (models/measures/values.py); where answers are several quantiles, the errors
              of that next to the median, and how many labels lie between the outermost two
    scores    a histogram of the anomaly scores of normal rows, one of those of known anomalies (anomalies.py), and sums
              of both, in 2**-20

A tally from elsewhere is a claim: what it says is held against its own n, and nothing else can be.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.integers import Int64
from models.job import ModelSpec
from models.measures import anomalies, values
from models.measures.bits import BitsError, Reader, Writer, most_bits_of_counts, most_bits_of_integer
from models.measures.table import MOST_CURVES
from models.nets import losses
from models.nets.losses import Labels
from models.params import Float32

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

MOST_ROWS = 2**40
"""Of a tally: 100,000 devices with ten million rows each."""
MOST_CONFUSED = 64
"""Classes of a confusion matrix: beyond, it is 33 kB and more."""
MOST_APART = 64
"""Outputs of values whose sums are kept apart."""
BINS = 256
UNIT = 20
"""Losses count 2**-20 each."""
LEAST_PROBABILITY = float(np.finfo(np.float32).eps)
"""What a probability is at least, in the log loss: as scikit-learn takes it of float32. So no row costs more than
LARGEST_LOG_LOSS, as one without an answer does."""
LARGEST_LOG_LOSS = -float(np.log(LEAST_PROBABILITY))
EDGES = (1.0 / (1.0 + np.exp(-np.sinh(np.linspace(-3.5, 3.5, BINS - 1))))).astype(np.float32)
"""Between the bins; a probability that equals one lies above it. They are finest about 1/2, where the scores of a
timid model lie, and reach to log-odds of 16.5 on either side, where a float32 of nearly 1 ends."""
_CELLS_AT_ONCE = 2**20
"""Answers that are taken apart together: some 40 MB."""


class TallyError(ValueError):
    """Bytes that are no tally of this model, or tallies of different ones; the message says what is wrong."""


class Layout(NamedTuple):
    """What the counts of a tally are; it follows from the model."""

    classes: int
    """0 for a model of values, and for one of anomaly scores."""
    outputs: int
    """Of values: whose sums are kept apart; 0 for classes and for anomaly scores."""
    curves: int
    """Histograms."""
    labels: int
    """Numbers that the label of one row is."""
    has_interval: bool = False
    """Whether the labels between the lowest and the highest quantile are counted: of values that have several."""

    @property
    def is_each(self) -> bool:
        """Whether each class is there or not in every row, instead of one of them."""
        return self.classes > 0 and self.labels > 1

    @property
    def is_confusion(self) -> bool:
        """Whether there is a confusion matrix."""
        return 0 < self.classes <= MOST_CONFUSED and not self.is_each

    @property
    def is_scores(self) -> bool:
        """Whether it is of anomaly scores."""
        return not self.classes and not self.outputs

    @property
    def bins(self) -> int:
        """Return how many bins a histogram has."""
        return anomalies.BINS if self.is_scores else BINS

    @property
    def n_outcomes(self) -> int:
        """Return how many counts the matrix is, or what stands for it."""
        return self.classes * (self.classes + 1 if self.is_confusion else 3)

    @property
    def n_counts(self) -> int:
        """Return how many counts there are."""
        return self.n_outcomes + self.curves * 2 * self.bins + self.has_interval

    @property
    def n_sums(self) -> int:
        """Return how many sums there are."""
        return 4 * self.outputs if self.outputs else 2


class Tally(NamedTuple):
    """One scoring, or several merged. n: rows. broken: rows of them whose answer was not finite."""

    layout: Layout
    n: int
    broken: int
    counts: Int64
    """(layout.n_counts,): outcomes, then histograms."""
    sums: tuple[int, ...]
    """Log loss and Brier score in 2**-UNIT; or four of each output, as `values.Sums`."""

    @property
    def confusion(self) -> Int64 | None:
        """Return (K, K + 1): rows of each class by their answer, the last column for none; None with many classes."""
        k = self.layout.classes
        return self.counts[: self.layout.n_outcomes].reshape(k, k + 1) if self.layout.is_confusion else None

    @property
    def outcomes(self) -> Int64:
        """Return (3, K): rows of each class that were answered right; of others, answered so; of it, answered else."""
        if (confusion := self.confusion) is None:
            return self.counts[: self.layout.n_outcomes].reshape(3, self.layout.classes)
        right = np.diagonal(confusion)
        return np.stack([right, confusion[:, :-1].sum(axis=0) - right, confusion.sum(axis=1) - right])

    @property
    def histograms(self) -> Int64:
        """Return (C, 2, bins): of each class the scores of other rows and of its own, by bin, ascending."""
        return self.counts[self.layout.n_outcomes :].reshape(self.layout.curves, 2, self.layout.bins)

    @property
    def by_output(self) -> list[values.Sums]:
        """Return the sums of each output of values."""
        return [values.Sums(*self.sums[at : at + 4]) for at in range(0, len(self.sums), 4)]

    @property
    def log_loss(self) -> float:
        """Return the mean over rows, or all labels of rows, of -log p of the right class."""
        return self.sums[0] / (self.n * self.layout.labels << UNIT)

    @property
    def brier(self) -> float:
        """Return the mean over rows of the squared errors of all probabilities; of two classes, half of that; the
        mean over labels as well where a row has several.
        """
        return self.sums[1] / (self.n * self.layout.labels << UNIT)


def layout(model: ModelSpec, *, curves: bool = True) -> Layout:
    """Return what a tally of this model counts. curves: whether it has histograms, where there are few classes."""
    loss = losses.of(model)
    if loss.task == "scores":
        return Layout(0, 0, 1, 1)
    if loss.task == "values":
        k = loss.n_columns
        return Layout(0, k if k <= MOST_APART else 1, 0, k, len(loss.levels) > 1)
    k = loss.n_classes
    histograms = k if loss.task == "labels" else {1: 0, 2: 1}.get(k, k)
    return Layout(k, 0, histograms if curves and k <= MOST_CURVES else 0, loss.n_columns)


def empty(model: ModelSpec, *, curves: bool = True) -> Tally:
    """Return the tally of no rows."""
    found = layout(model, curves=curves)
    return Tally(found, 0, 0, np.zeros(found.n_counts, np.int64), (0,) * found.n_sums)


def tally(model: ModelSpec, answers: Float32, y: Labels, *, curves: bool = True) -> Tally:
    """Return the tally of (n, outputs) answers, as `Net.predict` gives them, and their labels, as a net takes them.

    curves: with histograms, of which the AUC and the average precision are made.
    """
    found = empty(model, curves=curves)
    loss, quantiles = losses.of(model), answers
    answers = loss.judged(answers)
    if found.layout.is_scores:
        return _of_scores(found.layout, answers[:, 0], y)
    if not found.layout.classes:
        within = [_within(quantiles, y, len(loss.levels))] if found.layout.has_interval else []
        return _of_values(found.layout, answers, y.reshape(answers.shape))._replace(counts=np.array(within, np.int64))
    rows = max(1, _CELLS_AT_ONCE // found.layout.classes)
    parts = (slice(start, start + rows) for start in range(0, len(y), rows))
    of = _of_labels if found.layout.is_each else _of_classes
    return merged([found, *(of(found.layout, answers[part], y[part]) for part in parts)])


def _of_values(found: Layout, answers: Float32, y: Labels) -> Tally:
    broken = int((~np.isfinite(answers)).any(axis=1).sum())
    columns = zip(answers.T, y.T, strict=True) if answers.shape[1] == found.outputs else [(answers.ravel(), y.ravel())]
    sums = tuple(sum_ for answer, label in columns for sum_ in values.of_column(answer, label))
    return Tally(found, len(y), broken, np.zeros(0, np.int64), sums)


def _of_scores(found: Layout, scores: Float32, y: Labels) -> Tally:
    """Return the tally of (n,) anomaly scores. One that is not finite is beyond all others."""
    counted = np.minimum(np.where(np.isfinite(scores), scores, np.float32(anomalies.LARGEST)), anomalies.LARGEST)
    sums = tuple(_whole(counted[y == kind].astype(np.float64)) for kind in (0, 1))
    return Tally(found, len(y), int((~np.isfinite(scores)).sum()), anomalies.histogram(scores, y).reshape(-1), sums)


def _within(quantiles: Float32, y: Labels, each: int) -> int:
    """Return how many labels lie between the lowest and the highest of their quantiles, of which there are so many."""
    y = y.reshape(len(quantiles), quantiles.shape[1] // each)
    return int(((quantiles[:, ::each] <= y) & (y <= quantiles[:, each - 1 :: each])).sum())


def _of_classes(found: Layout, answers: Float32, y: Labels) -> Tally:
    """Return the tally of some rows. An answer that is not finite is in no class; its probabilities count as 0."""
    n, k = answers.shape
    fine: Bools = np.logical_and.reduce(np.isfinite(answers), axis=1)
    if not fine.all():
        answers = np.where(fine[:, np.newaxis], answers, np.float32(0))
    answered = np.where(fine, answers.argmax(axis=1), k)
    if found.is_confusion:
        outcomes = np.bincount(y * (k + 1) + answered, minlength=found.n_outcomes)
    else:
        is_right = answered == y
        right = np.bincount(y[is_right], minlength=k)
        wrong = np.bincount(answered[fine & ~is_right], minlength=k)
        outcomes = np.concatenate([right, wrong, np.bincount(y[~is_right], minlength=k)])
    p = np.clip(answers[np.arange(n), y].astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    costs = np.where(fine, -np.log(p), LARGEST_LOG_LOSS)
    counts = np.concatenate([outcomes, *_histograms(found, answers, y)]).astype(np.int64)
    return Tally(found, n, int(n - fine.sum()), counts, (_whole(costs), _whole(_brier(answers, y, fine))))


def _of_labels(found: Layout, answers: Float32, y: Labels) -> Tally:
    """Return the tally of some rows of (n, K) marks, 0 or 1. Where an answer is not finite, its whole row is wrong."""
    n, there = len(y), y > 0
    fine: Bools = np.logical_and.reduce(np.isfinite(answers), axis=1)
    if not fine.all():
        answers = np.where(fine[:, np.newaxis], answers, np.float32(0))
    answered = np.where(fine[:, np.newaxis], answers > np.float32(0.5), ~there)
    outcomes = [(there & answered).sum(axis=0), (~there & answered).sum(axis=0), (there & ~answered).sum(axis=0)]
    p = answers.astype(np.float64)
    right = np.clip(np.where(there, p, 1.0 - p), LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    costs = np.where(fine[:, np.newaxis], -np.log(right), LARGEST_LOG_LOSS)
    squares = np.where(fine[:, np.newaxis], np.square(np.clip(p - there, -1.0, 1.0)), 1.0)
    counts = np.concatenate([*outcomes, *_histograms(found, answers, y)]).astype(np.int64)
    return Tally(found, n, int(n - fine.sum()), counts, (_whole(costs), _whole(squares)))


def _brier(answers: Float32, y: Labels, fine: Bools) -> Float64:
    squares = np.square(answers, dtype=np.float64).sum(axis=1)
    right = answers[np.arange(len(y)), y].astype(np.float64)
    found = np.clip(squares - 2.0 * right + 1.0, 0.0, 2.0)
    return np.where(fine, found, 2.0) * (0.5 if answers.shape[1] == 2 else 1.0)


def _histograms(found: Layout, answers: Float32, y: Labels) -> list[Int64]:
    if not found.curves:
        return []
    wanted = np.arange(1, 2) if found.curves == 1 else np.arange(found.curves)
    bins = np.searchsorted(EDGES, answers[:, wanted], side="right")
    own = y > 0 if found.is_each else y[:, np.newaxis] == wanted
    bins += own * BINS
    bins += np.arange(found.curves) * (2 * BINS)
    return [np.bincount(bins.ravel(), minlength=found.curves * 2 * BINS)]


def _whole(costs: Float64) -> int:
    return int(np.rint(costs * 2.0**UNIT).astype(np.int64).sum())


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies of one model, of one at least. Raises TallyError where they are of different ones."""
    first, *others = tallies
    total = first._replace(counts=first.counts.copy())
    for one in others:
        if one.layout != total.layout:
            raise TallyError(f"tallies of different models: {one.layout} and {total.layout}")
        np.add(total.counts, one.counts, out=total.counts)
        sums = tuple(map(operator.add, total.sums, one.sums))
        total = Tally(total.layout, total.n + one.n, total.broken + one.broken, total.counts, sums)
    return total


def rounded(one: Tally) -> Tally:
    """Return a tally whose sums of errors of values have 24 significant bits, as a float32: fewer bytes to send.

    Sums of squares are rounded up and those of magnitudes down. What is counted, and the sums of labels, stay exact.
    """
    if not one.layout.outputs:
        return one
    coarse = [s._replace(squared=_rounded(s.squared, up=True), absolute=_rounded(s.absolute)) for s in one.by_output]
    return one._replace(sums=tuple(sum_ for s in coarse for sum_ in s))


def _rounded(value: int, *, up: bool = False) -> int:
    shift = max(0, value.bit_length() - 24)
    return (value + ((1 << shift) - 1 if up else 0)) >> shift << shift


_CURVES = 1
"""In the first byte: there are histograms."""


def to_bytes(one: Tally) -> bytes:
    """Return a tally as bytes: one form for each."""
    writer = Writer()
    writer.gamma(one.n + 1)
    writer.gamma(one.broken + 1)
    writer.counts(one.counts)
    for sum_ in one.sums:
        writer.integer(sum_)
    return bytes([_CURVES if one.layout.curves else 0]) + writer.to_bytes()


def from_bytes(data: bytes, model: ModelSpec) -> Tally:
    """Return the tally that was written of this model. Raises TallyError, whatever the bytes."""
    if not data or data[0] not in (0, _CURVES):
        raise TallyError("a tally begins with 0 or 1")
    found = layout(model, curves=data[0] == _CURVES)
    if bool(found.curves) != (data[0] == _CURVES):
        raise TallyError("this model has no histograms")
    if len(data) > (most := max_bytes(model)):
        raise TallyError(f"{len(data):,} bytes where a tally of this model has {most:,} at most")
    try:
        return _checked(_read(Reader(data[1:]), found))
    except BitsError as error:
        raise TallyError(f"no tally: {error}") from error


def _read(reader: Reader, found: Layout) -> Tally:
    n = reader.gamma(MOST_ROWS + 1) - 1
    broken = reader.gamma(n + 1) - 1
    counts = reader.counts(found.n_counts, n * found.labels if found.has_interval else n)
    sums = tuple(reader.integer(most) for most in _most_sums(found, n))
    reader.end()
    return Tally(found, n, broken, counts, sums)


def _most_sums(found: Layout, n: int) -> tuple[int, ...]:
    """Return the largest magnitude that each sum over so many rows can have."""
    if found.is_scores:
        return (n * int(anomalies.LARGEST) << UNIT,) * 2
    if found.classes:
        n *= found.labels
        return n * (int(LARGEST_LOG_LOSS * 2**UNIT) + 1), n * 2 ** (UNIT + (found.classes != 2))
    n_labels = n * (found.labels // found.outputs)
    largest = 2 ** (128 + values.UNIT)
    return (n_labels * largest**2, n_labels * largest, n_labels * largest, n_labels * largest**2) * found.outputs


def _checked(one: Tally) -> Tally:
    """Return a tally back. Raises TallyError where what it says cannot all be."""
    if one.layout.classes:
        right, wrong, missed = one.outcomes
        if one.layout.is_each:
            _check_labels(one)
            return one
        rows, wanted = right + missed, slice(1, 2) if one.layout.curves == 1 else slice(None)
        if _total(rows) != one.n or _total(missed) - _total(wrong) != one.broken:
            raise TallyError(f"its answers by class are not those of {one.n} rows, {one.broken} of them without one")
        if (confusion := one.confusion) is not None and _total(confusion[:, -1]) != one.broken:
            raise TallyError(f"{one.broken} rows without an answer are not those of the confusion matrix")
        if one.layout.curves:
            others, own = one.histograms.sum(axis=2).T
            if not (np.array_equal(own, rows[wanted]) and np.array_equal(others, one.n - rows[wanted])):
                raise TallyError(f"its histograms are not those of {one.n} rows of these classes")
        if min(one.sums) < 0:
            raise TallyError("a sum of losses is below 0")
        return one
    if one.layout.is_scores:
        if _total(one.counts) != one.n or one.broken > int(one.histograms[0, :, -1].sum()):
            raise TallyError(f"its histograms are not those of {one.n} rows, {one.broken} of them without a score")
        if min(one.sums) < 0:
            raise TallyError("a sum of scores is below 0")
        return one
    n = one.n * (one.layout.labels // one.layout.outputs)
    for sums in one.by_output:
        if min(sums.squared, sums.absolute, sums.y_squared) < 0:
            raise TallyError("a sum of squares or magnitudes is below 0")
        if sums.y**2 > n * sums.y_squared or sums.absolute**2 > n * sums.squared:
            raise TallyError(f"its sums are not those of {one.n} rows: a square of a sum is above n times the squares")
    return one


def _check_labels(one: Tally) -> None:
    """Raise TallyError where the outcomes of labels that are there or not cannot all be."""
    right, wrong, missed = one.outcomes
    there = right + missed  # each is n at most
    if (there > one.n).any() or (wrong > one.n - there).any() or (wrong + missed < one.broken).any():
        raise TallyError(f"its answers by label are not those of {one.n} rows, {one.broken} of them without one")
    if one.layout.curves:
        others, own = one.histograms.sum(axis=2).T
        if not (np.array_equal(own, there) and np.array_equal(others, one.n - there)):
            raise TallyError(f"its histograms are not those of {one.n} rows of these labels")
    if min(one.sums) < 0:
        raise TallyError("a sum of losses is below 0")


def _total(counts: Int64) -> int:
    return sum(counts.tolist())


@functools.lru_cache(maxsize=64)
def _max_bytes(found: Layout, n: int) -> int:
    outcomes = found.classes if found.is_each else 1 if found.is_confusion else 2
    total = n * (outcomes + found.curves) if found.classes else n * (found.curves + found.labels * found.has_interval)
    bits = 2 * (2 * (n + 1).bit_length()) + most_bits_of_counts(found.n_counts, total)
    return 2 + (bits + sum(map(most_bits_of_integer, _most_sums(found, n)))) // 8


def max_bytes(model: ModelSpec, n: int = MOST_ROWS, *, curves: bool = True) -> int:
    """Return the most bytes that a tally of n rows, or fewer, of this model has."""
    return _max_bytes(layout(model, curves=curves), n)
