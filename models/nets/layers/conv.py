"""A convolution along one axis (windows) or two (images): a kernel goes over all places and gives channels for each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from models.nets.layers.axis import Axis, Padding, attributes_of, module_of
from models.nets.layers.columns import Columns
from models.nets.layers.layer import Place, Shape
from models.nets.layers.product import multiply
from models.nets.op import Op
from models.params import Float32, Spec, TensorSpec


class Conv:
    """See `models.nets.layers.layer.Layer`. x: (n, length, channels) or (n, height, width, channels).

    weight: (outputs, channels, *kernel), as torch.nn.Conv1d and Conv2d have it; bias: (outputs,).
    """

    keeps_output = False

    def __init__(self, shape: Shape, outputs: int, kernel: int, stride: int = 1, padding: Padding = "same") -> None:
        """Make it for examples of a shape, channels last. Raises ValueError where the kernel is longer than an axis."""
        *sizes, channels = shape
        self._axes = tuple(Axis.of(size, kernel, stride, padding) for size in sizes)
        taps = tuple(axis.kernel for axis in self._axes)
        self._channels, self._outputs = channels, outputs
        self.shape: Shape = (*(axis.outputs for axis in self._axes), outputs)
        self.tensors: Spec = (TensorSpec("weight", (outputs, channels, *taps)), TensorSpec("bias", (outputs,)))
        self.n_units = math.prod(self.shape)
        self._columns = Columns(self._axes, channels, ones=True)
        self.n_seen = self._columns.n_places * self._columns.width
        """Numbers that it sees of one example, at all places."""
        self._back = Columns(tuple(axis.back for axis in self._axes), outputs)

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        a = place.array("a", (len(x), *self.shape))
        matrix, rows = self._matrix(place, tensors), a.reshape(-1, self._outputs)
        for examples, some in self._columns.blocks(len(x)):
            multiply(self._columns.of(place, x[examples]), matrix, rows[some])
        place.kept = x
        return a

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """See `Layer`."""
        if any(gradient is not None for gradient in gradients):
            self._of_tensors(place, gradients, da)
        if first:
            return None
        dx: Float32 = place.array("dx", (len(da), *(axis.size for axis in self._axes), self._channels))
        strided = any(axis.stride > 1 for axis in self._axes)
        (self._spread if strided else self._turned)(place, tensors[0], da, dx)
        return dx

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        return module_of(self._axes, self._channels, self._outputs, nn)

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        inputs = (value, f"{name}.weight", f"{name}.bias")
        return (Op("Conv", inputs, f"{name}.output", attributes_of(self._axes)),)

    def _matrix(self, place: Place, tensors: Sequence[Float32]) -> Float32:
        """Return weight and bias as what columns are multiplied by, (width + 1, outputs)."""
        weight, bias = tensors
        matrix = place.array("matrix", (self._columns.width + 1, self._outputs))
        matrix[:-1].reshape(*weight.shape[2:], *weight.shape[1::-1])[...] = _taps_first(weight)
        matrix[-1] = bias
        return matrix

    def _of_tensors(self, place: Place, gradients: Sequence[Float32 | None], da: Float32) -> None:
        """Write the gradients of weight and bias: of each block of places, summed."""
        x, rows = place.kept, da.reshape(-1, self._outputs)
        total = place.array("total", (self._columns.width + 1, self._outputs))
        for examples, some in self._columns.blocks(len(x)):
            seen = self._columns.of(place, x[examples])
            if not some.start:
                multiply(seen.T, rows[some], total)
            else:
                total += multiply(seen.T, rows[some], place.array("part", total.shape))
        weight, bias = gradients
        if weight is not None:
            _taps_first(weight)[...] = total[:-1].reshape(*weight.shape[2:], *weight.shape[1::-1])
        if bias is not None:
            bias[...] = total[-1]

    def _turned(self, place: Place, weight: Float32, da: Float32, dx: Float32) -> None:
        """Write dx where the stride is 1: a convolution of da with the kernel turned round."""
        turned = weight[(slice(None), slice(None), *[slice(None, None, -1)] * len(self._axes))]
        matrix = place.array("turned", (self._back.width, self._channels))
        matrix.reshape(*weight.shape[2:], *weight.shape[:2])[...] = _taps_first(turned).swapaxes(-1, -2)
        rows = dx.reshape(-1, self._channels)
        for examples, some in self._back.blocks(len(da)):
            multiply(self._back.of(place, da[examples]), matrix, rows[some])

    def _spread(self, place: Place, weight: Float32, da: Float32, dx: Float32) -> None:
        """Write dx for any stride: what each tap gives to the places that it has met."""
        padded = place.array("dx padded", (len(da), *(axis.padded for axis in self._axes), self._channels))
        padded.fill(0.0)
        part = place.array("dx part", (*da.shape[:-1], self._channels))
        matrix = place.array("taps", (*weight.shape[2:], *weight.shape[:2]))
        matrix[...] = _taps_first(weight).swapaxes(-1, -2)
        for taps in itertools.product(*(range(axis.kernel) for axis in self._axes)):
            multiply(da.reshape(-1, self._outputs), matrix[taps], part.reshape(-1, self._channels))
            met = padded[(slice(None), *(axis.at(tap) for axis, tap in zip(self._axes, taps, strict=True)))]
            met += part
        dx[...] = padded[(slice(None), *(axis.inside for axis in self._axes))]


def _taps_first(weight: Float32) -> Float32:
    """Return a view of (outputs, channels, *kernel) as (*kernel, channels, outputs)."""
    return weight.transpose(*range(2, weight.ndim), 1, 0)
