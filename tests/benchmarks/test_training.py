from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.training import __main__ as command
from benchmarks.training import agents, demos, eager, turns
from benchmarks.training.agents import Peak
from benchmarks.training.rows import BATCHES, ROWS, Row
from benchmarks.training.turns import Timed
from models.nets.table import NETS, build
from models.params import n_parameters

NETS_OF_TORCH = [row for row in ROWS if row.against == "torch"]


@pytest.mark.parametrize("row", NETS_OF_TORCH, ids=lambda row: row.name)
def test_what_a_net_is_held_against_learns_as_many_numbers(row: Row) -> None:
    assert eager.n_parameters(row) == n_parameters(build(row.model).spec)


def test_every_kind_that_convolves_or_remembers_is_measured() -> None:
    assert {row.model.kind for row in ROWS} >= {"mlp", "cnn1d", "cnn2d", "gru"} & NETS.keys()


@pytest.mark.parametrize("against", ["products", "pieces", "torch"])
def test_a_pair_of_steps_is_timed(against: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FEWEST", 2)
    row = next(row for row in ROWS if row.against == against)
    one = turns.timed(row, 4, 0.0)
    assert one.pairs == 2
    assert min(one.ours_ms, one.other_ms, one.ratio) > 0


def test_the_table_says_where_the_goal_is_missed_and_the_file_has_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def timed(row: Row, batch: int, _seconds: float) -> Timed:
        ratio = 9.0 if row.name == "cnn1d windows" and batch == 32 else 0.5
        return Timed(row, batch, ratio, 1.0, ratio, 30)

    monkeypatch.setattr(turns, "timed", timed)
    monkeypatch.setattr(
        agents, "peak", lambda row: Peak(row.name, row.shape, 5, 61.0 if row.name == "cnn1d windows" else 50.0)
    )
    monkeypatch.setattr(agents, "peak_of_demo", lambda name: Peak(name, "", 5, 61.0 if name == "wrist" else 50.0))
    monkeypatch.setattr(command.epochs, "measured", lambda: {"numpy_over_bare": 1.1})
    command.main(["--json", str(tmp_path / "found.json")])
    said = capsys.readouterr().out
    assert "slower than the goal: cnn1d windows at 32" in said
    assert said.count("more than the goal") == 2
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["torch_over_numpy"] == 2.0
    assert found["numpy_over_bare"] == 1.1
    assert len(found["rows"]) == len(BATCHES) * len(ROWS)
    assert [one["peak_mb"] for one in found["agents"] if one["net"] in ("cnn1d windows", "wrist")] == [61.0, 61.0]


def test_every_example_is_measured_on_its_own_rows(tmp_path: Path) -> None:
    assert set(demos.NAMES) == {"demo", "air", "digits", "faces", "hum", "loan", "wrist"}
    problem = demos.of_one_device("hum", tmp_path)
    assert problem.spec.model.kind == "autoencoder"
    assert problem.spec.rounds.min_devices == len(problem.shares) == len(problem.files) == 1
    assert len(problem.shares[0].y) == 1000
    assert problem.test_file is not None


def test_a_net_that_nobody_measures_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "transformer"])
    assert "there are cnn1d windows, cnn2d McMahan" in capsys.readouterr().err
