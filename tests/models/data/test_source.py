from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.contract import ContractSpec
from models.data import table
from models.data.blocks import Block, Kind, Table
from models.data.dataset import Dataset, DatasetError
from models.data.settings import SourceSettings
from models.data.source import DataSource, File, InMemory, Unchanging, _is_settled, kept, load, read
from models.data.source import open as open_source
from models.job import ModelSpec


@pytest.fixture
def csv(tmp_path: Path) -> str:
    path = tmp_path / "x.csv"
    path.write_text("a,b,y\n1,2,0\n3,4,1\n")
    return str(path)


@pytest.fixture
def npz(tmp_path: Path) -> str:
    path = tmp_path / "x.npz"
    np.savez(path, X=np.ones((2, 3)), other=np.zeros((2, 2)), y=np.arange(2))
    return str(path)


def source(**keys: Any) -> DataSource:
    return msgspec.convert(keys, DataSource)


def test_one_column_of_a_csv_may_stand_alone(csv: str) -> None:
    assert load(source(path=csv, features="b")).X.tolist() == [[2], [4]]
    assert load(source(path=csv, features="b")).X.tolist() == load(source(path=csv, features=["b"])).X.tolist()
    with pytest.raises(DatasetError, match="1 features an example where the model has inputs = 2"):
        read(source(path=csv, features="a"), ModelSpec(inputs=2, outputs=2))
    with pytest.raises(DatasetError, match="no column 'c'"):
        load(source(path=csv, features="c"))


def test_all_columns_but_the_label_are_features_where_none_is_named(csv: str) -> None:
    assert load(source(path=csv)).X.tolist() == [[1, 2], [3, 4]]
    assert load(source(path=csv, label="a")).X.tolist() == [[2, 0], [4, 1]]


def test_the_array_of_an_npz_may_stand_in_brackets(npz: str) -> None:
    assert load(source(path=npz)).X.shape == (2, 3)
    assert load(source(path=npz, features="other")).X.shape == (2, 2)
    assert load(source(path=npz, features=["other"])).X.shape == (2, 2)


def test_the_ending_may_be_written_large(tmp_path: Path, csv: str) -> None:
    large = Path(csv).rename(tmp_path / "X.CSV")
    assert load(source(path=str(large), features="b")).X.tolist() == [[2], [4]]


REFUSED: dict[str, dict[str, Any]] = {
    "the label as a feature": {"path": "x.csv", "features": ["a", "y"]},
    "the label as the only feature": {"path": "x.npz", "features": "y"},
    "no features at all": {"path": "x.csv", "features": []},
    "a feature without a name": {"path": "x.csv", "features": ""},
    "a label without a name": {"path": "x.csv", "label": ""},
    "no path": {"path": ""},
    "a path of two lines": {"path": "a\nb.csv"},
}


@pytest.mark.parametrize("keys", REFUSED.values(), ids=REFUSED)
def test_keys_that_cannot_be_meant_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        source(**keys)


def test_a_source_that_is_no_file_may_name_what_it_likes() -> None:
    assert source(path="device-07", features=["a", "b"]).path == "device-07"


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file count as settled at once."""
    monkeypatch.setattr("models.data.source.SETTLED_S", 0.0)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read."""
    found: list[str] = []
    row = table.FORMATS[1]

    def note(settings: SourceSettings, **how: Any) -> Table:
        found.append(settings.path)
        return row.open(settings, **how)

    monkeypatch.setattr(table, "FORMATS", (table.FORMATS[0], row._replace(open=note), *table.FORMATS[2:]))
    return found


def append(path: str, line: str) -> None:
    with Path(path).open("a") as file:
        file.write(line)


def test_each_snapshot_has_the_rows_that_there_are_then(csv: str) -> None:
    rows = open_source(source(path=csv))
    first = rows.snapshot()
    append(csv, "5,6,1\n")
    second = rows.snapshot()
    assert (len(first.y), len(second.y)) == (2, 3)
    assert first.fingerprint != second.fingerprint


