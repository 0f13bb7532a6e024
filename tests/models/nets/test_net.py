from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.job import JobSpec, ModelSpec
from models.nets import table
from models.nets.net import NetSpec, check_size
from runtime.settings import SettingsError, convert


class ConvSpec(NetSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="conv"):
    """A kind with keys that the envelope does not know."""

    activation: str = "relu"
    channels: tuple[int, ...] = (8,)


@pytest.fixture(autouse=True)
def a_kind_with_keys_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.NETS, "conv", table.NETS["mlp"]._replace(spec=ConvSpec))


def read(**model: Any) -> JobSpec:
    return convert({"name": "j", "model": {"kind": "conv", "inputs": 4} | model}, JobSpec, "job.toml")


def test_keys_that_only_one_kind_has_stand_in_options_and_are_typed_there() -> None:
    job = read(activation="tanh", options={"channels": [4, 2]})
    assert ConvSpec.of(job.model) == ConvSpec(inputs=4, activation="tanh", channels=(4, 2))
    assert msgspec.json.decode(msgspec.json.encode(job), type=JobSpec) == job
    assert ConvSpec.of(read().model).channels == (8,)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"hidden": [3]},
            'kind = "conv" has no key "hidden": leave it out (it has inputs, outputs, loss, loss_options,',
        ),
        ({"options": {"depth": 3}}, 'kind = "conv" has no key "options.depth"'),
        ({"options": {"inputs": 3}}, 'kind = "conv" has no key "options.inputs"'),
        ({"options": {"kind": "conv"}}, 'kind = "conv" has no key "options.kind"'),
        ({"options": {"channels": ["a"]}}, "options.channels[0]: Expected `int`, got `str`"),
        ({"options": {"channels": 3}}, "options.channels: Expected `array`, got `int`"),
    ],
)
def test_a_key_of_another_kind_or_a_value_of_another_type_is_refused_by_its_name(
    model: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**model)
    assert str(caught.value).startswith(f"job.toml: [model] {words}")


def test_a_key_of_another_kind_with_its_default_cannot_be_told_from_none() -> None:
    assert read(hidden=[], options={}) == read()


def test_what_jobs_have_always_been_free_to_say_is_read() -> None:
    assert ModelSpec("mlp", options={"colour": 3}).options == {"colour": 3}
    assert ModelSpec("a:b", hidden=(3,), activation="tanh").hidden == (3,)


def test_a_net_has_a_most_of_parameters_and_of_units() -> None:
    check_size(25_000_000, 2**17, "")
    with pytest.raises(ValueError, match=r"25,000,001 parameters .*: inputs = 1"):
        check_size(25_000_001, 1, "inputs = 1")
    with pytest.raises(ValueError, match=r"131,073 units .*: inputs = 1"):
        check_size(1, 2**17 + 1, "inputs = 1")
