from __future__ import annotations

from pathlib import Path

import pytest

from aggregator.config import AggregatorConfig
from models.job import JobSpec
from runtime.settings import SettingsError, convert, load


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
    'fleet = "barn"\n[broker]\nmax_packet_bytes = 2047': "[broker] max_packet_bytes: Expected `int` >= 2048",
    'fleet = "a barn"': 'fleet: "a barn" is none: a name is 1 to 64 letters, digits, "_" or "-"',
    'fleet = "barn"\n[broker]\nhost = "tcp://a:1"': '[broker] host: "tcp://a:1" is none: a host is',
    'fleet = "barn"\n[models]\nallow = ["a:b", "b"]': '[models] allow[1]: "b" is none: a factory is written',
    'fleet = "barn"\n[tests.a]\npath = "x.csv"\n[tests.b]\npath = ""': '[tests.b] path: "" is none: a path is 1 to',
    'fleet = "barn"\n[tests."a b"]\npath = "x.csv"': '[tests] has the key "a b": a name is 1 to 64',
    'fleet = "barn"\n[limits]\nspread_s = inf': "[limits] spread_s: Expected `float` <= 86400.0",
    'fleet = "barn"\n[limits]\nspread_s = nan': "[limits] spread_s: Expected `float` >= 0.0",
    'fleet = "barn"\n"a\\nb" = 1': 'the top level has no key "a b"',
    'fleet = "barn"\n"\\u001b[2J" = 1': 'the top level has no key "�"',
    f"fleet = {'[' * 5000}{']' * 5000}": "is not TOML: too many brackets within each other",
    f"fleet = {'9' * 5000}": "is not TOML: ",
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
    assert str(caught.value).isprintable()


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
    ({"model": {"hidden": [3, 0]}}, "[model] hidden[1]: Expected `int` >= 1"),
    ({"rounds": {"labels": {f"k{n}": "v" for n in range(65)}}}, "[rounds.labels] 65 entries where at most 64 may be"),
    ({"rounds": {"labels": {"a": "b", "c": "d e"}}}, '[rounds.labels] c: "d e" is none: a name is 1 to 64'),
    ({"rounds": {"deadline_s": 1e-9}}, "[rounds] deadline_s: Expected `float` >= 0.1"),
    ({"deploy": "always"}, 'deploy: "always" is none: it is "final", "never" or "every N"'),
    ({"compression": {"error_feedback": True}}, '[compression] has no key "error_feedback"'),
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
