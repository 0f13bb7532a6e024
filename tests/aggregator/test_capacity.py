"""What an aggregator has no room for it refuses, with the numbers, before anything of it is made or stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from aggregator import creation, evaluation
from aggregator.capacity import capacity
from aggregator.commands import Commands
from aggregator.config import ServerLimits
from broker.messages import Submit
from models.data.source import DataSource
from models.job import JobSpec, ModelSpec, RoundsSpec
from models.needs import AGGREGATOR_BYTES, MB, of_aggregator, together
from models.nets.mlp import Mlp
from models.nets.net import ModelError
from models.nets.size import of_spec
from tests.aggregator.conftest import Fleet

SpecMaker = Callable[..., JobSpec]
NOBODY_TRAINS = RoundsSpec(quorum=50, target=50)
ENORMOUS = JobSpec("enormous", ModelSpec("mlp", 4, (5000, 4000), 2), data="toy", deploy="never")
LARGE = JobSpec("large", ModelSpec("mlp", 4, (400, 300), 2), data="toy", deploy="never", rounds=NOBODY_TRAINS)
OF_LARGE = of_aggregator(LARGE, of_spec(Mlp(LARGE.model).spec))


def restart(fleet: Fleet, **limits: int) -> None:
    fleet.kill_aggregator()
    fleet.capacity = capacity(ServerLimits(**limits), fleet.folder / "aggregator")
    fleet.start_aggregator()
    fleet.lead()


def test_a_job_that_does_not_fit_is_refused_and_nothing_of_it_is_made(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart(fleet, memory_bytes=200 * MB)
    job = fleet.submit(spec())
    with monkeypatch.context() as patched:
        patched.setattr(creation, "create", None)
        with pytest.raises(ModelError, match=r"its net of 20,037,002 parameters takes about .* there are 200 MB"):
            fleet.aggregator.submit(ENORMOUS)
    assert set(fleet.aggregator.runs) == {job}
    assert [row.job for row in fleet.store.jobs()] == [job]
    assert fleet.finish().coordinator.ended


def test_an_operator_is_answered_with_the_numbers(fleet: Fleet) -> None:
    restart(fleet, model_parameters=50)
    reply = Commands(fleet.aggregator).obey(Submit("cli", "r1", msgspec.to_builtins(LARGE)))
    assert reply is not None
    assert not reply.ok
    assert reply.text == (
        "the job does not fit here: its net has 122,902 parameters, where model_parameters = 50 in [limits]"
    )


def test_one_that_does_not_fit_beside_those_at_work_is_refused_until_they_have_ended(
    fleet: Fleet, spec: SpecMaker
) -> None:
    restart(fleet, memory_bytes=AGGREGATOR_BYTES + together([OF_LARGE, OF_LARGE]) - MB)
    first = fleet.submit(LARGE)
    second = msgspec.structs.replace(LARGE, name="second")
    with pytest.raises(ModelError, match=f"does not fit beside {first}: with it about"):
        fleet.aggregator.submit(second)
    fleet.aggregator.jobs.stop(first)
    again = fleet.aggregator.submit(LARGE)  # one of its name makes way
    assert set(fleet.aggregator.runs) == {again}


def test_a_job_in_the_store_that_does_not_fit_any_more_rests_and_the_others_run(fleet: Fleet, spec: SpecMaker) -> None:
    restart(fleet, memory_bytes=200 * MB)
    large = fleet.submit(LARGE)
    small = fleet.aggregator.submit(spec())
    for _ in range(2):
        restart(fleet, memory_bytes=70 * MB)
        assert set(fleet.aggregator.runs) == {small}
        assert "takes about" in fleet.aggregator.resting[large].why
        assert "there are 70 MB (memory_bytes in [limits])" in fleet.aggregator.resting[large].why
    restart(fleet, memory_bytes=200 * MB)
    assert set(fleet.aggregator.runs) == {small, large}


def test_a_job_that_has_ended_is_loaded_whatever_there_is(fleet: Fleet) -> None:
    restart(fleet, memory_bytes=200 * MB)
    large = fleet.submit(LARGE)
    fleet.aggregator.jobs.stop(large)
    restart(fleet, memory_bytes=62 * MB)
    assert set(fleet.aggregator.runs) == {large}


def test_jobs_that_have_ended_do_not_count_as_those_at_work_after_a_start(fleet: Fleet) -> None:
    for n in range(3):
        fleet.aggregator.jobs.stop(fleet.aggregator.submit(msgspec.structs.replace(LARGE, name=f"ended-{n}")))
    running = fleet.aggregator.submit(LARGE)
    restart(fleet, memory_bytes=AGGREGATOR_BYTES + 3 * 20 * OF_LARGE.parameters + together([OF_LARGE]))
    assert running in fleet.aggregator.runs
    assert len(fleet.aggregator.runs) == 4


def test_the_answers_on_the_test_split_are_weighed_before_any_are_made(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "test.npz", X=np.zeros((50_000, 4), np.float32), y=np.zeros(50_000))
    fleet.tests = {"toy": DataSource(str(tmp_path / "test.npz"))}
    restart(fleet, memory_bytes=100 * MB)
    monkeypatch.setattr(evaluation, "evaluate", None)
    wide = JobSpec("wide", ModelSpec("linear", 4, (), 1000), data="toy", deploy="never")
    with pytest.raises(ModelError, match="does not fit here"):
        fleet.submit(wide)
    assert fleet.store.jobs() == []
