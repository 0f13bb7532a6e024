from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.job import PRESETS, CompressionSpec, JobSpec

TREE: dict[str, Any] = {"name": "digits", "model": {"inputs": 64, "outputs": 10}}


def read(**tables: Any) -> JobSpec:
    return msgspec.convert(TREE | tables, JobSpec)


def test_a_name_and_a_model_are_a_job() -> None:
    assert read().data_name == "digits"
    assert read().coding == PRESETS["strong"]


def test_a_job_is_what_its_own_json_says() -> None:
    job = read(compression={"codec": "int8"}, rounds={"deadline_s": "learned", "target": 3}, data="other")
    assert msgspec.json.decode(msgspec.json.encode(job), type=JobSpec) == job
    assert job.data_name == "other"
    assert job.coding == CompressionSpec(codec="int8")


@pytest.mark.parametrize("deadline_s", [1e-3, 60, 1e9, "learned"])
def test_a_deadline_is_one_that_a_round_can_carry(deadline_s: float | str) -> None:
    assert read(rounds={"deadline_s": deadline_s}).rounds.deadline_s == deadline_s


REFUSED: dict[str, dict[str, Any]] = {
    "without end": {"rounds": {"deadline_s": float("inf")}},
    "of more than thirty years": {"rounds": {"deadline_s": 1.1e9}},
    "that is no number": {"rounds": {"deadline_s": float("nan")}},
    "of no time": {"rounds": {"deadline_s": 0}},
    "that is a word": {"rounds": {"deadline_s": "soon"}},
    "with a quorum beyond its target": {"rounds": {"quorum": 3, "target": 2}},
    "with a net that nobody knows": {"model": {"kind": "transformer"}},
    "with layers beyond number": {"model": {"hidden": [1] * 65}},
    "with feedback that would pile up noise": {"compression": {"error_feedback": True}},
    "with a name that is no level of a topic": {"name": "a/b"},
    "with a key that nobody knows": {"quorum": 3},
}


@pytest.mark.parametrize("tables", REFUSED.values(), ids=REFUSED)
def test_a_job_is_refused(tables: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(**tables)
