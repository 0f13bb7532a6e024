from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.cli import main
from models.job import JobSpec, ModelSpec
from models.nets.linear import Linear, LinearSpec, module
from models.nets.mlp import Mlp
from models.nets.table import build
from models.params import Params
from runtime.settings import SettingsError, convert

TREE = {"name": "digits", "model": {"kind": "linear", "inputs": 64, "outputs": 10}}


def make_params(net: Linear, seed: int = 0) -> Params:
    generator = np.random.default_rng(seed)
    return {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in net.spec}


def test_names_order_and_shapes_are_those_of_a_linear_of_torch() -> None:
    net = Linear(ModelSpec("linear", inputs=4, outputs=3))
    theirs = module(LinearSpec(inputs=4, outputs=3), torch.nn).named_parameters()
    assert [(t.name, t.shape) for t in net.spec] == [(name, tuple(p.shape)) for name, p in theirs]
    assert [t.name for t in net.spec] == ["weight", "bias"]


def test_a_step_by_hand() -> None:
    net = Linear(ModelSpec("linear", inputs=2, outputs=1, loss="mse"))
    params = {"weight": np.array([[2, -1]], np.float32), "bias": np.array([0.5], np.float32)}
    X, y = np.array([[1, 1], [0, 2]], np.float32), np.array([1, 0], np.float32)
    loss, gradients = net.loss_and_gradients(params, X, y)  # outputs 1.5 and -1.5: errors 0.5 and -1.5
    assert loss == (0.25 + 2.25) / 2
    assert gradients["weight"].tolist() == [[0.5, -2.5]]
    assert gradients["bias"].tolist() == [-1.0]
    assert net.predict(params, X).tolist() == [[1.5], [-1.5]]


@given(
    loss=st.sampled_from(["cross_entropy", "mse"]),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 5),
    n=st.integers(1, 2000),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_it_is_torchs_and_an_mlp_without_a_hidden_layer(
    loss: Any, inputs: int, outputs: int, n: int, seed: int
) -> None:
    model = ModelSpec("linear", inputs=inputs, outputs=outputs, loss=loss)
    net, generator = Linear(model), np.random.default_rng(seed)
    params = make_params(net, seed)
    X = generator.standard_normal((n, inputs)).astype(np.float32)
    values = generator.standard_normal((n, outputs)).astype(np.float32)
    y = generator.integers(0, outputs, n) if loss == "cross_entropy" else values
    found, gradients = net.loss_and_gradients(params, X, y, scale=0.5)
    flat = Mlp(ModelSpec(inputs=inputs, outputs=outputs, loss=loss))
    for other, before in ((build(model, framework="torch"), ""), (flat, "0.")):
        named = {before + name: value for name, value in params.items()}
        their_loss, theirs = other.loss_and_gradients(named, X, y, scale=0.5)
        assert found == pytest.approx(their_loss, rel=1e-5, abs=1e-5)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, theirs[before + name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(net.predict(params, X), other.predict(named, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"), [("hidden", [3]), ("activation", "tanh"), ("options", {"colour": 3})], ids=str
)
def test_keys_of_an_mlp_are_refused_by_name(key: str, value: object) -> None:
    named = "options.colour" if key == "options" else key
    has = "inputs, outputs, loss, loss_options, framework"
    words = f'[model] kind = "linear" has no key "{named}": leave it out (it has {has})'
    with pytest.raises(SettingsError) as caught:
        convert({**TREE, "model": {"kind": "linear", "inputs": 64, "outputs": 10, key: value}}, JobSpec, "job.toml")
    assert str(caught.value) == f"job.toml: {words}"


def test_a_job_travels_with_the_keys_of_today() -> None:
    job = convert(TREE, JobSpec, "job.toml")
    sent = msgspec.json.encode(job)
    assert sent == b'{"name":"digits","model":{"kind":"linear","inputs":64,"outputs":10}}'
    assert msgspec.json.decode(sent, type=JobSpec) == job


def test_one_that_is_too_large_says_how_large_it_is() -> None:
    shape = "inputs = 1000000, outputs = 100000"
    with pytest.raises(ValueError, match=f"100,000,100,000 parameters are more than the 25,000,000 .*: {shape}"):
        ModelSpec("linear", inputs=1_000_000, outputs=100_000)
    ModelSpec("linear", inputs=1_000_000, outputs=24)


def test_a_fleet_learns_the_digits_by_it(tmp_path: Path) -> None:
    path = tmp_path / "linear.toml"
    path.write_text('name = "digits"\n[model]\nkind = "linear"\ninputs = 64\noutputs = 10\n[rounds]\nmax_rounds = 40\n')
    words = ["simulate", str(path), "--data", "digits", "--devices", "10", "--target", "0.9"]
    assert main([*words, "--json", str(tmp_path / "rounds.json")]) == 0
    rounds = msgspec.json.decode((tmp_path / "rounds.json").read_bytes())
    assert max(row["accuracy"] for row in rounds["rounds"]) >= 0.9
