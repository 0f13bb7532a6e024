"""How badly layers give their rows back: the mean squared error of each row, which is what is trained and answered.

    x ──(+ noise)──▶ layers ──▶ x'        score = mean over columns of (x' - x)^2

One layer to those around it, so that a net which ends in it answers one number a row. The noise is normal, drawn in
training alone, and not in what has to be given back (Vincent et al. 2008, a denoising autoencoder).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.nets.layers.layer import Layer, Place, Shape
from models.nets.op import Op
from models.params import Float32, Spec, TensorSpec


class Reconstruction:
    """See `models.nets.layers.layer.Layer`. x: (n, columns); it gives (n, 1).

    layers: of (n, columns) to the same, the first of them with parameters. noise: its standard deviation, 0 for none.
    """

    keeps_output = False
    shape: Shape = (1,)

    def __init__(self, columns: int, layers: Sequence[Layer], noise: float = 0.0) -> None:
        self._columns = columns
        self._layers = tuple(layers)
        self._noise = noise
        if self._layers[-1].shape != (columns,):
            raise ValueError(f"layers that give {self._layers[-1].shape} of rows of {columns} columns")
        self.tensors: Spec = tuple(
            TensorSpec(f"{i}.{tensor.name}", tensor.shape)
            for i, layer in enumerate(self._layers)
            for tensor in layer.tensors
        )
        self.n_units = sum(layer.n_units for layer in self._layers) + columns * (2 if noise else 1) + 1

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        a, places = self._disturbed(place, x), self._places(place)
        for layer, inner, own in zip(self._layers, places, self._parts(tensors), strict=True):
            a = layer.forward(inner, own, a)
        errors = np.subtract(a, x, out=place.array("errors", x.shape))
        place.kept = errors, places
        scores = place.array("scores", (len(x), 1))
        np.einsum("ij,ij->i", errors, errors, out=scores[:, 0])
        scores /= self._columns
        return scores

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """See `Layer`."""
        errors, places = place.kept
        da *= 2.0 / self._columns
        errors *= da
        straight = None if first else errors.copy()
        dx: Float32 = errors
        parts = list(zip(self._layers, places, self._parts(tensors), self._parts(gradients), strict=True))
        for i in reversed(range(len(parts))):
            layer, inner, own, theirs = parts[i]
            is_first = first and not any(layer.tensors for layer in self._layers[:i])
            given = layer.backward(inner, own, theirs, dx, first=is_first)
            if given is None:
                return None
            dx = given
        return None if straight is None else np.subtract(dx, straight, out=straight)

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        noise = self._noise

        def forward(self: Any, x: Any) -> Any:
            seen = x + noise * x.new_empty(x.shape).normal_() if noise and self.training else x
            return (nn.Sequential.forward(self, seen) - x).square().mean(dim=1, keepdim=True)

        kind = type("Reconstruction", (nn.Sequential,), {"forward": forward})
        return kind(*(layer.module(nn) for layer in self._layers))

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        found: list[Op] = []
        inner = value
        for i, layer in enumerate(self._layers):
            ops = layer.operations(f"{name}.{i}", inner)
            found += ops
            inner = ops[-1].output if ops else inner
        return (
            *found,
            Op("Sub", (inner, value), f"{name}.errors"),
            Op("Mul", (f"{name}.errors", f"{name}.errors"), f"{name}.squares"),
            Op("ReduceMean", (f"{name}.squares",), f"{name}.output", {"axes": [1], "keepdims": 1}),
        )

    def _disturbed(self, place: Place, x: Float32) -> Float32:
        """Return the rows as the layers see them: with noise where somebody trains."""
        if not self._noise or place.draw is None:
            return x
        seen = place.array("seen", x.shape)
        np.random.default_rng([place.draw, *place.name.encode()]).standard_normal(out=seen, dtype=np.float32)
        seen *= np.float32(self._noise)
        seen += x
        return seen

    def _places(self, place: Place) -> list[Place]:
        """Return where each layer works. None may overwrite x, of which the errors are made."""
        free = [False, *(not layer.keeps_output for layer in self._layers[:-1])]
        return [place.within(str(i), free=may) for i, may in enumerate(free)]

    def _parts(self, tensors: Sequence[Any]) -> list[Sequence[Any]]:
        """Return which of the tensors, or of their gradients, are of each layer."""
        found, at = [], 0
        for layer in self._layers:
            found.append(tensors[at : at + len(layer.tensors)])
            at += len(layer.tensors)
        return found
