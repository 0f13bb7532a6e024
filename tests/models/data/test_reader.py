"""From a table in memory to examples: whole readings, with everything that a contract may ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contract import ContractSpec
from models.data import spool
from models.data.blocks import Block, Fault, Kind
from models.data.dataset import Dataset, DatasetError, KindError, fit
from models.data.reader import Reading, of_arrays, read
from models.data.settings import SourceSettings
from models.data.spool import is_mapped
from models.job import ModelSpec

NAN = float("nan")


class Memory:
    """A table in memory, whose rows begin in line 2; a cell that is None is missing."""

    notes: tuple[str, ...] = ()

    def __init__(self, columns: Mapping[str, Sequence[Any]], rows_a_block: int = 7) -> None:
        self.header = tuple(columns)
        self._columns, self._most = columns, rows_a_block

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        n = len(next(iter(self._columns.values())))
        for first in range(0, n, self._most):
            columns: dict[str, Any] = {}
            faults: list[Fault] = []
            for name, kind in wanted.items():
                cells = self._columns[name][first : first + self._most]
                if kind is Kind.TEXT:
                    columns[name] = ["" if cell is None else str(cell) for cell in cells]
                    continue
                columns[name] = np.full(len(cells), NAN)
                for at, cell in enumerate(cells):
                    if isinstance(cell, str):
                        faults.append(Fault(first + at + 2, name, "is no number"))
                    elif cell is not None:
                        columns[name][at] = cell
            lines = np.arange(first, first + len(self._columns[self.header[0]][first : first + self._most])) + 2
            faults.sort(key=lambda fault: fault.line)
            yield Block(columns, lines, tuple(faults))

    def close(self) -> None:
        pass


def examples(columns: Mapping[str, Sequence[Any]], source: dict[str, Any] | None = None, **contract: Any) -> Dataset:
    return reading(columns, source, **contract).data


def reading(
    columns: Mapping[str, Sequence[Any]],
    source: dict[str, Any] | None = None,
    *,
    scratch: Path | None = None,
    classifies: bool = True,
    rows_a_block: int = 7,
    **contract: Any,
) -> Reading:
    return read(
        Memory(columns, rows_a_block),
        msgspec.convert({"path": "x.csv", **(source or {})}, SourceSettings),
        msgspec.convert(contract, ContractSpec),
        scratch,
        classifies=classifies,
    )


TABLE: dict[str, list[Any]] = {
    "b": [1.0, 2.0, None, 4.0],
    "y": ["ok", "fault", "ok", "odd"],
    "a": [10.0, 20.0, 30.0, 40.0],
    "c": [0.5, 2.0, 1.0, 1.0],
}
NAMED: dict[str, Any] = {"features": ["a", "b"], "label": "y", "classes": ["ok", "fault"]}


# Rows and columns.


def test_a_row_has_the_jobs_columns_in_the_jobs_order() -> None:
    found = examples(TABLE, **NAMED)
    assert found.X.tolist() == [[10, 1], [20, 2]]
    assert found.X.dtype == np.float32
    assert found.y.tolist() == [0, 1]
    assert found.y.dtype == np.int64


def test_what_is_left_out_is_counted_and_named_and_no_cell_is() -> None:
    found = reading(TABLE, **NAMED)
    (note,) = found.notes
    assert note == (
        "2 of 4 rows are left out: 1 because 'y' is none of the job's classes (line 5); 1 because 'b' is empty (line 4)"
    )
    assert found.data.told == (
        "x.csv: about 50 % of the rows are left out, most because 'y' is none of the job's classes (line 5)"
    )
    assert "odd" not in str(found.notes)


def test_a_row_is_left_out_once_however_many_cells_of_it_are_wrong() -> None:
    wrong = {"a": [1.0, "x", 3.0, 5.0], "b": [1.0, None, 3.0, 4.0], "y": [0.0, None, 1.0, 1.0]}
    found = reading(wrong, features=["a", "b"], label="y")
    assert found.notes == ("1 of 4 rows are left out: 1 because 'a' is no number (line 3)",)


def test_without_a_contract_labels_and_features_are_as_the_source_says() -> None:
    found = examples({"a": [1.0, 2.0], "y": [0.0, 3.0], "b": [5.0, 6.0]})
    assert (found.X.tolist(), found.y.tolist(), found.y.dtype) == ([[1, 5], [2, 6]], [0, 3], np.float32)
    assert found.told == ""


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"a": [], "y": []}, "x.csv: no rows yet"),
        ({"a": [1.0, None, None], "y": [0.0] * 3}, "2 of 3 rows cannot be used, more than max_skipped = 0.5 allows"),
        ({"a": ["warm"] * 3, "y": [0.0] * 3}, "column 'a' holds no numbers, which the job wants there"),
        ({"a": [1.0] * 3, "y": ["ok"] * 3}, "the label 'y' is no number: name the job's classes"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(columns: dict[str, list[Any]], why: str) -> None:
    with pytest.raises(DatasetError, match=why) as caught:
        examples(columns, features=["a"], label="y")
    assert "warm" not in str(caught.value)


def test_labels_that_are_all_no_class_take_the_device_out() -> None:
    with pytest.raises(
        DatasetError, match="none of its 2 rows can be used: 2 because 'y' is none of the job's classes"
    ):
        examples({"a": [1.0, 2.0], "y": ["0", "1"]}, features=["a"], label="y", classes=["ok", "fault"])


def test_labels_that_are_text_say_so_where_rows_are_held_back_too() -> None:
    with pytest.raises(KindError, match="the label 'y' is no number: name the job's classes"):
        examples(TABLE, features=["a", "c"], label="y", validation=0.2)


def test_what_no_float32_holds_and_weights_that_are_none_are_left_out() -> None:
    columns = {"a": [1.0, 1e300, float("inf"), 4.0, 5.0, 6.0], "y": [0.0] * 6, "w": [2.0, 1.0, 1.0, 0.0, -1.0, None]}
    found = examples(columns, {"max_skipped": 0.9}, features=["a"], label="y", weight="w")
    assert found.weights is not None
    assert (found.X.tolist(), found.weights.tolist(), found.weights.dtype) == ([[1]], [2], np.float32)


def test_a_value_outside_its_range_is_missing_and_a_label_outside_leaves_its_row_out() -> None:
    columns = {"a": [1.0, -5.0, 3.0, 4.0], "y": [0.5, 0.5, 9.0, 0.5]}
    ranges = {"a": (0.0, 10.0), "y": (0.0, 1.0)}
    found = reading(columns, features=["a"], label="y", ranges=ranges, classifies=False)
    assert found.data.X.tolist() == [[1], [4]]
    assert "'a' is outside its range (line 3)" in found.notes[0]
    filled = reading(columns, features=["a"], label="y", ranges=ranges, missing="mean", classifies=False)
    assert filled.data.X.tolist() == [[1], [2.5], [4]]
    assert filled.notes[0].endswith("taken for missing: 1 because 'a' is outside its range (line 3)")


def test_several_labels_are_the_values_of_a_row() -> None:
    columns = {"a": [1.0, 2.0], "u": [3.0, 4.0], "v": [5.0, 6.0]}
    found = examples(columns, features=["a"], label=["v", "u"])
    assert found.y.tolist() == [[5, 3], [6, 4]]
    assert np.shares_memory(fit(found, ModelSpec(inputs=1, outputs=2, loss="mse")).y, found.y)


# Missing values.


def test_missing_values_are_filled_with_the_mean_and_told_to_the_net() -> None:
    columns = {"a": [1.0, None, 3.0], "b": [None, 5.0, 7.0], "y": [0.0] * 3}
    assert examples(columns, features=["a", "b"], label="y", missing="mean").X.tolist() == [[1, 6], [2, 5], [3, 7]]
    masked = examples(columns, features=["a", "b"], label="y", missing="mask").X.tolist()
    assert masked == [[1, 6, 0, 1], [2, 5, 1, 0], [3, 7, 0, 0]]
    last = examples(columns, features=["a", "b"], label="y", missing="last")
    assert last.X.tolist() == [[1, 5], [3, 7]]
    assert "'b' has no value yet" in last.told
    mind = {"missing": "skip"}
    assert examples(
        columns, mind | {"max_skipped": 0.9}, features=["a", "b"], label="y", missing="mask"
    ).X.tolist() == [[3, 7, 0, 0]]


def test_the_last_value_is_that_before_in_time_and_in_the_group() -> None:
    columns = {"a": [None, 1.0, None, 5.0], "g": ["u", "u", "v", "v"], "t": [2.0, 1.0, 2.0, 1.0], "y": [0.0, 1, 2, 3]}
    found = examples(columns, {"time": "t", "group": "g"}, features=["a"], label="y", missing="last")
    assert (found.X.tolist(), found.y.tolist()) == ([[1], [1], [5], [5]], [1, 0, 3, 2])


def test_what_cannot_be_used_is_no_last_value() -> None:
    columns = {"a": [1.0, float("inf"), None, 4.0, 5.0, 6.0], "y": [0.0] * 6}
    found = examples(columns, features=["a"], label="y", missing="last", window={"length": 2, "hop": 1})
    assert found.X.tolist() == [[1, 4], [4, 5], [5, 6]]


def test_a_column_without_any_value_has_no_mean() -> None:
    with pytest.raises(DatasetError, match="column 'a' has no value in any row"):
        examples({"a": [None, None], "y": [0.0, 1.0]}, features=["a"], label="y", missing="mean")


def test_the_time_of_a_row_is_made_into_inputs_after_all_others() -> None:
    columns = {"a": [1.0, None, 3.0], "t": [86_400.0 * 20_000, 86_400.0 * 20_000 + 21_600.0, None], "y": [0.0] * 3}
    found = examples(columns, {"time": "t"}, features=["a"], label="y", time_features=["hour"], missing="mask")
    np.testing.assert_allclose(found.X, [[1, 0, 0, 1], [1, 1, 1, 0]], atol=1e-6)
    assert "'t' has no time" in found.told


# Windows.


def series(n: int, **more: Any) -> dict[str, Any]:
    return {"a": [float(at) for at in range(n)], "t": [10.0 * at for at in range(n)], "y": [0.0] * n, **more}


WINDOW: dict[str, Any] = {"features": ["a"], "label": "y", "window": {"length": 3, "hop": 1}}


def starts(found: Dataset) -> list[float]:
    """Return the first rows of the windows, each of which is of rows that follow each other."""
    assert (np.diff(found.X, axis=1) == 1).all()
    return sorted(found.X[:, 0].tolist())


def test_windows_are_of_rows_that_follow_each_other() -> None:
    assert examples(series(5), {"time": "t"}, **WINDOW).X.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_rows_are_sorted_by_time() -> None:
    columns = series(7)
    mixed = {name: [cells[at] for at in (3, 1, 6, 0, 5, 2, 4)] for name, cells in columns.items()}
    assert examples(mixed, {"time": "t"}, **WINDOW).X.tolist() == examples(columns, {"time": "t"}, **WINDOW).X.tolist()


def test_no_window_crosses_a_gap_a_group_or_a_row_that_is_left_out() -> None:
    columns = series(12)
    columns["t"] = [*columns["t"][:5], *(at + 1000 for at in columns["t"][5:])]
    assert starts(examples(columns, {"time": "t"}, **WINDOW)) == [0, 1, 2, 5, 6, 7, 8, 9]
    assert starts(examples(columns, {"time": "t"}, **WINDOW | {"window": {"length": 3, "hop": 1, "gap_s": 5000}})) == [
        *range(10)
    ]
    assert starts(examples(series(12, g=["u"] * 5 + ["v"] * 7), {"group": "g"}, **WINDOW)) == [0, 1, 2, 5, 6, 7, 8, 9]
    for broken in ({"a": None}, {"y": None}, {"y": "x"}):
        columns = series(12)
        for name, cell in broken.items():
            columns[name][5] = cell
        assert starts(examples(columns, {"time": "t"}, **WINDOW)) == [0, 1, 2, 6, 7, 8, 9]
        assert starts(examples(columns, **WINDOW)) == [0, 1, 2, 6, 7, 8, 9]


def test_groups_whose_rows_are_mixed_are_series_of_their_own() -> None:
    columns = series(8, g=["u", "v"] * 4)
    found = examples(columns, {"time": "t", "group": "g"}, **WINDOW)
    assert found.X.tolist() == [[0, 2, 4], [2, 4, 6], [1, 3, 5], [3, 5, 7]]


def test_a_series_that_is_too_short_says_so() -> None:
    with pytest.raises(DatasetError, match="windows of length = 9 where no more than 5 rows follow each other"):
        examples(series(5), **WINDOW | {"window": {"length": 9}})


def test_labels_of_windows_are_classes_or_values() -> None:
    columns = series(6) | {"y": [0.0, 1.0, 1.0, 0.0, 0.0, 5.0]}
    assert examples(columns, **WINDOW).y.tolist() == [1, 1, 0, 0]
    assert examples(columns, **WINDOW | {"window": {"length": 3, "hop": 1, "label": "last"}}).y.tolist() == [1, 0, 0, 5]
    values = reading(columns, classifies=False, **WINDOW).data.y
    np.testing.assert_allclose(values, [2 / 3, 2 / 3, 1 / 3, 5 / 3])
    weighted = examples(columns | {"w": [1.0, 2, 3, 4, 5, 6]}, **WINDOW, weight="w")
    assert weighted.weights is not None
    assert weighted.weights.tolist() == [2, 3, 4, 5]


def test_of_several_labels_a_row_a_window_has_those_that_most_of_its_rows_have() -> None:
    columns = series(6) | {"y": [0.0, 1.0, 1.0, 0.0, 0.0, 1.0], "z": [1.0, 0.0, 1.0, 1.0, 1.0, 0.0]}
    both = {"label": ["y", "z"], "classes": ["smoke", "heat"]}
    assert examples(columns, **WINDOW | both).y.tolist() == [[1, 1], [1, 1], [0, 1], [0, 1]]
    last = {"window": {"length": 3, "hop": 1, "label": "last"}}
    assert examples(columns, **WINDOW | both | last).y.tolist() == [[1, 1], [0, 1], [0, 1], [1, 0]]


# What is held back.


def split(found: Dataset) -> tuple[set[tuple[float, ...]], set[tuple[float, ...]]]:
    held = found.held_out
    return {tuple(row) for row in found.X.tolist()}, set() if held is None else {tuple(row) for row in held.X.tolist()}


def rows_of(values: list[tuple[int, int]], order: Sequence[str] = ("a", "b", "y")) -> dict[str, list[float]]:
    whole = {
        "a": [float(a) for a, _ in values],
        "b": [float(b) for _, b in values],
        "y": [float(a % 2) for a, _ in values],
    }
    return {name: whole[name] for name in order}


HELD: dict[str, Any] = {"features": ["a", "b"], "label": "y", "validation": 0.3}
PAIRS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), min_size=40, max_size=80)
"""Enough of them that neither side is empty by chance."""


@settings(max_examples=25)
@given(PAIRS, st.permutations(["a", "b", "y"]), st.randoms(use_true_random=False), st.integers(1, 9))
def test_the_order_of_columns_and_rows_and_blocks_changes_nothing(
    values: list[tuple[int, int]], columns: list[str], random: Any, rows_a_block: int
) -> None:
    found = examples(rows_of(values), **HELD)
    turned = list(values)
    random.shuffle(turned)
    same = reading(rows_of(values, columns), rows_a_block=rows_a_block, **HELD).data
    assert same.X.tolist() == found.X.tolist()
    assert same.fingerprint == found.fingerprint
    assert split(examples(rows_of(turned, columns), **HELD)) == split(found)


@settings(max_examples=25)
@given(PAIRS, st.lists(st.tuples(st.integers(0, 90), st.integers(0, 9)), max_size=40))
def test_rows_that_come_later_move_no_row_from_one_side_to_the_other(
    values: list[tuple[int, int]], later: list[tuple[int, int]]
) -> None:
    train, held = split(examples(rows_of(values), **HELD))
    more_train, more_held = split(examples(rows_of(values + later), **HELD))
    assert train <= more_train
    assert held <= more_held
    assert not train & held


@settings(max_examples=25)
@given(st.lists(st.integers(0, 30), min_size=60, max_size=100), st.lists(st.integers(0, 60), max_size=40))
def test_a_group_is_on_one_side_whatever_comes_later(groups: list[int], later: list[int]) -> None:
    def sides(names: list[int]) -> tuple[set[float], set[float]]:
        columns = {
            "a": [float(name) for name in names],
            "y": [0.0] * len(names),
            "g": [f"trial {name}" for name in names],
        }
        found = examples(columns, features=["a"], label="y", validation=0.3, by="g")
        assert len(found.y) + len(found.held_out.y if found.held_out else ()) == len(names)
        train, held = split(found)
        return {a for (a,) in train}, {a for (a,) in held}

    train, held = sides([*range(20), *groups])
    more_train, more_held = sides([*range(20), *groups, *later])
    assert train <= more_train
    assert held <= more_held
    assert not train & held


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([1, 1, 1, 1, 1, 1, 3, 9, 50]), min_size=30, max_size=120),
    st.sets(st.integers(0, 119)),
    st.integers(2, 6),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([0.0, 0.3]),
)
def test_no_window_crosses_a_gap_and_no_row_is_on_both_sides(
    steps: list[int], holes: set[int], length: int, hop: int, timed: bool, share: float
) -> None:
    times = np.cumsum(steps).astype(float)
    cells = [None if at in holes and at % 7 == 0 else float(at) for at in range(len(steps))]
    columns = {"a": cells, "t": times.tolist(), "y": [0.0] * len(steps)}
    window = {"length": length, "hop": hop, "gap_s": 4.0}
    try:
        found = examples(
            columns,
            {"time": "t" if timed else None, "max_skipped": 1.0},
            features=["a"],
            label="y",
            window=window,
            validation=share,
        )
    except DatasetError:  # no window is left
        return
    seen: list[set[float]] = []
    for side in (found, found.held_out):
        if side is None:
            continue
        assert (np.diff(side.X, axis=1) == 1).all(), "across a row that was left out"
        for row in side.X.astype(int):
            assert not timed or (np.diff(times[row]) <= 4.0).all(), "across a gap"
        seen.append(set(side.X.reshape(-1).tolist()))
    assert len(seen) == 1 or not seen[0] & seen[1]
    assert share or found.held_out is None


@settings(max_examples=25)
@given(st.integers(150, 300), st.integers(0, 200), st.booleans())
def test_a_series_that_grows_moves_no_row_from_one_side_to_the_other(n: int, more: int, timed: bool) -> None:
    said: dict[str, Any] = {"features": ["a"], "label": "y", "window": {"length": 4, "hop": 2}, "validation": 0.3}

    def sides(n: int) -> tuple[set[float], set[float]]:
        train, held = split(examples(series(n), {"time": "t"} if timed else {}, **said))
        return {a for row in train for a in row}, {a for row in held for a in row}

    train, held = sides(n)
    more_train, more_held = sides(n + more)
    assert held
    assert train <= more_train
    assert held <= more_held


def test_where_there_is_no_second_group_nothing_is_held_back_and_that_is_said() -> None:
    columns = {"a": [1.0, 2.0], "y": [0.0, 1.0], "g": ["u", "u"]}
    found = reading(columns, features=["a"], label="y", validation=0.5, by="g")
    assert found.data.held_out is None
    assert found.notes == ("nothing is held back for validation: there is no second group",)
    both = examples(columns | {"g": ["u", "v"]}, features=["a"], label="y", validation=0.01, by="g")
    assert both.held_out is not None
    assert (len(both.y), len(both.held_out.y)) == (1, 1)


# Where rows lie.


@pytest.mark.parametrize(
    "contract",
    [
        HELD,
        HELD | {"missing": "mask"},
        HELD | {"missing": "last", "by": "g"},
        HELD | {"window": {"length": 3, "hop": 1}, "by": "g", "missing": "last"},
        {"features": ["a", "b"], "label": "y", "window": {"length": 3, "hop": 1}},
    ],
)
def test_rows_in_files_are_those_in_memory(
    contract: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "a": [None if at % 10 == 3 else float(cell) for at, cell in enumerate(random.normal(size=400))],
        "b": random.normal(size=400).tolist(),
        "t": random.permutation(400).astype(float).tolist(),
        "g": [f"trial {at}" for at in random.integers(0, 9, 400)],
        "y": random.integers(0, 3, 400).astype(float).tolist(),
        "w": random.uniform(0.5, 2, 400).tolist(),
    }
    source = {"time": "t"}
    here = examples(columns, source, weight="w", **contract)
    monkeypatch.setattr(spool, "MEMORY_BYTES", 64)
    there = reading(columns, source, scratch=tmp_path, weight="w", **contract).data
    assert is_mapped(there.X)
    assert is_mapped(there.y)
    for one, other in ((here, there), (here.held_out, there.held_out)):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.fingerprint == other.fingerprint
            assert fit(other, ModelSpec(inputs=other.X.shape[1], outputs=3)).fingerprint
    assert list(tmp_path.iterdir()) == []


def test_labels_of_many_rows_are_fitted_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.arange(500) % 3
    rows = Dataset(np.ones((500, 2), np.float32), y.astype(np.float32), "x.csv")
    expected = fit(rows, ModelSpec(inputs=2, outputs=3))
    monkeypatch.setattr("models.data.dataset._ROWS_AT_ONCE", 64)
    monkeypatch.setattr(spool, "MEMORY_BYTES", 64)
    found = fit(rows, ModelSpec(inputs=2, outputs=3), tmp_path)
    assert found.X is rows.X
    assert is_mapped(found.y)
    assert (found.y.tolist(), found.y.dtype) == (expected.y.tolist(), np.int64)
    assert fit(rows._replace(y=y), ModelSpec(inputs=2, outputs=3)).y is y
    values = fit(rows, ModelSpec(inputs=2, outputs=1, loss="mse")).y
    assert np.shares_memory(values, rows.y)
    assert values.shape == (500, 1)
    wrong = rows._replace(y=np.where(np.arange(500) == 321, 7, y))
    with pytest.raises(DatasetError, match=r"row 321: the label is not one of 0\.\.2") as caught:
        fit(wrong, ModelSpec(inputs=2, outputs=3))
    assert caught.value.cell == "7"


def test_between_two_blocks_others_have_their_turn() -> None:
    turns: list[int] = []
    read(
        Memory(rows_of([(at, 0) for at in range(100)])),
        SourceSettings("x.csv"),
        ContractSpec(features=("a", "b"), label="y"),
        pause=lambda: turns.append(1),
    )
    assert len(turns) == 15, "one a block of seven rows"


# Arrays without names.


class Two:
    """Two arrays, a few rows at a time."""

    header: tuple[str, ...] = ()
    notes: tuple[str, ...] = ("columns by position",)

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        self._X, self._y, self.n_rows = X, y, len(X)
        self.scaled: list[bool] = []

    def blocks(self, _wanted: Mapping[str, Kind]) -> Iterator[Block]:
        raise AssertionError("there are no names")

    def parts(self, *, scaled: bool = True) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.scaled.append(scaled)
        for at in range(0, len(self._X), 7):
            yield self._X[at : at + 7].astype(np.float32), self._y[at : at + 7]

    def arrays(self, **_: bool) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("that takes memory")

    def close(self) -> None:
        pass


def positioned(X: np.ndarray, y: np.ndarray, **contract: Any) -> Reading:
    return of_arrays(Two(X, y), SourceSettings("x.npz"), msgspec.convert(contract, ContractSpec))


def test_arrays_go_by_position_and_that_is_said() -> None:
    X, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    found = positioned(X, y, **NAMED)
    assert (found.data.X.tolist(), found.data.y.tolist()) == (X.tolist(), y.tolist())
    assert found.notes == ("columns by position", "columns have no names and go by position: a, b")


def test_arrays_of_another_number_of_columns_are_refused() -> None:
    with pytest.raises(
        DatasetError, match=r"its rows have 3 numbers without names, where the job has 2 features \(a, b\)"
    ):
        positioned(np.ones((4, 3)), np.zeros(4), **NAMED)
    with pytest.raises(DatasetError, match="2 labels a row, where the job has 1: y"):
        positioned(np.ones((4, 2)), np.zeros((4, 2)), **NAMED)
    with pytest.raises(DatasetError, match="no column 'trial'"):
        positioned(np.ones((4, 2)), np.zeros(4), **NAMED, by="trial", validation=0.1)


@pytest.mark.parametrize(
    ("classes", "labels", "found"),
    [
        (["ok", "fault"], [0, 1, 1, 2, 0], [0, 1, 1, 0]),
        (["1", "2"], [1, 2, 2, 0, 1], [0, 1, 1, 0]),
        (["False", "True"], [True, False, True, True, False], [1, 0, 1, 1, 0]),
        (["ok", "fault"], ["fault", "ok", "no", "ok", "ok"], [1, 0, 0, 0]),
    ],
)
def test_labels_of_arrays_are_classes_by_name_or_else_by_position(
    classes: list[str], labels: list[Any], found: list[int]
) -> None:
    assert positioned(np.ones((5, 2)), np.array(labels), **NAMED | {"classes": classes}).data.y.tolist() == found


def test_of_several_labels_a_row_classes_are_what_they_are_called_and_not_what_is_in_them() -> None:
    y = np.array([[0, 1], [1, 1], [0, 0]])
    told = {"features": ["a", "b"], "classes": ["1", "0"]}
    assert positioned(np.ones((3, 2)), y, **told).data.y.tolist() == y.tolist()
    columns = {"a": [1.0, 2], "b": [1.0, 2], "p": [1.0, 0], "q": [0.0, 1]}
    assert examples(columns, **told, label=["p", "q"]).y.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(KindError, match="the label 'q' is no number: of several labels a row each is"):
        examples(columns | {"q": ["yes", "no"]}, **told, label=["p", "q"])


def test_a_job_that_normalises_gets_bytes_as_they_are_and_any_other_scaled_ones() -> None:
    for normalise, scaled in (("none", True), ("pixels", False), ("standard", False)):
        arrays = Two(np.ones((4, 2)), np.zeros(4))
        of_arrays(arrays, SourceSettings("x.npz"), msgspec.convert(NAMED | {"normalise": normalise}, ContractSpec))
        assert arrays.scaled[-1] is scaled


def test_images_keep_their_shape() -> None:
    X = np.arange(40.0).reshape(10, 1, 2, 2)
    found = positioned(X, np.arange(10) % 2, validation=0.3).data
    assert found.held_out is not None
    assert (found.X.shape[1:], found.held_out.X.shape[1:]) == ((1, 2, 2), (1, 2, 2))
    assert len(found.y) + len(found.held_out.y) == 10


def test_rows_that_are_windows_already_are_taken_as_they_are() -> None:
    X = np.arange(36.0).reshape(6, 3, 2)
    found = positioned(X, np.arange(6) % 2, **NAMED | {"window": {"length": 3}})
    assert found.data.X.reshape(6, -1).tolist() == X.reshape(6, -1).tolist()
    assert "its rows are windows of 3 already" in found.notes[1]
    assert positioned(X.reshape(18, 2), np.zeros(18), **NAMED | {"window": {"length": 3}}).data.X.shape == (16, 6)


def test_rows_that_have_all_inputs_already_are_taken_as_they_are() -> None:
    X = np.arange(24.0).reshape(6, 4)
    found = positioned(X, np.arange(6) % 2, **NAMED | {"missing": "mask", "by": "trial"})
    assert found.data.X.tolist() == X.tolist()
    assert "its rows are what the model takes already" in found.notes[1]


class Wide(Memory):
    """A table whose rows are three lines each, as cells with line breaks make them."""

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        for block in super().blocks(wanted):
            faults = tuple(fault._replace(line=3 * fault.line + 2) for fault in block.faults)
            yield Block(block.columns, block.lines * 3, faults)


def test_a_cell_that_is_wrong_behind_a_line_break_takes_its_own_row_out() -> None:
    table = Wide({"a": [1.0, "x", 3.0], "y": [0.0, 1.0, 2.0]})
    found = read(table, SourceSettings("x.csv"), ContractSpec(features=("a",), label="y", missing="mean"))
    assert found.data.y.tolist() == [0, 2]


def test_without_a_contract_arrays_are_taken_as_they_are_or_not_at_all() -> None:
    X, y = np.ones((10, 2), np.float32), np.arange(10)
    found = of_arrays(Two(X, y), SourceSettings("x.npz")).data
    assert (found.X.tolist(), found.y.tolist(), found.y.dtype) == (X.tolist(), y.tolist(), np.int64)
    X[8, 1] = np.nan
    with pytest.raises(DatasetError, match=r"x.npz, row 8: X has a value that is not a finite float32"):
        of_arrays(Two(X, y), SourceSettings("x.npz"))
    with pytest.raises(DatasetError, match="y is text: name the job's classes"):
        of_arrays(Two(X[:2], np.array(["a", "b"])), SourceSettings("x.npz"))
    with pytest.raises(DatasetError, match="no rows in X"):
        of_arrays(Two(X[:0], y[:0]), SourceSettings("x.npz"))
