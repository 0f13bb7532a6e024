from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
from torch import nn

from models.job import ModelSpec
from models.nets.factory import Factory, FactorySpec, is_factory, module
from models.nets.net import ModelError


def make(width: int = 1) -> nn.Module:
    return nn.Linear(width, 2)


def number() -> int:
    return 3


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "factories_of_nets", sys.modules[__name__])
    return "factories_of_nets"


@pytest.mark.parametrize("kind", ["a:b", "my_nets.audio:small", "ü.x:y"])
def test_a_factory_is_a_module_and_a_name_in_it(kind: str) -> None:
    assert is_factory(kind)
    assert msgspec.convert(kind, Factory) == kind


@pytest.mark.parametrize(
    "kind", ["mlp", "nets:", ":x", "a:b:c", "a..b:c", "os:system('rm')", "a:b\n", "a:" + "b" * 200]
)
def test_anything_else_is_none(kind: str) -> None:
    assert not is_factory(kind)


def test_what_a_job_says_beside_is_its_factorys_own() -> None:
    model = ModelSpec(
        "a:b", inputs=3, outputs=2, loss="mse", hidden=(4,), options={"width": 5, "deep": [1, {"x": 0.5}]}
    )
    spec = FactorySpec.of(model)
    assert (spec.kind, spec.options) == ("a:b", {"width": 5, "deep": [1, {"x": 0.5}]})
    assert msgspec.convert(msgspec.to_builtins(spec), ModelSpec) == model


def test_a_factory_is_called_with_its_options(here: str) -> None:
    made = module(FactorySpec(kind=f"{here}:make", options={"width": 5}), nn)
    assert made.in_features == 5


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("number", {}, "gave a int, not a torch.nn.Module"),
        ("nothing", {}, "nothing"),
        ("make", {"depth": 3}, "unexpected keyword"),
        ("make", {"width": "x"}, "with options {'width': 'x'}"),
    ],
)
def test_what_it_gets_wrong_is_a_model_error(here: str, name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        module(FactorySpec(kind=f"{here}:{name}", options=options), nn)


def test_a_module_that_is_not_there_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="no_such_module"):
        module(FactorySpec(kind="no_such_module:make"), nn)
