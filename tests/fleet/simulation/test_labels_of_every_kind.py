"""A fleet that learns from a table what its label is: one of two, several at once, or values and how sure they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleet.cli import main

JOB = """
name = "kinds"
[model]
kind = "linear"
inputs = 3
{model}
[contract]
features = ["a", "b", "c"]
normalise = "standard"
validation = 0.2
{contract}
[train]
learning_rate = 0.3
epochs = 2
[rounds]
max_rounds = 5
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)) * [1, 10, 100] + 5
    score = (X - 5) / [1, 10, 100] @ [2.0, -1.0, 0.5]
    lines = ["a,b,c,risk,smoke,heat,power"]
    for row, s in zip(X, score, strict=True):
        lines.append(",".join(map(str, (*row, "bad" if s > 1 else "ok", int(s > 0), s > -1, s + rng.normal()))))
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def simulated(table: Path, model: str, contract: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    job = table.with_name("job.toml")
    job.write_text(JOB.format(model=model, contract=contract), encoding="utf-8")
    capsys.readouterr()
    assert main(["simulate", str(job), "--data", str(table), "--devices", "3", "--json", "-"]) == 0
    measures: dict[str, Any] = json.loads(capsys.readouterr().out)["rounds"][-1]["measures"]
    return measures


@pytest.mark.parametrize(
    ("model", "contract", "least"),
    [
        (
            'outputs = 1\nloss = "binary"',
            'label = "risk"\nclasses = ["ok", "bad"]\nclass_weight = "balanced"',
            {"auc": 0.95, "recall:bad": 0.8, "f1": 0.8},
        ),
        (
            'outputs = 2\nloss = "multilabel"',
            'label = ["smoke", "heat"]',
            {"accuracy": 0.9, "auc:heat": 0.95, "recall:smoke": 0.8, "macro_f1": 0.9},
        ),
        (
            'outputs = 3\nloss = "quantile"\nloss_options = { quantiles = [0.1, 0.5, 0.9] }',
            'label = "power"',
            {"r2": 0.5, "coverage": 0.5},
        ),
        (
            'outputs = 2\nloss = "cross_entropy"\nloss_options = { label_smoothing = 0.1 }',
            'label = "risk"\nclasses = ["ok", "bad"]',
            {"auc": 0.95, "recall:ok": 0.8},
        ),
    ],
)
def test_a_fleet_learns_it_and_says_how_well(
    table: Path, model: str, contract: str, least: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    found = simulated(table, model, contract, capsys)
    for name, value in least.items():
        assert found[name] >= value, (name, found)
