from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from models.contract import ContractSpec, WindowSpec
from models.data import ring_file, source, table
from models.data.blocks import BLOCK_ROWS, Fault, Kind
from models.data.dataset import DatasetError
from models.data.ring_file import head_of, line_of
from models.data.settings import SourceSettings
from models.data.source import DataSource


def ring(
    folder: Path, *rows: dict[str, object], name: str = "00000001.jsonl", columns: tuple[str, ...] = ("t", "y")
) -> str:
    path = folder / "a.ring"
    path.mkdir(exist_ok=True)
    (path / name).write_bytes(
        head_of(columns) + b"".join(line_of({"time": 100.0 + i, **row}) for i, row in enumerate(rows))
    )
    return str(path)


def test_a_ring_is_a_table_with_a_time_whose_missing_cells_are_missing(tmp_path: Path) -> None:
    path = ring(tmp_path, {"t": 1, "y": "run"}, {"y": "off"}, {"t": 2.5, "y": True})
    opened = ring_file.open_table(SourceSettings(path))
    assert opened.header == ("time", "t", "y")
    (block,) = opened.blocks({"t": Kind.NUMBER, "y": Kind.TEXT, "time": Kind.TIME})
    opened.close()
    np.testing.assert_array_equal(block.columns["t"], [1.0, math.nan, 2.5])
    np.testing.assert_array_equal(block.columns["time"], [100.0, 101.0, 102.0])
    assert block.columns["y"] == ["run", "off", "true"]
    assert block.lines.tolist() == [0, 1, 2]
    assert block.faults == ()


def test_a_cell_of_another_kind_is_a_fault_that_names_row_and_column_and_not_the_cell(tmp_path: Path) -> None:
    opened = ring_file.open_table(SourceSettings(ring(tmp_path, {"t": 1}, {"t": "secret"})))
    (block,) = opened.blocks({"t": Kind.NUMBER})
    opened.close()
    assert [(fault.line, fault.column) for fault in block.faults] == [(1, "t")]
    assert isinstance(block.faults[0], Fault)
    assert "secret" not in block.faults[0].why


def test_segments_are_read_in_order_in_blocks_and_may_be_read_again(tmp_path: Path) -> None:
    ring(tmp_path, *({"t": i} for i in range(3000)))
    path = ring(tmp_path, *({"t": i} for i in range(3000, 6000)), name="00000002.jsonl")
    opened = ring_file.open_table(SourceSettings(path))
    for _ in range(2):
        blocks = list(opened.blocks({"t": Kind.NUMBER}))
        assert [len(block.lines) for block in blocks] == [BLOCK_ROWS, 6000 - BLOCK_ROWS]
        assert np.concatenate([block.columns["t"] for block in blocks]).tolist() == list(range(6000))
        assert np.concatenate([block.lines for block in blocks]).tolist() == list(range(6000))
    opened.close()


def test_a_table_is_of_the_moment_when_it_was_opened(tmp_path: Path) -> None:
    path = ring(tmp_path, {"t": 1})
    opened = ring_file.open_table(SourceSettings(path))
    with (Path(path) / "00000001.jsonl").open("ab") as file:
        file.write(line_of({"time": 1.0, "t": 2}))
    (Path(path) / "00000001.jsonl").unlink()
    assert [block.columns["t"].tolist() for block in opened.blocks({"t": Kind.NUMBER})] == [[1.0]]  # type: ignore[union-attr]
    opened.close()


def test_a_line_that_is_being_written_when_a_table_is_opened_is_never_in_it(tmp_path: Path) -> None:
    path = ring(tmp_path, {"t": 1})
    line = line_of({"time": 1.0, "t": 2})
    with (Path(path) / "00000001.jsonl").open("ab", buffering=0) as file:
        file.write(line[:10])
        opened = ring_file.open_table(SourceSettings(path))
        file.write(line[10:])
    assert [block.columns["t"].tolist() for block in opened.blocks({"t": Kind.NUMBER})] == [[1.0]]  # type: ignore[union-attr]
    opened.close()


def test_names_are_found_where_every_head_has_rotted(tmp_path: Path) -> None:
    path = ring(tmp_path, {"t": 1, "y": 2})
    segment = Path(path) / "00000001.jsonl"
    segment.write_bytes(b"X" + segment.read_bytes()[1:])
    opened = ring_file.open_table(SourceSettings(path))
    assert opened.header == ("time", "t", "y")
    assert len(list(opened.blocks({"t": Kind.NUMBER}))) == 1
    assert opened.notes == ("1 damaged line left out",)
    opened.close()


def test_a_line_longer_than_any_of_ours_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ring(tmp_path, {"t": 1}, {"t": "x" * 500}, {"t": 3})
    monkeypatch.setattr(ring_file, "MOST_LINE", 200)
    opened = ring_file.Ring(path)
    assert [row["t"] for row in opened.rows()] == [1, 3]
    opened.close()


def test_without_a_contract_complete_rows_are_trained_on_and_the_others_are_not(tmp_path: Path) -> None:
    settings = DataSource(ring(tmp_path, {"t": 1, "y": 0}, {"t": 2}, {"t": 3, "y": 1}))
    data = source.open(settings).snapshot()
    assert data.X.tolist() == [[1.0], [3.0]]
    assert data.y.tolist() == [0.0, 1.0]


def test_with_a_contract_labels_are_texts_and_no_window_spans_an_outage(
    tmp_path: Path,
) -> None:
    times = [0, 1, 2, 60, 61]
    rows = [{"time": 1000.0 + at, "t": at, "y": "run" if at > 40 else "off"} for at in times]
    settings = DataSource(ring(tmp_path, *rows))
    contract = ContractSpec(
        features=("t",), label="y", classes=("off", "run"), window=WindowSpec(length=2, hop=1, gap_s=5.0)
    )
    data = source.open(settings, contract).snapshot()
    assert data.X.reshape(-1, 2).tolist() == [[0, 1], [1, 2], [60, 61]]
    assert data.y.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"t": 1}], "y"),
        ([{"t": 1, "y": "secret"}], "the label 'y' is no number"),
    ],
)
def test_a_ring_that_nothing_can_be_trained_on_says_why_and_never_a_value(
    tmp_path: Path, rows: list[dict[str, object]], why: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        source.load(DataSource(ring(tmp_path, *rows)))
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_empty_ring_or_none_and_a_column_that_no_topic_gives_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "no.ring", tmp_path / "empty.ring"):
        with pytest.raises(DatasetError, match="no reading has been kept yet"):
            source.load(DataSource(str(path)))
        (tmp_path / "empty.ring").mkdir(exist_ok=True)
    with pytest.raises(DatasetError, match="no column 'v'"):
        source.load(DataSource(ring(tmp_path, {"t": 1}), features="v"))


def test_its_stamp_is_another_when_rows_are_appended_or_a_segment_comes_or_goes(tmp_path: Path) -> None:
    settings = SourceSettings(ring(tmp_path, {"t": 1}))
    stamps = [table.stamp(settings)]
    assert table.stamp(settings) == stamps[0]
    with (tmp_path / "a.ring" / "00000001.jsonl").open("ab") as file:
        file.write(line_of({"time": 1.0, "t": 2}))
    stamps.append(table.stamp(settings))
    ring(tmp_path, {"t": 1}, name="00000002.jsonl")
    stamps.append(table.stamp(settings))
    (tmp_path / "a.ring" / "00000001.jsonl").unlink()
    stamps.append(table.stamp(settings))
    assert len(set(stamps)) == len(stamps)
    assert table.stamp(SourceSettings(str(tmp_path / "no.ring"))) == ((),)
