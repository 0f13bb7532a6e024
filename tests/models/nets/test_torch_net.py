from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.data.dataset import Dataset
from models.job import ModelSpec, TrainSpec
from models.nets.net import ModelError, Net
from models.nets.table import build
from models.params import Params, spec_of
from models.training.train import TrainingError, begin, finish, from_bytes, seed_for, steps, to_bytes

HERE = __name__


class Normed(nn.Module):
    """Has an input shape, a buffer, a tied weight and a parameter that nothing uses."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_shape = (1, 2, 3)
        self.norm = nn.BatchNorm1d(6)
        self.first = nn.Linear(6, width)
        self.again = self.first
        self.last = nn.Linear(width, 2)
        self.spare = nn.Parameter(torch.zeros(3))

    def forward(self, X: torch.Tensor) -> Any:
        assert X.shape[1:] == self.input_shape
        return self.last(torch.relu(self.first(self.norm(X.flatten(1)))))


def make_normed(width: int = 4) -> nn.Module:
    return Normed(width)


def make_number() -> int:
    return 3


def make_half() -> nn.Module:
    return nn.Linear(3, 2).to(torch.float64)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a factory of this very file be found under a name, whatever the test runner calls the file."""
    import sys

    monkeypatch.setitem(sys.modules, "factories_for_tests", sys.modules[HERE])


def build_here(factory: str, **fields: Any) -> Net:
    kind = f"factories_for_tests:{factory}"
    return build(ModelSpec(kind=kind, **fields), allow=(kind,))


def make_params(net: Net, seed: int = 0) -> Params:
    generator = np.random.default_rng(seed)
    return {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in net.spec}


@given(
    hidden=st.lists(st.integers(1, 6), max_size=3),
    activation=st.sampled_from(["relu", "tanh"]),
    loss=st.sampled_from(["cross_entropy", "mse"]),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 4),
    n=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_torch_and_numpy_are_one_net(
    hidden: list[int], activation: Any, loss: Any, inputs: int, outputs: int, n: int, seed: int
) -> None:
    model = ModelSpec(inputs=inputs, hidden=tuple(hidden), outputs=outputs, activation=activation, loss=loss)
    ours, theirs = build(model), build(model, framework="torch")
    assert ours.spec == theirs.spec
    params, generator = make_params(ours, seed), np.random.default_rng(seed)
    X = generator.standard_normal((n, inputs)).astype(np.float32)
    values = generator.standard_normal((n, outputs)).astype(np.float32)
    y = generator.integers(0, outputs, n) if loss == "cross_entropy" else values
    my_loss, mine = ours.loss_and_gradients(params, X, y, scale=0.5)
    their_loss, their = theirs.loss_and_gradients(params, X, y, scale=0.5)
    assert my_loss == pytest.approx(their_loss, rel=1e-5, abs=1e-5)
    for name in mine:
        np.testing.assert_allclose(mine[name], their[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.predict(params, X), theirs.predict(params, X), rtol=1e-5, atol=1e-5)
    my_metrics, their_metrics = (net.evaluate(params, X, y) for net in (ours, theirs))
    assert my_metrics.loss == pytest.approx(their_metrics.loss, rel=1e-5, abs=1e-5)
    assert my_metrics[1:] == their_metrics[1:]


def test_a_factorys_parameters_cross_in_order_once_and_its_statistics_beside_them() -> None:
    net = build_here("make_normed", inputs=6, outputs=2, options={"width": 5})
    assert [t.name for t in net.spec] == [
        "spare",
        "norm.weight",
        "norm.bias",
        "first.weight",
        "first.bias",
        "last.weight",
        "last.bias",
    ]
    assert [t.name for t in net.buffers] == ["norm.running_mean", "norm.running_var"]
    params = make_params(net)
    X = np.random.default_rng(1).standard_normal((8, 2, 3)).astype(np.float32)
    before = net.predict(params, X)
    _, gradients = net.loss_and_gradients(params, X, np.zeros(8, np.int64))
    assert spec_of(gradients) == net.spec
    assert not gradients["spare"].any()
    assert all(gradient.dtype == np.float32 for gradient in gradients.values())
    np.testing.assert_array_equal(net.predict(params, X), before)  # nothing of a step stays in this object
    beside = {name: np.array(value) for name, value in net.first_buffers.items()}
    net.loss_and_gradients({**params, **beside}, X, np.zeros(8, np.int64))
    assert not np.allclose(net.predict({**params, **beside}, X), before)
    np.testing.assert_array_equal(net.predict(params, X), net.predict(params, X.reshape(8, 6)))


def test_a_module_of_another_precision_computes_in_float32() -> None:
    net = build_here("make_half", inputs=3, outputs=2)
    X = np.ones((2, 3), np.float32)
    _, gradients = net.loss_and_gradients(make_params(net), X, np.array([0, 1]))
    assert {gradient.dtype for gradient in gradients.values()} == {np.dtype(np.float32)}


def test_read_only_arrays_are_taken() -> None:
    net = build(ModelSpec(inputs=3, outputs=2), framework="torch")
    params, X = make_params(net), np.ones((2, 3), np.float32)
    for array in (*params.values(), X):
        array.flags.writeable = False
    net.loss_and_gradients(params, X, np.array([0, 1]))


def test_what_a_factory_gets_wrong_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="gave a int"):
        build_here("make_number")
    with pytest.raises(ModelError, match="make_nothing"):
        build_here("make_nothing")
    with pytest.raises(ModelError, match="unexpected keyword"):
        build_here("make_normed", options={"depth": 3})
    with pytest.raises(ModelError, match="no_such_module"):
        build(ModelSpec(kind="no_such_module:make"), allow=("no_such_module:make",))


