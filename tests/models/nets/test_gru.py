from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.dataset import Dataset
from models.job import ModelSpec, TrainSpec
from models.lattice import initial
from models.nets.size import of_model
from models.nets.table import build
from models.serving.export import to_onnx
from models.training.train import begin, finish, seed_for, steps


def model_of(inputs: int, outputs: int = 3, hidden: tuple[int, ...] = (), **options: Any) -> ModelSpec:
    return ModelSpec("gru", inputs=inputs, outputs=outputs, hidden=hidden, options=options)


@given(
    length=st.integers(1, 12),
    columns=st.integers(1, 4),
    units=st.integers(1, 8),
    n_layers=st.integers(1, 4),
    head=st.sampled_from(["last", "mean"]),
    hidden=st.sampled_from([(), (5,), (4, 3)]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_onnxruntime_numpy_and_torch_agree(
    length: int, columns: int, units: int, n_layers: int, head: str, hidden: tuple[int, ...], seed: int
) -> None:
    options = {"columns": columns, "units": units, "layers": n_layers, "head": head}
    model = model_of(length * columns, hidden=hidden, **options)
    ours, theirs = build(model), build(model, framework="torch")
    assert ours.spec == theirs.spec
    rng = np.random.default_rng(seed)
    params = {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in ours.spec}
    session = onnxruntime.InferenceSession(to_onnx(model, params, metadata={}), providers=["CPUExecutionProvider"])
    for n in (1, 6):  # the batch is free
        X = rng.standard_normal((n, length * columns)).astype(np.float32)
        predicted = ours.predict(params, X)
        np.testing.assert_allclose(theirs.predict(params, X), predicted, atol=1e-5)
        np.testing.assert_allclose(session.run(None, {"input": X})[0], predicted, atol=1e-5)


def test_dense_layers_after_the_states_are_those_of_the_envelope() -> None:
    spec = build(model_of(12, 4, hidden=(7,), columns=3, units=5, layers=2)).spec
    assert [tensor.name for tensor in spec if "weight" in tensor.name] == [
        *("0.weight_ih_l0", "0.weight_hh_l0", "0.weight_ih_l1", "0.weight_hh_l1", "1.weight", "3.weight")
    ]
    assert dict(spec)["0.weight_ih_l0"] == (15, 3)
    assert dict(spec)["0.weight_ih_l1"] == (15, 5)
    assert dict(spec)["3.weight"] == (4, 7)


def test_the_memory_that_it_is_said_to_take_grows_with_the_length() -> None:
    short, long = of_model(model_of(60, columns=6)), of_model(model_of(6000, columns=6))
    assert short is not None
    assert long is not None
    assert short.parameters == long.parameters
    assert long.units > 90 * short.units


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"columns": 5}, r"inputs = 384 is no multiple of options\.columns = 5"),
        ({"columns": 0}, r"options\.columns: Expected `int` >= 1"),
        ({"units": 5000}, r"options\.units: Expected `int` <= 4096"),
        ({"layers": 5}, r"options\.layers: Expected `int` <= 4"),
        ({"head": "first"}, r"options\.head: Invalid enum value 'first'"),
        ({"cells": 3}, r'kind = "gru" has no key "options\.cells"'),
        ({"columns": 6, "units": 4096}, r"parameters are more than"),
        ({"columns": 1, "units": 1024}, r"units are more than"),
    ],
)
def test_a_net_that_does_not_fit_is_refused_by_the_key(model: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        model_of(384, **model)


def alternating(n: int, length: int, seed: int) -> Dataset:
    """Rows of two columns; the class is which of them had its only pulse first."""
    rng = np.random.default_rng(seed)
    X = 0.1 * rng.standard_normal((n, length, 2)).astype(np.float32)
    at = np.sort([rng.choice(length, 2, replace=False) for _ in range(n)], axis=1)
    y = rng.integers(0, 2, n)
    X[np.arange(n), at[:, 0], y] += 1
    X[np.arange(n), at[:, 1], 1 - y] += 1
    return Dataset(X.reshape(n, -1), y)


def test_it_learns_from_version_0_what_came_first_long_ago() -> None:
    net = build(model_of(60, 2, columns=2, units=16))
    rows, others = alternating(600, 30, 0), alternating(200, 30, 1)
    state = begin(initial(net.spec, 0).params(net.spec), seed_for(0, 0, "pi-1"))
    train = TrainSpec(epochs=12, batch_size=20, learning_rate=0.1, momentum=0.9)
    done = finish(steps(net, state, rows, train, version_number=0), state)
    assert (net.evaluate(done.params, others.X, others.y).accuracy or 0) > 0.95
