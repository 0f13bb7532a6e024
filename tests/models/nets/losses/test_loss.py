from __future__ import annotations

import numpy as np
import pytest

from models.job import ModelSpec
from models.nets.losses import LOSSES, loss, measure, measure_all, of

CHOSEN = [name for name in LOSSES if name != "reconstruction"]
"""Those that a job may choose: the others belong to a kind of net."""


def model(name: str) -> ModelSpec:
    return ModelSpec(inputs=2, outputs=1 if name == "binary" else 3, loss=name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CHOSEN)
def test_only_classes_have_an_accuracy_and_every_label_as_many_numbers_as_it_says(name: str) -> None:
    found = of(model(name))
    assert found.classifies == (found.accuracy is not None) == (found.n_classes > 0)
    assert found.classifies == (found.answer_name == "probabilities")
    y = found.labels(np.ones((4, found.n_columns), np.float32))
    assert y.size == 4 * found.n_columns
    assert found.judged(np.ones((4, model(name).outputs), np.float32)).shape == (4, found.n_classes or found.n_columns)


def test_measuring_gives_the_share_of_right_classes() -> None:
    metrics = measure(of(model("cross_entropy")), np.eye(3, dtype=np.float32), np.array([0, 1, 1]))
    assert metrics.accuracy == pytest.approx(2 / 3)
    assert metrics.n == 3


@pytest.mark.parametrize("name", CHOSEN)
def test_many_rows_are_measured_some_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, found = np.random.default_rng(0), of(model(name))
    X = generator.standard_normal((23, model(name).outputs)).astype(np.float32)
    y = found.labels(generator.integers(0, 2, (23, found.n_columns)))
    whole = measure_all(found, np.copy, X, y)
    assert whole == measure(found, X.copy(), y)
    monkeypatch.setattr(loss, "ROWS_AT_ONCE", 10)
    seen: list[int] = []
    told = measure_all(found, lambda some: (seen.append(len(some)), some.copy())[1], X, y)
    assert seen == [10, 10, 3]
    assert told.loss == pytest.approx(whole.loss, rel=1e-6)
    assert (told.accuracy, told.n) == (whole.accuracy and pytest.approx(whole.accuracy), 23)