def test_outputs_of_another_shape_than_the_models_are_a_model_error() -> None:
    net = build_here("make_normed", inputs=6, outputs=3)
    with pytest.raises(ModelError, match="outputs = 3"):
        net.predict(make_params(net), np.ones((2, 6), np.float32))


def test_torch_keeps_to_one_thread() -> None:
    assert torch.get_num_threads() == 1


class Two(nn.Module):
    """Takes two tensors, of which the second comes first."""

    input_shapes = ((2, 2), (3,))

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, image: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        assert image.shape[1:] == (2, 2)
        return self.left(image.flatten(1)) + self.right(more)


def make_two() -> nn.Module:
    return Two()


def make_shaped(shapes: Any, name: str = "input_shapes") -> nn.Module:
    module = nn.Linear(7, 2)
    setattr(module, name, shapes)
    return module


class Own(nn.Module):
    """A loss of its own, which hangs on what forward has kept, and on a parameter of its own."""

    def __init__(self, how: str = "rows") -> None:
        super().__init__()
        self.layer, self.penalty, self.how = nn.Linear(3, 2), nn.Parameter(torch.tensor(0.5)), how

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        self.kept = self.layer(X)
        return self.kept * 1.0

    def loss(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.cross_entropy(outputs, y, reduction="none") + self.penalty**2 * self.kept.square().sum(1)
        return rows if self.how == "rows" else rows.mean()


class Weighing(Own):
    def loss(self, outputs: torch.Tensor, y: torch.Tensor, weights: Any = None) -> torch.Tensor:  # type: ignore[override]
        rows = nn.functional.cross_entropy(outputs, y, reduction="none")
        return (rows if weights is None else rows * weights**2).sum()


def make_own(how: str = "rows") -> nn.Module:
    return Own(how)


def make_weighing() -> nn.Module:
    return Weighing()


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.last = nn.LSTM(1, 4, num_layers=2, dropout=0.5, batch_first=True), nn.Linear(4, 2)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.dropout(self.recurrent(X[:, :, None])[0][:, -1], 0.3, training=self.training))


def make_dropping() -> nn.Module:
    return Dropping()


def test_a_row_is_cut_into_the_tensors_that_a_module_takes() -> None:
    net = build_here("make_two", inputs=7, outputs=2)
    params, X = make_params(net), np.random.default_rng(2).standard_normal((5, 7)).astype(np.float32)
    expected = X[:, :4] @ params["left.weight"].T + X[:, 4:] @ params["right.weight"].T
    expected += params["left.bias"] + params["right.bias"]
    net_outputs = net.outputs(params, X)  # type: ignore[attr-defined]
    np.testing.assert_allclose(net_outputs, expected, rtol=1e-5, atol=1e-5)
    _, gradients = net.loss_and_gradients(params, X, np.zeros(5, np.int64))
    assert all(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        ([[2, 2], [4]], "input_shapes"),
        ([7, 0], "input_shape"),
        ("seven", "input_shape"),
        ([[-8, -1], [-1]], "input_shapes"),
    ],
)
def test_shapes_that_a_row_cannot_be_cut_into_are_a_model_error(shapes: Any, name: str) -> None:
    with pytest.raises(ModelError, match=f"has {name} = .*which a row of inputs = 7 cannot be cut into"):
        build_here("make_shaped", inputs=7, outputs=2, options={"shapes": shapes, "name": name})


