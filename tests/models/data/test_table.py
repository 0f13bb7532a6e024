from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.data import table
from models.data.dataset import DatasetError
from models.data.settings import SourceSettings


def test_a_format_is_known_by_the_ending_of_the_path() -> None:
    names = {path: table.known(SourceSettings(path)).name for path in ("a.npz", "b/c.CSV", "d.npz.csv")}
    assert names == {"a.npz": "NPZ", "b/c.CSV": "CSV", "d.npz.csv": "CSV"}


def test_no_two_formats_have_an_ending_in_common() -> None:
    endings = [ending for row in table.FORMATS for ending in row.endings]
    assert len(endings) == len(set(endings))
    assert all(ending == ending.lower() and ending.startswith(".") for ending in endings)


@pytest.mark.parametrize("path", ["data.parquet", "data", "npz", ".csv", "a.csv/b"])
def test_a_path_of_no_format_is_told_those_there_are(path: str) -> None:
    with pytest.raises(DatasetError, match=rf"{path} is none of \.npz, \.csv"):
        table.known(SourceSettings(path))


def test_a_stamp_is_another_after_a_file_was_written_to_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    settings = SourceSettings(str(path))
    stamps = [table.stamp(settings)]
    path.write_text("a,y\n1,0\n")
    stamps.append(table.stamp(settings))
    assert table.stamp(settings) == stamps[-1]
    with path.open("a") as file:
        file.write("2,1\n")
    stamps.append(table.stamp(settings))
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    stamps.append(table.stamp(settings))
    assert len(set(stamps)) == len(stamps)


def test_what_cannot_be_looked_at_has_a_stamp_too() -> None:
    assert table.stamp(SourceSettings("x" * 3000 + ".csv")) == ((),)