@pytest.mark.usefixtures("unhurried")
def test_what_has_not_changed_is_not_read_again(csv: str, readings: list[str]) -> None:
    rows = open_source(source(path=csv))
    assert rows.snapshot() is rows.snapshot()
    assert readings == [csv]
    append(csv, "5,6,1\n")
    assert len(rows.snapshot().y) == 3
    assert readings == [csv] * 2


def test_a_file_that_was_written_to_just_now_is_read_again_though_its_stamp_is_the_same(
    csv: str, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes in one tick of the kernel's clock leave one stamp: here every stamp is the same."""
    now = time.time_ns()
    monkeypatch.setattr(table, "_stamp", lambda _path: (1, 1, 1, now, now))
    monkeypatch.setattr("models.data.source.SETTLED_S", 3600.0)
    rows = open_source(source(path=csv))
    rows.snapshot()
    Path(csv).write_text("a,b,y\n9,9,0\n3,4,1\n")
    assert rows.snapshot().X[0].tolist() == [9, 9]
    assert readings == [csv] * 2


@pytest.mark.usefixtures("unhurried")
def test_what_shows_to_be_unchanged_on_a_disk_that_is_waited_for_is_had_without_a_snapshot(csv: str) -> None:
    rows, here = open_source(source(path=csv)), Path(csv).stat().st_dev
    assert kept(rows, here) is None, "nothing was read so far"
    first = rows.snapshot()
    assert kept(rows, here) is first
    append(csv, "5,6,1\n")
    assert kept(rows, here) is None
    second = rows.snapshot()
    assert len(second.y) == 3
    assert kept(rows, here) is second
    Path(csv).unlink()
    assert kept(rows, here) is None


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("waited_for", [None, 1])
def test_a_file_on_another_disk_is_not_even_looked_at_without_a_snapshot(
    csv: str, waited_for: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer holds whoever asks it for a stamp."""
    rows, here = open_source(source(path=csv)), Path(csv).stat().st_dev
    rows.snapshot()
    looks: list[str] = []
    stamp = table._stamp
    monkeypatch.setattr(table, "_stamp", lambda path: looks.append(path) or stamp(path))
    assert kept(rows, None if waited_for is None else here + waited_for) is None
    assert looks == []
    assert kept(rows, here) is not None
    assert looks == [csv]


def test_rows_that_a_stamp_does_not_tell_from_others_take_a_snapshot(csv: str) -> None:
    rows, here = open_source(source(path=csv)), Path(csv).stat().st_dev
    rows.snapshot()
    assert kept(rows, here) is None, "it was written to just now"
    assert kept(InMemory(rows.snapshot()), here) is None
    unchanging = Unchanging(rows.snapshot())
    assert kept(unchanging, None) is unchanging.snapshot()


@pytest.mark.usefixtures("unhurried")
def test_while_a_file_is_being_read_nothing_of_it_is_kept(csv: str) -> None:
    rows, here = open_source(source(path=csv)), Path(csv).stat().st_dev
    rows.snapshot()
    assert isinstance(rows, File)
    with rows._lock:
        assert kept(rows, here) is None


def test_the_rows_of_before_are_let_go_before_others_are_read(csv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = open_source(source(path=csv))
    before = weakref.ref(rows.snapshot().X)
    alive: list[bool] = []
    row = table.FORMATS[1]

    def note(settings: SourceSettings, **how: Any) -> Table:
        alive.append(before() is not None)
        return row.open(settings, **how)

    monkeypatch.setattr(table, "FORMATS", (row._replace(open=note),))
    append(csv, "5,6,1\n")
    rows.snapshot()
    assert alive == [False]


def test_after_an_error_the_rows_are_read_anew(csv: str) -> None:
    rows = open_source(source(path=csv))
    rows.snapshot()
    moved = Path(csv).rename(f"{csv}.away")
    with pytest.raises(DatasetError, match="cannot be read"):
        rows.snapshot()
    moved.rename(csv)
    assert len(rows.snapshot().y) == 2


def test_a_row_that_is_half_there_is_left_for_the_next_time(csv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a number is a number too."""
    monkeypatch.setattr("models.data.source.LOOK_S", 0.01)
    monkeypatch.setattr("models.data.source._is_settled", lambda _stamp, _now: False)
    monkeypatch.setattr("models.data.source.SETTLED_S", 0.05)
    append(csv, "5,6,1")
    rows = open_source(source(path=csv))
    assert len(rows.snapshot().y) == 2
    append(csv, "00\n7,")
    assert rows.snapshot().y.tolist() == [0, 1, 100]


def test_a_row_that_is_half_there_gets_the_time_to_be_whole(csv: str) -> None:
    append(csv, "5,6,1")
    later = threading.Timer(0.2, append, (csv, "00\n"))
    later.start()
    assert open_source(source(path=csv)).snapshot().y.tolist() == [0, 1, 100]
    later.join()


def test_a_last_line_without_an_end_counts_in_a_file_that_nobody_writes_to(
    csv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.source.SETTLED_S", 0.2)
    append(csv, "5,6,1")
    assert load(source(path=csv)).y.tolist() == [0, 1, 1], "who reads it once takes it as it is"
    assert open_source(source(path=csv)).snapshot().y.tolist() == [0, 1, 1]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(("line", "half"), [("5,6,1\n", ""), ("5,6,100\n", "5,"), ("5,6,100\n", "5,6,1")])
def test_a_file_that_is_written_to_while_it_is_read_is_read_again(
    csv: str, monkeypatch: pytest.MonkeyPatch, line: str, half: str
) -> None:
    row, tries = table.FORMATS[1], []
    append(csv, half)

    class Written:
        """A table that is written to as soon as it has been read."""

        def __init__(self, settings: SourceSettings, **how: Any) -> None:
            tries.append(settings)
            self._table = row.open(settings, **how)
            self.header, self.notes, self.close = self._table.header, self._table.notes, self._table.close

        def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
            yield from self._table.blocks(wanted)
            if len(tries) == 1:
                append(csv, line.removeprefix(half))

    monkeypatch.setattr(table, "FORMATS", (row._replace(open=Written),))
    assert open_source(source(path=csv)).snapshot().y.tolist() == [0, 1, int(line[4:])]
    assert len(tries) == 2
    append(csv, "7,")
    rows = open_source(source(path=csv)).snapshot()
    assert len(rows.y) == 3, "what nobody writes to any more is damaged"
    assert "(line 5)" in rows.told
    assert len(tries) == 3


def test_who_asks_while_an_earlier_reading_hangs_is_told_so(csv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, begun, go_on = table.FORMATS[1], threading.Event(), threading.Event()

    def hang(settings: SourceSettings, **how: Any) -> Table:
        begun.set()
        assert go_on.wait(120.0)
        return row.open(settings, **how)

    monkeypatch.setattr(table, "FORMATS", (row._replace(open=hang),))
    rows = open_source(source(path=csv))
    hanging = threading.Thread(target=rows.snapshot)
    hanging.start()
    try:
        assert begun.wait(120.0)
        with pytest.raises(DatasetError, match="still being read since an earlier try: does its disk answer"):
            rows.snapshot()
    finally:
        go_on.set()
        hanging.join()
    assert len(rows.snapshot().y) == 2


def test_two_jobs_may_mean_different_things_by_one_file(csv: str) -> None:
    one = open_source(source(path=csv), ContractSpec(features=("b", "a"), label="y", classes=("0", "1"))).snapshot()
    other = open_source(source(path=csv), ContractSpec(features=("y",), label="a"), classifies=False).snapshot()
    assert (one.X.tolist(), one.y.tolist()) == ([[2, 1], [4, 3]], [0, 1])
    assert (other.X.tolist(), other.y.tolist()) == ([[0], [1]], [1, 3])


@pytest.mark.usefixtures("unhurried")
def test_a_large_file_that_cannot_be_used_is_not_read_again_before_it_has_changed(
    csv: str, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.source.LARGE_BYTES", Path(csv).stat().st_size)
    rows = open_source(source(path=csv), ContractSpec(features=("c",), label="y"))
    for _ in range(3):
        with pytest.raises(DatasetError, match="no column 'c'"):
            rows.snapshot()
    assert len(readings) == 1
    Path(csv).write_text("a,c,y\n1,2,0\n3,4,1\n5,6,1\n")
    assert rows.snapshot().X.tolist() == [[2], [4], [6]]
    assert len(readings) == 2


@pytest.mark.usefixtures("unhurried")
def test_a_small_file_that_cannot_be_used_is_looked_at_each_time(csv: str, readings: list[str]) -> None:
    """What hinders it may not show in its stamp."""
    rows = open_source(source(path=csv), ContractSpec(features=("c",), label="y"))
    for _ in range(3):
        with pytest.raises(DatasetError, match="no column 'c'"):
            rows.snapshot()
    assert len(readings) == 3


def test_what_is_left_out_is_said_in_the_log_once_and_again_when_it_is_another(
    csv: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "models.data.source")
    rows = open_source(source(path=csv))
    append(csv, "5,,1\n")
    rows.snapshot()
    rows.snapshot()
    assert [record.getMessage() for record in caplog.records] == [
        f"data={csv} 1 of 3 rows are left out: 1 because 'b' is empty (line 4)"
    ]
    append(csv, "6,,1\n")
    assert rows.snapshot().told == f"{csv}: about 50 % of the rows are left out, most because 'b' is empty (line 4)"
    assert len(caplog.records) == 2


def test_what_reading_throws_is_told_without_its_text(csv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def throw(*_: object, **__: object) -> Table:
        return float("warm")  # type: ignore[return-value]

    monkeypatch.setattr(table, "FORMATS", (table.FORMATS[1]._replace(open=throw),))
    with pytest.raises(
        DatasetError, match=r"reading failed with ValueError: the log of this machine has why"
    ) as caught:
        load(source(path=csv))
    assert "warm" not in str(caught.value)
    assert "warm" in caught.value.cell


@pytest.mark.usefixtures("unhurried")
def test_half_a_row_that_a_program_has_in_its_buffer_is_left_however_old_it_is(csv: str) -> None:
    rows = open_source(source(path=csv))
    assert rows.snapshot().y.tolist() == [0, 1]
    append(csv, "5,6,1")
    assert rows.snapshot().y.tolist() == [0, 1]
    append(csv, "00\n7,8,1")
    assert rows.snapshot().y.tolist() == [0, 1, 100]
    Path(csv).unlink()
    Path(csv).write_text("a,b,y\n9,9,0")
    assert rows.snapshot().y.tolist() == [0], "another file, which somebody has saved so"


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(("n_bytes", "labels"), [(4096, {100}), (4095, {100, 1}), (8192, {100})])
def test_a_file_as_long_as_buffers_ends_in_half_a_row(tmp_path: Path, n_bytes: int, labels: set[int]) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes((b"aaa,bbb,y\n" + b"1,2,100\n" * 2000)[:n_bytes])
    assert set(open_source(source(path=str(path))).snapshot().y.tolist()) == labels


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.npz", "x.db"])
def test_a_pipe_in_the_place_of_a_file_is_said_and_holds_nobody(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    os.mkfifo(path)
    with pytest.raises(DatasetError, match="it is no file"):
        load(source(path=path))


def test_rows_in_memory_are_given_as_they_are() -> None:
    rows = Dataset(np.ones((1, 2), np.float32), np.zeros(1))
    assert InMemory(rows).snapshot() is rows


def test_a_file_that_is_looked_at_long_after_its_last_change_is_settled(csv: str) -> None:
    now = time.time_ns()
    assert not _is_settled(table.stamp(source(path=csv)), now)
    assert _is_settled(table.stamp(source(path=csv)), now + 3 * 10**9)
    assert not _is_settled(table.stamp(source(path=f"{csv}.none")), now)
    assert not _is_settled(table.stamp(source(path=csv)), 0), "a device without a clock wakes up in 1970"
