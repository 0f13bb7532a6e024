"""What a job may say of its data, and what does not go together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.contract import NO_CONTRACT, ContractSpec, WindowSpec
from models.job import JobSpec
from runtime.settings import SettingsError, convert

CLASSES = {"features": ["t", "v"], "label": "state", "classes": ["ok", "fault"]}


def job(contract: dict[str, Any], **model: Any) -> JobSpec:
    model = {"kind": "linear", "inputs": 2, "outputs": 2} | model
    return convert({"name": "a", "model": model, "contract": contract}, JobSpec, "job.toml")


def test_a_job_without_a_contract_travels_as_it_always_did() -> None:
    assert b"contract" not in msgspec.json.encode(convert({"name": "a", "model": {}}, JobSpec, "job.toml"))
    assert job({}).contract == NO_CONTRACT


def test_a_contract_survives_its_journey() -> None:
    said = CLASSES | {"window": {"length": 8, "hop": 2}, "normalise": "standard", "units": {"t": "°C"}}
    spec = job(said, inputs=16)
    assert convert(msgspec.to_builtins(spec), JobSpec, "wire") == spec


@pytest.mark.parametrize(
    ("contract", "columns"),
    [
        ({}, ()),
        ({"features": ["t", "v"]}, ("t", "v")),
        ({"features": ["t", "v"], "missing": "mask"}, ("t", "v", "t missing", "v missing")),
        ({"features": ["t"], "time_features": ["hour"]}, ("t", "hour sine", "hour cosine")),
    ],
)
def test_the_inputs_of_a_row_have_names(contract: dict[str, Any], columns: tuple[str, ...]) -> None:
    assert msgspec.convert(contract, ContractSpec).columns == columns


def test_a_window_multiplies_the_inputs() -> None:
    contract = ContractSpec(features=("t", "v"), window=WindowSpec(length=5))
    assert (contract.n_inputs, contract.n_rows) == (10, 5)
    assert WindowSpec(length=5).step == 2
    assert WindowSpec(length=5, hop=1).step == 1


@pytest.mark.parametrize(
    ("said", "agrees"),
    [
        ({}, False),
        ({"normalise": "standard"}, True),
        ({"normalise": "minmax"}, True),
        ({"normalise": "pixels"}, False),
        ({"class_weight": "balanced"}, True),
        ({"class_weight": {"ok": 1.0, "fault": 20.0}}, False),
        ({"normalise": "minmax", "ranges": {"t": [0, 1]}}, True),
        ({"normalise": "minmax", "ranges": {"t": [0, 1], "v": [-1, 1]}}, False),
    ],
)
def test_a_fleet_agrees_on_what_the_job_does_not_state(said: dict[str, Any], agrees: bool) -> None:
    assert job(CLASSES | said).contract.agrees is agrees


@pytest.mark.parametrize(
    ("contract", "model", "message"),
    [
        ({"features": ["t", "t"]}, {}, "features names 't' twice"),
        ({"features": ["t", "y"], "label": "y"}, {}, "features has the label 'y' among them"),
        ({"features": ["t", "w"], "weight": "w"}, {}, "features has the weight 'w' among them"),
        ({"classes": ["a", "a"]}, {}, "classes names 'a' twice"),
        ({"classes": ["a", "b", "c"]}, {}, "outputs = 2, where [contract] names 3 classes"),
        ({"features": ["t"]}, {}, "features make 1 inputs, where [model] has inputs = 2: say inputs = 1"),
        (
            {"features": ["t", "v"], "window": {"length": 4}},
            {},
            "features make 8 inputs for 4 rows each, where [model] has inputs = 2: say inputs = 8",
        ),
        ({"window": {"length": 4}}, {"inputs": 6}, "no multiple of [contract.window] length = 4"),
        (
            {"window": {"length": 4}},
            {"kind": "cnn1d", "inputs": 12, "options": {"columns": 2}},
            "options.columns = 2, where a window of [contract.window] has 4 rows of 3: say columns = 3",
        ),
        (
            {"window": {"length": 4}},
            {"kind": "gru", "inputs": 12},
            "options.columns = 1, where a window of [contract.window] has 4 rows of 3: say columns = 3",
        ),
        ({"units": {"p": "hPa"}}, {}, "units names 'p', which is neither a feature nor the label"),
        ({"features": ["t", "v"], "ranges": {"t": [1, 1]}}, {}, "is no range: the first is below the second"),
        ({"time_features": ["hour"]}, {}, "make inputs of named columns"),
        ({"features": ["t", "v"], "time_features": ["hour", "hour"]}, {"inputs": 6}, "time_features names one twice"),
        ({"missing": "mask"}, {}, "make inputs of named columns"),
        ({"label": ["a", "b"], "classes": ["x", "y"]}, {}, "a model of classes has one label"),
        ({"label": ["a", "b"]}, {}, "label names 2 columns"),
        ({"label": ["a", "b"]}, {"loss": "mse", "outputs": 3}, "where the model has 3 outputs"),
        ({"classes": ["a", "b"]}, {"loss": "mse"}, "learns no classes"),
        ({"class_weight": "balanced"}, {"loss": "mse"}, "learns no classes"),
        ({"class_weight": {"a": 2.0}}, {}, "say which there are, classes = [...]"),
        ({"classes": ["a", "b"], "class_weight": {"c": 2.0}}, {}, "class_weight names 'c', which is none of classes"),
        ({"feature": ["t"]}, {}, 'did you mean "features"'),
        (
            {"classes": ["a", "b", "c"]},
            {"loss": "binary", "outputs": 1},
            'outputs = 1 and loss = "binary" 2 classes, where [contract] names 3 classes',
        ),
        ({"label": ["a", "b"]}, {"loss": "binary", "outputs": 1}, "label names 2 columns"),
        ({"label": ["a", "b"]}, {"loss": "multilabel", "outputs": 3}, "where the model has 3 outputs"),
        ({"classes": ["a", "b"]}, {"loss": "multilabel", "outputs": 3}, "[contract] names 2 classes"),
        ({"class_weight": "balanced"}, {"loss": "multilabel"}, "say pos_weight in [model.loss_options]"),
        (
            {"label": ["a", "b"]},
            {"loss": "quantile", "outputs": 3},
            'where the model has 3 outputs (loss = "quantile" takes 1)',
        ),
        ({"classes": ["a", "b"]}, {"loss": "huber"}, "learns no classes"),
        ({"window": {"length": 1}}, {}, "length"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(
    contract: dict[str, Any], model: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        job(contract, **model)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_several_values_may_be_learnt_at_once() -> None:
    spec = job({"features": ["t", "v"], "label": ["a", "b"]}, loss="mse")
    assert spec.contract.labels == ("a", "b")


def test_one_output_may_stand_for_two_classes_that_have_names_and_weights() -> None:
    spec = job(CLASSES | {"class_weight": {"fault": 9.0}}, loss="binary", outputs=1)
    assert (spec.model.n_classes, spec.contract.class_names) == (2, ("ok", "fault"))


def test_several_labels_a_row_are_called_as_their_columns_or_as_the_job_says() -> None:
    said = {"features": ["t", "v"], "label": ["a", "b"]}
    assert job(said, loss="multilabel").contract.class_names == ("a", "b")
    assert job(said | {"classes": ["x", "y"]}, loss="multilabel").contract.class_names == ("x", "y")
    assert job({"features": ["t", "v"], "label": "y"}, loss="mse").contract.class_names == ()
