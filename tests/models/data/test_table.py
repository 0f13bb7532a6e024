from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.data import table
from models.data.dataset import DatasetError
from models.data.settings import SourceSettings
from models.data.source import DataSource


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


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"{tmp_path} is a folder: name the file in it that has the rows"):
        table.known(SourceSettings(str(tmp_path)))


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


@pytest.mark.parametrize(
    ("path", "keys", "name"),
    [
        ("a.csv.gz", {}, "CSV"),
        ("a.TXT", {}, "CSV"),
        ("a.tsv", {}, "CSV"),
        ("a.jsonl.gz", {}, "JSON lines"),
        ("a.ndjson", {}, "JSON lines"),
        ("a.log", {"format": "jsonl"}, "JSON lines"),
        ("a.csv", {"format": "sqlite"}, "SQLite"),
        ("a.bin", {"format": "ours.logger:rows"}, "code"),
        ("ours.logger:rows", {}, "code"),
    ],
)
def test_a_format_is_known_by_what_is_said_or_by_the_ending(path: str, keys: dict[str, Any], name: str) -> None:
    assert table.known(DataSource(path, **keys)).name == name


@pytest.mark.parametrize("path", ["a.npz.gz", "a.db.gz", "a.gz"])
def test_only_text_may_be_compressed(path: str) -> None:
    with pytest.raises(DatasetError, match=r"or of text with \.gz behind it"):
        table.known(SourceSettings(path))


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (
            {"path": "x.csv", "format": "excel"},
            'format = "excel" is none of "npz", "csv", "sqlite", "ring", "jsonl", "package',
        ),
        ({"path": "x.npz", "delimiter": ";"}, "delimiter is no key of a source in NPZ"),
        ({"path": "x.jsonl", "decimal": ","}, "decimal is no key of a source in JSON lines"),
        ({"path": "x.db", "header": ["a", "y"]}, "header is no key of a source in SQLite"),
        ({"path": "x.npz", "encoding": "latin-1"}, "encoding is no key of a source in NPZ"),
        ({"path": "x.csv", "options": {"a": 1}}, "options is no key of a source in CSV"),
        ({"path": "x.csv", "delimiter": ";;"}, "$.delimiter"),
        ({"path": "x.csv", "delimiter": ",", "decimal": ","}, "delimiter and decimal are both ','"),
        ({"path": "x.csv", "thousands": ",", "decimal": ","}, "thousands and decimal are both ','"),
        ({"path": "x.csv", "encoding": "utf-9"}, 'encoding = "utf-9" is not known: "utf-8", "latin-1", "cp1252"'),
        ({"path": "x.csv", "encoding": "hex"}, 'encoding = "hex" is not known'),
        ({"path": "x.csv", "time_format": "dd.mm."}, 'time_format = "dd.mm." is none of s, ms'),
        ({"path": "x.csv", "header": ["a", "a", "y"]}, "header names 'a' twice"),
        ({"path": "x.csv", "rename": {"a": "c", "b": "c"}}, "rename gives two columns the name 'c'"),
        ({"path": "x.csv", "time": "y"}, "time is the label 'y'"),
        ({"path": "x.csv", "group": "y"}, "group is the label 'y'"),
        ({"path": "x.csv", "skip_lines": -1}, "skip_lines"),
        ({"path": "x.csv", "max_skipped": 1.5}, "max_skipped"),
        ({"path": "x.csv", "missing": "mask"}, "missing"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(why)):
        msgspec.convert(keys, DataSource)


@pytest.mark.parametrize("name", ["x.xlsx", "X.XLS", "x.ods"])
def test_a_workbook_is_to_be_saved_as_csv(name: str) -> None:
    with pytest.raises(DatasetError, match="is a workbook of a spreadsheet: save its table as CSV"):
        table.known(SourceSettings(name))
