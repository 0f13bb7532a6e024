from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from msgspec import structs

from models.data.dataset import Dataset, fit
from models.job import ModelSpec
from models.nets import losses
from models.nets import table as nets
from models.nets.losses import LOSSES
from models.nets.mlp import Mlp
from models.nets.net import ModelError
from models.nets.table import build, framework_of
from models.nets.torch_net import TorchNet
from models.params import Params, Spec
from models.serving.export import to_onnx


def test_the_models_word_goes_before_the_devices_preference() -> None:
    assert framework_of(ModelSpec(), "torch") == "torch"
    assert framework_of(ModelSpec(framework="numpy"), "torch") == "numpy"
    assert framework_of(ModelSpec(framework="torch"), "numpy") == "torch"
    assert framework_of(ModelSpec(kind="a:b"), "numpy") == "torch"


def test_numpy_and_torch_build_nets_of_one_spec() -> None:
    model = ModelSpec(inputs=3, hidden=(4,), outputs=2)
    ours, theirs = build(model), build(model, framework="torch")
    assert isinstance(ours, Mlp)
    assert isinstance(theirs, TorchNet)
    assert ours.spec == theirs.spec


def test_a_factory_that_is_not_allowed_is_not_imported() -> None:
    with pytest.raises(ModelError, match=r"add it to allow in \[models\] of agent\.toml"):
        build(ModelSpec(kind="this_would_fail:make"), allow=("this_would_fail:other",))


def test_missing_torch_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r'pip install "fedge\[torch\]"'):
        build(ModelSpec(framework="torch"))


def test_building_a_numpy_net_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, models.nets.table, models.nets.mlp, models.training.train\n"
        "from models.job import ModelSpec\n"
        "for kind, row in models.nets.table.NETS.items():\n"
        "    models.nets.table.build(ModelSpec(kind) if row.loss is None else ModelSpec(kind, inputs=2, hidden=(1,)))\n"
        "sys.exit(' '.join({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_who_only_reads_a_job_loads_no_numpy_before_there_is_a_model() -> None:
    code = "import sys, models.job, models.nets.net, models.nets.factory; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What every row of the table has to hold, whatever its kind.

ANY_LOSS = [kind for kind, row in nets.NETS.items() if row.loss is None]
"""Kinds without a loss of their own; those that have one have their tests beside them."""
OWNED = {row.loss for row in nets.NETS.values()}
EVERY = list(product(ANY_LOSS, [loss for loss in LOSSES if loss not in OWNED]))
every_kind = pytest.mark.parametrize(("kind", "loss"), EVERY)


def model_of(kind: str, loss: str) -> ModelSpec:
    return ModelSpec(kind, inputs=4, outputs=1 if loss == "binary" else 3, loss=loss)  # type: ignore[arg-type]


SMOOTH: dict[str, dict[str, Any]] = {
    kind: {"activation": "tanh", "options": {"pooling": "average"}} for kind in ("cnn1d", "cnn2d")
}
"""Keys of a net that has no corners, where a slope is one thing on either side."""


def make_params(spec: Spec, seed: int = 0) -> Params:
    generator = np.random.default_rng(seed)
    return {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in spec}


