"""Dropout (Srivastava et al. 2014): in training each number is 0 with probability p, and else divided by 1 - p.

Which ones are dropped follows from the step's draw and the layer's name alone, by Philox, a counter-based generator
(Salmon et al. 2011): a resumed run drops the same, and so does the module of Torch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.nets.layers.layer import Place, Shape
from models.nets.op import Op
from models.params import Float32

MOST = 0.9
"""Of p: what is left would say next to nothing."""


def fill_mask(mask: Float32, draw: int, name: str, p: float) -> None:
    """Overwrite a contiguous array with 0 where a number is dropped, and 1 / (1 - p) elsewhere."""
    key = int.from_bytes(hashlib.sha256(f"{draw}/{name}".encode()).digest()[:16], "little")
    np.random.Generator(np.random.Philox(key=key)).random(out=mask, dtype=np.float32)
    np.greater_equal(mask, np.float32(p), out=mask)
    mask *= np.float32(1.0 / (1.0 - p))


class Dropout:
    """See `models.nets.layers.layer.Layer`. x: (n, *shape), of any shape. p: 0 < p <= MOST, or ValueError is raised."""

    tensors = ()
    keeps_output = False

    def __init__(self, p: float, shape: Shape) -> None:
        if not 0.0 < p <= MOST:
            raise ValueError(f"dropout = {p:g} is not above 0 and at most {MOST:g}")
        self._p = p
        self.shape = shape
        self.n_units = 2 * math.prod(shape)

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:  # noqa: ARG002  (it has none)
        """See `Layer`."""
        if place.draw is None:
            return x
        mask = place.kept = place.array("mask", x.shape)
        fill_mask(mask, place.draw, place.name, self._p)
        return np.multiply(x, mask, out=x if place.free else place.array("a", x.shape))

    def backward(
        self,
        place: Place,
        tensors: Sequence[Float32],  # noqa: ARG002
        gradients: Sequence[Float32 | None],  # noqa: ARG002
        da: Float32,
        *,
        first: bool,  # noqa: ARG002
    ) -> Float32 | None:
        """See `Layer`."""
        da *= place.kept
        return da

    def module(self, nn: Any) -> Any:
        """See `Layer`. Who trains the module sets its `draw`, and the name that it `draws_as`."""
        p, shape = self._p, self.shape

        class Dropped(nn.Module):  # type: ignore[misc]
            draw = 0
            draws_as = ""

            def forward(self, x: Any) -> Any:
                if not self.training:
                    return x
                mask = np.empty((len(x), *shape), np.float32)
                fill_mask(mask, self.draw, self.draws_as, p)
                return x * x.new_tensor(np.moveaxis(mask, -1, 1))  # its channels come first

        return Dropped()

    def operations(self, name: str, value: str) -> tuple[Op, ...]:  # noqa: ARG002
        """Return none: a net that is served drops nothing."""
        return ()