def test_a_loss_of_the_modules_own_is_trained_and_measured_by() -> None:
    """Central differences of the loss, in which the parameter that is only in the loss counts too."""
    net = build_here("make_own", inputs=3, outputs=2)
    generator = np.random.default_rng(3)
    params, X, y = make_params(net), generator.standard_normal((6, 3)).astype(np.float32), np.arange(6) % 2
    weights = generator.uniform(0.5, 2.0, 6).astype(np.float32)
    _, gradients = net.loss_and_gradients(params, X, y, weights=weights)
    for name in net.spec:
        up, down = ({**params, name.name: params[name.name] + sign * np.float32(1e-2)} for sign in (1, -1))
        slope = (
            (net.loss_and_gradients(up, X, y, weights=weights)[0])
            - (net.loss_and_gradients(down, X, y, weights=weights)[0])
        )
        assert slope / 2e-2 == pytest.approx(float(gradients[name.name].sum()), rel=0.02, abs=2e-3)
    metrics = net.evaluate(params, X, y)
    assert metrics.loss == pytest.approx(net.loss_and_gradients(params, X, y)[0], rel=1e-5)
    assert metrics.accuracy == (net.predict(params, X).argmax(axis=1) == y).mean()
    np.testing.assert_allclose(net.predict(params, X).sum(axis=1), 1, rtol=1e-5)


def test_rows_count_differently_where_an_own_loss_can_weigh_them() -> None:
    X, y, weights = np.ones((2, 3), np.float32), np.array([0, 1]), np.array([3, 0], np.float32)
    net = build_here("make_own", inputs=3, outputs=2, options={"how": "one"})
    net.loss_and_gradients(make_params(net), X, y)
    with pytest.raises(ModelError, match="its own loss gives one number for all of them"):
        net.loss_and_gradients(make_params(net), X, y, weights=weights)
    net = build_here("make_weighing", inputs=3, outputs=2)
    one, _ = net.loss_and_gradients(make_params(net), X[:1], y[:1])
    assert net.loss_and_gradients(make_params(net), X, y, weights=weights)[0] == pytest.approx(9 * one, rel=1e-5)


def test_a_run_with_dropout_that_is_resumed_elsewhere_is_the_same_bit_for_bit() -> None:
    nets, train = [build_here("make_dropping", inputs=3, outputs=2) for _ in range(2)], TrainSpec(3, 4, momentum=0.5)
    generator = np.random.default_rng(1)
    data = Dataset(generator.standard_normal((10, 3)).astype(np.float32), generator.integers(0, 2, 10))
    begun = begin(make_params(nets[0]), seed_for(0, 0, "pi"))
    whole = finish(steps(nets[0], begun, data, train, version_number=0), begun)
    run = steps(nets[0], begun, data, train, version_number=0)
    half = from_bytes(to_bytes([next(run) for _ in range(4)][-1].state), nets[0].spec)
    torch.manual_seed(99)
    resumed = finish(steps(nets[1], half, data, train, version_number=0), half)
    for name, value in whole.params.items():
        assert value.tobytes() == resumed.params[name].tobytes()
    other = nets[0].loss_and_gradients(begun.params, data.X, data.y, draw=1)[0]
    assert other != nets[0].loss_and_gradients(begun.params, data.X, data.y, draw=2)[0]


@pytest.mark.parametrize(("n", "batches"), [(9, [4, 5]), (8, [4, 4]), (10, [4, 4, 2]), (2, [2]), (5, [5])])
def test_a_last_batch_of_one_row_goes_into_the_one_before_where_a_batch_norm_takes_none(
    n: int, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = build_here("make_normed", inputs=6, outputs=2)
    data = Dataset(np.random.default_rng(1).standard_normal((n, 6)).astype(np.float32), np.arange(n) % 2)
    seen: list[int] = []
    one = net.loss_and_gradients
    monkeypatch.setattr(net, "loss_and_gradients", lambda p, X, y, **how: (seen.append(len(y)), one(p, X, y, **how))[1])
    state = begin(make_params(net), seed_for(0, 0, "pi"))
    finish(steps(net, state, data, TrainSpec(2, 4), version_number=0), state)
    assert seen == 2 * batches


@pytest.mark.parametrize(("n", "size", "why"), [(1, 4, "1 example here"), (5, 1, r"batch_size = 1 in \[train\]")])
def test_where_a_batch_norm_has_one_row_at_a_time_training_says_so(n: int, size: int, why: str) -> None:
    net = build_here("make_normed", inputs=6, outputs=2)
    data = Dataset(np.ones((n, 6), np.float32), np.zeros(n, np.int64))
    state = begin(make_params(net), seed_for(0, 0, "pi"))
    with pytest.raises(TrainingError, match=f"the net takes 2 rows at once at least, as BatchNorm does: {why}"):
        finish(steps(net, state, data, TrainSpec(1, size), version_number=0), state)
