"""A factory that lies in the current folder, from the command line; and what is said of its module before it trains."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fleet.cli import main
from runtime.children import environment

CODE = """
import torch
from torch import nn

class Odd(nn.Module):
    input_shapes = ((2, 1), (2,))
    def __init__(self):
        super().__init__()
        self.left, self.right, self.scale = nn.Linear(2, 2), nn.Linear(2, 2), nn.Parameter(torch.tensor(1.5))
        self.spare = nn.Parameter(torch.zeros(3))
    def forward(self, one, other):
        print("a module may print")
        return self.scale * (self.left(one.flatten(1)) + self.right(other))
    def loss(self, outputs, y):
        return nn.functional.cross_entropy(outputs, y, reduction="none")

def odd():
    print("so may a factory")
    return Odd()

def soft():
    return nn.Sequential(nn.Linear(4, 2), nn.Softmax(dim=1))
"""
JOB = """
name = "odd"
[model]
kind = "{}"
inputs = 4
outputs = 2
[train]
batch_size = {}
[rounds]
max_rounds = 2
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job beside its code, and a current folder elsewhere."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_beside_jobs.py").write_text(CODE)
    X = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", X=X, y=(X[:, 0] > 0).astype(np.int64))
    yield tmp_path
    sys.modules.pop("nets_beside_jobs", None)


def job(kind: str, batch_size: int = 5) -> str:
    Path("job.toml").write_text(JOB.format(kind, batch_size))
    return "job.toml"


def test_a_simulation_finds_a_factory_in_the_current_folder_and_says_what_is_odd(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["simulate", job("nets_beside_jobs:odd"), "--data", "rows.npz", "--devices", "2", "--json", "-"])
    said = capsys.readouterr()
    assert code == 0
    rounds = json.loads(said.out)["rounds"]
    assert [row["participants"] for row in rounds] == [0, 2, 2]
    assert "note: model.kind = " in said.err
    assert "the loss does not hang on spare, which is sent and never trained" in said.err
    assert str(here) in environment()["PYTHONPATH"].split(":")  # where the children of a demo look


def test_probabilities_are_refused_before_anything_trains(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", job("nets_beside_jobs:soft"), "--data", "rows.npz", "--devices", "2"]) == 1
    said = capsys.readouterr()
    assert "gives probabilities, where loss = " in said.err
    assert said.out == ""


def test_a_check_finds_it_too_and_says_what_its_start_costs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "submit", job("nets_beside_jobs:odd"), "--check"]) == 0
    out = capsys.readouterr().out
    assert "[model] start the weights that its factory gives are version 1, of " in out
    assert "[model] model.kind = " in out


def test_one_that_is_nowhere_is_told_how_it_could_be_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", job("nowhere_at_all:net"), "--data", "rows.npz", "--devices", "2"]) == 1
    assert "name the folder that it lies in in PYTHONPATH" in capsys.readouterr().err
