"""Anomaly scores as counts, where a threshold lies among them, and how well it tells anomalies from normal rows.

A histogram is (2, BINS) int64: how many normal rows, and how many known anomalies, score within each bin. Bins are the
same everywhere, eighths of an octave from 2**-20 to 2**20, so that counts add up exactly and a threshold, which is an
edge between two, has the same share of rows above it whoever counts. Bin i is above EDGES[i - 1] and up to EDGES[i].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from models.integers import Int64
from models.measures import curves
from models.measures.table import SCORES
from models.nets.losses import Labels
from models.params import Float32

PER_OCTAVE = 8
"""A threshold is up to 2**(1/8), 9 %, above the least that would do: half of that in the units of a row."""
OCTAVES = 20
EDGES = np.exp2(np.arange(-OCTAVES * PER_OCTAVE, OCTAVES * PER_OCTAVE + 1) / PER_OCTAVE).astype(np.float32)
BINS = len(EDGES) + 1
"""The last one is of scores beyond every edge, and of those that are no number."""
LARGEST = float(EDGES[-1])
"""What a score counts as in a sum, at most."""


def bins_of(scores: Float32) -> npt.NDArray[np.int64]:
    """Return (n,) the bin of each of (n,) scores."""
    return np.searchsorted(EDGES, np.where(np.isnan(scores), np.float32(np.inf), scores), side="left")


def histogram(scores: Float32, y: Labels) -> Int64:
    """Return the histogram of (n,) scores of rows, whose labels are 0 or 1."""
    return np.bincount(bins_of(scores) + y * BINS, minlength=2 * BINS).astype(np.int64).reshape(2, BINS)


def threshold_of(normal: Int64, share: float) -> float:
    """Return the lowest edge that so large a share of the rows does not exceed; the highest where none is as high.

    normal: (BINS,) how many rows score within each bin, one at least.
    """
    below = np.cumsum(normal)
    at = int(np.searchsorted(below, share * int(below[-1]) * (1 - 1e-12), side="left"))
    return float(EDGES[min(at, len(EDGES) - 1)])


def at_threshold(counts: Int64, threshold: float) -> dict[str, float]:
    """Return what a threshold is worth: the share of normal rows above it, and of anomalies that it finds.

    counts: a histogram. "false_alarms", and where there are anomalies "recall", "precision" (0 where none is told) and
    "f1". What is not defined is left out.
    """
    above = int(np.searchsorted(EDGES, np.float32(threshold), side="left")) + 1
    (normal, anomalies), (wrong, right) = counts.sum(axis=1).tolist(), counts[:, above:].sum(axis=1).tolist()
    found = {"false_alarms": wrong / normal} if normal else {}
    if anomalies:
        found["recall"] = right / anomalies
        found["precision"] = right / max(1, right + wrong)
        found["f1"] = 2 * right / (anomalies + right + wrong)
    return found


def curves_of(counts: Int64) -> dict[str, float]:
    """Return AUC and average precision, as if all scores of a bin were equal; none where one kind of row is missing."""
    both = {
        "auc": curves.roc_auc_of_bins(counts),
        "average_precision": curves.average_precision_of_bins(counts) if counts[0].any() else None,
    }
    return {name: value for name, value in both.items() if value is not None}


def exact_curves(scores: Float32, y: Labels) -> dict[str, float]:
    """Return the same of (n,) scores as they are."""
    one = curves.ranked(np.where(np.isnan(scores), np.float32(np.inf), scores), y == 1)
    if not len(one.negatives) or not len(one.positives):
        return {}
    both = {"auc": curves.roc_auc(one), "average_precision": curves.average_precision(one)}
    return {name: value for name, value in both.items() if value is not None}


def named(counts: Int64) -> dict[str, float]:
    """Return a histogram as measures are kept: "scores:1:200" is how many known anomalies score within bin 200."""
    return {f"{SCORES}:{kind}:{at}": float(counts[kind, at]) for kind, at in np.argwhere(counts).tolist()}


def of_named(found: Mapping[str, float]) -> Int64 | None:
    """Return the histogram that `named` made; None where there is none."""
    counts = np.zeros((2, BINS), np.int64)
    for name, value in found.items():
        base, _, place = name.partition(":")
        kind, _, at = place.partition(":")
        if base == SCORES and kind in ("0", "1") and at.isdecimal() and int(at) < BINS:
            counts[int(kind), int(at)] = int(value)
    return counts if counts.any() else None
