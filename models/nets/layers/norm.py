"""Norms that look at one example alone, so that nothing stays behind on a device and no batch is too small.

a = weight * (x - mean) / sqrt(variance + EPSILON) + bias,          weight and bias: (channels,)

layer norm (Ba et al. 2016)     mean and variance over the channels, at each position of its own
group norm (Wu and He 2018)     over all positions and the channels of a group: groups = 1 is over all of an example
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.nets.layers.layer import Place, Shape
from models.nets.op import Op
from models.params import Float32, Spec, TensorSpec

EPSILON = 1e-5


class _Norm:
    """x is looked at as (rows, positions, groups * width): each row and group has a mean and a variance.

    Raises ValueError where that is of one number.
    """

    keeps_output = False

    def __init__(self, shape: Shape, positions: int, groups: int) -> None:
        self.shape = shape
        channels = shape[-1]
        self._parts, self._groups = (positions, channels), (groups, channels // groups)
        if positions * channels == groups:
            raise ValueError(
                "options.norm is over one number alone somewhere, of which it makes 0 whatever it is, so that nothing "
                "of a row would go on: have more units or channels there, or fewer groups, or leave the norm out"
            )
        self.tensors: Spec = (TensorSpec("weight", (channels,)), TensorSpec("bias", (channels,)))
        self.n_units = 2 * math.prod(shape)

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        weight, bias = tensors
        X = x.reshape(-1, *self._parts)
        normed, a = place.array("normed", X.shape), place.array("a", X.shape)
        np.subtract(X, self._means(place, "mean", X), out=normed)
        np.multiply(normed, normed, out=a)
        rate = self._means(place, "rate", a)
        rate += np.float32(EPSILON)
        np.sqrt(rate, out=rate)
        np.reciprocal(rate, out=rate)
        normed *= rate
        place.kept = normed, rate
        np.multiply(normed, weight, out=a)
        a += bias
        return a.reshape(x.shape)

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """With g = da * weight and u = (x - mean) * rate:   dx = rate * (g - mean(g) - u * mean(g * u))."""
        normed, rate = place.kept
        d = da.reshape(normed.shape)
        product = np.multiply(d, normed, out=place.array("product", d.shape))
        for gradient, by in zip(gradients, (product, d), strict=True):
            if gradient is not None:
                np.add.reduce(by.reshape(-1, by.shape[-1]), axis=0, out=gradient)
        if first:
            return None
        weight = tensors[0]
        d *= weight
        product *= weight
        d -= self._means(place, "mean", d)
        normed *= self._means(place, "slope", product)
        d -= normed
        d *= rate
        return d.reshape(da.shape)

    def _means(self, place: Place, what: str, X: Float32) -> Float32:
        """Return the mean of each row and group, (rows, 1, channels), or (rows, 1, 1) of one group."""
        rows, positions, channels = X.shape
        groups, width = self._groups
        sums = X
        if positions > 1:
            sums = np.add.reduce(X, axis=1, out=place.array("sums", (rows, channels)))
        means = place.array(what, (rows, groups))
        np.add.reduce(sums.reshape(rows, groups, width), axis=2, out=means)
        means /= np.float32(positions * width)
        if groups == 1:
            return means.reshape(rows, 1, 1)
        each = place.array(f"each {what}", (rows, groups, width))
        each[...] = means[:, :, np.newaxis]
        return each.reshape(rows, 1, channels)


class LayerNorm(_Norm):
    """See `models.nets.layers.layer.Layer`. x: (n, *shape)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, 1, 1)

    def module(self, nn: Any) -> Any:
        """See `Layer`."""

        class OverChannels(nn.LayerNorm):  # type: ignore[misc]
            def forward(self, x: Any) -> Any:
                return super().forward(x.movedim(1, -1)).movedim(-1, 1)

        return (nn.LayerNorm if len(self.shape) == 1 else OverChannels)(self.shape[-1], eps=EPSILON)

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        n, own = len(self.shape), (f"{name}.weight", f"{name}.bias")
        attributes = {"axis": -1, "epsilon": EPSILON}
        if n == 1:
            return (Op("LayerNormalization", (value, *own), f"{name}.output", attributes),)
        return (
            Op("Transpose", (value,), f"{name}.rows", {"perm": [0, *range(2, n + 1), 1]}),
            Op("LayerNormalization", (f"{name}.rows", *own), f"{name}.normed", attributes),
            Op("Transpose", (f"{name}.normed",), f"{name}.output", {"perm": [0, n, *range(1, n)]}),
        )


class GroupNorm(_Norm):
    """See `models.nets.layers.layer.Layer`. x: (n, *shape). Raises ValueError where the groups do not fit."""

    def __init__(self, groups: int, shape: Shape) -> None:
        if groups < 1 or shape[-1] % groups:
            raise ValueError(f"{groups} groups do not divide {shape[-1]} channels")
        super().__init__(shape, math.prod(shape[:-1]), groups)

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        return nn.GroupNorm(self._groups[0], self.shape[-1], eps=EPSILON)

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`. Opset 17 has no group norm; an instance norm looks at a row of numbers in each group."""
        groups, (*places, channels) = self._groups[0], self.shape
        return (
            Op("Constant", (), f"{name}.grouped", {"value_ints": [0, groups, -1]}),
            Op("Constant", (), f"{name}.ones", {"value_floats": [1.0] * groups}),
            Op("Constant", (), f"{name}.zeros", {"value_floats": [0.0] * groups}),
            Op("Constant", (), f"{name}.shape", {"value_ints": [0, channels, *places]}),
            Op("Constant", (), f"{name}.each", {"value_ints": [channels, *(1 for _ in places)]}),
            Op("Reshape", (value, f"{name}.grouped"), f"{name}.groups"),
            Op(
                "InstanceNormalization",
                (f"{name}.groups", f"{name}.ones", f"{name}.zeros"),
                f"{name}.instances",
                {"epsilon": EPSILON},
            ),
            Op("Reshape", (f"{name}.instances", f"{name}.shape"), f"{name}.normed"),
            Op("Reshape", (f"{name}.weight", f"{name}.each"), f"{name}.scale"),
            Op("Reshape", (f"{name}.bias", f"{name}.each"), f"{name}.offset"),
            Op("Mul", (f"{name}.normed", f"{name}.scale"), f"{name}.scaled"),
            Op("Add", (f"{name}.scaled", f"{name}.offset"), f"{name}.output"),
        )
