"""How large a net is: of built-in kinds by their keys, of a factory by a child that may not take everything."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from models.job import AdapterSpec, JobSpec, ModelSpec, TrainSpec
from models.nets import size, table
from models.nets.batches import ROWS_AT_ONCE
from models.nets.net import ModelError
from models.nets.size import Size
from models.params import TensorSpec, n_parameters

FACTORIES = """
import os, signal, sys, time
import numpy as np
import torch
from torch import nn

def good(width=4):
    print("a factory may print")
    return nn.Sequential(nn.Linear(30, width), nn.ReLU(), nn.Linear(width, 2))

class Picture(nn.Module):
    input_shape = (1, 6, 5)
    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(1, 8, 3), nn.Linear(8 * 4 * 3, 2)
    def forward(self, X):
        assert "torch._dynamo" not in sys.modules, "Torch's compiler takes longer to load than all else"
        return self.dense(torch.relu(self.conv(X)).flatten(1))

def looks_at_its_numbers(width=4):
    weight = torch.zeros(width, width)
    if float(weight.sum()):
        raise ValueError
    return nn.Linear(30, 2)

def hoards():
    return nn.Linear(int(np.ones(10**10).sum()), 2)

def dies():
    os.kill(os.getpid(), signal.SIGKILL)

def leaves(code):
    os._exit(code)

def sleeps():
    time.sleep(1000)

def throws():
    raise ZeroDivisionError
"""
MOST = 200_000_000


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sized_nets.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)


def model(factory: str, **options: int) -> ModelSpec:
    return ModelSpec(f"sized_nets:{factory}", 30, (), 2, options=options)


@pytest.mark.parametrize("kind", [kind for kind, row in table.NETS.items() if row.loss is None])
def test_a_built_in_net_has_the_size_of_what_is_built(kind: str) -> None:
    spec = ModelSpec(kind, inputs=16, outputs=3)
    found = size.of_model(spec)
    assert found is not None
    net = table.build(spec)
    assert found.parameters == n_parameters(net.spec)
    assert found.largest == max(tensor.size for tensor in net.spec)
    assert found.units == getattr(net, "n_units", 3)


def test_every_layer_counts() -> None:
    assert size.of_model(ModelSpec("mlp", 4, (5, 6), 2)) == Size(25 + 36 + 14, 30, 13)


def test_layers_with_a_norm_or_a_mask_make_more_numbers_and_fewer_rows_go_through_them_at_once() -> None:
    plain = size.of_model(ModelSpec("mlp", 4, (5000, 6), 2))
    normed = size.of_model(ModelSpec("mlp", 4, (5000, 6), 2, options={"norm": "layer", "dropout": 0.5}))
    assert plain is not None
    assert normed is not None
    assert (plain.units, plain.at_once) == (5008, ROWS_AT_ONCE)
    assert (normed.units, normed.at_once) == (6 * 5006 + 2, 2**18 // (6 * 5006 + 2))


def test_what_is_frozen_is_counted_beside_what_is_trained() -> None:
    part = JobSpec("part", ModelSpec("mlp", 4, (5, 6), 2), train=TrainSpec(only=("4",)))
    assert size.of_job(part) == Size(14, 12, 13, 25 + 36)
    adapts = JobSpec("part", ModelSpec("mlp", 4, (5, 6), 2), train=TrainSpec(adapter=AdapterSpec(1), only=("4",)))
    found = size.of_job(adapts)
    assert found == Size(4 + 5 + 5 + 6 + 14, 12, 13, 25 + 36, 20 + 30)
    assert size.of_net(table.of_job(adapts)) == found


def test_the_largest_shapes_are_counted_without_being_made() -> None:
    tracemalloc.start()
    found = size.of_spec((TensorSpec("w", (2**31, 2**31)), TensorSpec("b", (2**31,))))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == Size(2**62 + 2**31, 2**62, 2**31)
    assert most < 10_000


def test_a_factory_is_not_called_where_nobody_says_what_it_may_take() -> None:
    assert size.of_model(ModelSpec("nowhere.at_all:net", 30)) is None


def test_a_factorys_net_is_counted_in_a_process_of_its_own(factories: None) -> None:
    assert size.of_model(model("good"), MOST) == Size(124 + 10, 120, 4 + 4 + 2)


def test_what_a_job_freezes_of_a_factorys_net_is_counted_and_refused_there(factories: None) -> None:
    part = JobSpec("part", model("good"), train=TrainSpec(only=("0",)))
    assert size.of_job(part, MOST) == Size(124, 120, 4 + 4 + 2, 10)
    wrong = JobSpec("part", model("good"), train=TrainSpec(freeze=("encoder",)))
    with pytest.raises(ModelError, match=r"freeze: no tensor is called 'encoder'; the net has 0.weight \(4, 30\)"):
        size.of_job(wrong, MOST)


@pytest.mark.long
def test_a_convolution_gives_more_numbers_than_it_has_weights(factories: None) -> None:
    assert size.of_model(model("Picture"), MOST) == Size(80 + 194, 192, 8 * 4 * 3 + 2)


@pytest.mark.long
def test_a_factory_of_any_width_is_counted(factories: None) -> None:
    found = size.of_model(model("good", width=2**31), MOST)
    assert found is not None
    assert found.parameters == 2**31 * 33 + 2


@pytest.mark.long
def test_a_factory_that_needs_numbers_is_called_with_them(factories: None) -> None:
    assert size.of_model(model("looks_at_its_numbers"), MOST) == Size(62, 60, 2)


@pytest.mark.parametrize(
    ("factory", "options"),
    [("hoards", {}), pytest.param("looks_at_its_numbers", {"width": 100_000}, marks=pytest.mark.long)],
)
def test_one_that_takes_more_than_it_may_is_refused_with_the_number(
    factories: None, factory: str, options: dict[str, int]
) -> None:
    with pytest.raises(ModelError, match="may take 200 MB of memory beside Torch, and there was not enough"):
        size.of_model(model(factory, **options), MOST)


def test_one_that_kills_its_process_kills_no_other(factories: None) -> None:
    with pytest.raises(ModelError, match="died of signal 9"):
        size.of_model(model("dies"), MOST)


@pytest.mark.parametrize("code", [pytest.param(1, marks=pytest.mark.long), 3])
def test_one_that_ends_its_process_is_not_taken_for_one_that_takes_too_much(factories: None, code: int) -> None:
    with pytest.raises(size.UntrainableError, match=f"ended the process that tried it, with exit code {code}"):
        size.of_model(model("leaves", code=code), MOST)


def test_one_that_does_not_come_to_an_end_is_refused(factories: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "PATIENCE_S", 0.05)
    with pytest.raises(ModelError, match="does not come to an end"):
        size.of_model(model("sleeps"), MOST)


@pytest.mark.long
def test_what_one_throws_is_why_it_is_refused(factories: None) -> None:
    with pytest.raises(size.UntrainableError, match=r"sized_nets:throws.* throws ZeroDivisionError"):
        size.of_model(model("throws"), MOST)


def test_one_that_is_not_installed_is_heard_of_by_who_builds_it() -> None:
    assert size.of_model(ModelSpec("nowhere.at_all:net", 30), MOST) is None
