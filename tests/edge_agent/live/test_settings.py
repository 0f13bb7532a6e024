from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import AgentConfig
from edge_agent.live.settings import DeviceSource, TopicSettings, live_sources
from fleet.roles import load_agent
from models.data import table
from runtime.settings import SettingsError, load

HEAD = 'fleet = "f"\ndevice = "d"\nstate_dir = "s"\n[broker]\nhost = "fleet.example"\n'


def config(folder: Path, source: str) -> AgentConfig:
    path = folder / "agent.toml"
    path.write_text(HEAD + source)
    return load_agent(path)


def test_a_live_source_needs_no_path_and_lies_in_the_state_directory_as_a_format_of_its_own(tmp_path: Path) -> None:
    found = config(tmp_path, '[data.hall.mqtt]\nport = 1884\ntopics = {t = "hall/t"}\n').data["hall"]
    assert found.path == "s/live/hall.ring"
    assert table.known(found).name == "a ring of live rows"
    assert found.ring_columns == ("t",)


def test_a_place_that_is_named_is_taken(tmp_path: Path) -> None:
    found = config(tmp_path, '[data.hall]\npath = "/srv/h.ring"\n[data.hall.mqtt]\ntopics = {t = "hall/t"}\n')
    assert found.data["hall"].path == "/srv/h.ring"


def test_columns_of_a_row_are_the_group_the_readings_and_the_label() -> None:
    mqtt = TopicSettings(
        topics=("hall/+/state",), fields={"t": "temp", "x": "acc.x"}, label_topic="mode", group="machine"
    )
    source = DeviceSource(path="a.ring", label="y", mqtt=mqtt)
    assert source.ring_columns == ("machine", "t", "x", "y")
    assert [(live.name, live.label, live.columns) for live in live_sources({"a": source})] == [
        ("a", "y", ("machine", "t", "x", "y"))
    ]


WRONG = {
    '[data.a]\nlabel = "y"': '[data.a] needs the key "path", or a table [data.NAME.mqtt]',
    '[data.a]\npath = "a.csv"\n[data.a.mqtt]\ntopics = {t = "t"}': "path: the folder of a live source ends in .ring",
    "[data.a.mqtt]\nport = 1": '[data.a.mqtt] needs the key "topics"',
    "[data.a.mqtt]\ntopics = {}": "0 entries where at least 1 may be",
    '[data.a.mqtt]\ntopics = ["t"]': "topics of JSON objects need the key fields",
    '[data.a.mqtt]\ntopics = {t = "t"}\nfields = ["x"]': "fields are of JSON objects",
    '[data.a.mqtt]\ntopics = {t = "a", v = "b"}': "needs the key period_s",
    '[data.a.mqtt]\ntopics = {t = "a"}\ntolerance_s = 3': "tolerance_s is of rows that are joined by period_s",
    '[data.a.mqtt]\ntopics = {time = "a"}': "'time' is the column of the time of a row",
    '[data.a.mqtt]\ntopics = {crc = "a"}': "'crc' is the column of the checksum of a row",
    '[data.a.mqtt]\ntopics = {group = "a/+"}': "'group' is the column of what a wildcard stands for",
    '[data.a.mqtt]\ntopics = {t = "a#"}': "'a#' is not a topic filter",
    '[data.a.mqtt]\ntopics = {t = "fedge/1/f/offer/+/+/+"}': "is a topic of fedge itself",
    '[data.a.mqtt]\ntopics = {t = "a"}\nlabel_topic = "a"': "label_topic is among topics",
    '[data.a.mqtt]\ntopics = {t = "a"}\nlabel_topic = "b/#"': "label_topic has a wildcard",
    '[data.a.mqtt]\ntopics = {t = "a"}\nlabel_field = "b"': "label_field is of label_topic",
    '[data.a.mqtt]\ntopics = {y = "a"}\nlabel_topic = "b"': "'y' is a column already",
    '[data.a]\nfeatures = ["v"]\n[data.a.mqtt]\ntopics = {t = "a"}': "features names 'v', which no topic of its mqtt",
    '[data.a.mqtt]\ntopics = {t = "a"}\nhots = "b"': '[data.a.mqtt] has no key "hots"; did you mean "host"?',
    '[data.a.mqtt]\ntopics = {t = "a"}\nkeep_bytes = 1': "[data.a.mqtt] keep_bytes",
    '[data.a.mqtt]\ntopics = {t = "a"}\npassword_file = "/no"': "[data.a.mqtt]: /no cannot be read",
    '[data.a.mqtt]\nhost = "Fleet.Example."\ntopics = {t = "a"}': "is the broker of the fleet itself",
}


@pytest.mark.parametrize("source", WRONG)
def test_what_does_not_go_together_is_said_with_its_table_and_what_to_do(tmp_path: Path, source: str) -> None:
    with pytest.raises(SettingsError) as caught:
        config(tmp_path, source)
    assert WRONG[source] in str(caught.value)
    assert "[data.a" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_test_split_of_the_aggregator_is_no_live_source(tmp_path: Path) -> None:
    from aggregator.config import AggregatorConfig

    path = tmp_path / "aggregator.toml"
    path.write_text('fleet = "f"\n[tests.a]\npath = "a.csv"\n[tests.a.mqtt]\ntopics = {t = "t"}\n')
    with pytest.raises(SettingsError, match=r'\[tests.a\] has no key "mqtt"'):
        load(path, AggregatorConfig)
