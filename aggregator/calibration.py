"""The threshold above which a row is an anomaly: the fleet's, of how its devices' rows score. Pure.

    histogram of a device ──▶ all together, each weighing its rows, at most its share ──▶ the edge that `normal_share`
                                                                                       of normal rows do not exceed

What a device says is a claim. It is bounded as in federated.py: it weighs the rows that it has scored, at most those
that it trains on, and at most `share` of all. So of a share s at most, all of whose scores are 0, the threshold falls
to that which (normal_share - s) / (1 - s) of the others' rows do not exceed: of 0.99 and a half, to their 0.98. And it
is no more than FACTOR times the median of the devices' own thresholds, one voice each, where three or more speak: so
fewer than half of them cannot make it as high as they like, and hide every anomaly.

Rows that are known to be anomalies count for nothing in it; they say how many of them it finds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from aggregator import shares
from models.integers import Int64
from models.measures import anomalies

FACTOR = 4.0
"""Times the median of the devices' own thresholds: twice, in the units of a row. A whole number of bins."""
FEWEST_VOICES = 3
"""Devices whose median one of them cannot choose."""
_PARTS = 1000
"""Into so many a row is divided, where devices weigh less than their rows."""


class Scored(NamedTuple):
    """What one device says. weight: of its rows. counts: (2, BINS) how its normal rows and its anomalies score."""

    weight: int
    counts: Int64


class Calibrated(NamedTuple):
    """A threshold, and what it is worth on the devices' rows, by measure."""

    threshold: float
    worth: dict[str, float]


def calibrated(voices: Sequence[Scored], normal_share: float, share: float) -> Calibrated | None:
    """Return the threshold of a fleet; None where no device has scored a normal row. share: of one device, at most."""
    speaking = [voice for voice in voices if voice.counts[0].any()]
    if not speaking:
        return None
    cap = shares.cap_for([voice.weight for voice in speaking], share)
    whole = np.zeros((2, anomalies.BINS), np.int64)
    for voice in speaking:  # whole numbers, in any order
        whole += np.rint(voice.counts * (_PARTS * min(voice.weight, cap) / int(voice.counts.sum()))).astype(np.int64)
    if not whole[0].any():
        return None
    threshold = anomalies.threshold_of(whole[0], normal_share)
    if len(speaking) >= FEWEST_VOICES:
        own = [anomalies.threshold_of(voice.counts[0], normal_share) for voice in speaking]
        threshold = min(threshold, FACTOR * statistics.median_low(own))
    return Calibrated(threshold, anomalies.at_threshold(whole, threshold))
