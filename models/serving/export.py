"""A trained net as an ONNX file that any runtime reads. The one file that imports onnx.

Opset 17 and IR version 8: read by onnxruntime 1.12 and later. One input `input` (batch, inputs) float32 and one
output (batch, outputs) float32: `probabilities` for cross_entropy, `values` for mse; the batch is free.

A device keeps onnx out of its training process and runs this module as a child instead: `python -m
models.serving.export PARAMS.npz OUT.onnx` with an `Order` as JSON on stdin; it exits with the reason on failure.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, checker, helper, numpy_helper

from models.job import ModelSpec
from models.nets.mlp import layer_sizes, spec_of_mlp
from models.nets.net import ModelError
from models.params import Params, ParamsError, check

OPSET = 17
IR_VERSION = 8
OPERATORS = {"relu": "Relu", "tanh": "Tanh"}
OUTPUTS = {"cross_entropy": "probabilities", "mse": "values"}


class ExportError(ValueError):
    """A net that cannot be written as ONNX; the message says why."""


class Order(msgspec.Struct, frozen=True):
    """What the child is asked to export."""

    model: ModelSpec
    metadata: dict[str, str]


def to_onnx(model: ModelSpec, params: Params, *, metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of the ONNX model, its metadata_props set. Raises ExportError.

    A factory's module is exported with fresh buffers (BatchNorm statistics do not cross), and only if its
    factory may run: the caller has decided that before it had params of it.
    """
    proto = _mlp(model, params) if model.kind == "mlp" else _module(model, params)
    helper.set_model_props(proto, dict(metadata))
    try:
        checker.check_model(proto, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx refuses the exported model: {error}") from error
    return bytes(proto.SerializeToString())


def _mlp(model: ModelSpec, params: Params) -> onnx.ModelProto:
    try:
        check(params, spec_of_mlp(model))
    except ParamsError as error:
        raise ExportError(str(error)) from error
    graph = helper.make_graph(
        _nodes(model),
        "fedge",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", model.inputs])],
        [helper.make_tensor_value_info(OUTPUTS[model.loss], TensorProto.FLOAT, ["batch", model.outputs])],
        [numpy_helper.from_array(value, name) for name, value in params.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="fedge")


def _nodes(model: ModelSpec) -> list[NodeProto]:
    """Return Gemm, activation, Gemm, ..., and Softmax where the loss is cross_entropy."""
    nodes, value, end = [], "input", 2 * len(layer_sizes(model)) - 2
    for i in range(0, end + 1, 2):
        result = OUTPUTS[model.loss] if i == end and model.loss == "mse" else f"{i}.output"
        nodes.append(helper.make_node("Gemm", [value, f"{i}.weight", f"{i}.bias"], [result], transB=1))
        value = result
        if i < end:
            value = f"{i + 1}.output"
            nodes.append(helper.make_node(OPERATORS[model.activation], [result], [value]))
    if model.loss == "cross_entropy":
        nodes.append(helper.make_node("Softmax", [value], [OUTPUTS[model.loss]], axis=1))
    return nodes


def _module(model: ModelSpec, params: Params) -> onnx.ModelProto:
    if find_spec("torch") is None:
        raise ExportError(f'model.kind = "{model.kind}" needs Torch here: pip install "fedge[torch]"')
    from models.nets.torch_net import export_module  # here alone: it loads torch

    try:
        body = export_module(model, params, opset=OPSET, output=OUTPUTS[model.loss])
    except (ModelError, ParamsError) as error:
        raise ExportError(str(error)) from error
    return onnx.load_model_from_string(body)


def main() -> None:
    """Read an order from stdin and the params from a file, and write the ONNX file."""
    params_path, onnx_path = sys.argv[1:]
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        write_file(order.model, Path(params_path), Path(onnx_path), metadata=order.metadata)
    except ExportError as error:
        sys.exit(str(error))


def write_file(model: ModelSpec, params_path: Path, onnx_path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write the params of an NPZ file as ONNX. Raises ExportError, or OSError where a file fails."""
    with np.load(params_path, allow_pickle=False) as file:
        params = {name: file[name] for name in file.files}
    onnx_path.write_bytes(to_onnx(model, params, metadata=metadata))


if __name__ == "__main__":
    main()
