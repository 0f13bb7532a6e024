from __future__ import annotations

import numpy as np
import pytest

from models.job import ModelSpec
from models.nets.losses import of


def model(outputs: int, *quantiles: float) -> ModelSpec:
    return ModelSpec(outputs=outputs, loss="quantile", loss_options={"quantiles": list(quantiles)})


def test_outputs_go_by_value_and_within_each_by_quantile() -> None:
    loss = of(model(4, 0.25, 0.75))
    assert (loss.n_columns, loss.levels) == (2, (0.25, 0.75))
    value, gradient = loss.gradient(np.zeros((1, 4), np.float32), np.array([[1, -1]], np.float32), None)
    assert value == pytest.approx((0.25 + 0.75 + 0.75 + 0.25) / 4)
    np.testing.assert_allclose(gradient, [[-0.25 / 4, -0.75 / 4, 0.75 / 4, 0.25 / 4]])


def test_a_constant_that_costs_least_is_the_quantile_of_the_labels() -> None:
    y, loss = np.arange(101, dtype=np.float32)[:, np.newaxis], of(model(1, 0.9))
    costs = [loss.gradient(np.full((101, 1), c, np.float32), y, None)[0] for c in range(101)]
    assert int(np.argmin(costs)) == 90


def test_errors_are_measured_of_what_is_next_to_the_median() -> None:
    answers = np.arange(6, dtype=np.float32).reshape(1, 6)
    assert of(model(6, 0.1, 0.5, 0.9)).judged(answers).tolist() == [[1.0, 4.0]]
    assert of(model(6, 0.45, 0.9)).judged(answers).tolist() == [[0.0, 2.0, 4.0]]


def test_answers_of_a_value_ascend_and_the_loss_is_of_outputs_as_they_are() -> None:
    loss, outputs = of(model(4, 0.25, 0.75)), np.array([[3, 1, 5, 7]], np.float32)
    assert loss.answer(outputs.copy()).tolist() == [[1, 3, 5, 7]]
    y = np.array([[2, 6]], np.float32)
    crossed, sorted_ = (loss.gradient(each, y, None)[0] for each in (outputs.copy(), loss.answer(outputs.copy())))
    assert crossed > sorted_


def test_what_is_no_number_shows() -> None:
    loss, gradient = of(model(1, 0.5)).gradient(np.array([[np.nan]], np.float32), np.ones((1, 1), np.float32), None)
    assert np.isnan(loss)
    assert np.isnan(gradient).all()
