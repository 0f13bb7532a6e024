"""Some of a device's rows, raw, that a model is calibrated on and measured with before it goes into service here."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from models.data.dataset import Dataset
from models.nets.losses import Labels
from models.params import Float32

CALIBRATION_ROWS = 256
TEST_ROWS = 1024
FEWEST = 20
"""Rows of each kind that say anything."""


class Sample(NamedTuple):
    """calibration: (n, inputs) float32. X, y: other rows with their labels, as the net takes both."""

    calibration: Float32
    X: Float32
    y: Labels


def sample_of(data: Dataset, device: str) -> Sample | None:
    """Return some rows of a device, the same every time; None where it has too few.

    What is measured is measured on rows that nobody trains on, where the device holds such back; else on rows that are
    not calibrated on.
    """
    rng = np.random.default_rng(zlib.crc32(device.encode()))
    order = rng.permutation(len(data.y))
    held_out = data.held_out
    if held_out is not None and len(held_out.y) >= FEWEST:
        chosen, tested, of = order, rng.permutation(len(held_out.y)), held_out
    else:
        half = len(order) // 2
        chosen, tested, of = order[:half], order[half:], data
    chosen, tested = np.sort(chosen[:CALIBRATION_ROWS]), np.sort(tested[:TEST_ROWS])
    if min(len(chosen), len(tested)) < FEWEST:
        return None
    return Sample(_flat(data.X[chosen]), _flat(of.X[tested]), of.y[tested])


def _flat(X: Float32) -> Float32:
    return np.ascontiguousarray(X, np.float32).reshape(len(X), -1)
