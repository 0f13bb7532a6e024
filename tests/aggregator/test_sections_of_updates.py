"""A second section of an update, from the device to the sum: one row of the registry says that a job has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from aggregator.store import Judgement, Store
from edge_agent import trainer
from edge_agent.outbox import Outbox
from edge_agent.work import Work
from models import sections
from models.job import JobSpec
from models.sections import REGISTRY, Section
from tests.aggregator.conftest import Fleet

SAID = b"20 seen"
LONG = bytes(70_000)
"""More than an offer carries, and than a row of the store holds."""


def have_devices_say(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    join = sections.join

    def more(some: Mapping[str, bytes]) -> bytes:
        return join({**some, "masked": said})

    monkeypatch.setattr(trainer.sections, "join", more)


def have_jobs_want(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "masked", Section(5, lambda _job, _spec, _buffers: most))


@pytest.mark.parametrize("said", [SAID, LONG])
def test_with_its_row_it_goes_through_disk_wire_and_store_and_the_model_is_the_same(
    said: bytes,
    fleet: Fleet,
    spec: Callable[..., JobSpec],
    final_sha256: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have_devices_say(said, monkeypatch)
    have_jobs_want(len(said), monkeypatch)
    kept: list[bytes] = []
    add = Store.add_verdicts

    def noted(self: Store, job: str, some: Sequence[Judgement]) -> None:
        add(self, job, some)
        kept.extend(self.body_of(job, one.verdict.device, one.verdict.base.number) for one in some)

    monkeypatch.setattr(Store, "add_verdicts", noted)
    put: list[bytes] = []
    put_ = Outbox.put
    monkeypatch.setattr(
        Outbox, "put", lambda self, offer, body, *more: (put.append(body), put_(self, offer, body, *more))[1]
    )
    fleet.submit(spec())
    assert fleet.finish().sha256 == final_sha256
    assert len(kept) == 9
    assert set(kept) == set(put)
    limits = sections.allowed(fleet.job().spec, fleet.job()._net.spec)
    assert {sections.split(body, limits)["masked"] for body in kept} == {said}


def test_without_it_the_update_is_refused_by_name(
    fleet: Fleet, spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    have_devices_say(SAID, monkeypatch)
    fleet.submit(spec())
    fleet.run(lambda: bool(fleet.aggregator.runs) and len(fleet.store.verdicts(fleet.job().job)) == 3)
    refused = {verdict.refused for verdict in fleet.store.verdicts(fleet.job().job)}
    assert refused == {'its body is not as the job has it: section "masked" is not wanted by this job'}


def test_one_that_is_longer_than_the_job_has_it_is_refused_unread(
    fleet: Fleet, spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    have_devices_say(LONG, monkeypatch)
    have_jobs_want(len(SAID), monkeypatch)
    fleet.submit(spec())
    fleet.run(lambda: bool(fleet.aggregator.runs) and len(fleet.store.verdicts(fleet.job().job)) == 3)
    most = sections.most_bytes(sections.allowed(fleet.job().spec, fleet.job()._net.spec))
    for verdict in fleet.store.verdicts(fleet.job().job):
        assert f"bytes where {most} are let in" in verdict.refused


def test_an_update_of_several_sections_is_offered_again_after_a_start_and_restored_from_the_store(
    fleet: Fleet, spec: Callable[..., JobSpec], final_sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_devices_say(SAID, monkeypatch)
    have_jobs_want(len(SAID), monkeypatch)
    job = fleet.submit(spec())
    train_for, asleep = Work.train_for, {"d2"}
    monkeypatch.setattr(Work, "train_for", lambda self, *how: [] if self._device in asleep else train_for(self, *how))
    fleet.run(lambda: len(list(fleet.store.updates(job))) == 2)
    assert {update.body[:4] for update in fleet.store.updates(job)} == {sections.MARK}
    fleet.kill_agent("d0")
    fleet.agents["d0"] = fleet.start_agent("d0")
    fleet.run(lambda: job in fleet.agents["d0"].jobs.works)
    offer = fleet.agents["d0"].jobs.works[job]._outbox.offer
    assert offer is not None
    assert offer.base.number == 0
    fleet.kill_aggregator()
    fleet.start_aggregator()
    asleep.clear()
    assert fleet.finish().sha256 == final_sha256
