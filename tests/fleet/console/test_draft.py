from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet.cli import main

Capture = pytest.CaptureFixture[str]


def test_a_draft_is_printed_and_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    table, job = tmp_path / "x.csv", tmp_path / "x.toml"
    table.write_text("a;y\n" + "".join(f"{n % 7},5;{n % 2}\n" for n in range(20)))
    assert main(["job", "draft", str(table)]) == 0
    job.write_text(capsys.readouterr().out)
    assert "delimiter semicolon; decimal comma" in job.read_text()
    assert main(["job", "submit", str(job), "--check"]) == 0
    assert f"{job}: good" in capsys.readouterr().out
    assert main(["job", "draft", str(table), "--json", "--label", "y"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["label"], found["rows"], found["classes"]) == ("y", 20, ["0", "1"])
    assert found["job"] == job.read_text().replace("Because of its name", "As was asked for")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("none.csv", "cannot be read as CSV: No such file"),
        ("x.xls", "is a workbook of a spreadsheet: save its table as CSV"),
        ("x.dat", "x.dat is none of .npz, .csv"),
    ],
)
def test_a_file_that_is_no_table_is_a_line(tmp_path: Path, capsys: Capture, name: str, why: str) -> None:
    assert main(["job", "draft", str(tmp_path / name)]) == 1
    assert why in capsys.readouterr().err
