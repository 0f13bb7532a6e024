"""A trained net as an ONNX file that any runtime reads. The one file that imports onnx.

Opset 17 and IR version 8: read by onnxruntime 1.12 and later. One input `input` (batch, inputs) float32 and one
output (batch, outputs) float32: `probabilities` of classes (where one output stands for two classes, of the second; of
several labels a row, of each), else `values` (of quantiles, those of the first value, then of the next), or `score` of
what finds anomalies, with a second output `anomaly` (batch, 1) bool where its "threshold" is in metadata_props. The
batch is free. The rows are raw: what normalises them is in the graph (models/nets/normalised.py). What a job says of
them stands in metadata_props, as JSON: "features", "label", "classes", "units", "normalise", "quantiles", those that it
has, and the "opset".

A device keeps onnx out of its training process and runs this module as a child instead: `python -m
models.serving.export PARAMS.npz OUT.onnx` with an `Order` as JSON on stdin; it exits with the reason on failure.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

from models.agreement import Agreed, AgreementError, of_model
from models.contract import NO_CONTRACT, ContractSpec
from models.job import ModelSpec
from models.measures.table import THRESHOLD
from models.nets import losses
from models.nets import table as nets
from models.nets.losses import Loss
from models.nets.net import ModelError
from models.nets.normalised import numbers
from models.nets.op import OPSET, Op
from models.params import Float32, Params, ParamsError, check

IR_VERSION = 8


class ExportError(ValueError):
    """A net that cannot be written as ONNX; the message says why."""


class Order(msgspec.Struct, frozen=True):
    """What the child is asked to export."""

    model: ModelSpec
    metadata: dict[str, str]
    contract: ContractSpec = NO_CONTRACT
    agreed: bytes = b""


def to_onnx(
    model: ModelSpec,
    params: Params,
    *,
    metadata: Mapping[str, str],
    contract: ContractSpec = NO_CONTRACT,
    agreed: Agreed | None = None,
) -> bytes:
    """Return the bytes of the ONNX model, its metadata_props set. Raises ExportError.

    metadata: what stands in metadata_props; a "threshold" of anomaly scores goes into the graph as well.
    contract, agreed: of its job, and what the fleet has agreed on: the graph takes raw rows.
    params: with the buffers of a factory's module, by name. It is exported only if its factory may run: the caller has
    decided that before it had params of it.
    """
    kind = nets.find(model.kind)
    try:
        if kind.numpy is None or kind.onnx is None:
            proto = _by_torch(model, params)
        else:
            check(params, kind.numpy(model).spec)
            proto = graph_of(model, params, _with_answers(kind.onnx(kind.spec.of(model)), losses.of(model)))
    except (ModelError, ParamsError) as error:
        raise ExportError(str(error)) from error
    if (found := numbers(contract, agreed, model.inputs)) is not None:
        _normalise(proto.graph, *found)
    if model.finds_anomalies and THRESHOLD in metadata:
        _judge(proto.graph, float(metadata[THRESHOLD]))
    helper.set_model_props(proto, dict(metadata) | {"opset": str(OPSET)} | _described(contract, model))
    try:
        checker.check_model(proto, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx refuses the exported model: {error}") from error
    return bytes(proto.SerializeToString())


def _described(contract: ContractSpec, model: ModelSpec) -> dict[str, str]:
    """Return what people and programs should know of the rows: each value is JSON."""
    said: dict[str, object] = {
        "features": contract.features,
        "label": contract.label,
        "classes": contract.class_names if model.classifies else (),
        "quantiles": losses.of(model).levels,
        "units": contract.units,
        "normalise": "" if contract.normalise == "none" else contract.normalise,
    }
    return {name: msgspec.json.encode(value).decode() for name, value in said.items() if value}


def _normalise(graph: onnx.GraphProto, offset: Float32, scale: Float32) -> None:
    """Let a graph take raw rows: (input - offset) * scale stands where its input did."""
    _rename(graph, "input", "normalise.output")
    graph.initializer.extend(
        [numpy_helper.from_array(offset, "normalise.offset"), numpy_helper.from_array(scale, "normalise.scale")]
    )
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(
        [
            helper.make_node("Sub", ["input", "normalise.offset"], ["normalise.centred"]),
            helper.make_node("Mul", ["normalise.centred", "normalise.scale"], ["normalise.output"]),
            *nodes,
        ]
    )


def _judge(graph: onnx.GraphProto, threshold: float) -> None:
    """Let a graph of scores say which rows are anomalies too: those above the threshold, and those without a score."""
    score = graph.output[0].name
    graph.initializer.append(numpy_helper.from_array(np.array(threshold, np.float32), "threshold"))
    graph.node.extend(
        [
            helper.make_node("LessOrEqual", [score, "threshold"], ["normal"]),
            helper.make_node("Not", ["normal"], ["anomaly"]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info("anomaly", TensorProto.BOOL, ["batch", 1]))


def _rename(graph: onnx.GraphProto, before: str, after: str) -> None:
    """Replace a value in all nodes, also in those of graphs within them."""
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == before:
                node.input[at] = after
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, before, after)


def _with_answers(operations: tuple[Op, ...], loss: Loss) -> tuple[Op, ...]:
    """Return the operations up to the answers of a loss, and not only to the raw outputs."""
    *before, last = operations
    name, answer = loss.answer_name, loss.onnx_answer
    if answer is None:
        return (*before, last._replace(output=name))
    return (*before, last, *answer(last.output, name))


def graph_of(model: ModelSpec, params: Params, operations: tuple[Op, ...]) -> onnx.ModelProto:
    """Return the model of operations on raw rows, (batch, inputs), whose last one gives (batch, outputs)."""
    graph = helper.make_graph(
        [helper.make_node(op.type, op.inputs, [op.output, *op.more], **op.attributes) for op in operations],
        "fedge",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", model.inputs])],
        [helper.make_tensor_value_info(operations[-1].output, TensorProto.FLOAT, ["batch", model.outputs])],
        [numpy_helper.from_array(value, name) for name, value in params.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="fedge")


def _by_torch(model: ModelSpec, params: Params) -> onnx.ModelProto:
    """Write it by Torch's exporter. Raises ModelError or ParamsError."""
    net = nets.by_torch(model)
    from models.nets.torch_export import export_module  # here alone: it loads torch

    return onnx.load_model_from_string(export_module(net, params, opset=OPSET, output=losses.of(model).answer_name))


def main() -> None:
    """Read an order from stdin and the params from a file, and write the ONNX file."""
    params_path, onnx_path = sys.argv[1:]
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        write_file(
            *(order.model, Path(params_path), Path(onnx_path)),
            metadata=order.metadata,
            contract=order.contract,
            agreed=order.agreed,
        )
    except ExportError as error:
        sys.exit(str(error))


def write_file(
    model: ModelSpec,
    params_path: Path,
    onnx_path: Path,
    *,
    metadata: Mapping[str, str],
    contract: ContractSpec = NO_CONTRACT,
    agreed: bytes = b"",
) -> None:
    """Write the params of an NPZ file as ONNX. Raises ExportError, or OSError where a file fails."""
    try:
        found = of_model(agreed, model, contract)
    except AgreementError as error:
        raise ExportError(str(error)) from error
    with np.load(params_path, allow_pickle=False) as file:
        params = {name: file[name] for name in file.files}
    onnx_path.write_bytes(to_onnx(model, params, metadata=metadata, contract=contract, agreed=found))


if __name__ == "__main__":
    main()
