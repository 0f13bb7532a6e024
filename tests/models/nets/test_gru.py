from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.data.dataset import Dataset, DatasetError, fit
from models.job import ModelSpec, TrainSpec
from models.lattice import initial
from models.nets.size import of_model
from models.nets.table import build
from models.training.train import begin, finish, seed_for, steps


def model_of(inputs: int, outputs: int = 3, hidden: tuple[int, ...] = (), **options: Any) -> ModelSpec:
    return ModelSpec("gru", inputs=inputs, outputs=outputs, hidden=hidden, options=options)


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
        ({"units": 1, "norm": "layer"}, r"options\.norm is over one number alone"),
    ],
)
def test_a_net_that_does_not_fit_is_refused_by_the_key(model: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        model_of(384, **model)


def test_a_window_with_its_columns_first_is_refused_and_not_read_as_moments() -> None:
    X, y = np.zeros((5, 4, 3), np.float32), np.zeros(5, np.int64)
    model = model_of(12, columns=3)
    assert fit(Dataset(X, y), model).X.shape == (5, 12)
    with pytest.raises(DatasetError, match=r"an example is 3 x 4, where the model takes 4 x 3 \(channels last\)"):
        fit(Dataset(X.swapaxes(1, 2), y), model)


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
