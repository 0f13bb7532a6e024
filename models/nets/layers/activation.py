"""What stands between layers with weights, element by element: the rows of `models.nets.activations`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from models.nets.activations import IN_PLACE, KEEPING, Keeping
from models.nets.layers.layer import Place, Shape
from models.nets.op import Op
from models.params import Float32


class Activation:
    """See `models.nets.layers.layer.Layer`. x: (n, *shape), of any shape."""

    tensors = ()

    def __init__(self, name: str, shape: Shape) -> None:
        self._function = IN_PLACE.get(name) or KEEPING[name]
        self.keeps_output = name in IN_PLACE
        self.shape = shape
        self.n_units = math.prod(shape) * (1 if self.keeps_output else 2)

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:  # noqa: ARG002  (it has none)
        """See `Layer`."""
        if isinstance(self._function, Keeping):
            a, t = place.array("a", x.shape), place.array("t", x.shape)
            self._function.forward(x, a, t)
            place.kept = x, t
            return a
        a = x
        if not place.free:
            a = place.array("a", x.shape)
            a[...] = x
        self._function.forward(a)
        place.kept = a
        return a

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
        if isinstance(self._function, Keeping):
            x, t = place.kept
            self._function.backward(da, x, t, place.array("spare", x.shape))
        else:
            self._function.backward(da, place.kept, place.array("slope", da.shape, self._function.dtype))
        return da

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        return self._function.torch(nn)

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        return self._function.operations(name, value)
