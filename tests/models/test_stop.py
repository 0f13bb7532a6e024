"""[rounds.stop] of a job: which measures it may go by."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.job import JobSpec

TREE: dict[str, Any] = {"name": "j", "model": {"inputs": 2, "outputs": 2}, "contract": {"classes": ["ok", "fault"]}}


def read(stop: dict[str, Any], **tables: Any) -> JobSpec:
    return msgspec.convert(TREE | {"rounds": {"stop": stop}} | tables, JobSpec)


@pytest.mark.parametrize("metric", ["accuracy", "loss", "f1", "recall:fault", "auc", "macro_f1", "brier"])
def test_a_job_may_stop_by_any_measure_of_its_kind(metric: str) -> None:
    assert read({"metric": metric, "target": 0.5}).rounds.stop.metric == metric


@pytest.mark.parametrize(
    ("stop", "tables", "why"),
    [
        ({"metric": "recal:fault", "target": 0.5}, {}, 'metric: "recal:fault" is no measure: did you mean "recall'),
        ({"metric": "recall:falt", "target": 0.5}, {}, '[rounds.stop] metric: "recall:falt": there is no such class'),
        ({"metric": "recall:fault", "patience": 2}, {"contract": {}}, "[contract] names no classes"),
        ({"metric": "rmse", "target": 0.5}, {}, "has no rmse"),
        ({"metric": "auc"}, {"model": {"loss": "mse"}, "contract": {}}, 'a model with loss = "mse" has no auc'),
        ({"metric": "r2", "target": 2.0}, {"model": {"loss": "mse"}, "contract": {}}, "no r2: it is at most 1"),
        ({"metric": "recall:fault", "min_delta": 1.0}, {}, "no recall:fault improves by so much"),
        ({"metric": ""}, {}, "metric"),
        ({"metric": "x" * 300}, {}, "metric"),
    ],
)
def test_what_it_cannot_stop_by_is_refused_in_words(stop: dict[str, Any], tables: dict[str, Any], why: str) -> None:
    with pytest.raises(msgspec.ValidationError) as found:
        read(stop, **tables)
    assert why in str(found.value)


def test_a_target_may_be_below_0_where_the_measure_may() -> None:
    job = read({"metric": "r2", "target": -1.0, "min_delta": 5.0}, model={"loss": "mse"}, contract={})
    assert job.rounds.stop.target == -1.0


def test_a_rule_to_stop_travels_as_it_always_has() -> None:
    sent = msgspec.json.encode(read({"target": 0.9}).rounds)
    assert sent == b'{"stop":{"target":0.9}}'
