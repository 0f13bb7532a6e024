"""A job and data for a simulation: what stands in for the job's own keys, and how files are read."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from fleet.problems.problem import read_problem
from models.data.dataset import DatasetError
from runtime.settings import SettingsError

JOB = (
    'name = "j"\n[model]\ninputs = {inputs}\noutputs = 2\nloss = "{loss}"\n[rounds.stop]\nmetric = "{metric}"\n{stop}\n'
)


@pytest.fixture
def csv(tmp_path: Path) -> str:
    path = tmp_path / "x.csv"
    path.write_text("a,b,y\n" + "".join(f"{k},{k + 1},{k % 2}\n" for k in range(40)))
    return str(path)


def job(folder: Path, inputs: int = 2, loss: str = "cross_entropy", metric: str = "loss", stop: str = "") -> Path:
    path = folder / "job.toml"
    path.write_text(JOB.format(inputs=inputs, loss=loss, metric=metric, stop=stop))
    return path


def test_one_column_of_a_csv_can_be_named(tmp_path: Path, csv: str) -> None:
    problem = read_problem(job(tmp_path, inputs=1), csv, n_devices=2, features="b")
    assert problem.test.X.shape[1] == 1
    assert {int(x) % 2 for share in problem.shares for x in share.X[share.y == 0, 0]} == {1}  # b, not a
    with pytest.raises(DatasetError, match="1 features an example where the model has inputs = 2"):
        read_problem(job(tmp_path), csv, n_devices=2, features="b")


def test_the_label_is_no_feature(tmp_path: Path, csv: str) -> None:
    with pytest.raises(SettingsError, match="--features y: features has the label 'y' among them"):
        read_problem(job(tmp_path), csv, features="y")


def test_a_file_that_needs_more_than_its_name_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE one (a, y)")
        connection.execute("CREATE TABLE two (a, y)")
    with pytest.raises(DatasetError, match=r"x\.db: needs the key query.*: it has one, two"):
        read_problem(job(tmp_path), str(tmp_path / "x.db"))


def test_a_target_stands_in_for_the_jobs_own_stop(tmp_path: Path, csv: str) -> None:
    path = job(tmp_path, stop="patience = 3\nmin_delta = 5.0")
    stop = read_problem(path, csv, n_devices=2, target=0.9).spec.rounds.stop
    assert (stop.metric, stop.target, stop.patience, stop.min_delta) == ("accuracy", 0.9, None, 0.0)
    path = job(tmp_path, metric="accuracy", stop="patience = 3")
    stop = read_problem(path, csv, n_devices=2, target=0.9).spec.rounds.stop
    assert (stop.target, stop.patience) == (0.9, 3)


def test_a_target_that_is_no_accuracy_is_refused(tmp_path: Path, csv: str) -> None:
    for target in (1.5, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match=f"--target {target}: .* is no accuracy"):
            read_problem(job(tmp_path), csv, n_devices=2, target=target)


def test_a_target_on_the_accuracy_of_a_job_that_has_none_is_refused(tmp_path: Path, csv: str) -> None:
    with pytest.raises(SettingsError, match=r"--target 0.9: \[rounds.stop\] metric: .* has no accuracy"):
        read_problem(job(tmp_path, loss="mse"), csv, n_devices=2, target=0.9)
