"""What stands between layers with weights: relu and tanh, element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.nets.layers.layer import Place, Shape
from models.nets.mlp import ACTIVATIONS
from models.nets.op import Op
from models.params import Float32


class Activation:
    """See `models.nets.layers.layer.Layer`. x: (n, *shape), of any shape."""

    tensors = ()
    keeps_output = True

    def __init__(self, name: str, shape: Shape) -> None:
        self._function = ACTIVATIONS[name]
        self.shape = shape
        self.n_units = int(np.prod(shape, dtype=np.int64))

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:  # noqa: ARG002  (it has none)
        """See `Layer`."""
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
        self._function.backward(da, place.kept)
        return da

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        return getattr(nn, self._function.torch)()

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        return (Op(self._function.onnx, (value,), f"{name}.output"),)
