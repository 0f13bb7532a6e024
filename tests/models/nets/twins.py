"""What a kind of net has to be, whatever its options: the same in NumPy, in Torch and as ONNX.

`hold(model)` checks all of it, and `hold_layer(layer, shape)` does so of one layer; a test draws them and calls it:

    hold(ModelSpec("mlp", 4, (8, 8), 3, options={"norm": "layer", "dropout": 0.2}), seed)
    hold_layer(GroupNorm(2, (5, 4)), (5, 4), seed)

What is not a number that a net makes of its rows (memory of a step, what is refused) is in the tests beside this.
"""

from __future__ import annotations

import functools
import math
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime
from onnx import checker

from models.job import ModelSpec
from models.nets import layered, losses, table
from models.nets.layered import Layered, Layers
from models.nets.layers.dense import Dense
from models.nets.layers.layer import Layer, Shape
from models.nets.layers.rows import Flatten, Rows
from models.nets.losses import Labels
from models.nets.net import Net
from models.nets.scratch import scratch_of
from models.nets.torch_net import TorchNet, nn
from models.params import Float32, Params, Spec
from models.serving.export import graph_of, to_onnx

CLOSE = 1e-5
"""How far apart two of them may be, relative to the largest number of what is compared (or to 1, if that is more)."""
BATCHES = (17, 1, 3)


def hold(model: ModelSpec, seed: int = 0) -> None:
    """Hold the net that NumPy computes against that of Torch and against onnxruntime, on random weights and rows."""
    ours, theirs = table.build(model), table.build(model, framework="torch")
    assert ours.spec == theirs.spec
    params = random_params(ours.spec, seed)
    body = to_onnx(model, params, metadata={})
    session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])
    for n in BATCHES:
        X, y = random_rows(model, n, seed + n)
        before = {name: value.copy() for name, value in params.items()}, X.copy(), y.copy()
        steps_agree(ours, theirs, params, X, y, draw=seed)
        answers = ours.predict(params, X)
        assert answers.dtype == np.float32
        rounded = [functools.partial(theirs.predict, other, X) for other in nudged(params)]
        near(answers, theirs.predict(params, X), "predictions of Torch", rounded)
        near(answers, session.run(None, {"input": X})[0], "answers of onnxruntime", rounded)
        near(ours.evaluate(params, X, y).loss, theirs.evaluate(params, X, y).loss, "loss without training")
        for name, value in params.items():
            assert np.array_equal(value, before[0][name]), f"{name} was written to"
        assert np.array_equal(X, before[1])
        assert np.array_equal(y, before[2])


def steps_agree(ours: Net, theirs: Net, params: Params, X: Float32, y: Labels, *, draw: int = 0) -> None:
    """Hold loss and every gradient of a step against each other, with weights of the rows and a scale."""
    weights = np.random.default_rng(draw).uniform(0.5, 2.0, len(X)).astype(np.float32)
    said: dict[str, Any] = {"weights": weights, "scale": 0.5, "draw": draw}

    def step(net: Net, params: Params, out: Params | None = None) -> Params:
        loss, gradients = net.loss_and_gradients(params, X, y, out=out, **said)
        return {"loss": np.array(loss, np.float32), **gradients}

    mine = step(ours, params, {t.name: np.full(t.shape, np.nan, np.float32) for t in ours.spec})  # nan: not written
    their = step(theirs, params)
    assert list(mine) == ["loss", *(t.name for t in ours.spec)]
    others = [functools.cache(functools.partial(step, theirs, other)) for other in nudged(params)]
    for name, found in mine.items():
        near(found, their[name], name, [functools.partial(_part, other, name) for other in others])
    for name, found in step(ours, params).items():
        assert np.array_equal(found, mine[name]), f"a step that is done again gives another {name}"


def _part(step: Callable[[], Params], name: str) -> Float32:
    return step()[name]


def near(found: Any, wanted: Any, what: str, rounded: Sequence[Callable[[], Any]] = ()) -> None:
    """Raise AssertionError where two arrays of one shape are further apart than CLOSE.

    rounded: each makes what is wanted of weights that are rounded otherwise; where one is far away as well, so may be
    what is found: a norm over two numbers that are nearly the same multiplies their last bits by a hundred, and its
    gradient by as much again.
    """
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, f"{what}: {found.shape} is not {wanted.shape}"
    most = CLOSE * max(1.0, float(np.abs(wanted).max(initial=0.0)))
    if not np.abs(found - wanted).max(initial=0.0) <= most and rounded:
        most += 40 * max(float(np.abs(other() - wanted).max(initial=0.0)) for other in rounded)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=most, err_msg=what)


