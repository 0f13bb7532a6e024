from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.job import ModelSpec
from models.nets import losses

SAID: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "cross_entropy": st.fixed_dictionaries({}, optional={"label_smoothing": st.floats(0, 0.9)}),
    "focal": st.fixed_dictionaries({}, optional={"gamma": st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0])}),
    "binary": st.fixed_dictionaries({}, optional={"pos_weight": st.floats(0.1, 10)}),
    "multilabel": st.fixed_dictionaries({}, optional={"pos_weight": st.floats(0.1, 10)}),
    "mse": st.just({}),
    "huber": st.fixed_dictionaries({}, optional={"delta": st.floats(0.01, 100)}),
    "quantile": st.fixed_dictionaries(
        {}, optional={"quantiles": st.lists(st.floats(0.01, 0.99), min_size=3, max_size=3, unique=True).map(sorted)}
    ),
}

CHOSEN = [name for name in losses.LOSSES if name != "reconstruction"]
"""Those that a job may choose: the others belong to a kind of net."""


def model_of(loss: str, options: dict[str, Any], width: int = 1) -> ModelSpec:
    outputs = {"binary": 1, "quantile": 3 * width}.get(loss, width + 1)
    return ModelSpec(outputs=outputs, loss=loss, loss_options=options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CHOSEN)
@given(data=st.data())
@settings(max_examples=50)
def test_value_gradient_and_answers_are_those_of_torch(name: str, data: st.DataObject) -> None:
    model = model_of(name, data.draw(SAID[name]), data.draw(st.integers(1, 4)))
    loss, n = losses.of(model), data.draw(st.integers(1, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    size = data.draw(st.sampled_from([0.0, 1.0, 30.0, 300.0, 1e4]))
    outputs = (rng.standard_normal((n, model.outputs)) * size).astype(np.float32)
    y = loss.labels(
        rng.standard_normal((n, loss.n_columns)).astype(np.float32)
        if loss.task == "values"
        else rng.integers(0, loss.n_classes if loss.task == "classes" else 2, (n, loss.n_columns))
    )
    weights = rng.random(n, np.float32) * 4 if data.draw(st.booleans()) else None

    leaf = torch.from_numpy(outputs.copy()).requires_grad_()
    theirs = loss.torch(torch.nn)(leaf, torch.from_numpy(y), None if weights is None else torch.from_numpy(weights))
    theirs.backward()
    with np.errstate(all="raise", under="ignore"):
        ours, gradient = loss.gradient(outputs.copy(), y, weights)
    assert ours == pytest.approx(float(theirs.detach()), rel=1e-5, abs=1e-6)
    assert gradient.dtype == np.float32
    assert leaf.grad is not None
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-5, atol=1e-5)
    answers = loss.torch_answer(torch.nn)(torch.from_numpy(outputs)).numpy()
    np.testing.assert_allclose(loss.answer(outputs.copy()), answers, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CHOSEN)
def test_columns_of_a_net_are_as_good_as_rows(name: str) -> None:
    model, rng = model_of(name, {}, 2), np.random.default_rng(0)
    loss, outputs = losses.of(model), rng.standard_normal((7, model.outputs)).astype(np.float32)
    y = loss.labels(rng.integers(0, 2, (7, loss.n_columns)))
    straight = loss.gradient(outputs.copy(), y, None)
    across = np.asfortranarray(outputs)
    value, gradient = loss.gradient(across, y, None)
    assert value == pytest.approx(straight[0], rel=1e-6)
    np.testing.assert_allclose(gradient, straight[1], rtol=1e-6)
    assert gradient is across


@pytest.mark.parametrize(
    ("loss", "outputs", "options", "told"),
    [
        ("mse", 1, {"delta": 1.0}, r'loss = "mse" has no option "delta": leave \[model.loss_options\] out'),
        ("huber", 1, {"gamma": 1.0}, r'loss = "huber" has no option "gamma": \[model.loss_options\] may have delta'),
        ("cross_entropy", 2, {"label_smoothing": 1.0}, r"loss_options.label_smoothing: Expected `float` <= 0.999"),
        ("cross_entropy", 2, {"label_smoothing": -0.1}, r"loss_options.label_smoothing: Expected `float` >= 0"),
        ("cross_entropy", 2, {"label_smoothing": "much"}, r"loss_options.label_smoothing: Expected `float`, got `str`"),
        ("focal", 2, {"gamma": 21}, r"loss_options.gamma: Expected `float` <= 20"),
        ("huber", 1, {"delta": 0}, r"loss_options.delta: Expected `float` >= 1e-06"),
        ("binary", 2, {}, r'outputs = 2: loss = "binary" has one output for its two classes: say outputs = 1'),
        ("binary", 1, {"pos_weight": [1.0]}, r"loss_options.pos_weight: Expected `float`"),
        (
            "multilabel",
            1,
            {},
            r'outputs = 1: loss = "multilabel" has several labels a row: .* "binary"',
        ),
        ("multilabel", 3, {"pos_weight": [1.0, 2.0]}, r"loss_options.pos_weight has 2 numbers where .* outputs = 3"),
        ("multilabel", 3, {"pos_weight": [1.0, 2.0, 0.0]}, r"loss_options.pos_weight\[\d\]: Expected"),
        ("quantile", 3, {"quantiles": [0.5, 0.1, 0.9]}, r"loss_options.quantiles = \[0.5, 0.1, 0.9\] do not ascend"),
        ("quantile", 2, {"quantiles": [0.5, 0.5]}, r"do not ascend"),
        ("quantile", 1, {"quantiles": [1.0]}, r"loss_options.quantiles\[\d\]: Expected `float` <= 0.99"),
        ("quantile", 1, {"quantiles": [0]}, r"loss_options.quantiles\[\d\]: Expected `float` >= 1e-06"),
        ("quantile", 1, {"quantiles": []}, r"loss_options.quantiles: Expected `array` of length >= 1"),
        ("quantile", 4, {}, r"outputs = 4 is no multiple of the 3 of loss_options.quantiles"),
    ],
)
def test_what_a_loss_cannot_be_told_is_refused_by_its_key(
    loss: Any, outputs: int, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        ModelSpec(outputs=outputs, loss=loss, loss_options=options)


def test_a_loss_that_there_is_not_is_refused() -> None:
    class Unknown:
        loss = "hinge"
        loss_options: dict[str, Any] = {}  # noqa: RUF012
        outputs = 1

    with pytest.raises(ValueError, match='loss = "hinge" is none of cross_entropy, mse, '):
        losses.of(Unknown())
