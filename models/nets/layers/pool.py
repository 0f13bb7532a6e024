"""Pooling: of every few places their largest or their mean, channel by channel; and the mean of all places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from models.nets.layers.layer import Array, Place, Shape
from models.nets.op import Op
from models.params import Float32

Pooling = Literal["max", "average"]


class _OfPlaces:
    """What makes one place of several, and learns nothing itself."""

    tensors = ()
    keeps_output = False

    def backward(
        self,
        place: Place,
        tensors: Sequence[Float32],  # noqa: ARG002  (it has none)
        gradients: Sequence[Float32 | None],  # noqa: ARG002
        da: Float32,
        *,
        first: bool,
    ) -> Float32 | None:
        """See `Layer`."""
        return None if first else self._spread(place, da)

    def _spread(self, place: Place, da: Float32) -> Float32:
        """Return the gradient of what came in; da is used up."""
        raise NotImplementedError


class Pool(_OfPlaces):
    """See `models.nets.layers.layer.Layer`. x: (n, length, channels) or (n, height, width, channels).

    Of `size` places side by side, or size x size, one is made; what is left over at the end is not looked at. Where
    several are the largest, the first one has the gradient, as in Torch. One axis is gone through after the other, the
    last one first.
    """

    def __init__(self, shape: Shape, size: int, pooling: Pooling) -> None:
        """Make it for examples of a shape, channels last. Raises ValueError where an axis is shorter than `size`."""
        if size > min(shape[:-1]):
            raise ValueError(f"a pool of {size} is longer than the {min(shape[:-1])} that are there")
        self._size, self._pooling = size, pooling
        self._shapes = [shape]
        for axis in reversed(range(len(shape) - 1)):
            before = self._shapes[-1]
            self._shapes.append((*before[:axis], before[axis] // size, *before[axis + 1 :]))
        self.shape: Shape = self._shapes[-1]
        self.n_units = sum(math.prod(one) for one in self._shapes[1:])

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:  # noqa: ARG002  (it has none)
        """See `Layer`."""
        place.kept = x if place.free else None
        for stage, shape in enumerate(self._shapes[1:]):
            a = place.array(f"a{stage}", (len(x), *shape))
            parts = self._parts(x, stage)
            if self._pooling == "max":
                self._largest(place, stage, parts, a)
            else:
                np.add(parts[0], parts[1], out=a)
                for part in parts[2:]:
                    a += part
            x = a
        if self._pooling == "average":
            x *= 1.0 / self._size ** (len(self._shapes) - 1)
        return x

    def _spread(self, place: Place, da: Float32) -> Float32:
        if self._pooling == "average":
            da *= 1.0 / self._size ** (len(self._shapes) - 1)
        for stage in reversed(range(len(self._shapes) - 1)):
            shape = (len(da), *self._shapes[stage])
            dx: Float32 = place.kept if not stage and place.kept is not None else place.array(f"dx{stage}", shape)
            if math.prod(self._shapes[stage]) != self._size * math.prod(self._shapes[stage + 1]):
                dx.fill(0.0)  # what is left over
            self._give_back(place, stage, da, self._parts(dx, stage))
            da = dx
        return da

    def _parts(self, x: Float32, stage: int) -> list[Float32]:
        """Return views of x at a stage: all first places of the groups, all second ones, …"""
        axis = len(self._shapes) - 1 - stage
        end = self._shapes[stage + 1][axis - 1] * self._size
        before = (slice(None),) * axis
        return [x[(*before, slice(at, end, self._size))] for at in range(self._size)]

    def _largest(self, place: Place, stage: int, parts: list[Float32], a: Float32) -> None:
        """Write the largest of the parts, and, while training, which of them are larger than all before them."""
        so_far = parts[0]
        for at, part in enumerate(parts[1:], 1):
            if place.draw is not None:
                np.greater(part, so_far, out=self._mask(place, stage, at, a.shape))
            np.maximum(so_far, part, out=a)
            so_far = a

    def _give_back(self, place: Place, stage: int, da: Float32, parts: list[Float32]) -> None:
        """Write the gradient of the parts; da is used up."""
        if self._pooling == "average":
            for part in parts:
                part[...] = da
            return
        for at in reversed(range(1, self._size)):
            np.multiply(da, self._mask(place, stage, at, da.shape), out=parts[at])
            da -= parts[at]
        parts[0][...] = da

    def _mask(self, place: Place, stage: int, at: int, shape: Shape) -> Array:
        return place.array(f"larger{stage}.{at}", shape, np.bool_)

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        name = {"max": "MaxPool", "average": "AvgPool"}[self._pooling]
        return getattr(nn, f"{name}{len(self._shapes) - 1}d")(self._size)

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        sizes = [self._size] * (len(self._shapes) - 1)
        type_ = {"max": "MaxPool", "average": "AveragePool"}[self._pooling]
        return (Op(type_, (value,), f"{name}.output", {"kernel_shape": sizes, "strides": sizes}),)


class MeanOfPlaces(_OfPlaces):
    """See `models.nets.layers.layer.Layer`. x: (n, *sizes, channels) to (n, channels): global average pooling."""

    def __init__(self, shape: Shape) -> None:
        self._inputs = shape
        self.shape: Shape = shape[-1:]
        self.n_units = shape[-1]

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:  # noqa: ARG002  (it has none)
        """See `Layer`."""
        a = place.array("a", (len(x), *self.shape))
        np.add.reduce(x.reshape(len(x), -1, *self.shape), axis=1, out=a)
        a *= 1.0 / math.prod(self._inputs[:-1])
        return a

    def _spread(self, place: Place, da: Float32) -> Float32:
        da *= 1.0 / math.prod(self._inputs[:-1])
        dx = place.array("dx", (len(da), *self._inputs))
        dx.reshape(len(da), -1, *self.shape)[...] = da[:, np.newaxis]
        return dx

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        pool = getattr(nn, f"AdaptiveAvgPool{len(self._inputs) - 1}d")
        return nn.Sequential(pool(1), nn.Flatten())

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        return (
            Op("GlobalAveragePool", (value,), f"{name}.mean"),
            Op("Flatten", (f"{name}.mean",), f"{name}.output", {"axis": 1}),
        )