def nudged(params: Params) -> list[Params]:
    """Return the weights three times, each of them one float32 away: up or down at random, so that what two numbers
    are apart moves too.
    """
    generator = np.random.default_rng(0)

    def moved(value: Float32) -> Float32:
        return np.nextafter(
            value, np.where(generator.random(value.shape) < 0.5, np.float32(-np.inf), np.float32(np.inf))
        )

    return [{name: moved(value) for name, value in params.items()} for _ in range(3)]


def random_params(spec: Spec, seed: int) -> Params:
    """Return weights as large as a net that trains has, so that nothing vanishes in it or is far from float32's 1."""
    generator = np.random.default_rng(seed)

    def drawn(shape: tuple[int, ...]) -> Float32:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        return (generator.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)

    return {tensor.name: drawn(tensor.shape) for tensor in spec}


def random_rows(model: ModelSpec, n: int, seed: int) -> tuple[Float32, Labels]:
    """Return rows and labels that fit a model, as `models.data.dataset.fit` gives them."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, model.inputs)).astype(np.float32)
    loss = losses.of(model)
    if loss.task == "classes":
        return X, loss.labels(generator.integers(0, loss.n_classes, n))
    if loss.task == "scores":
        return X, loss.labels(generator.integers(0, 2, n))
    if loss.task == "labels":
        return X, loss.labels(generator.integers(0, 2, (n, loss.n_columns)))
    return X, loss.labels(generator.standard_normal((n, loss.n_columns)).astype(np.float32))


def bytes_of_a_step(model: ModelSpec, n: int) -> int:
    """Return the most that a step allocates on the way, once a batch of n rows, and a smaller one, was seen."""
    net = table.build(model)
    params = random_params(net.spec, 0)
    out = {name: np.empty_like(value) for name, value in params.items()}
    X, y = random_rows(model, n, 0)
    for rows in (n, n // 2 + 1, n):
        net.loss_and_gradients(params, X[:rows], y[:rows], out=out, draw=rows)
    with peak() as most:
        net.loss_and_gradients(params, X, y, out=out, draw=1)
    return most()


def hold_layer(layer: Layer, shape: Shape, seed: int = 0) -> None:
    """Hold one layer, which takes (n, *shape), as `hold` does a net: after a dense layer, so that dx counts."""
    inputs, outputs = math.prod(shape), math.prod(layer.shape)
    layers: list[Layer] = [Dense(inputs, inputs), layer]
    layers[1:1] = [] if len(shape) == 1 else [Rows(shape)]
    layers += [] if len(layer.shape) == 1 else [Flatten(layer.shape)]
    hold_layers(layers, inputs, outputs, seed)


def hold_layers(layers: Layers, inputs: int, outputs: int, seed: int = 0) -> None:
    """Hold a stack of layers, of flat rows and with flat outputs, as `hold` does a net."""
    model = ModelSpec("linear", inputs, (), outputs, loss="mse")  # says how many, and no more
    ours, theirs = Layered(model, layers), TorchNet(model, layered.module(layers, nn))
    assert ours.spec == theirs.spec
    params = random_params(ours.spec, seed)
    body = graph_of(model, params, layered.operations(layers))
    checker.check_model(body, full_check=True)
    session = onnxruntime.InferenceSession(body.SerializeToString(), providers=["CPUExecutionProvider"])
    for n in BATCHES:
        X, y = random_rows(model, n, seed + n)
        steps_agree(ours, theirs, params, X, y, draw=seed)
        rounded = [functools.partial(theirs.predict, other, X) for other in nudged(params)]
        near(ours.predict(params, X), theirs.predict(params, X), "predictions of Torch", rounded)
        near(ours.predict(params, X), session.run(None, {"input": X})[0], "answers of onnxruntime", rounded)


def bytes_held_by_a_step(model: ModelSpec, n: int) -> int:
    """Return how much memory a step with n rows leaves in place for the next one, without weights and gradients."""
    net = table.build(model)
    X, y = random_rows(model, n, 0)
    net.loss_and_gradients(random_params(net.spec, 0), X, y)
    return scratch_of(net).n_bytes


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """Say, once it is left, the most bytes that were allocated within and were there at once."""
    found = 0
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        start, _ = tracemalloc.get_traced_memory()
        yield lambda: found
        found = tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()
