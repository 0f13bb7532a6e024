"""Rows that a model is asked about: by the contract that it was trained by, each with the row that it is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models.contract import ContractSpec, WindowSpec
from models.data import asked, table
from models.data.asked import Asked
from models.data.dataset import DatasetError
from models.data.settings import SourceSettings

BOTH = ContractSpec(features=("a", "b"), label="y", classes=("ok", "fault"))


def ask(path: Path, contract: ContractSpec, fill: npt.NDArray[np.float32] | None = None, **keys: object) -> Asked:
    settings = SourceSettings(str(path), **keys)  # type: ignore[arg-type]
    opened = table.known(settings).open(settings, ended=False)
    try:
        return asked.ask(opened, settings, contract, fill)
    finally:
        opened.close()


def written(folder: Path, text: str) -> Path:
    path = folder / "x.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_go_by_name_and_the_label_is_not_looked_at(tmp_path: Path) -> None:
    found = ask(written(tmp_path, "b,y,note,a\n2,nonsense,x,1\n4,,y,3\n"), BOTH)
    assert found.X.tolist() == [[1, 2], [3, 4]]
    assert found.rows.tolist() == [0, 1]
    assert found.lines.tolist() == [2, 3]


def test_a_row_that_cannot_be_used_is_left_out_and_none_is_shifted(tmp_path: Path) -> None:
    found = ask(written(tmp_path, "a,b\n1,2\n,4\n5,x\n7,8\n"), BOTH)
    assert (found.rows.tolist(), found.lines.tolist()) == ([0, 3], [2, 3, 4, 5])
    assert found.X.tolist() == [[1, 2], [7, 8]]
    assert any("2 of 4 rows are left out: " in note for note in found.notes)


def test_rows_of_which_none_can_be_used_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none of its 1 rows can be used: 1 because 'a' is empty \(line 2\)"):
        ask(written(tmp_path, "a,b\n,2\n"), BOTH)


def test_what_is_missing_is_filled_as_on_the_device(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n1,2\n,4\n")
    masked = ContractSpec(features=("a", "b"), missing="mask")
    fill = np.array([10, 20], np.float32)
    assert ask(path, ContractSpec(features=("a", "b"), missing="mean"), fill).X.tolist() == [[1, 2], [10, 4]]
    assert ask(path, masked, fill).X.tolist() == [[1, 2, 0, 0], [10, 4, 1, 0]]
    assert ask(path, masked).X.tolist() == [[1, 2, 0, 0], [1, 4, 1, 0]]
    assert ask(path, ContractSpec(features=("a", "b"), missing="last")).X.tolist() == [[1, 2], [1, 4]]


def test_the_means_are_those_that_a_device_fills_with(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b,y\n1,2,ok\n,4,ok\n3,9,ok\n100,100,none\n")
    settings = SourceSettings(str(path))
    opened = table.known(settings).open(settings, ended=False)
    try:
        mean = ContractSpec(features=("a", "b"), label="y", classes=("ok", "fault"), missing="mean")
        assert asked.means(opened, settings, mean) == pytest.approx([2, 5])
        assert asked.means(opened, settings, BOTH) is None
    finally:
        opened.close()


def test_windows_are_told_by_their_last_row_in_order_of_time(tmp_path: Path) -> None:
    text = "t,a\n" + "".join(f"{t},{t * 10}\n" for t in (3, 1, 2, 0, 4))
    contract = ContractSpec(features=("a",), window=WindowSpec(2, hop=1))
    found = ask(written(tmp_path, text), contract, time="t", time_format="s")
    assert found.rows.tolist() == [0, 1, 2, 4]
    assert {int(row): x.tolist() for row, x in zip(found.rows, found.X, strict=True)} == {
        0: [20, 30],  # row 0 is that of time 3
        1: [0, 10],
        2: [10, 20],
        4: [30, 40],
    }


def test_a_range_holds_for_what_is_asked_too(tmp_path: Path) -> None:
    contract = ContractSpec(features=("a", "b"), label="y", ranges={"a": (0, 5), "y": (0, 1)})
    assert ask(written(tmp_path, "a,b\n1,2\n9,2\n"), contract).rows.tolist() == [0]


def test_arrays_go_by_position_whatever_their_labels_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", X=np.arange(6, dtype=np.uint8).reshape(3, 2), y=np.array(["a", "b", "c"]))
    found = ask(tmp_path / "x.npz", ContractSpec(features=("a", "b"), label="y", normalise="pixels"))
    assert found.X.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert any("by position: a, b" in note for note in found.notes)


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no column 'a'; the header has A1, b: call them so there") as error:
        ask(written(tmp_path, "A1,b\n1,2\n"), BOTH)
    assert "number)" not in str(error.value)


def test_a_column_may_be_called_as_ours_is(tmp_path: Path) -> None:
    assert ask(written(tmp_path, "a,b,(number)\n1,2,7\n"), BOTH).X.tolist() == [[1, 2]]
