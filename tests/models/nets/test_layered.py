from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.job import ModelSpec
from models.nets import layered
from models.nets.layered import Layered
from models.nets.layers.activation import Activation
from models.nets.layers.dense import Dense
from models.nets.layers.rows import Rows
from models.nets.mlp import Mlp
from models.nets.net import Net
from models.nets.table import build
from models.params import Float32, Params
from tests.models.nets.twins import peak, random_params, random_rows


def test_a_stack_of_dense_layers_is_the_multilayer_perceptron() -> None:
    model = ModelSpec(inputs=5, hidden=(7,), outputs=3)
    mlp, stack = Mlp(model), Layered(model, (Dense(5, 7), Activation("relu", (7,)), Dense(7, 3)))
    rng = np.random.default_rng(0)
    params: Params = {t.name: rng.normal(size=t.shape).astype(np.float32) for t in mlp.spec}
    X, y = rng.normal(size=(11, 5)).astype(np.float32), rng.integers(0, 3, 11)
    assert stack.spec == mlp.spec
    (ours, gradients), (theirs, others) = stack.loss_and_gradients(params, X, y), mlp.loss_and_gradients(params, X, y)
    assert abs(ours - theirs) < 1e-5
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, others[name], atol=1e-5)
    np.testing.assert_allclose(stack.predict(params, X), mlp.predict(params, X), atol=1e-6)


ALL = {"norm": "layer", "dropout": 0.5, "residual": True}
MODEL = ModelSpec("mlp", 5, (8, 6), 3, activation="gelu", options=ALL)


def step(net: Net, params: Params, n: int, draw: int = 0) -> tuple[float, list[Float32]]:
    X, y = random_rows(MODEL, n, n)
    loss, gradients = net.loss_and_gradients(params, X, y, draw=draw)
    return loss, list(gradients.values())


def same(one: tuple[float, list[Float32]], other: tuple[float, list[Float32]]) -> bool:
    return one[0] == other[0] and all(map(np.array_equal, one[1], other[1]))


def test_what_is_drawn_at_random_follows_from_the_draw_whatever_came_before() -> None:
    net, params = build(MODEL), random_params(build(MODEL).spec, 0)
    first = step(net, params, 9, draw=7)
    assert not same(step(net, params, 9, draw=8), first)
    step(net, params, 30, draw=9)
    assert same(step(net, params, 9, draw=7), first)
    assert same(step(build(MODEL), params, 9, draw=7), first)


def test_batches_of_any_size_follow_each_other_as_if_each_were_the_first() -> None:
    net, params = build(MODEL), random_params(build(MODEL).spec, 0)
    for n in (20, 3, 20, 31, 1):
        assert same(step(net, params, n), step(build(MODEL), params, n))


def test_several_threads_train_and_ask_one_net() -> None:
    net, params = build(MODEL), random_params(build(MODEL).spec, 0)
    alone = {n: step(build(MODEL), params, n, draw=n) for n in range(1, 9)}

    def work(n: int) -> bool:
        X, _ = random_rows(MODEL, n, n)
        answers = build(MODEL).predict(params, X)
        return all(
            same(step(net, params, n, draw=n), alone[n]) and np.array_equal(net.predict(params, X), answers)
            for _ in range(20)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, alone))


@pytest.mark.parametrize("kind", ["linear", "mlp", "mlp with all"])
def test_a_tensor_that_does_not_move_has_no_gradient_and_the_others_have_theirs(kind: str) -> None:
    model = MODEL if kind == "mlp with all" else ModelSpec(kind, 5, (8,) if kind == "mlp" else (), 3)
    net = build(model)
    params = random_params(net.spec, 0)
    X, y = random_rows(model, 6, 1)
    loss, whole = net.loss_and_gradients(params, X, y, draw=3)
    for frozen in [(name,) for name in whole] + [tuple(whole)[:3], tuple(whole)[:1], tuple(whole)]:
        out = {name: np.full_like(value, np.nan) for name, value in params.items() if name not in frozen}
        found, gradients = net.loss_and_gradients(params, X, y, out=out, draw=3)
        assert found == loss
        assert list(gradients) == [name for name in whole if name not in frozen]
        for name, gradient in gradients.items():
            np.testing.assert_array_equal(gradient, whole[name])


def test_rows_go_through_a_wide_net_a_few_at_a_time() -> None:
    shape = (400, 100)
    layers = (Rows(shape), Activation("relu", shape), Activation("relu", shape), Rows((40_000,)), Dense(40_000, 2))
    net = Layered(ModelSpec("linear", 40_000, (), 2), layers)
    params = random_params(net.spec, 0)
    X = np.ones((500, 40_000), np.float32)
    with peak() as most:
        answers = net.predict(params, X)
    assert most() < 9_000_000  # all rows at once: 80 MB an activation
    np.testing.assert_allclose(answers, np.broadcast_to(answers[0], answers.shape), rtol=1e-5)


def test_layers_that_are_too_large_are_counted_in_integers_of_any_length() -> None:
    huge = (10**30, 10**30)
    with pytest.raises(ValueError, match=r"units are more than the 131,072 of a built-in net: options\.size"):
        layered.check((Rows(huge), Activation("relu", huge)), "options.size")
    with pytest.raises(ValueError, match=r"parameters are more than the 25,000,000"):
        layered.check((Dense(10**30, 10**30),), "options.size")
    layered.check((Dense(3, 2),), "options.size")
