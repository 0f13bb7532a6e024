"""Which net a draft suggests, by the shape of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from models.job import ModelSpec

_FEWEST = 8
"""Pixels of a side, or moments of a window, below which convolutions see nothing that a dense layer does not."""
_MOST_CHANNELS = 4
_ADAM_RATE = 0.005


class Suggested(NamedTuple):
    """A kind of net, and what a job says of it."""

    kind: str
    hidden: tuple[int, ...]
    options: dict[str, int | list[int]]
    why: str
    adam_rate: float | None = None
    """The learning rate of Adam, where that is the usual optimizer of such nets; None: SGD."""


def of_row(shape: Sequence[int], outputs: int, *, are_bytes: bool, are_classes: bool) -> Suggested:
    """Return the net for rows of this shape: (features,), windows of (moments, columns), or images of bytes, (height,
    width) or (height, width, channels).
    """
    n_inputs = math.prod(shape)
    found = _of_images(shape) if are_bytes else _of_windows(shape, are_classes=are_classes)
    if found is not None and _fits(found, n_inputs, outputs):
        return found
    return Suggested("mlp", (min(256, max(16, 2 ** math.ceil(math.log2(n_inputs + 1)))),), {}, "")


def _of_images(shape: Sequence[int]) -> Suggested | None:
    if len(shape) not in (2, 3) or min(shape[:2]) < _FEWEST or (len(shape) == 3 and shape[2] > _MOST_CHANNELS):
        return None
    options: dict[str, int | list[int]] = {"height": shape[0], "width": shape[1], "channels": [16, 32], "kernel": 3}
    return Suggested("cnn2d", (), options, "Rows are images: convolutions see a few pixels at a time.", _ADAM_RATE)


def _of_windows(shape: Sequence[int], *, are_classes: bool) -> Suggested | None:
    if len(shape) != 2 or shape[0] < _FEWEST:
        return None
    if not are_classes:
        why = "Rows are windows, and labels values: a recurrent net reads them moment by moment."
        return Suggested("gru", (16,), {"columns": shape[1], "units": 32}, why, _ADAM_RATE)
    options: dict[str, int | list[int]] = {"columns": shape[1], "channels": [16, 32], "kernel": 5}
    return Suggested("cnn1d", (), options, "Rows are windows: convolutions see a few moments at a time.", _ADAM_RATE)


def _fits(found: Suggested, inputs: int, outputs: int) -> bool:
    """Return whether there is such a net; one that is too large is none."""
    try:
        ModelSpec(found.kind, inputs, found.hidden, outputs, options=dict(found.options))
    except ValueError:
        return False
    return True
