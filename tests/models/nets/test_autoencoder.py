from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from models.job import ContractSpec, JobSpec, ModelSpec
from models.lattice import initial
from models.nets import losses, table
from models.nets.layers.activation import Activation
from models.nets.layers.dense import Dense
from models.nets.layers.layer import Place, Scratch
from models.nets.layers.reconstruction import Reconstruction
from models.params import Float32, Params
from models.serving.export import to_onnx
from models.serving.inference import open_model

MODEL = ModelSpec("autoencoder", inputs=6, hidden=(8, 3), activation="tanh")


def rows(n: int = 9, columns: int = 6) -> Float32:
    return np.random.default_rng(1).normal(size=(n, columns)).astype(np.float32)


def params_of(model: ModelSpec) -> Params:
    return initial(table.build(model).spec, 4).params(table.build(model).spec)


def test_the_decoder_mirrors_the_encoder_and_torch_has_the_same_parameters() -> None:
    ours, theirs = table.build(MODEL), table.by_torch(MODEL)
    assert [t.shape for t in ours.spec if len(t.shape) == 2] == [(8, 6), (3, 8), (8, 3), (6, 8)]
    assert ours.spec == theirs.spec


@pytest.mark.parametrize("hidden", [(3,), (8, 3), (5, 4, 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_numpy_and_torch_agree_on_score_loss_and_gradients(hidden: tuple[int, ...], *, weighted: bool) -> None:
    model = ModelSpec("autoencoder", inputs=6, hidden=hidden)
    ours, theirs, params, X = table.build(model), table.by_torch(model), params_of(model), rows()
    y = np.array([0, 1, 0, 0, 1, 0, 0, 0, 0])
    weights = np.linspace(0.5, 2.0, 9, dtype=np.float32) if weighted else None
    loss, gradients = ours.loss_and_gradients(params, X, y, weights=weights, scale=0.5)
    other, others = theirs.loss_and_gradients(params, X, y, weights=weights, scale=0.5)
    assert abs(loss - other) < 1e-5
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, others[name], atol=1e-5)
    np.testing.assert_allclose(ours.predict(params, X), theirs.predict(params, X), rtol=1e-5, atol=1e-5)
    assert abs(ours.evaluate(params, X, y).loss - theirs.evaluate(params, X, y).loss) < 1e-5


def test_a_score_is_the_mean_squared_error_of_what_a_plain_torch_net_gives_back() -> None:
    params, X = params_of(MODEL), rows()
    plain = nn.Sequential(
        *(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6)),
    )
    plain.load_state_dict({name.removeprefix("0."): torch.from_numpy(value) for name, value in params.items()})
    with torch.no_grad():
        given = plain(torch.from_numpy(X)).numpy()
    found = table.build(MODEL).predict(params, X)
    assert found.shape == (9, 1)
    np.testing.assert_allclose(found[:, 0], np.square(given - X).mean(axis=1), rtol=1e-5, atol=1e-5)


def test_onnxruntime_answers_the_same_score() -> None:
    params, X = params_of(MODEL), rows()
    session = open_model(to_onnx(MODEL, params, metadata={}))
    assert [value.name for value in session.get_outputs()] == ["score"]
    np.testing.assert_allclose(
        session.run(None, {"input": X})[0], table.build(MODEL).predict(params, X), rtol=1e-5, atol=1e-5
    )


def test_known_anomalies_are_not_trained_on() -> None:
    net, params, X = table.build(MODEL), params_of(MODEL), rows()
    y = np.array([0] * 6 + [1] * 3)
    loss, gradients = net.loss_and_gradients(params, X, y)
    alone, others = net.loss_and_gradients(params, X[:6], y[:6])
    assert loss == pytest.approx(alone * 6 / 9, rel=1e-5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, others[name] * (6 / 9), atol=1e-6)


def test_noise_is_drawn_in_training_alone_and_follows_from_the_draw() -> None:
    model = ModelSpec("autoencoder", inputs=6, hidden=(8, 3), options={"noise": 0.5})
    net, params, X, y = table.build(model), params_of(model), rows(), np.zeros(9, np.int64)
    first, again, other = (net.loss_and_gradients(params, X, y, draw=draw)[0] for draw in (1, 1, 2))
    assert first == again
    assert first != other
    quiet = table.build(ModelSpec("autoencoder", inputs=6, hidden=(8, 3)))
    assert net.evaluate(params, X, y) == quiet.evaluate(params, X, y)
    torchs = table.by_torch(model)
    assert torchs.loss_and_gradients(params, X, y, draw=1)[0] == torchs.loss_and_gradients(params, X, y, draw=1)[0]


def test_the_rows_are_left_as_they_are() -> None:
    X = rows()
    before = X.copy()
    table.build(MODEL).loss_and_gradients(params_of(MODEL), X, np.zeros(9, np.int64))
    assert np.array_equal(X, before)


def test_the_gradient_by_the_rows_is_that_of_both_sides_of_the_error() -> None:
    layer = Reconstruction(3, (Dense(3, 2), Activation("tanh", (2,)), Dense(2, 3)))
    rng = np.random.default_rng(0)
    tensors = [rng.normal(size=t.shape).astype(np.float32) for t in layer.tensors]
    x, step = rng.normal(size=(4, 3)).astype(np.float32), np.float32(1e-2)

    def total(x: Float32) -> float:
        return float(layer.forward(Place(Scratch(), "0", draw=None, free=False), tensors, x).sum())

    place = Place(Scratch(), "0", draw=None, free=False)
    layer.forward(place, tensors, x)
    dx = layer.backward(place, tensors, [None] * 4, np.ones((4, 1), np.float32), first=False)
    assert dx is not None
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += step
        down[at] -= step
        assert dx[at] == pytest.approx((total(up) - total(down)) / (2 * step), abs=1e-2)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"outputs": 6, "hidden": (3,)}, "leave outputs out"),
        ({}, "hidden is missing"),
        ({"hidden": (6,)}, "a code of 6 units for inputs = 6"),
        ({"hidden": (3,), "loss": "huber"}, "has a loss of its own: leave loss out"),
        ({"hidden": (3,), "options": {"normal_share": 1.0}}, "options.normal_share = 1"),
        ({"hidden": (3,), "options": {"noise": -1}}, "options.noise = -1"),
        ({"hidden": (3,), "options": {"quantile": 0.9}}, "options.quantile"),
        ({"hidden": (100_000, 3), "inputs": 1000}, "parameters"),
    ],
)
def test_what_cannot_be_is_refused_with_the_key(keys: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ModelSpec(kind="autoencoder", **{"inputs": 6, **keys})  # type: ignore[arg-type]


def test_a_wide_code_is_let_in_where_there_is_noise() -> None:
    assert ModelSpec("autoencoder", inputs=2, hidden=(16,), options={"noise": 0.1}).finds_anomalies


@pytest.mark.parametrize("contract", [ContractSpec(classes=("a",)), ContractSpec(class_weight="balanced")])
def test_classes_in_the_contract_are_refused(contract: ContractSpec) -> None:
    with pytest.raises(ValueError, match="learns no classes: leave them out"):
        JobSpec("hum", MODEL, contract=contract)


def test_labels_are_nought_or_one() -> None:
    with pytest.raises(losses.LabelError, match="neither 0"):
        losses.of(MODEL).labels(np.array([0, 1, 2]))
    assert losses.of(MODEL).labels(np.array([0.0, 1.0], np.float32)).tolist() == [0, 1]


def test_its_loss_is_its_own_whether_it_is_said_or_not_and_no_other_kind_has_it() -> None:
    said = ModelSpec("autoencoder", inputs=6, hidden=(8, 3), activation="tanh", loss="reconstruction")
    assert said == MODEL
    assert msgspec.json.decode(msgspec.json.encode(MODEL), type=ModelSpec) == MODEL
    with pytest.raises(ValueError, match=r'loss = "reconstruction" is none of kind = "mlp"'):
        ModelSpec("mlp", inputs=6, loss="reconstruction")
