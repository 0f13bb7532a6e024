"""A dense layer: a = x W^T + b, with W (outputs, inputs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.nets.layers.layer import Place, Shape
from models.nets.layers.product import multiply
from models.nets.op import Op
from models.params import Float32, Spec, TensorSpec


class Dense:
    """See `models.nets.layers.layer.Layer`. x: (n, inputs)."""

    keeps_output = False

    def __init__(self, inputs: int, outputs: int) -> None:
        self._inputs = inputs
        self.shape: Shape = (outputs,)
        self.tensors: Spec = (TensorSpec("weight", (outputs, inputs)), TensorSpec("bias", (outputs,)))
        self.n_units = outputs

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        weight, bias = tensors
        place.kept = x
        # Each example a column: OpenBLAS multiplies a large weight by a narrow batch faster than the other way round.
        columns = multiply(weight, x.T, place.array("columns", (*self.shape, len(x))))
        return np.add(columns.T, bias, out=place.array("a", (len(x), *self.shape)))

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """See `Layer`."""
        x: Float32 = place.kept
        weight, bias = gradients
        if weight is not None:
            multiply(da.T, x, weight)
        if bias is not None:
            np.add.reduce(da, axis=0, out=bias)
        if first:
            return None
        return multiply(da, tensors[0], place.array("dx", (len(da), self._inputs)))

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        return nn.Linear(self._inputs, self.shape[0])

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        return (Op("Gemm", (value, f"{name}.weight", f"{name}.bias"), f"{name}.output", {"transB": 1}),)
