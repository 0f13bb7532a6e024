"""What is said to Home Assistant of one device: once which entities it has, then what their values are. Pure.

    <prefix>/device/fedge-<fleet>-<device>/config   retained, the discovery payload of a device and its entities
    <prefix>/fedge/<fleet>/<device>/state           retained, the values of all of them as one JSON object
    <prefix>/fedge/<fleet>/status                   retained, online or offline: whether somebody keeps them up to date
    <prefix>/status                                 Home Assistant's own: online when it has started

(https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload; since Home Assistant 2024.11.)

A template is a program that Home Assistant runs. So each of them is a constant of this file, and what stands beside
them are ids that were checked: nothing that a device says, be it its software or a reason, is in a discovery payload,
and of a state only numbers and words of ours are.

(Of two fleets at one broker where one's name begins with the other's and a hyphen, two devices may share a topic of
discovery: "a-b" of "c" and "a" of "b-c". Their ids differ all the same.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

import msgspec
from msgspec import Struct

from fleet.sight.view import DeviceState, DeviceView, Doing, JobView, View

IS_LEVEL = re.compile(r"\A[A-Za-z0-9_-]{1,80}\Z")
FOLDER = "fedge"
"""Under the prefix: what is ours."""
STATES = sorted({*get_args(DeviceState), *get_args(Doing)} - {"online"})
"""What a device does where it is there, else how it is."""


class State(Struct, frozen=True):
    """The values of a device's entities."""

    there: str
    """"online" or "offline"."""
    state: str
    progress: int | None
    """In percent."""
    installed: str
    """The version that its applications are answered by; "" where there is none."""
    latest: str
    measure: float | None
    of: str
    """The name of that measure."""
    job: str
    heat: float | None
    """Degrees Celsius."""


def config_topic(prefix: str, fleet: str, device: str) -> str:
    """Return where a device is made known."""
    return f"{prefix}/device/{FOLDER}-{fleet}-{device}/config"


def state_topic(prefix: str, fleet: str, device: str) -> str:
    """Return where the values of a device stand."""
    return f"{prefix}/{FOLDER}/{fleet}/{device}/state"


def status_topic(prefix: str, fleet: str) -> str:
    """Return where it stands whether values are kept up to date."""
    return f"{prefix}/{FOLDER}/{fleet}/status"


def config(prefix: str, fleet: str, device: str, software: str) -> bytes:
    """Return the discovery payload of a device. software: our own version."""
    values, id_ = state_topic(prefix, fleet, device), f"fedge:{fleet}:{device}"
    kept = {"topic": status_topic(prefix, fleet)}
    there = {"topic": values, "value_template": "{{ value_json.there }}"}
    entities: Mapping[str, dict[str, Any]] = {
        "state": {
            "p": "sensor",
            "name": "State",
            "device_class": "enum",
            "options": STATES,
            "value_template": "{{ value_json.state }}",
            "availability": [kept],
        },
        "progress": {
            "p": "sensor",
            "name": "Progress",
            "unit_of_measurement": "%",
            "value_template": "{{ value_json.progress }}",
        },
        "version": {
            "p": "update",
            "name": "Model",
            "entity_category": "diagnostic",
            "value_template": "{{ value_json.installed }}",
            "latest_version_topic": values,
            "latest_version_template": "{{ value_json.latest }}",
        },
        "measure": {
            "p": "sensor",
            "name": "Last measure",
            "state_class": "measurement",
            "value_template": "{{ value_json.measure }}",
            "json_attributes_topic": values,
            "json_attributes_template": "{{ {'measure': value_json.of, 'job': value_json.job} | tojson }}",
        },
        "heat": {
            "p": "sensor",
            "name": "Heat",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "state_class": "measurement",
            "entity_category": "diagnostic",
            "value_template": "{{ value_json.heat }}",
        },
    }
    payload = {
        "dev": {"ids": [id_], "name": device, "mf": "fedge", "mdl": f"device of {fleet}"},
        "o": {"name": "fedge", "sw": software},
        "cmps": {name: {**entity, "unique_id": f"{id_}:{name}"} for name, entity in entities.items()},
        "state_topic": values,
        "availability": [kept, there],
        "availability_mode": "all",
        "qos": 1,
    }
    return msgspec.json.encode(payload)


def state(view: View, seen: DeviceView) -> bytes:
    """Return the values of a device's entities."""
    is_there, job = seen.state == "online", job_of(view, seen)
    served = None if job is None else seen.serves.get(job.job)
    of, measure = ("", None) if job is None else measure_of(job)
    heat = None if seen.vitals is None or seen.vitals.heat is None else float(round(seen.vitals.heat))
    return msgspec.json.encode(
        State(
            there="online" if is_there else "offline",
            state=seen.doing if is_there else seen.state,
            progress=None if seen.progress is None or not is_there else round(100 * seen.progress),
            installed="" if served is None else f"v{served}",
            latest="" if job is None else f"v{job.version}",
            measure=measure,
            of=of,
            job="" if job is None else job.job,
            heat=heat,
        )
    )


def job_of(view: View, seen: DeviceView) -> JobView | None:
    """Return the job that counts for a device: that it works for, else one that it serves, else takes part in."""
    part = (job for job, part in seen.parts.items() if part.examples is not None)
    for job in (seen.job, *sorted(seen.serves), *sorted(part)):
        if IS_LEVEL.match(job) and job in view.jobs:
            return view.jobs[job]
    return None


def measure_of(job: JobView) -> tuple[str, float | None]:
    """Return the measure of a job's current version that people look at first, by name and value."""
    for name in ("accuracy", "loss", *sorted(job.metrics)):
        if name in job.metrics and IS_LEVEL.match(name) and abs(value := job.metrics[name]) < float("inf"):
            return name, float(f"{value:.6g}")
    return "", None
