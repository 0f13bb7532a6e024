from __future__ import annotations

from fleet.console.operator import Scores, VersionScores
from fleet.console.scores import lines

FOUND = {
    "accuracy": 0.97,
    "participants": 3.0,
    "recall:ok": 1.0,
    "recall:fault": 0.0,
    "precision:fault": 0.0,
    "always": 0.0,
}
LAST = VersionScores(4, FOUND, [[97, 0, 0], [3, 0, 0]])


def test_a_version_is_shown_with_its_measures_by_class_and_who_is_taken_for_whom() -> None:
    assert lines(Scores(["ok", "fault"], LAST, LAST)) == [
        "version 4: accuracy 0.9700",
        "    class  precision  recall",
        "    ok             -  1.0000",
        "    fault     0.0000  0.0000",
        "    is \\ answered  ok  fault",
        "    ok             97      0",
        "    fault           3      0",
    ]


def test_the_best_version_is_shown_where_it_is_another() -> None:
    best = VersionScores(2, {"accuracy": 0.98})
    assert lines(Scores(["ok", "fault"], LAST, best))[-1] == "best: version 2: accuracy 0.9800"


def test_classes_without_names_go_by_their_numbers_and_rows_without_an_answer_are_shown_where_there_are_any() -> None:
    one = VersionScores(1, {"accuracy": 0.5, "f1:10": 0.2, "f1:2": 0.1}, [[1, 0, 2], [0, 3, 0]])
    assert lines(Scores([], one, one))[1:] == [
        "    class      f1",
        "    2      0.1000",
        "    10     0.2000",
        "    is \\ answered  0  1  nothing",
        "    0              1  0        2",
        "    1              0  3        0",
    ]


def test_long_names_are_cut() -> None:
    one = VersionScores(1, {"accuracy": 0.5, f"f1:{'x' * 50}": 0.2})
    assert lines(Scores(["x" * 50], one, one))[-1].startswith("    " + "x" * 17 + "…  ")


def test_of_a_version_that_nobody_has_measured_nothing_is_shown() -> None:
    none = VersionScores(0, {"participants": 3.0})
    assert lines(Scores([], none, none)) == []
