from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.data import table
from models.data.blocks import Arrays, Block, Fault, Kind
from models.data.dataset import DatasetError
from models.data.factory_source import open_table
from models.data.source import DataSource

CODE = """
from datetime import UTC, datetime
import numpy as np
from models.data.blocks import Block

CALLS = []

def rows(n=3, temp=20.5):
    CALLS.append(n)
    for at in range(n):
        yield {"when": datetime(2024, 1, 1, 0, at, tzinfo=UTC), "v": {"temp": temp + at}, "y": np.int64(at % 2)}

def blocks():
    for at in range(2):
        yield Block({"a": np.arange(5000.0), "y": ["ok"] * 5000}, np.arange(5000))

def arrays():
    return np.full((3, 2), 255, np.uint8), np.array([0, 1, 0])

def words():
    return [{"a": "SECRET", "y": 1}]

def broken():
    yield {"a": 1, "y": 0}
    raise RuntimeError("the cell SECRET")

def ragged():
    return [Block({"a": np.zeros(2), "y": np.zeros(3)}, np.arange(3))]

def none():
    return []

def number():
    return 7

def texts():
    return ["a", "b"]
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "logger_of_ours.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    import importlib

    yield importlib.import_module("logger_of_ours")
    del sys.modules["logger_of_ours"]


def source(factory: str, **keys: Any) -> DataSource:
    return msgspec.convert({"path": f"logger_of_ours:{factory}", **keys}, DataSource)


def opened(factory: str, **keys: Any) -> Any:
    found = source(factory, **keys)
    return table.known(found).open(found, ended=False, allow=table.factories_of(found))


def test_code_runs_only_where_it_is_allowed(code: Any) -> None:
    found = source("rows")
    assert table.factories_of(found) == ("logger_of_ours:rows",)
    for allow in ((), ("logger_of_ours:blocks",)):
        with pytest.raises(
            DatasetError, match=r"logger_of_ours:rows is code that may not run here: .* add it to allow in"
        ):
            table.known(found).open(found, ended=False, allow=allow)
    with pytest.raises(DatasetError, match="may not run here"):
        open_table(found, ended=False)
    assert code.CALLS == []


def test_rows_are_dicts_and_are_asked_for_each_time(code: Any) -> None:
    rows = opened("rows", options={"n": 2, "temp": 1.5})
    assert rows.header == ("when", "v.temp", "y")
    for _ in range(2):
        (block,) = rows.blocks({"v.temp": Kind.NUMBER, "y": Kind.TEXT, "when": Kind.TIME})
        assert np.asarray(block.columns["v.temp"]).tolist() == [1.5, 2.5]
        assert block.columns["y"] == ["0", "1"]
        assert block.columns["when"][0] == datetime(2024, 1, 1, tzinfo=UTC).timestamp()
    assert code.CALLS == [2, 2, 2]


def test_the_factory_may_be_the_format_of_a_path_that_is_looked_at_for_changes(code: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.bin"
    found = msgspec.convert({"path": str(path), "format": "logger_of_ours:rows"}, DataSource)
    before = table.stamp(found)
    path.write_text("x")
    assert table.stamp(found) != before
    assert table.known(found).name == "code"


@pytest.mark.usefixtures("code")
def test_blocks_are_cut_to_size() -> None:
    blocks = list(opened("blocks").blocks({"a": Kind.NUMBER, "y": Kind.TEXT}))
    assert [len(block.lines) for block in blocks] == [4096, 904] * 2
    assert [block.lines[0] for block in blocks] == [0, 4096, 5000, 9096]
    assert all(isinstance(block, Block) and len(block.columns["y"]) == len(block.lines) for block in blocks)


@pytest.mark.usefixtures("code")
def test_two_arrays_go_by_position() -> None:
    found = opened("arrays")
    assert isinstance(found, Arrays)
    assert found.header == ()
    assert found.arrays()[0].tolist() == [[1, 1]] * 3
    assert found.arrays(scaled=False)[0].tolist() == [[255, 255]] * 3
    with pytest.raises(DatasetError, match="gave arrays without names, so that a cannot be found"):
        list(found.blocks({"a": Kind.NUMBER}))


@pytest.mark.usefixtures("code")
def test_a_cell_that_is_none_is_a_fault_and_stays_here() -> None:
    (block,) = opened("words").blocks({"a": Kind.NUMBER, "y": Kind.NUMBER})
    assert block.faults == (Fault(0, "a", "is no number"),)


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize(
    ("factory", "keys", "why"),
    [
        ("nothing", {}, "failed with AttributeError"),
        ("rows", {"options": {"m": 1}}, "failed with TypeError"),
        ("broken", {}, "failed with RuntimeError: the log of this machine has why"),
        ("ragged", {}, "gave 2 cells of 'a' for 3 rows"),
        ("none", {}, "no rows yet: it gave none"),
        ("number", {}, r"gave a int: it shall give an iterable of dicts, or \(X, y\)"),
        ("texts", {}, "gave a str as a row: a row is a dict"),
        ("words", {"rename": {"b": "c"}}, "no column 'b'; the header has a, y"),
    ],
)
def test_code_that_does_not_give_rows_is_told_so(factory: str, keys: dict[str, Any], why: str) -> None:
    with pytest.raises(DatasetError, match=why) as error:
        list(opened(factory, **keys).blocks({"a": Kind.NUMBER}))
    assert "SECRET" not in str(error.value)
    if factory == "broken":
        assert error.value.cell == "the cell SECRET"


def test_options_are_a_factorys_alone() -> None:
    with pytest.raises(msgspec.ValidationError, match="options is no key of a source in CSV"):
        msgspec.convert({"path": "x.csv", "options": {"n": 1}}, DataSource)
