from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from models.agreement import Agreed
from models.contract import ContractSpec, WindowSpec
from models.job import ModelSpec
from models.nets import table
from models.nets.normalised import normalised
from models.nets.table import build
from models.params import Params, Spec
from models.serving import export
from models.serving.export import ExportError, to_onnx
from models.serving.session import export as export_in_a_child

HIDDEN: tuple[tuple[int, ...], ...] = ((), (5,), (6, 4))
CASES = list(product(HIDDEN, ("relu", "tanh"), ("cross_entropy", "mse")))


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (1, 8)
        self.layers = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layers(X)
        return outputs


class Unwritable(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  (Torch's own name)
        values: torch.Tensor = torch.linalg.eigvals(input.T @ input)
        return super().forward(input) + values.real.sum()


def make_convolution() -> nn.Module:
    return Convolution()


def make_six() -> nn.Module:
    return nn.Linear(8, 6)


def make_unwritable() -> nn.Module:
    return Unwritable(3, 2)


def make_spectral() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 6)), nn.ReLU(), nn.Linear(6, 3))


def make_orthogonal() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 3))


def make_frozen_transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 16, batch_first=True).requires_grad_(False)
    layers = nn.Sequential(layer, nn.Flatten(), nn.Linear(8, 3))
    layers.input_shape = (2, 4)  # type: ignore[assignment]
    return layers


def make_views() -> nn.Module:
    return WithViews()


