"""A table dealt out to devices: each share is read as a device reads its own file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fleet.problems.held import held
from fleet.problems.partition import PartitionError
from fleet.problems.problem import Problem, names_of, read_problem, told_of
from models.data import reader, table
from models.data.blocks import Kind
from models.data.dataset import Dataset, DatasetError
from models.data.source import DataSource
from runtime.settings import SettingsError, convert

JOB = """
name = "plant"
[model]
inputs = {inputs}
outputs = 2
[contract]
features = ["temp °C", "vib"]
label = "state"
classes = ["ok", "fault"]
{more}
[rounds]
quorum = 2
"""
SITES = ("north", "south", "west")


def job(folder: Path, more: str = "", inputs: int = 2) -> Path:
    path = folder / "job.toml"
    path.write_text(JOB.format(inputs=inputs, more=more), encoding="utf-8")
    return path


def rows(n: int = 120) -> list[dict[str, object]]:
    """Rows with a number, one that is sometimes missing, a site and a label."""
    return [
        {
            "when": 1_700_000_000 + 60 * k,
            "vib": None if k % 10 == 3 else k / 8,
            "site": SITES[k % 3],
            "temp °C": 20 + k / 4,
            "state": "fault" if k % 4 == 0 else "ok",
        }
        for k in range(n)
    ]


def as_csv(path: Path, some: list[dict[str, object]]) -> str:
    """Write rows as a logger in Europe does: semicolons, decimal commas."""
    lines = [";".join(some[0])]
    lines += [";".join("" if v is None else str(v).replace(".", ",") for v in row.values()) for row in some]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def as_jsonl(path: Path, some: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    return str(path)


def as_sqlite(path: Path, some: list[dict[str, object]]) -> str:
    names = ", ".join(f'"{name}"' for name in some[0])
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE t ({names})")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", [tuple(row.values()) for row in some])
    connection.close()
    return str(path)


def as_npz(path: Path, some: list[dict[str, object]]) -> str:
    columns = {name: np.array([np.nan if row[name] is None else row[name] for row in some]) for name in some[0]}
    np.savez(path, **columns)
    return str(path)


def same(one: Dataset, other: Dataset) -> bool:
    return one.fingerprint == other.fingerprint


def of_part(part: list[dict[str, object]], folder: Path, job_file: Path) -> Dataset:
    """Return what a device reads that has these rows in a file of its own."""
    whole = read_problem(job_file, as_csv(folder / "part.csv", part), n_devices=1, test=Path(folder / "part.csv"))
    return whole.shares[0]


@pytest.mark.parametrize(
    ("write", "name"), [(as_csv, "x.csv"), (as_jsonl, "x.jsonl"), (as_sqlite, "x.db"), (as_npz, "x.npz")]
)
def test_a_column_of_any_format_gives_one_device_for_each_of_its_values(
    tmp_path: Path, write: object, name: str
) -> None:
    data = write(tmp_path / name, rows())  # type: ignore[operator]
    problem = read_problem(job(tmp_path), data, how="column:site", test=Path(data))
    assert [share.source for share in problem.shares] == [data] * 3
    for site, share in zip(SITES, problem.shares, strict=True):
        own = [row for row in rows() if row["site"] == site]
        assert same(share, of_part(own, tmp_path, tmp_path / "job.toml"))
        assert len(share.y) == sum(row["vib"] is not None for row in own), "rows with a hole are left out"


def test_labels_by_name_are_dealt_out_by_class(tmp_path: Path) -> None:
    problem = read_problem(job(tmp_path), as_csv(tmp_path / "x.csv", rows()), how="shards:1", n_devices=4)
    assert sorted(sorted(set(share.y.tolist())) for share in problem.shares) == [[0], [0], [0], [1]]
    assert set(problem.test.y.tolist()) == {0, 1}, "a fifth to test on, with every class in its proportion"


@pytest.mark.parametrize("more", ["", 'missing = "mean"', 'missing = "mask"', "validation = 0.3", 'missing = "last"'])
def test_what_a_device_gets_as_a_file_reads_as_its_share(tmp_path: Path, more: str) -> None:
    path = job(tmp_path, more, inputs=4 if "mask" in more else 2)
    problem = read_problem(path, as_csv(tmp_path / "x.csv", rows()), n_devices=3)
    for part, share in zip(problem.files, problem.shares, strict=True):
        again = read_file(part.write(tmp_path, "own"), problem)
        assert same(again, share)
        assert (again.held_out is None) == (share.held_out is None)
        if again.held_out is not None and share.held_out is not None:
            assert same(again.held_out, share.held_out)


def read_file(keys: dict[str, object], problem: Problem) -> Dataset:
    return reader.read_file(convert(keys, DataSource, "own"), problem.spec.contract).data


WINDOWS = 'window = { length = 5 }\nmissing = "mean"'


def test_series_are_dealt_out_in_stretches_and_their_ends_are_tested_on(tmp_path: Path) -> None:
    data = as_csv(tmp_path / "x.csv", rows())
    problem = read_problem(job(tmp_path, WINDOWS, inputs=10), data, n_devices=3)
    assert [share.rows[0] for share in problem.files] == [0, 40, 80]
    assert [len(share.rows) for share in problem.files] == [32, 32, 32]
    # Of 8 rows each: 2 windows of 5 rows, 2 rows apart, and none goes from one device's rows to another's.
    assert len(problem.test.y) == 3 * 2
    assert problem.test_file is not None
    assert not isinstance(problem.test_file, DataSource)
    again = read_file(problem.test_file.write(tmp_path, "test"), problem)
    assert np.array_equal(again.X, problem.test.X)


def test_a_partition_that_tears_series_is_refused_with_what_to_do(tmp_path: Path) -> None:
    data = as_csv(tmp_path / "x.csv", rows())
    with pytest.raises(PartitionError, match=r"partition dirichlet:1 tears the series .*: choose iid"):
        read_problem(job(tmp_path, WINDOWS, inputs=10), data, how="dirichlet:1")


def test_windows_of_groups_are_dealt_out_by_whole_groups(tmp_path: Path) -> None:
    data = as_csv(tmp_path / "x.csv", rows())
    path = job(tmp_path, f'by = "site"\n{WINDOWS}', inputs=10)
    problem = read_problem(path, data, n_devices=3)
    assert all(len({row % 3 for row in share.rows.tolist()}) == 1 for share in problem.files)
    with pytest.raises(PartitionError, match="4 devices are more than the 3 groups in 'site'"):
        read_problem(path, data, n_devices=4)


def test_a_device_whose_share_cannot_be_used_is_left_out_with_its_reason(tmp_path: Path) -> None:
    some = [row | ({"vib": None} if row["site"] == "south" else {}) for row in rows()]
    problem = read_problem(job(tmp_path), as_csv(tmp_path / "x.csv", some), how="column:site")
    assert len(problem.shares) == 2
    ((owner, why),) = problem.refused.items()
    assert owner == "device-01 (site south)"
    assert "because 'vib' is empty (lines 3, " in why
    assert any(line.startswith("1 of 3 devices are left out: device-01 (site south): ") for line in told_of(problem))


def test_where_no_device_can_use_its_share_the_reason_is_said(tmp_path: Path) -> None:
    data = as_csv(tmp_path / "x.csv", [row | {"vib": None} for row in rows()])
    with pytest.raises(DatasetError, match=r"no device can use its share of the rows; device-00: .*'vib' is empty"):
        read_problem(job(tmp_path), data, n_devices=2)


def test_features_and_label_stand_in_for_the_jobs_own(tmp_path: Path) -> None:
    data = as_csv(tmp_path / "x.csv", [row | {"other": row["vib"]} for row in rows()])
    problem = read_problem(job(tmp_path), data, n_devices=2, features="other, temp °C")
    assert problem.spec.contract.features == ("other", "temp °C")
    with pytest.raises(SettingsError, match=r"--features vib: \[contract\] features make 1 inputs"):
        read_problem(job(tmp_path), data, features="vib")
    with pytest.raises(SettingsError, match="--label vib: features has the label 'vib' among them"):
        read_problem(job(tmp_path), data, label="vib")
    again = as_csv(tmp_path / "y.csv", [row | {"alarm": row["state"]} for row in rows()])
    assert read_problem(job(tmp_path), again, n_devices=2, label="alarm").spec.contract.label == "alarm"


def test_names_with_commas_stand_in_quotes() -> None:
    assert names_of('a, "b, c",d') == ["a", "b, c", "d"]
    with pytest.raises(SettingsError, match="--features a,,b: write names with commas"):
        names_of("a,,b")


def test_more_keys_of_the_file_are_said_on_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(Path(as_csv(path, rows())).read_text(encoding="utf-8").encode("cp1252"))
    with pytest.raises(DatasetError, match="is no UTF-8"):
        read_problem(job(tmp_path), str(path))
    assert len(read_problem(job(tmp_path), str(path), source='encoding = "cp1252"', n_devices=2).shares) == 2
    with pytest.raises(SettingsError, match="--source encoding=cp1252: write keys as TOML has them"):
        read_problem(job(tmp_path), str(path), source="encoding=cp1252")


def test_arrays_without_names_go_by_position_and_by_an_array_beside_them(tmp_path: Path) -> None:
    X = np.arange(80, dtype=np.float32).reshape(40, 2)
    names = np.array(["ok", "fault"])[np.arange(40) % 2]
    np.savez(tmp_path / "x.npz", X=X, state=names, user=np.arange(40) % 4)
    problem = read_problem(job(tmp_path), str(tmp_path / "x.npz"), how="column:user", label="state")
    assert len(problem.shares) == 4
    assert problem.files[0].write(tmp_path, "own")["path"].endswith("own.npz")
    again = read_file(problem.files[0].write(tmp_path, "own") | {"label": "y"}, problem)
    assert same(again, problem.shares[0])


def test_cells_that_are_no_numbers_stay_so_in_a_written_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('a,b,y\n1,2,ok\nx,3,ok\n4,5\n"6\n",7,ok\n8,"9\n",z\n', encoding="utf-8")
    wanted = {"a": Kind.NUMBER, "b": Kind.NUMBER, "y": Kind.TEXT}

    def looked_at(file: Path) -> tuple[list[float], list[str], list[tuple[int, str]]]:
        opened = table.known(DataSource(str(file))).open(DataSource(str(file)), ended=False)
        try:
            found = held(opened, wanted)
        finally:
            opened.close()
        (block,) = found.blocks(wanted)
        at = {int(line): n for n, line in enumerate(found.lines)}
        faults = [(max(n for line, n in at.items() if line <= one.line), one.column) for one in block.faults]
        found.taken(np.arange(len(found))).write(tmp_path / "again.csv")
        return np.asarray(found.columns["a"]).tolist(), list(found.columns["y"]), faults

    before = looked_at(path)
    after = looked_at(tmp_path / "again.csv")
    assert str(before) == str(after), "nan is not nan, but is written alike"
    assert before[2] == [(1, "a"), (2, "")]