def make_data(model: ModelSpec, n: int = 9) -> Dataset:
    generator = np.random.default_rng(1)
    shapes = nets.find(model.kind).spec.of(model).shapes or ((2, model.inputs // 2),)
    X = generator.standard_normal((n, *shapes[0])).astype(np.float32)
    loss = losses.of(model)
    most = loss.n_classes if loss.task == "classes" else 2
    return fit(Dataset(X, generator.integers(0, most, (n, loss.n_columns))), model)


@every_kind
def test_a_rows_own_specification_is_tagged_by_its_kind_and_reads_as_the_model(kind: str, loss: str) -> None:
    model, row = model_of(kind, loss), nets.find(kind)
    own = row.spec.of(model)
    assert (own.inputs, own.outputs, own.loss, own.framework) == (4, model.outputs, loss, "any")
    assert msgspec.to_builtins(own)["kind"] == kind
    assert msgspec.convert(msgspec.to_builtins(own), ModelSpec) == model
    assert nets.factories_of(model) == ()


@every_kind
def test_rows_of_data_are_fitted_flat(kind: str, loss: str) -> None:
    data = make_data(model_of(kind, loss))
    assert (data.X.shape, data.X.dtype) == ((9, 4), np.float32)
    again = fit(data, model_of(kind, loss))
    assert np.shares_memory(again.X, data.X)
    assert np.shares_memory(again.y, data.y)
    wanted = losses.of(model_of(kind, loss))
    is_class = wanted.task == "classes"
    assert (data.y.shape, data.y.dtype) == (((9,), np.int64) if is_class else ((9, wanted.n_columns), np.float32))


@every_kind
def test_numpy_and_torch_compute_the_same(kind: str, loss: str) -> None:
    model = model_of(kind, loss)
    ours, theirs, (X, y, *_) = build(model), build(model, framework="torch"), make_data(model)
    assert isinstance(theirs, TorchNet)
    assert not isinstance(ours, TorchNet)
    assert ours.spec == theirs.spec
    params = make_params(ours.spec)
    (my_loss, mine), (their_loss, their) = (n.loss_and_gradients(params, X, y, scale=0.5) for n in (ours, theirs))
    assert my_loss == pytest.approx(their_loss, rel=1e-5, abs=1e-5)
    for t in ours.spec:
        np.testing.assert_allclose(mine[t.name], their[t.name], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.predict(params, X), theirs.predict(params, X), rtol=1e-5, atol=1e-5)
    mine_of_all, theirs_of_all = ours.evaluate(params, X, y), theirs.evaluate(params, X, y)
    assert mine_of_all.loss == pytest.approx(theirs_of_all.loss, rel=1e-5)
    assert mine_of_all[1:] == theirs_of_all[1:]


@every_kind
def test_weights_are_those_of_the_losses_of_the_rows_on_numpy_and_torch_alike(kind: str, loss: str) -> None:
    model = model_of(kind, loss)
    data = make_data(model)
    weights = np.random.default_rng(2).random(len(data.y), np.float32) * 3
    weights.flags.writeable = False
    params = make_params(build(model).spec)
    for net in (build(model), build(model, framework="torch")):
        alone = [net.loss_and_gradients(params, data.X[i : i + 1], data.y[i : i + 1]) for i in range(len(data.y))]
        found, gradients = net.loss_and_gradients(params, data.X, data.y, weights=weights, scale=0.5)
        assert found == pytest.approx(
            np.mean([w * of_row for w, (of_row, _) in zip(weights, alone, strict=True)]), 1e-5
        )
        for name, gradient in gradients.items():
            rows = [w * of_row[name] for w, (_, of_row) in zip(weights, alone, strict=True)]
            np.testing.assert_allclose(gradient, 0.5 * np.mean(rows, axis=0), rtol=1e-4, atol=1e-5)


@every_kind
def test_weights_of_one_change_nothing(kind: str, loss: str) -> None:
    model = model_of(kind, loss)
    net, (X, y, *_) = build(model), make_data(model)
    params, ones = make_params(net.spec), np.ones(len(y), np.float32)
    plain, weighed = net.loss_and_gradients(params, X, y), net.loss_and_gradients(params, X, y, weights=ones)
    assert plain[0] == pytest.approx(weighed[0], rel=1e-6)
    for name, gradient in plain[1].items():
        np.testing.assert_allclose(weighed[1][name], gradient, rtol=1e-6, atol=1e-7)


@every_kind
def test_every_gradient_is_the_slope_of_the_loss(kind: str, loss: str) -> None:
    model = structs.replace(model_of(kind, loss), **SMOOTH.get(kind, {}))
    net, (X, y, *_) = build(model), make_data(model)
    params = make_params(net.spec)
    _, gradients = net.loss_and_gradients(params, X, y)
    every = [(t.name, index) for t in net.spec for index in np.ndindex(t.shape)]
    for name, index in every[:: max(1, len(every) // 100)]:
        ahead, behind = (net.loss_and_gradients(moved(params, name, index, h), X, y)[0] for h in (1e-2, -1e-2))
        assert (ahead - behind) / 2e-2 == pytest.approx(gradients[name][index], rel=1e-2, abs=2e-3), (name, index)


def moved(params: Params, name: str, index: tuple[int, ...], by: float) -> Params:
    value = params[name].copy()
    value[index] += np.float32(by)
    return params | {name: value}


@every_kind
def test_buffers_are_used_and_nothing_else_is_written_to(kind: str, loss: str) -> None:
    model = model_of(kind, loss)
    net, (X, y, *_) = build(model), make_data(model)
    params, out = make_params(net.spec), make_params(net.spec, 1)
    for array in (*params.values(), X, y):
        array.flags.writeable = False
    plain_loss, plain = net.loss_and_gradients(params, X, y)
    found, scaled = net.loss_and_gradients(params, X, y, scale=0.5, out=out)
    assert (found, scaled) == (plain_loss, out)
    for name, gradient in plain.items():
        np.testing.assert_allclose(2 * scaled[name], gradient, rtol=1e-5, atol=1e-6)
    net.predict(params, X)
    net.evaluate(params, X, y)


@every_kind
def test_onnxruntime_answers_as_predict_does(kind: str, loss: str) -> None:
    model = model_of(kind, loss)
    net, (X, *_) = build(model), make_data(model)
    params = make_params(net.spec)
    body = to_onnx(model, params, metadata={})
    session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == [losses.of(model).answer_name]
    for n in (1, 9):  # the batch is free
        answers = session.run(None, {"input": X[:n]})[0]
        np.testing.assert_allclose(answers, net.predict(params, X[:n]), rtol=1e-5, atol=1e-5)


@every_kind
def test_params_that_have_diverged_show_in_the_answers_without_a_warning(kind: str, loss: str) -> None:
    model = model_of(kind, loss)
    net, (X, y, *_) = build(model), make_data(model)
    # Of a recurrent net, what leads to the gates from below is negative: else all is kept, of a state that is zero.
    params = {t.name: np.full(t.shape, -3e38 if "_ih_" in t.name else 3e38, np.float32) for t in net.spec}
    X = np.abs(X) + np.float32(1)
    assert not np.isfinite(net.evaluate(params, X, y).loss)
    assert not np.isfinite(net.predict(params, X)).any()


@pytest.mark.parametrize("kind", ANY_LOSS)
def test_a_net_beyond_all_size_is_refused_before_anything_is_allocated(kind: str) -> None:
    with pytest.raises(ValueError, match=r"are more than the (25,000,000|131,072)|can see 4,194,304"):
        ModelSpec(kind, inputs=1_000_000, outputs=100_000)
    ModelSpec("a:b", inputs=1_000_000, outputs=100_000)


def test_a_kind_that_nobody_knows_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r'kind = "transformer" is neither "mlp".* nor "package.module:factory"'):
        ModelSpec("transformer")


def test_a_factory_is_the_one_kind_that_has_to_be_allowed() -> None:
    assert nets.factories_of(ModelSpec("a:b")) == ("a:b",)
    assert nets.find("a:b") is nets.FACTORY
    assert (nets.FACTORY.numpy, nets.FACTORY.onnx) == (None, None)
