"""One operation of a net as it is written as ONNX, in plain data: `models/serving/export.py` alone imports onnx."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})

OPSET = 17
"""Of ONNX: read by onnxruntime 1.12 and later."""


class Op(NamedTuple):
    """A node of the graph, of opset 17.

    type: the operator's name, "Gemm". inputs: names of parameters of the net, of outputs of operations before this
    one, or "input": the rows, (batch, inputs) float32. output: the name of what it gives. attributes: the operator's
    own, {"transB": 1}. more: names of what it gives beside.
    """

    type: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = NO_ATTRIBUTES
    more: tuple[str, ...] = ()
