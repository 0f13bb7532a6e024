from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from models.data.blocks import Fault, Kind
from models.data.dataset import DatasetError
from models.data.jsonl_file import MOST_COLUMNS
from models.data.source import DataSource, load

LINES = """{"ts": "2024-01-01T00:00:00Z", "v": {"temp": 21.5, "acc": [0.5, -1]}, "on": true, "y": "ok"}
{"ts": 1704067260, "v": {"temp": "22,5", "acc": [1]}, "on": null, "y": 1.0}

{"ts": "NA", "v": {"temp": NaN}, "y": "fault", "extra.name": 1}
"""


def test_an_object_is_a_row_and_what_is_nested_is_named_with_points(read_back: Callable[..., Any]) -> None:
    found = read_back(LINES, "x.jsonl", {"ts": Kind.TIME, "y": Kind.TEXT})
    assert found.columns == {
        "ts": [1704067200.0, 1704067260.0, None],
        "v.temp": [21.5, None, None],
        "v.acc.0": [0.5, 1, None],
        "v.acc.1": [-1, None, None],
        "on": [1, None, None],
        "y": ["ok", "1", "fault"],
        "extra.name": [None, None, 1],
    }
    assert found.lines == [1, 2, 4]
    assert found.faults == [Fault(2, "v.temp", "is no number: a number has a point, and nothing else between digits")]


def test_numbers_in_quotes_are_numbers_as_home_assistant_writes_them(read_back: Callable[..., Any]) -> None:
    found = read_back('{"state": "21.5", "y": 0}\n{"state": "unavailable", "y": 1}\n', "x.ndjson")
    assert found.columns["state"] == [21.5, None]
    assert found.faults == [Fault(2, "state", "is no number")]


def test_a_line_that_is_no_object_is_a_fault_of_that_line(read_back: Callable[..., Any]) -> None:
    deep = '{"a":' * 100_000
    found = read_back(f'{{"a": 1, "y": 0}}\n[1, 2]\nrubbish\n{deep}\n{{"a": 1e300, "y": {{}}}}\n', "x.jsonl")
    assert found.faults == [
        Fault(2, "", "is no JSON object"),
        Fault(3, "", "is no JSON object"),
        Fault(4, "", "is no JSON object"),
        Fault(5, "a", "is beyond what a float32 holds"),
        Fault(5, "y", "is an object"),
    ]
    assert found.columns == {"a": [1, None, None, None, None], "y": [0, None, None, None, None]}


def test_a_torn_last_line_is_left_for_the_next_time(read_back: Callable[..., Any]) -> None:
    body = '{"a": 1, "y": 0}\n{"a": 2, "y"'
    assert read_back(body, "x.jsonl", ended=True).columns == {"a": [1], "y": [0]}
    assert read_back(body, "x.jsonl").faults == [Fault(2, "", "is no JSON object")]


@pytest.mark.parametrize("name", ["x.json", "x.ndjson", "x.jsonl.gz", "x.JSONL"])
def test_the_endings_of_json_lines(name: str, read_back: Callable[..., Any]) -> None:
    body = b'{"a": 1, "y": 0}\n'
    assert read_back(gzip.compress(body) if name.endswith("gz") else body, name).columns == {"a": [1], "y": [0]}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "x.jsonl: no rows yet: it is empty"),
        (
            '[{"a": 1},\n{"a": 2}]\n',
            r"x.jsonl, line 1: is no JSON object: write one object a line \(jq -c '.\[\]' makes",
        ),
        ('{\n"a": 1\n}\n', "line 1: is no JSON object"),
        ("{" + ",".join(f'"c{n}": 1' for n in range(MOST_COLUMNS + 1)) + "}\n", "has more than 10,000 columns"),
        ('{"a": [' + "1," * 20_000 + "1]}\n", "has more than 10,000 columns"),
        ("a,y\n1,0\n", "is no JSON object"),
    ],
)
def test_what_is_no_json_lines_says_what_to_do(body: str, why: str, read_back: Callable[..., Any]) -> None:
    with pytest.raises(DatasetError, match=why):
        read_back(body, "x.jsonl")


def test_json_lines_may_be_trained_on(tmp_path: Any) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1.5, "y": 0}\n{"y": 1, "a": 2}\n')
    data = load(DataSource(str(path)))
    assert (data.X.tolist(), data.y.tolist()) == ([[1.5], [2.0]], [0.0, 1.0])
    path.write_text('{"a": 1.5, "y": 0}\n{"y": 1, "a": "SECRET"}\n')
    found = load(DataSource(str(path)))
    assert found.told.endswith("'a' is no number (line 2)"), "and not what stands there"
    assert found.X.tolist() == [[1.5]]
