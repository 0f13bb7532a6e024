"""A convolution in two steps, of far fewer numbers: each channel with a kernel of its own, then channels at each place.

Howard et al. 2017, MobileNets, section 3.1. The first step has no bias: the second has one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from models.nets.layers.axis import Axis, Padding, attributes_of, module_of
from models.nets.layers.layer import Place, Shape
from models.nets.layers.product import multiply
from models.nets.op import Op
from models.params import Float32, Spec, TensorSpec


class Depthwise:
    """See `models.nets.layers.layer.Layer`. x: (n, length, channels) or (n, height, width, channels).

    weight: (channels, 1, *kernel), as torch.nn.Conv1d and Conv2d with groups = channels have it.
    """

    keeps_output = False

    def __init__(self, shape: Shape, kernel: int, stride: int = 1, padding: Padding = "same") -> None:
        """Make it for examples of a shape, channels last. Raises ValueError where the kernel is longer than an axis."""
        *sizes, self._channels = shape
        self._axes = tuple(Axis.of(size, kernel, stride, padding) for size in sizes)
        self._taps = tuple(axis.kernel for axis in self._axes)
        self._padded = (*(axis.padded for axis in self._axes), self._channels)
        self._inside = (slice(None), *(axis.inside for axis in self._axes))
        self.shape: Shape = (*(axis.outputs for axis in self._axes), self._channels)
        self.tensors: Spec = (TensorSpec("weight", (self._channels, 1, *self._taps)),)
        self.n_units = 2 * math.prod(self.shape) + math.prod(self._padded)
        self.n_spread = math.prod(self._taps) * math.prod(self.shape[-2:])
        """Numbers that its weights are, each once for every place of the last axis, however many rows there are."""

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        padded = place.array("padded", (len(x), *self._padded))
        padded.fill(0.0)
        padded[self._inside] = x
        place.kept = padded
        a, part = (place.array(name, (len(x), *self.shape)) for name in ("a", "part"))
        into = a
        for row, met in self._met(place, tensors[0], padded):
            np.multiply(met, row, out=into)
            if into is part:
                a += part
            into = part
        return a

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """See `Layer`."""
        padded: Float32 = place.kept
        part = place.array("part", da.shape)
        if (weight := gradients[0]) is not None:
            flat = part.reshape(-1, self._channels)
            ones = _ones(place, len(flat))
            into = place.array("taps", (math.prod(self._taps), self._channels))
            for tap, (_, met) in zip(into, self._met(place, tensors[0], padded), strict=True):
                np.multiply(met, da, out=part)
                np.matmul(ones, flat, out=tap)
            weight.reshape(self._channels, -1)[...] = into.T
        if first:
            return None
        padded.fill(0.0)  # seen for the last time
        for row, met in self._met(place, tensors[0], padded):
            np.multiply(da, row, out=part)
            met += part
        dx = place.array("dx", (len(da), *(axis.size for axis in self._axes), self._channels))
        dx[...] = padded[self._inside]
        return dx

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        return module_of(self._axes, self._channels, self._channels, nn, groups=self._channels, bias=False)

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        attributes = attributes_of(self._axes) | {"group": self._channels}
        return (Op("Conv", (value, f"{name}.weight"), f"{name}.output", attributes),)

    def _met(self, place: Place, weight: Float32, padded: Float32) -> Iterator[tuple[Float32, Float32]]:
        """Yield of each tap its weights, once for each place of the last axis, and a view of what it meets."""
        rows = place.array("rows", (math.prod(self._taps), *self.shape[-2:]))
        rows[...] = weight.reshape(self._channels, -1).T[:, np.newaxis]
        for row, taps in zip(rows, itertools.product(*map(range, self._taps)), strict=True):
            yield row, padded[(slice(None), *(axis.at(tap) for axis, tap in zip(self._axes, taps, strict=True)))]


class Pointwise:
    """See `models.nets.layers.layer.Layer`. x: (n, *sizes, channels): the same dense layer at each place.

    weight: (outputs, channels, 1) or (outputs, channels, 1, 1), as torch.nn.Conv1d and Conv2d have it.
    bias: (outputs,).
    """

    keeps_output = False

    def __init__(self, shape: Shape, outputs: int) -> None:
        *sizes, self._channels = shape
        self.shape: Shape = (*sizes, outputs)
        self.tensors: Spec = (
            TensorSpec("weight", (outputs, self._channels, *(1 for _ in sizes))),
            TensorSpec("bias", (outputs,)),
        )
        self.n_units = math.prod(self.shape)

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        weight, bias = tensors
        place.kept = x
        a = place.array("a", (len(x), *self.shape))
        multiply(x.reshape(-1, self._channels), _flat(weight).T, a.reshape(-1, self.shape[-1]))
        a += bias
        return a

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """See `Layer`."""
        x, rows = place.kept.reshape(-1, self._channels), da.reshape(-1, self.shape[-1])
        weight, bias = gradients
        if weight is not None:
            multiply(rows.T, x, _flat(weight))
        if bias is not None:
            np.matmul(_ones(place, len(rows)), rows, out=bias)
        if first:
            return None
        dx = place.array("dx", place.kept.shape)
        multiply(rows, _flat(tensors[0]), dx.reshape(-1, self._channels))
        return dx

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        return getattr(nn, f"Conv{len(self.shape) - 1}d")(self._channels, self.shape[-1], 1)

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        return (Op("Conv", (value, f"{name}.weight", f"{name}.bias"), f"{name}.output"),)


def _flat(weight: Float32) -> Float32:
    return weight.reshape(weight.shape[:2])


def _ones(place: Place, n: int) -> Float32:
    """Return so many, to sum rows by a product, which is faster than a sum."""
    ones = place.array("ones", (n,))
    ones.fill(1.0)
    return ones
