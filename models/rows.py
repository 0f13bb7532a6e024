"""Tensors as one row of numbers: what is trained, hashed, coded and stored lies in one piece, in the order of the spec.

Whoever makes the arrays of a net carves them out of a row, and whoever wants the row back has it without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from models.params import Float32, Params, Spec, spec_of

Kind = TypeVar("Kind", bound=np.generic)


def carved(row: npt.NDArray[Kind], spec: Spec) -> tuple[npt.NDArray[Kind], ...]:
    """Return a row as the tensors of a net: views of it."""
    tensors, at = [], 0
    for _, shape in spec:
        end = at + math.prod(shape)
        tensors.append(row[at:end].reshape(shape))
        at = end
    return tuple(tensors)


def row_of(tensors: Sequence[npt.NDArray[Kind]]) -> npt.NDArray[Kind]:
    """Return tensors in a row: the one that they were carved out of, else a copy. Tensors of one type, at least one."""
    whole = tensors[0].base
    if isinstance(whole, np.ndarray) and _are_pieces(tensors, whole):
        return whole
    return np.concatenate([tensor.reshape(-1) for tensor in tensors])


def is_finite(row: Float32) -> bool:
    """Return whether every number of a row is finite: a sum of squares shows it, unless that overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(row, row)) or np.isfinite(row).all())


def params_of(row: Float32, spec: Spec) -> Params:
    """Return a row as params: views of it."""
    return dict(zip((tensor.name for tensor in spec), carved(row, spec), strict=True))


def copy_of(params: Params) -> Params:
    """Return a copy, in a row."""
    row = np.concatenate([values.reshape(-1) for values in params.values()]) if params else np.empty(0, np.float32)
    return params_of(row, spec_of(params))


def _are_pieces(tensors: Sequence[npt.NDArray[Any]], whole: npt.NDArray[Any]) -> bool:
    """Return whether tensors lie one after the other in a row, and are all of it."""
    at = _address(whole)
    for tensor in filter(np.size, tensors):
        if tensor.base is not whole or not tensor.flags.c_contiguous or _address(tensor) != at:
            return False
        at += tensor.nbytes
    return whole.ndim == 1 and whole.dtype == tensors[0].dtype and at == _address(whole) + whole.nbytes


def _address(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
