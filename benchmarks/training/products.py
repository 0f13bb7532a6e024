"""The matrix products that a step of a perceptron cannot do without, and nothing else: neither bias nor SGD."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from models.job import ModelSpec
from models.nets.layers.product import multiply


def stepper(model: ModelSpec, batch: int) -> Callable[[], None]:
    """Return what does them as they are written, x W^T, d^T x and d W: of all layers, but for d W of the first one."""
    generator = np.random.default_rng(0)
    shapes = list(pairwise((model.inputs, *model.hidden, model.outputs)))
    weights = [generator.random((n_out, n_in), np.float32) for n_in, n_out in shapes]
    gradients = [np.empty_like(weight) for weight in weights]
    rows = [generator.random((batch, n_in), np.float32) for n_in, _ in shapes]
    given = [np.empty((batch, n_out), np.float32) for _, n_out in shapes]
    back = [np.empty((batch, n_in), np.float32) for n_in, _ in shapes]

    def step() -> None:
        for weight, x, a in zip(weights, rows, given, strict=True):
            np.matmul(x, weight.T, out=a)
        for i in reversed(range(len(weights))):
            np.matmul(given[i].T, rows[i], out=gradients[i])
            if i:
                np.matmul(given[i], weights[i], out=back[i])

    return step


def stepper_in_pieces(model: ModelSpec, batch: int) -> Callable[[], None]:
    """Return what does the same as fast as we know how to: each example a column, in pieces that are not packed."""
    generator = np.random.default_rng(0)
    shapes = list(pairwise((model.inputs, *model.hidden, model.outputs)))
    weights = [generator.random((n_out, n_in), np.float32) for n_in, n_out in shapes]
    gradients = [np.empty_like(weight) for weight in weights]
    columns = [generator.random((batch, n_in), np.float32).T for n_in, _ in shapes]
    given = [np.empty((n_out, batch), np.float32) for _, n_out in shapes]
    back = [np.empty((n_in, batch), np.float32) for n_in, _ in shapes]

    def step() -> None:
        for weight, column, a in zip(weights, columns, given, strict=True):
            multiply(weight, column, a)
        for i in reversed(range(len(weights))):
            multiply(given[i], columns[i].T, gradients[i])
            if i:
                np.matmul(weights[i].T, given[i], out=back[i])

    return step
