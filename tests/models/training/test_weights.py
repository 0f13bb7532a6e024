from __future__ import annotations

import numpy as np
import pytest

from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.job import ModelSpec, TrainSpec
from models.nets.table import build
from models.params import Params
from models.training.train import begin, finish, seed_for, steps
from models.training.weights import MOST_MEAN, ROWS_AT_ONCE, WeightError, Weights, class_weights, weights_of

MODEL = ModelSpec("linear", inputs=2, outputs=2)
NET = build(MODEL)
NAMED = ContractSpec(classes=("ok", "fault"), class_weight={"fault": 10.0})
BALANCED = ContractSpec(class_weight="balanced")


def data_of(y: list[int], weights: list[float] | None = None) -> Dataset:
    X = np.random.default_rng(len(y)).standard_normal((len(y), 2)).astype(np.float32)
    return Dataset(X, np.array(y), "air.csv", None if weights is None else np.array(weights, np.float32))


def all_of(weights: Weights | None, data: Dataset) -> list[float]:
    assert weights is not None
    rows = np.arange(len(data.y))
    found = weights.of(rows, data.y)
    assert found.dtype == np.float32
    return [float(value) for value in found]


def test_without_weights_there_are_none_to_multiply_by() -> None:
    assert weights_of(data_of([0, 1]), ContractSpec()) is None
    assert class_weights(ContractSpec()) is None


def test_weights_of_rows_have_the_mean_one_on_every_device() -> None:
    for unit in (1.0, 3600.0, 1e-6):
        data = data_of([0, 1, 1], [1 * unit, 2 * unit, 3 * unit])
        assert all_of(weights_of(data, ContractSpec()), data) == pytest.approx([0.5, 1, 1.5])


def test_a_class_weighs_what_the_job_says_and_one_that_it_does_not_name_one() -> None:
    data = data_of([0, 0, 0, 1])
    assert all_of(weights_of(data, NAMED), data) == [1, 1, 1, 10]
    weighed = data_of([0, 0, 0, 1], [1, 1, 2, 4])
    assert all_of(weights_of(weighed, NAMED), weighed)[:3] == pytest.approx(
        [0.5 * MOST_MEAN / 5.5, 0.5 * MOST_MEAN / 5.5, MOST_MEAN / 5.5]  # 0.5, 0.5, 1 and 20 have the mean 5.5
    )


def test_balanced_classes_weigh_alike_over_the_fleet_and_have_the_mean_one() -> None:
    counts = (970, 30, 0)
    found = class_weights(BALANCED, counts)
    assert found is not None
    assert found.tolist() == pytest.approx([1000 / (2 * 970), 1000 / (2 * 30), 1])
    assert float(found[:2] @ counts[:2]) == pytest.approx(1000)
    assert 970 * found[0] == pytest.approx(30 * found[1])


def test_balanced_needs_the_counts_of_the_fleet() -> None:
    with pytest.raises(WeightError, match="goes by the fleet's counts of classes, which are not known"):
        weights_of(data_of([0, 1]), BALANCED, ())
    with pytest.raises(WeightError, match=r"air\.csv: label 2, where the weights of 2 classes are known"):
        weights_of(data_of([0, 2]), BALANCED, (3, 4))


def test_classes_that_nobody_could_count_count_alike() -> None:
    """As where no device of the first round had rows enough: the job goes on, and its operator is told."""
    assert weights_of(data_of([0, 1]), BALANCED, (0, 0)) is None


def test_weights_of_rows_that_have_no_mean_are_an_error_that_names_the_source() -> None:
    with pytest.raises(WeightError, match=r"air\.csv: the weights of its rows have the mean 0"):
        weights_of(data_of([0, 1], [0.0, 0.0]), ContractSpec())


def test_a_device_of_a_rare_class_alone_takes_steps_at_most_so_long() -> None:
    rare, mixed = data_of([1] * 50), data_of([0] * 49 + [1])
    counts = (100_000, 100)
    assert np.mean(all_of(weights_of(rare, BALANCED, counts), rare)) == pytest.approx(MOST_MEAN)
    both = all_of(weights_of(mixed, BALANCED, counts), mixed)
    assert both[-1] / both[0] == pytest.approx(1000)


def test_the_means_of_many_rows_are_worked_out_in_parts() -> None:
    n = 2 * ROWS_AT_ONCE + 5
    data = data_of([0] * (n - 1) + [1], [1.0] * n)
    found = weights_of(data, ContractSpec(classes=("ok", "fault"), class_weight={"ok": 2.0}))
    assert found is not None
    assert found.scale == pytest.approx(1)
    assert found.of(np.array([0, n - 1]), data.y[[0, n - 1]]).tolist() == [2, 1]


def params() -> Params:
    return {"weight": np.full((2, 2), 0.1, np.float32), "bias": np.zeros(2, np.float32)}


def trained(data: Dataset, weights: Weights | None, batch_size: int = 100) -> tuple[Params, float | None]:
    train, loss = TrainSpec(epochs=1, batch_size=batch_size, learning_rate=0.1), None
    state = begin(params(), seed_for(0, 0, "d"))
    for step in steps(NET, state, data, train, version_number=0, weights=weights):
        state, loss = step.state, step.loss
    return state.params, loss


def test_a_row_of_weight_two_is_trained_on_as_if_it_were_there_twice() -> None:
    once = data_of([0, 1, 1], [2, 1, 1])
    twice = Dataset(once.X[[0, 0, 1, 2]], once.y[[0, 0, 1, 2]])
    (weighed, loss), (doubled, same) = trained(once, weights_of(once, ContractSpec())), trained(twice, None)
    assert loss == pytest.approx(same, rel=1e-6)
    for name in doubled:
        np.testing.assert_allclose(weighed[name], doubled[name], rtol=1e-5)


def test_the_first_steps_of_all_by_their_rows_are_the_step_on_all_rows_of_the_fleet() -> None:
    fleet = [data_of([0] * 30), data_of([0, 1] * 10), data_of([1] + [0] * 9)]
    counts = np.bincount(np.concatenate([data.y for data in fleet])).tolist()
    together = Dataset(np.concatenate([d.X for d in fleet]), np.concatenate([d.y for d in fleet]))
    expected, _ = trained(together, weights_of(together, BALANCED, counts))
    mean = {name: np.zeros_like(value) for name, value in params().items()}
    for data in fleet:
        for name, value in trained(data, weights_of(data, BALANCED, counts))[0].items():
            mean[name] += value * (len(data.y) / len(together.y))
    for name, value in expected.items():
        np.testing.assert_allclose(mean[name], value, rtol=1e-5, atol=1e-7)


def test_training_that_is_weighed_is_resumed_in_the_same_bits() -> None:
    data = data_of([0, 1, 1, 0, 1, 1, 0], [1, 2, 3, 4, 5, 6, 7])
    weights = weights_of(data, NAMED)
    train = TrainSpec(epochs=2, batch_size=3, learning_rate=0.1, momentum=0.9)
    state = begin(params(), seed_for(0, 0, "d"))
    whole = finish(steps(NET, state, data, train, version_number=0, weights=weights), state)
    run = steps(NET, state, data, train, version_number=0, weights=weights)
    half = [next(run) for _ in range(4)][-1].state
    rest = finish(steps(NET, half, data, train, version_number=0, weights=weights), half)
    assert [value.tobytes() for value in rest.params.values()] == [value.tobytes() for value in whole.params.values()]
