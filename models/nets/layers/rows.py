"""Between flat rows and rows with a shape: a window row after row, an image as (height, width, channels).

Modules of Torch and ONNX graphs have channels first within, and last where a row is flat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from models.nets.layers.layer import Place, Shape
from models.nets.op import Op
from models.params import Float32


class _View:
    """The same numbers in another shape: nothing is made."""

    tensors = ()
    keeps_output = False
    n_units = 0
    shape: Shape

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:  # noqa: ARG002  (it has none)
        """See `Layer`."""
        place.kept = x.shape
        return x.reshape(len(x), *self.shape)

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
        return da.reshape(place.kept)


class Rows(_View):
    """See `models.nets.layers.layer.Layer`. x: (n, length * columns), or (n, height * width * channels)."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        shape = self.shape

        class Shaped(nn.Module):  # type: ignore[misc]
            def forward(self, x: Any) -> Any:
                return x.reshape(-1, *shape).movedim(-1, 1)

        return Shaped()

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        n = len(self.shape)
        return (
            Op("Constant", (), f"{name}.shape", {"value_ints": [0, *self.shape]}),  # 0: as many rows as there are
            Op("Reshape", (value, f"{name}.shape"), f"{name}.rows"),
            Op("Transpose", (f"{name}.rows",), f"{name}.output", {"perm": [0, n, *range(1, n)]}),
        )


class Flatten(_View):
    """See `models.nets.layers.layer.Layer`. x: (n, *shape)."""

    def __init__(self, shape: Shape) -> None:
        self._from = shape
        self.shape = (math.prod(shape),)

    def module(self, nn: Any) -> Any:
        """See `Layer`."""

        class Flat(nn.Module):  # type: ignore[misc]
            def forward(self, x: Any) -> Any:
                return x.movedim(1, -1).flatten(1)

        return Flat()

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        n = len(self._from)
        return (
            Op("Transpose", (value,), f"{name}.rows", {"perm": [0, *range(2, n + 1), 1]}),
            Op("Constant", (), f"{name}.shape", {"value_ints": [0, *self.shape]}),
            Op("Reshape", (f"{name}.rows", f"{name}.shape"), f"{name}.output"),
        )
