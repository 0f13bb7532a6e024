from __future__ import annotations

from pathlib import Path

import pytest

from aggregator.config import AggregatorConfig
from broker.settings import SettingsError, convert, load
from models.job import JobSpec


def test_a_file_becomes_a_frozen_struct(tmp_path: Path) -> None:
    path = tmp_path / "aggregator.toml"
    path.write_text('fleet = "barn"\n[limits]\nheartbeat_s = 5\n[tests.digits]\npath = "test.npz"\n')
    config = load(path, AggregatorConfig)
    assert config.fleet == "barn"
    assert config.limits.heartbeat_s == 5.0
    assert config.tests["digits"].path == "test.npz"


MISTAKES = {
    "": 'the top level needs the key "fleet"',
    'fleet = "barn"\nflet = 1': 'the top level has no key "flet"; did you mean "fleet"?',
    'fleet = "barn"\n[limits]\nheartbeats = 5': '[limits] has no key "heartbeats"; did you mean "heartbeat_s"?',
    'fleet = "barn"\n[limits]\nheartbeat_s = "5"': "[limits] heartbeat_s: Expected `float`, got `str`",
    'fleet = "a barn"': "fleet: Expected `str` matching regex",
    "fleet = ": "is not TOML",
}


@pytest.mark.parametrize(("text", "line"), MISTAKES.items())
def test_a_mistake_is_one_line_that_names_file_table_and_key(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "aggregator.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path, AggregatorConfig)
    assert str(caught.value).startswith(f"{path}: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml", AggregatorConfig)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"fleet = '\xff'")
    with pytest.raises(SettingsError, match="is not TOML"):
        load(path, AggregatorConfig)


JOB_MISTAKES: list[tuple[dict[str, object], str]] = [
    ({"compression": "strnog"}, '"strnog"'),
    ({"train": {"epoch": 1}}, '[train] has no key "epoch"; did you mean "epochs"?'),
    ({"rounds": {"quorum": 0}}, "[rounds] quorum: Expected `int` >= 1"),
    ({"rounds": {"quorum": 5, "target": 3}}, "quorum = 5 is more than target = 3"),
    ({"model": {"kind": "mpl"}}, 'kind = "mpl" is neither'),
    ({"rounds": {"stop": {"metric": "acuracy"}}}, 'did you mean "accuracy"?'),
]


@pytest.mark.parametrize(("tree", "line"), JOB_MISTAKES)
def test_a_mistake_in_a_job_is_explained(tree: dict[str, object], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        convert({"name": "digits", "model": {"kind": "mlp"}} | tree, JobSpec, "job.toml")
    assert str(caught.value).startswith("job.toml: ")
    assert line in str(caught.value)