class WithViews(nn.Linear):
    """Its buffers are one number many times, and two that overlap."""

    def __init__(self) -> None:
        super().__init__(8, 3)
        both = torch.ones(9)
        self.register_buffer("same", torch.ones(1).expand(8))
        self.register_buffer("first", both[:8])
        self.register_buffer("last", both[1:])

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  (Torch's own name)
        return super().forward(input * self.same + self.first - self.last)


def make_for_one_row() -> nn.Module:
    return ForOneRow(8, 3)


class ForOneRow(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  (Torch's own name)
        return super().forward(input[torch.arange(len(input))])


def make_params(spec: Spec) -> Params:
    generator = np.random.default_rng(0)
    return {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in spec}


def ask(body: bytes, X: Any) -> Any:
    session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": X})[0]


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "factories_for_export", sys.modules[__name__])
    return "factories_for_export:make_"


@pytest.mark.parametrize(("hidden", "activation", "loss"), CASES)
def test_onnxruntime_answers_as_numpy_does(hidden: tuple[int, ...], activation: Any, loss: Any) -> None:
    model = ModelSpec(inputs=7, hidden=hidden, outputs=3, activation=activation, loss=loss)
    net = build(model)
    params = make_params(net.spec)
    body = to_onnx(model, params, metadata={})
    for n in (1, 5):  # the batch is free
        X = np.random.default_rng(n).standard_normal((n, 7)).astype(np.float32)
        np.testing.assert_allclose(ask(body, X), net.predict(params, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "a factory's"])
def test_quantiles_of_a_value_never_cross_whoever_answers(kind: str, factory: str) -> None:
    options = {"quantiles": [0.1, 0.5, 0.9]}
    kind = kind if kind == "mlp" else factory + "six"
    model = ModelSpec(kind, inputs=8, outputs=6, loss="quantile", loss_options=options)
    net = build(model, allow=(kind,))
    params = make_params(net.spec)
    body = to_onnx(model, params, metadata={})
    for n in (1, 5):
        X = np.random.default_rng(n).standard_normal((n, 8)).astype(np.float32)
        answers = net.predict(params, X)
        assert (np.diff(answers.reshape(n, 2, 3), axis=2) >= 0).all()
        assert (answers.reshape(n, 2, 3)[:, 0] != np.sort(answers, axis=1)[:, :3]).any(), "by value"
        np.testing.assert_allclose(ask(body, X), answers, rtol=1e-5, atol=1e-5)


def test_an_old_enough_runtime_can_read_it_and_it_says_what_it_is() -> None:
    model = ModelSpec(inputs=2, outputs=3)
    body = to_onnx(model, make_params(build(model).spec), metadata={"job": "digits", "number": "7"})
    proto = onnx.load_model_from_string(body)
    assert (proto.ir_version, proto.opset_import[0].version) == (8, 17)
    assert {entry.key: entry.value for entry in proto.metadata_props} == {
        "job": "digits",
        "number": "7",
        "opset": "17",
    }
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["input", "probabilities"]


def test_a_factorys_module_is_exported_with_flat_rows_and_probabilities(factory: str) -> None:
    model = ModelSpec(kind=factory + "convolution", inputs=8, outputs=3)
    net = build(model, allow=(model.kind,))
    params = make_params(net.spec)
    X = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    answers = ask(to_onnx(model, params, metadata={}), X)
    np.testing.assert_allclose(answers, net.predict(params, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["spectral", "orthogonal", "frozen_transformer", "views"])
def test_onnx_answers_as_the_module_does_whatever_torch_makes_its_weights_of(factory: str, name: str) -> None:
    model = ModelSpec(kind=factory + name, inputs=8, outputs=3)
    net = build(model, allow=(model.kind,))
    params = make_params(net.spec) | {k: np.array(net.first_buffers[k]) + 0.25 for k, _ in net.buffers}
    X = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    expected = net.predict(params, X)
    for _ in range(2):  # what is written down stays a module that can be written down
        np.testing.assert_allclose(ask(to_onnx(model, params, metadata={}), X), expected, rtol=1e-5, atol=1e-5)


def test_a_module_that_takes_the_number_of_rows_for_a_constant_is_not_written(factory: str) -> None:
    model = ModelSpec(kind=factory + "for_one_row", inputs=8, outputs=3)
    with pytest.raises(ExportError, match=r"answers several wrongly: of X use X\.shape\[0\]"):
        to_onnx(model, make_params(build(model, allow=(model.kind,)).spec), metadata={})


def test_params_that_do_not_fit_are_an_export_error(factory: str) -> None:
    for kind in ("mlp", factory + "convolution"):
        with pytest.raises(ExportError, match="tensors where"):
            to_onnx(ModelSpec(kind=kind, inputs=8, outputs=3), {}, metadata={})


def test_what_cannot_be_written_or_built_is_an_export_error(factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelSpec(kind=factory + "unwritable", inputs=3, outputs=2)
    params = make_params(build(model, allow=(model.kind,)).spec)
    with pytest.raises(ExportError, match="cannot be written as ONNX"):
        to_onnx(model, params, metadata={})
    with pytest.raises(ExportError, match="make_nothing"):
        to_onnx(ModelSpec(kind=factory + "nothing"), {}, metadata={})
    monkeypatch.setattr(table, "find_spec", lambda _name: None)
    with pytest.raises(ExportError, match="needs Torch"):
        to_onnx(model, params, metadata={})


def test_a_child_writes_the_same_file_or_says_why_not(tmp_path: Path) -> None:
    model = ModelSpec(inputs=2, hidden=(3,), outputs=3)
    params = make_params(build(model).spec)
    np.savez(tmp_path / "p.npz", **params)  # type: ignore[arg-type]
    source, target = tmp_path / "p.npz", tmp_path / "m.onnx"
    assert export_in_a_child(model, source, target, metadata={"a": "b"}) is None
    assert target.read_bytes() == to_onnx(model, params, metadata={"a": "b"})
    other = ModelSpec(inputs=2, hidden=(4,), outputs=3)
    assert (
        export_in_a_child(other, source, target, metadata={}) == "tensor 0.weight (3, 2) where 0.weight (4, 2) belongs"
    )


# Raw rows.

STANDARD = ContractSpec(normalise="standard")


def agreed(inputs: int) -> Agreed:
    rng = np.random.default_rng(5)
    return Agreed(
        (1e5 * rng.standard_normal(inputs)).astype(np.float32), (1e-4 * (1 + rng.random(inputs))).astype(np.float32)
    )


def raw(n: int, of: Agreed) -> Any:
    z = np.random.default_rng(n).standard_normal((n, len(of.offset)))
    return (z / of.scale + of.offset).astype(np.float32)


@pytest.mark.parametrize("kind", ["mlp", "linear", "convolution", "stack"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_graph_takes_raw_rows_and_all_three_answer_alike(kind: str, loss: Any, factory: str) -> None:
    name = {"convolution": factory + kind, "stack": "mlp"}.get(kind, kind)
    keys: dict[str, Any] = {"hidden": (5,)} if kind == "mlp" else {}
    if kind == "stack":
        keys = {"hidden": (6, 5), "options": {"norm": "layer", "dropout": 0.5, "residual": True}, "activation": "gelu"}
    model = ModelSpec(kind=name, inputs=8, outputs=3, loss=loss, **keys)
    found, by_torch = agreed(8), normalised(table.by_torch(model), STANDARD, agreed(8))
    params, X = make_params(by_torch.spec), raw(6, found)
    answers = ask(to_onnx(model, params, metadata={}, contract=STANDARD, agreed=found), X)
    np.testing.assert_allclose(answers, by_torch.predict(params, X), rtol=1e-5, atol=1e-5)
    if kind != "convolution":
        by_numpy = normalised(build(model), STANDARD, found)
        np.testing.assert_allclose(answers, by_numpy.predict(params, X), rtol=1e-5, atol=1e-5)
    without = ask(to_onnx(model, params, metadata={}), X)
    assert not np.allclose(answers, without, rtol=1e-2)


def test_every_row_of_a_window_is_normalised_alike_in_the_graph() -> None:
    model, contract = ModelSpec(inputs=8, outputs=3), ContractSpec(normalise="minmax", window=WindowSpec(length=4))
    found = agreed(2)
    net, X = normalised(build(model), contract, found), raw(20, found).reshape(5, 8)
    params = make_params(net.spec)
    answers = ask(to_onnx(model, params, metadata={}, contract=contract, agreed=found), X)
    np.testing.assert_allclose(answers, net.predict(params, X), rtol=1e-5, atol=1e-5)


def test_a_module_with_a_graph_within_takes_raw_rows_too() -> None:
    """A value of the graph around it is named within a branch."""
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["input"], ["o"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, None)],
    )
    outer = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["yes"], ["output"], then_branch=inner, else_branch=inner)],
        "fedge",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", 2])],
        [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array(True), "yes")],
    )
    export._normalise(outer, np.array([1, 2], np.float32), np.array([2, 3], np.float32))
    made = onnx.helper.make_model(outer, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    assert ask(made.SerializeToString(), np.array([[2, 4]], np.float32)).tolist() == [[2, 6]]


def test_it_says_what_its_rows_are() -> None:
    contract = ContractSpec(
        features=("Temp °C", "x\ny"), label="state", classes=("ok", "bad"), units={"x\ny": "mm/s"}, normalise="pixels"
    )
    body = to_onnx(
        ModelSpec(inputs=2, outputs=2),
        make_params(build(ModelSpec(inputs=2, outputs=2)).spec),
        metadata={"job": "a"},
        contract=contract,
    )
    said = {entry.key: entry.value for entry in onnx.load_model_from_string(body).metadata_props}
    assert said.pop("job") == "a"
    assert {name: json.loads(value) for name, value in said.items()} == {
        "features": ["Temp °C", "x\ny"],
        "label": "state",
        "classes": ["ok", "bad"],
        "units": {"x\ny": "mm/s"},
        "normalise": "pixels",
        "opset": 17,
    }


def test_a_child_writes_it_as_well_and_says_what_is_wrong_with_an_agreement(tmp_path: Path) -> None:
    model, found = ModelSpec(inputs=8, outputs=3), agreed(8)
    params = make_params(build(model).spec)
    np.savez(tmp_path / "p.npz", **params)  # type: ignore[arg-type]
    source, target = tmp_path / "p.npz", tmp_path / "m.onnx"
    how: dict[str, Any] = {"metadata": {}, "contract": STANDARD}
    assert export_in_a_child(model, source, target, agreed=found.to_bytes(), **how) is None
    assert target.read_bytes() == to_onnx(model, params, agreed=found, **how)
    why = export_in_a_child(model, source, target, agreed=found.to_bytes()[:-1], **how)
    assert why is not None
    assert "where this job's fleet agrees in 73" in why
