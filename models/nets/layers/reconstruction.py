"""How badly layers give their rows back: the mean squared error of each row, which is what is trained and answered.

    x ──(+ noise)──▶ layers ──▶ x'        score = mean over columns of (x' - x)^2

One layer to those around it, so that a net which ends in it answers one number a row. The noise is normal, drawn in
training alone, and not in what has to be given back (Vincent et al. 2008, a denoising autoencoder). It follows from the
step's draw and the layer's name, as what Dropout drops, so that the module of Torch draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.nets.layers.layer import Layer, Place, Shape
from models.nets.layers.stack import Stack
from models.nets.op import Op
from models.params import Float32, Spec


def fill_noise(noise: Float32, draw: int, name: str, deviation: float) -> None:
    """Overwrite a contiguous array with normal numbers of this standard deviation."""
    key = int.from_bytes(hashlib.sha256(f"{draw}/{name}".encode()).digest()[:16], "little")
    np.random.Generator(np.random.Philox(key=key)).standard_normal(out=noise, dtype=np.float32)
    noise *= np.float32(deviation)


class Reconstruction:
    """See `models.nets.layers.layer.Layer`. x: (n, columns); it gives (n, 1).

    layers: of (n, columns) to the same, the first of them with parameters. noise: its standard deviation, 0 for none.
    Raises ValueError where the layers give other columns.
    """

    keeps_output = False
    shape: Shape = (1,)

    def __init__(self, columns: int, layers: Sequence[Layer], noise: float = 0.0) -> None:
        self._columns, self._noise, self._within = columns, noise, Stack(layers)
        if self._within.shape != (columns,):
            raise ValueError(f"layers that give {self._within.shape} cannot give back rows of {columns} columns")
        self.tensors: Spec = self._within.tensors
        self.n_units = self._within.n_units + columns * (2 if noise else 1) + 1

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        seen = x
        if self._noise and place.draw is not None:
            seen = place.array("seen", x.shape)
            fill_noise(seen, place.draw, place.name, self._noise)
            seen += x
        ran = self._within.run(place, tensors, seen, free=False)
        errors = np.subtract(ran.a, x, out=ran.a if ran.free else place.array("errors", x.shape))
        place.kept = errors, ran.places
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
        straight: Float32 | None = None if first else errors.copy()  # x is what has to be given back as well
        dx = self._within.back(places, tensors, gradients, errors, first=first)
        if straight is None or dx is None:
            return None
        np.subtract(dx, straight, out=straight)
        return straight

    def module(self, nn: Any) -> Any:
        """See `Layer`. Who trains the module sets its `draw`, and the name that it `draws_as`."""
        deviation = self._noise

        class Reconstructed(nn.Sequential):  # type: ignore[misc]
            draw = 0
            draws_as = ""

            def forward(self, x: Any) -> Any:
                seen = x
                if deviation and self.training:
                    noise = np.empty(tuple(x.shape), np.float32)
                    fill_noise(noise, self.draw, self.draws_as, deviation)
                    seen = x + x.new_tensor(noise)
                return (super().forward(seen) - x).square().mean(dim=1, keepdim=True)

        return Reconstructed(*(layer.module(nn) for layer in self._within.layers))

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        within = self._within.operations(name, value)
        return (
            *within,
            Op("Sub", (within[-1].output, value), f"{name}.errors"),
            Op("Mul", (f"{name}.errors", f"{name}.errors"), f"{name}.squares"),
            Op("ReduceMean", (f"{name}.squares",), f"{name}.output", {"axes": [1], "keepdims": 1}),
        )
