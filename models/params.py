"""Parameters of a net: named arrays in one fixed order.

A `Spec` is the shape of a net, agreed by everyone on a job: the order of its tensors is the order in which they
are initialised, hashed, encoded, folded and exported. `Params` are the values, float32, in that same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Params = dict[str, Float32]
"""Name to float32 array, in the order of the spec."""


Beside = dict[str, npt.NDArray[np.generic]]
"""Name to array of what a net has beside its parameters: float32, or whole numbers."""


class TensorSpec(NamedTuple):
    """One named array of a net. A dense layer's weight has shape (outputs, inputs), as in Torch and ONNX Gemm."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of coordinates; 1 for a scalar."""
        return math.prod(self.shape)


Spec = tuple[TensorSpec, ...]


class ParamsError(ValueError):
    """Arrays that do not fit the spec they are held against."""


def spec_of(params: Mapping[str, npt.NDArray[np.generic]]) -> Spec:
    """Return the spec that these arrays have."""
    return tuple(TensorSpec(name, tuple(value.shape)) for name, value in params.items())


def n_parameters(spec: Spec) -> int:
    """Count the coordinates of all tensors."""
    return sum(tensor.size for tensor in spec)


def check(params: Mapping[str, npt.NDArray[np.generic]], spec: Spec) -> None:
    """Raise ParamsError unless names, order and shapes are the spec's and every value is finite."""
    check_shapes(params, spec)
    for name, value in params.items():
        if not np.isfinite(value).all():
            raise ParamsError(f"tensor {name} has values that are not finite")


def check_shapes(params: Mapping[str, npt.NDArray[np.generic]], spec: Spec) -> None:
    """Raise ParamsError unless names, order and shapes are the spec's."""
    found = spec_of(params)
    if found != spec:
        for mine, theirs in zip(spec, found, strict=False):
            if mine != theirs:
                raise ParamsError(f"tensor {theirs.name} {theirs.shape} where {mine.name} {mine.shape} belongs")
        raise ParamsError(f"{len(found)} tensors where {len(spec)} belong")


def subtract(left: Params, right: Params) -> Params:
    """Return left - right, float32, tensor by tensor."""
    return {name: np.asarray(left[name] - right[name]) for name in left}


def zeros(spec: Spec) -> Params:
    """Return params of zeros."""
    return {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in spec}
