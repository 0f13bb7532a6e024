"""What Home Assistant is told of a device, held against what its documentation asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from broker.messages import Version, Vitals
from fleet.homeassistant.discovery import STATES, config, config_topic, state
from fleet.sight.view import DeviceView, JobView, Part, View

HOSTILE = "{{ states('lock.door') }}\x1b[2J\"'"
JOB = JobView("digits-1", "digits", "running", Version(1, 12), metrics={"loss": 0.3, "accuracy": 0.91234567})


def values(seen: DeviceView, *jobs: JobView) -> dict[str, Any]:
    view = View("home", 1.0, devices={seen.device: seen}, jobs={job.job: job for job in jobs})
    return dict(json.loads(state(view, seen)))


def test_a_device_is_made_known_with_all_of_its_entities() -> None:
    payload = json.loads(config("homeassistant", "home", "pi-1", "1.0"))
    assert config_topic("homeassistant", "home", "pi-1") == "homeassistant/device/fedge-home-pi-1/config"
    assert set(payload) >= {"dev", "o", "cmps", "state_topic", "availability"}
    assert payload["dev"]["ids"] == ["fedge:home:pi-1"]
    assert payload["o"]["name"] == "fedge"
    assert payload["state_topic"] == "homeassistant/fedge/home/pi-1/state"
    kinds = {name: entity["p"] for name, entity in payload["cmps"].items()}
    assert kinds.pop("version") == "update"
    assert kinds == dict.fromkeys(("state", "progress", "measure", "heat"), "sensor")
    assert all(entity["unique_id"] == f"fedge:home:pi-1:{name}" for name, entity in payload["cmps"].items())
    assert payload["cmps"]["state"]["device_class"] == "enum"
    assert set(payload["cmps"]["state"]["options"]) > {"offline", "quarantined", "training", "waiting"}
    assert payload["cmps"]["heat"]["device_class"] == "temperature"


def test_every_template_is_a_constant_and_names_a_value_that_is_there() -> None:
    one, other = (config("homeassistant", "home", device, "1.0").decode() for device in ("pi-1", "x_2"))
    assert one.replace("pi-1", "x_2") == other, "nothing but the id differs"
    said = values(DeviceView("pi-1", "online", 0.0))
    for entity in json.loads(one)["cmps"].values():
        for key, template in entity.items():
            if key.endswith("template") and key != "json_attributes_template":
                assert template.removeprefix("{{ value_json.").removesuffix(" }}") in said


def test_the_values_of_a_device_at_work() -> None:
    seen = DeviceView(
        *("pi-1", "online", 0.0, None, "training", "digits-1", 0.404),
        serves={"digits-1": Version(1, 9)},
        vitals=Vitals("pi-1", 1, heat=56.4),
    )
    assert values(seen, JOB) == {
        "there": "online",
        "state": "training",
        "progress": 40,
        "installed": "v1.9",
        "latest": "v1.12",
        "measure": 0.912346,
        "of": "accuracy",
        "job": "digits-1",
        "heat": 56.0,
    }


def test_the_values_of_a_device_that_is_away_and_knows_no_job() -> None:
    seen = DeviceView("pi-1", "offline", 0.0, None, "training", "gone-2", 0.4)
    assert values(seen, JOB) == {
        "there": "offline",
        "state": "offline",
        "progress": None,
        "installed": "",
        "latest": "",
        "measure": None,
        "of": "",
        "job": "",
        "heat": None,
    }
    taking_part = DeviceView("pi-1", "online", 0.0, parts={"digits-1": Part(12), "other-3": Part(None, "no data")})
    assert values(taking_part, JOB)["job"] == "digits-1"


@pytest.mark.parametrize("name", STATES)
def test_every_state_is_one_that_was_made_known(name: str) -> None:
    options = json.loads(config("ha", "home", "pi-1", "1"))["cmps"]["state"]["options"]
    is_there = name not in ("offline", "silent", "quarantined", "unknown")
    seen = DeviceView("pi-1", "online", 0.0, doing=name) if is_there else DeviceView("pi-1", name, 0.0)  # type: ignore[arg-type]
    assert values(seen)["state"] == name
    assert name in options


def test_words_of_a_device_are_in_nothing_that_is_said() -> None:
    seen = DeviceView(
        *("pi-1", "online", 0.0, None, "waiting", HOSTILE, None, HOSTILE),
        labels={HOSTILE: HOSTILE},
        parts={HOSTILE: Part(1, HOSTILE, HOSTILE)},
        software=HOSTILE,
        serves={HOSTILE: Version(1, 1)},
        vitals=Vitals("pi-1", 1, why=HOSTILE),
        alarm=HOSTILE,
    )
    job = JobView(HOSTILE, HOSTILE, "running", Version(1, 1), HOSTILE, {HOSTILE: 1.0})
    named = structs.replace(job, job="digits-1")
    view = View("home", 1.0, devices={"pi-1": seen}, jobs={HOSTILE: job, "digits-1": named})
    said = state(view, seen) + config("homeassistant", "home", "pi-1", "1.0")
    assert b"lock.door" not in said
    assert b"\\u001b" not in said
    assert values(DeviceView("pi-1", "online", 0.0, job="digits-1"), named)["of"] == ""
