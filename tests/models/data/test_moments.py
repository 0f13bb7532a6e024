from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pytest

from models.data.moments import waves


def seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("when", "feature", "turn"),
    [
        ("2024-03-04T00:00", "hour", 0.0),
        ("2024-03-04T06:00", "hour", 0.25),
        ("1969-12-31T18:00", "hour", 0.75),
        ("2024-03-04T23:59", "weekday", 0.0),  # a Monday
        ("2024-03-10T12:00", "weekday", 6 / 7),
        ("1969-12-29T12:00", "weekday", 0.0),
        ("2024-01-01T10:00", "month", 0.0),
        ("2023-12-31T23:00", "month", 364 / 365.2425),
        ("2024-12-31T00:00", "month", 365 / 365.2425),
    ],
)
def test_a_time_is_a_place_on_a_circle(when: str, feature: str, turn: float) -> None:
    found = waves(np.array([seconds(when)]), [feature])  # type: ignore[list-item]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[math.sin(2 * math.pi * turn), math.cos(2 * math.pi * turn)]], atol=1e-6)


def test_each_feature_has_a_sine_and_a_cosine_in_the_order_of_the_contract() -> None:
    found = waves(np.array([seconds("2024-03-04T06:00")] * 2), ["weekday", "hour"])
    np.testing.assert_allclose(found, [[0, 1, 1, 0]] * 2, atol=1e-6)
    assert waves(np.array([0.0]), []).shape == (1, 0)
