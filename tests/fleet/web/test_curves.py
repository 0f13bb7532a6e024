"""Curves of versions, as numbers and as paths."""

from __future__ import annotations

import math

from fleet.sight.readings import VersionPoint
from fleet.web import curves


def points(values: list[float]) -> list[VersionPoint]:
    return [VersionPoint(n, 10.0 * n, {"loss": value}) for n, value in enumerate(values)]


def test_a_curve_has_a_value_or_none_for_each_version() -> None:
    made = [
        VersionPoint(0, 1.0),
        VersionPoint(1, 2.0, {"loss": 0.5, "participants": 3.0}, 3),
        VersionPoint(2, 3.0, {"loss": math.nan}),
    ]
    found = curves.curves_of(made)
    assert found.numbers == [0, 1, 2]
    assert [(one.name, one.values, one.last) for one in found.series] == [
        ("loss", [None, 0.5, None], 0.5),
        ("participants", [0, 3, 0], 0),
    ]


def test_of_a_long_curve_no_peak_is_lost() -> None:
    values = [1.0 + (n % 7) / 100 for n in range(50_000)]
    values[31_234], values[44_444] = 9.0, -9.0
    found = curves.curves_of(points(values))
    assert len(found.numbers) <= 1.1 * curves.MOST_SENT
    assert found.numbers == sorted(set(found.numbers))
    assert {31_234, 44_444, 0, 49_999} <= set(found.numbers)
    drawing = curves.drawn(found.numbers, found.series[0].values)
    assert drawing is not None
    assert (drawing.low, drawing.high) == (-9.0, 9.0)
    assert drawing.path.count("L") <= 1.1 * curves.MOST_DRAWN


def test_a_few_measures_are_seen_at_once_with_the_one_that_the_job_stops_by() -> None:
    names = ("accuracy", "loss", "auc", "bias", "brier", "zeta", "recall:1", "recall:2")
    found = [VersionPoint(n, 1.0, dict.fromkeys(names, 0.5), 3) for n in range(2)]
    series, measures = curves.curves_of(found).series, curves.measures_of(found)
    seen = {"accuracy", "loss", "auc", "bias", "participants"}
    assert curves.unfolded(series, measures, "") == seen
    assert curves.unfolded(series, measures, "zeta") == seen | {"zeta"}
    assert curves.unfolded(series, measures, "recall:2") == seen | {"recall:2"}


def test_a_drawing_stays_within_its_frame() -> None:
    drawing = curves.drawn([0, 1, 2], [3.0, None, 5.0])
    assert drawing is not None
    assert drawing.path == f"M0 {curves.HEIGHT}L{curves.WIDTH} 0"
    alone = curves.drawn([7], [3.0])
    assert alone is not None
    assert (alone.path, alone.dots) == ("", [(0.0, curves.HEIGHT / 2)])
    assert curves.drawn([1, 2], [None, None]) is None
