"""What is kept of a job's versions, and what operators do with them: the whole fleet in one process."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from aggregator import evaluation
from aggregator.kept import MOST_PAST, KeptStates
from aggregator.run import Run
from broker.messages import (
    Delete,
    Export,
    Jobs,
    Pause,
    Reply,
    Resume,
    RollBack,
    Stop,
    Submit,
    Upload,
    Version,
)
from broker.transport import Packet
from broker.wire import Wire
from models.chain import Chain, Held
from models.codec.decoded import Decoded
from models.contract import ContractSpec
from models.job import AggregateSpec, CompressionSpec, JobSpec, RoundsSpec, StopSpec
from models.lattice import add
from models.nets import table as nets

Fleet = Any
SpecMaker = Callable[..., JobSpec]
WIRE = Wire("f")
ROUNDS = RoundsSpec(quorum=3, min_devices=3, max_rounds=30, wait="all", deadline_s=30.0)
PATIENT = StopSpec(metric="loss", patience=3)


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of version 1, 2, …; the last one goes on."""
    told = [5.0, 4.0, 3.0, 4.0]

    def measured(_scores: object, updates: Sequence[object]) -> dict[str, float]:
        at = measured_at[0]
        measured_at[0] += 1
        return {"loss": told[min(at, len(told) - 1)], "participants": float(len(updates))}

    measured_at = [0]
    monkeypatch.setattr(evaluation, "measured", measured)
    return told


class Operator:
    """Says commands, and hears the answers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._transport = fleet.broker.transport("operator-anna")
        self._transport.subscribe(WIRE.filter_for("reply", client="anna"))
        self._transport.open()
        self._n = 0

    def say(self, kind: type, *values: object, request: str = "", **more: object) -> str:
        self._n += 1
        request = request or f"r{self._n}"
        self._fleet.say(kind("anna", request, *values, **more))
        return request

    def ask(self, kind: type, *values: object, **more: object) -> Reply:
        request = self.say(kind, *values, **more)
        found: list[Reply] = []

        def answered() -> bool:
            for packet in iter(self._transport.take, None):
                if isinstance(packet, Packet):
                    message = WIRE.unpack(packet)
                    if isinstance(message, Reply) and message.request == request:
                        found.append(message)
            return bool(found)

        self._fleet.run(answered)
        return found[0]

    def export(self, name: str, version: str = "last") -> tuple[dict[str, Any], Held]:
        said: dict[str, Any] = {}
        body, after = b"", ""
        while True:
            reply = self.ask(Export, name, version, after=after)
            assert reply.ok, reply.text
            said = said or reply.data
            body += base64.b64decode(reply.data["piece"])
            after = reply.more
            if not after:
                break
        spec = msgspec.convert(said["spec"], JobSpec)
        chain = Chain(nets.build(spec.model).spec, spec)
        return said, chain.take(chain.first(), said["number"], body)


@pytest.fixture
def anna(fleet: Fleet) -> Operator:
    return Operator(fleet)


def shas(fleet: Fleet, job: str) -> dict[int, str]:
    return {version.number: sha256 for version, sha256 in fleet.store.versions(job)}


def go_to(fleet: Fleet, number: int) -> Run:
    """Let everybody do one thing after another until there is a version of this number."""
    for _ in range(20_000):
        if fleet.aggregator.runs and fleet.job().version.number >= number:
            return fleet.job()  # type: ignore[no-any-return]
        for part in (fleet.aggregator, *fleet.agents.values()):
            part.step(0.0)
        fleet.now += 0.01
    raise AssertionError(fleet.aggregator.doing)


# Patience.

STRATEGIES: list[tuple[AggregateSpec, object]] = [
    (AggregateSpec(), "light"),
    (AggregateSpec(), "off"),
    (AggregateSpec(server_momentum=0.9), "extreme"),
    (AggregateSpec(strategy="fedadam", server_learning_rate=0.02), "strong"),
    (AggregateSpec(strategy="fedadam", server_learning_rate=0.02), "off"),
    (AggregateSpec(strategy="median"), CompressionSpec(codec="int8")),
]


@pytest.mark.parametrize(("rules", "compression"), STRATEGIES)
@pytest.mark.usefixtures("losses")
def test_a_job_that_ends_by_its_patience_serves_its_best_version(
    fleet: Fleet, spec: SpecMaker, rules: AggregateSpec, compression: object
) -> None:
    rounds = msgspec.structs.replace(ROUNDS, stop=PATIENT)
    job = fleet.submit(spec(rounds=rounds, aggregate=rules, compression=compression))
    run = fleet.finish()
    assert run.version == Version(1, 7)
    sha256 = shas(fleet, job)
    assert run.reason == "no better loss than 3.0000 for 3 rounds: version 1.7 is version 3 again, the best"
    assert run.coordinator.ended == "finished"
    assert run._learner.now.model == run._learner.read_exact(fleet.store.states.get(job, 3).body).model
    assert run.metrics["loss"] == 3.0
    assert sha256[7] == sha256[3] != sha256[6]
    assert fleet.aggregator.tally.counts == {}


POINTS = [
    "aggregator.Restore.before",
    "store.commit.within",
    "store.commit.after",
    "aggregator.Restore.after",
    "aggregator.Publish.before",
    "aggregator.Publish.after",
]


@pytest.mark.usefixtures("losses")
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_of_it_a_job_comes_to_the_same_end(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    job = fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, stop=PATIENT)))
    go_to(fleet, 5)

    class Death(BaseException):
        pass

    died: list[str] = []

    def reach(name: str, what: object = None) -> None:
        ended = fleet.job().coordinator.ended if fleet.aggregator.runs else ""
        about = ended or fleet.job().coordinator._restoring is not None
        if name == point and about and not died:
            died.append(name)
            raise Death

    monkeypatch.setattr("aggregator.run.reach", reach)
    monkeypatch.setattr("aggregator.store.reach", reach)
    with pytest.raises(Death):
        fleet.finish()
    fleet.kill_aggregator()
    fleet.start_aggregator()
    run = fleet.finish()
    fleet.lead()
    sha256 = shas(fleet, job)
    assert (died, run.version, run.sha256) == ([point], Version(1, 7), sha256[3])
    assert "version 1.7 is version 3 again, the best" in run.reason


@pytest.mark.usefixtures("losses")
def test_a_job_whose_best_version_an_older_fedge_has_not_kept_ends_with_its_last(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, stop=PATIENT)))
    go_to(fleet, 5)
    fleet.store._db.execute("DELETE FROM kept")
    run = fleet.finish()
    assert (run.version, run.coordinator.ended) == (Version(1, 6), "finished")
    assert run.reason == "no better loss than 3.0000 for 3 rounds; version 3 is not kept"
    assert fleet.store.states.sizes(job) == {}


def test_a_job_whose_last_version_is_the_best_ends_with_it(fleet: Fleet, spec: SpecMaker, losses: list[float]) -> None:
    losses[:] = [5.0, 4.0, 3.0, 2.9995]
    stop = StopSpec(metric="loss", patience=3, min_delta=0.1)
    losses += [2.9994, 2.9993]
    fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, stop=stop)))
    run = fleet.finish()
    assert (run.version, run.reason) == (Version(1, 6), "no better loss than 3.0000 for 3 rounds")


@pytest.mark.usefixtures("losses")
def test_a_job_that_deploys_a_mean_goes_on_to_serve_it(fleet: Fleet, spec: SpecMaker) -> None:
    fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, stop=PATIENT), deploy_average=4))
    assert fleet.finish().version == Version(1, 6)


# What is kept.


def test_a_version_is_kept_when_it_is_left_and_the_best_so_far(
    fleet: Fleet, spec: SpecMaker, losses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses[:] = [5.0, 4.0, 4.5, 3.0, 6.0, 6.0]
    job = fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, max_rounds=6)))
    seen = []
    for number in range(1, 7):
        go_to(fleet, number)
        seen.append([*fleet.store.states.sizes(job)])
    assert seen == [[], [], [2], [], [4], [4]]
    assert fleet.store.states.get(job, 4).sha256 == shas(fleet, job)[4]


def test_every_nth_is_kept_as_far_as_there_is_room(fleet: Fleet, spec: SpecMaker, losses: list[float]) -> None:
    losses[:] = [1.0, 2.0]
    rounds = msgspec.structs.replace(ROUNDS, keep_every=2, max_rounds=11)
    job = fleet.submit(spec(rounds=rounds))
    fleet.finish()
    sizes = fleet.store.states.sizes(job)
    assert [*sizes] == [1, 2, 4, 6, 8, 10]
    room = sizes[10] + sizes[8] + 100
    second = fleet.aggregator.submit(spec(rounds=msgspec.structs.replace(rounds, keep_bytes=room)))
    fleet.finish()
    kept = fleet.store.states.sizes(second)
    assert {8, 10} <= set(kept) <= {1, 8, 10, 11}
    assert sum(size for number, size in kept.items() if number % 2 == 0) <= room


# Rolling back.


@pytest.mark.usefixtures("losses")
@pytest.mark.parametrize(("rules", "compression"), STRATEGIES)
def test_a_job_is_rolled_back_and_goes_on_from_there(
    fleet: Fleet, spec: SpecMaker, anna: Operator, rules: AggregateSpec, compression: object
) -> None:
    rounds = msgspec.structs.replace(ROUNDS, max_rounds=8)
    job = fleet.submit(spec(rounds=rounds, aggregate=rules, compression=compression))
    go_to(fleet, 5)
    reply = anna.ask(RollBack, "toy", "best")
    assert reply.ok, reply.text
    run = fleet.job()
    sha256 = shas(fleet, job)
    back = next(n for n, metrics in enumerate(run.history) if "restored" in metrics)
    assert reply.text == f"{job}: version 1.{back} is version 3 again"
    assert sha256[back] == sha256[3]
    run = fleet.finish()
    assert (run.version.number, run.reason) == (9, "max_rounds = 8 are done"), "and all rounds are made"
    assert all(agent.works for agent in fleet.agents.values())
    fates = [row for row in fleet.store.attempts_page(job, back - 1, most=9) if row.outcome == "abandoned"]
    assert all(row.reason == "version 3 was restored by anna" for row in fates)
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert fleet.job().sha256 == run.sha256


@pytest.mark.usefixtures("losses")
def test_what_cannot_be_rolled_back_to_is_refused_in_words(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    job = fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, max_rounds=30)))
    go_to(fleet, 5)
    anna.ask(Pause, "toy")
    now = fleet.job().version.number
    said = {
        word: anna.ask(RollBack, "toy", word) for word in ("2", str(now), "99", "newest", "1.2", "2.3", "x.3", "0.3")
    }
    assert not any(reply.ok for reply in said.values())
    assert said["2"].text == f"version 2 of {job} is not kept; these are: 3 (the best), {now} (the current one)"
    assert said["1.2"].text == said["2"].text
    assert said[str(now)].text == f"version {now} is the current version of {job}"
    assert said["99"].text == f"{job} is at version 1.{now}: there is no version 99"
    assert said["newest"].text == '\'newest\' is no version: say its number, "best" or "last"'
    assert said["2.3"].text == "there is no version 2.3: of generations, its first number, there were 1"
    assert said["0.3"].text.startswith("there is no version 0.3")
    assert said["x.3"].text == '\'x.3\' is no version: say its number, "best" or "last"'
    assert "no running job has the name tou" in anna.ask(RollBack, "tou", "3").text


@pytest.mark.usefixtures("losses")
def test_a_rollback_that_is_asked_for_again_is_done_once(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    fleet.submit(spec())
    go_to(fleet, 2)
    anna.ask(Pause, "toy")
    now = fleet.job().version.number
    first = anna.ask(RollBack, "toy", "0", request="once")
    assert first == anna.ask(RollBack, "toy", "0", request="once")
    assert anna.ask(RollBack, "toy", "0").text == first.text
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert anna.ask(RollBack, "toy", "0", request="once").text == first.text, "nor by an aggregator that knows nothing"
    assert fleet.job().version.number == now + 1
    assert fleet.job()._learner.now.model == fleet.job()._learner.first().model


@pytest.mark.usefixtures("losses")
def test_after_a_rollback_patience_begins_anew(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, stop=PATIENT)))
    go_to(fleet, 5)
    anna.ask(RollBack, "toy", "3")
    back = next(n for n, metrics in enumerate(fleet.job().history) if "restored" in metrics)
    run = fleet.finish()
    assert run.version.number == back + 3 + 1
    assert run.reason.endswith(f"version 1.{back + 4} is version 3 again, the best")


# Pausing.


def test_a_paused_job_opens_no_round_until_it_is_resumed(
    fleet: Fleet, spec: SpecMaker, anna: Operator, final_sha256: str
) -> None:
    job = fleet.submit(spec())
    go_to(fleet, 1)
    reply = anna.ask(Pause, "toy")
    assert reply.ok
    assert reply.text.startswith(f"{job} is paused by anna since 2")
    fleet.step()
    at = fleet.job().version
    for _ in range(2):
        for _ in range(100):
            fleet.step(5.0)
        line = anna.ask(Jobs).data["jobs"][0]
        assert (line["state"], line["version"]) == ("paused", str(at))
        assert line["waits_for"].startswith("it is paused by anna since 2")
        assert line["ends"] == "fedge job resume, or job stop"
        assert fleet.job().coordinator.attempt is None
        fleet.kill_aggregator()
        fleet.start_aggregator()
        fleet.lead()
    assert anna.ask(Pause, "toy").text == reply.text, "by whom it was first"
    heard = anna.ask(Resume, "toy").text
    assert heard == f"{job} goes on from version {at}"
    assert "no job of the name toy is at rest, or paused" in anna.ask(Resume, "toy").text
    assert fleet.finish().sha256 == final_sha256


def test_what_was_counted_before_a_pause_is_in_the_next_version(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    job = fleet.submit(spec())
    for n in range(20_000):
        if fleet.job().coordinator.counted:
            break
        fleet.agents[f"d{n % 3}"].step(0.0)
        fleet.aggregator.step(0.0)
        fleet.now += 0.01
    counted = fleet.job().coordinator.counted
    assert 0 < len(counted) < 3
    anna.ask(Pause, "toy")
    (row,) = fleet.store.attempts_page(job, 0, most=9)
    assert (row.outcome, row.reason) == ("abandoned", f"the job is {fleet.job().coordinator.paused}")
    anna.ask(Resume, "toy")
    run = fleet.finish()
    assert [verdict.refused for verdict in fleet.store.verdicts(job)] == ["", "", ""]
    assert run.version.number == 3


def test_a_paused_job_can_be_stopped(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    job = fleet.submit(spec())
    anna.ask(Pause, "toy")
    assert anna.ask(Stop, "toy").ok
    assert "has ended" in anna.ask(Pause, "toy").text
    fleet.aggregator.submit(spec())
    assert fleet.store.paused(job) == "", "nothing of it is left"


# Replaced jobs.


@pytest.mark.usefixtures("losses")
def test_a_list_of_replaced_jobs_reads_none_of_their_states(
    fleet: Fleet, spec: SpecMaker, anna: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, max_rounds=3)))
    fleet.finish()
    fleet.aggregator.submit(spec())
    monkeypatch.setattr(KeptStates, "get", None)
    (line,) = (line for line in anna.ask(Jobs, past=True).data["jobs"] if line["job"] == first)
    assert "loss" in line["metrics"]


@pytest.mark.usefixtures("losses")
def test_a_replaced_job_is_listed_and_exported_by_its_id(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    first = fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, max_rounds=5, keep_every=2)))
    fleet.finish()
    sha256 = shas(fleet, first)
    second = fleet.aggregator.submit(spec())
    for _ in range(2):
        (line,) = (line for line in anna.ask(Jobs, past=True).data["jobs"] if line["job"] == first)
        assert (line["state"], line["version"], line["metrics"]["loss"]) == ("replaced", "1.5", 3.0)
        assert line["reason"].startswith("finished: max_rounds = 5 are done; another of its name replaced it at 2")
        assert line["reason"].endswith("kept: 3 (the best), 5 (the last)")
        assert first not in [line["job"] for line in anna.ask(Jobs).data["jobs"]]
        for word, number in (("best", 3), ("last", 5), ("3", 3)):
            said, held = anna.export(first, word)
            assert (said["job"], said["number"], said["version"]) == (first, number, f"1.{number}")
            assert held.sha256() == sha256[number]
        assert anna.export("toy")[0]["job"] == second, "by its name it is the one that is there"
        fleet.kill_aggregator()
        fleet.start_aggregator()
        fleet.lead()
    assert anna.ask(Export, first, "2").text == (
        f"version 2 of {first} is not kept; these are: 3 (the best), 5 (the last)"
    )
    assert anna.ask(Delete, first).text == f"{first} is deleted, with its versions"
    assert "no job has the name" in anna.ask(Export, first, "best").text
    assert fleet.store._db.one("kept", "SELECT count(*) FROM kept WHERE job = ?", (first,)) == (0,)


def test_a_job_that_has_ended_is_deleted_for_good_and_one_that_has_not_is_not(
    fleet: Fleet, spec: SpecMaker, anna: Operator
) -> None:
    job = fleet.submit(spec())
    assert anna.ask(Delete, "toy").text == f"job {job} is running: stop it first"
    fleet.finish()
    assert anna.ask(Delete, "toy").ok
    assert (fleet.store.jobs(), fleet.store.states.past(), fleet.store.is_deleted(job)) == ([], [], True)
    fleet.step()
    assert not any(agent.works for agent in fleet.agents.values())


def test_of_replaced_jobs_the_last_ones_are_remembered(fleet: Fleet, spec: SpecMaker) -> None:
    jobs = []
    for _ in range(MOST_PAST + 3):
        jobs.append(fleet.aggregator.submit(spec()))
        fleet.aggregator.jobs.stop(jobs[-1])
    assert [past.job for past in fleet.store.states.past()] == jobs[-2 : -2 - MOST_PAST : -1]
    kept = {job for (job,) in fleet.store._db.rows("kept", "SELECT DISTINCT job FROM kept")}
    assert kept == set(jobs[-2 : -2 - MOST_PAST : -1])


def test_of_replaced_jobs_as_many_are_remembered_as_there_is_room_for(
    fleet: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    for seed in range(6):
        jobs.append(fleet.submit(spec(seed=seed, rounds=msgspec.structs.replace(ROUNDS, max_rounds=1))))
        fleet.run(lambda: bool(fleet.aggregator.runs[jobs[-1]].coordinator.ended))
        if seed == 0:
            size = len(fleet.aggregator.runs[jobs[0]].state().body)
            monkeypatch.setattr("aggregator.kept.PAST_BYTES", int(size * 2.5))
    assert [past.job for past in fleet.store.states.past()] == [jobs[4], jobs[3]]


def test_an_untrained_version_is_exported_as_what_it_is(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    fleet.submit(spec())
    fleet.finish()
    said, held = anna.export("toy", "0")
    assert (said["number"], held.model) == (0, fleet.job()._learner.first().model)


@pytest.mark.usefixtures("losses")
def test_of_a_job_at_rest_what_is_kept_can_be_had(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    job = fleet.submit(spec(rounds=ROUNDS))
    go_to(fleet, 5)
    sha256 = shas(fleet, job)
    fleet.aggregator.jobs._rest(job, "toy", "its own code fails: TypeError")
    said, held = anna.export("toy", "best")
    assert (said["number"], held.sha256()) == (3, sha256[3])
    assert anna.ask(Export, "toy", "last").text == (
        f"{job} is at rest, and of its versions these can be had: 3; it is at rest: its own code fails: TypeError"
    )
    assert "is at rest: its own code fails" in anna.ask(Pause, "toy").text
    assert "is at rest: its own code fails" in anna.ask(RollBack, "toy", "3").text


def test_a_job_that_has_ended_is_not_rolled_back_and_the_answer_says_what_to_do(
    fleet: Fleet, spec: SpecMaker, anna: Operator
) -> None:
    job = fleet.submit(spec())
    fleet.finish()
    assert anna.ask(RollBack, "toy", "1").text == (
        f"job {job} has ended: max_rounds = 3 are done; to train on from a version of it, submit a job with --from"
    )


# Starting from weights.


@pytest.mark.usefixtures("losses")
@pytest.mark.parametrize(("rules", "compression"), STRATEGIES)
def test_a_job_starts_from_the_best_version_of_another(
    fleet: Fleet, spec: SpecMaker, anna: Operator, rules: AggregateSpec, compression: object
) -> None:
    first = fleet.submit(spec(rounds=msgspec.structs.replace(ROUNDS, max_rounds=5)))
    fleet.finish()
    model = anna.export(first, "best")[1].model
    warm = spec(aggregate=rules, compression=compression, seed=99)
    tree = msgspec.to_builtins(warm) | {"name": "warm", "data": "toy"}
    reply = anna.ask(Submit, tree, start="toy@best")
    assert reply.ok, reply.text
    run = fleet.aggregator.runs[reply.text]
    n_bytes = next(len(body.data) for body in run.bodies() if body.number == 1)
    assert reply.data["notes"][0] == (
        f"it starts from toy@best: that is version 1, of {n_bytes:,} bytes for each device"
    )
    assert shas(fleet, reply.text)[1] == model.sha256()
    fleet.run(lambda: bool(fleet.aggregator.runs[reply.text].coordinator.ended))
    run = fleet.aggregator.runs[reply.text]
    assert (run.version.number, run.reason) == (4, "max_rounds = 3 are done")
    assert fleet.aggregator.tally.counts == {}


def test_a_start_that_does_not_fit_is_refused_and_nothing_begins(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    fleet.submit(spec())
    fleet.finish()
    for model, why in (
        ({"inputs": 4, "outputs": 2, "hidden": [17]}, "where the net of this job has 0.weight of shape (17, 4)"),
        ({"inputs": 4, "outputs": 2}, "where the net of this job has"),
    ):
        reply = anna.ask(Submit, {"name": "other", "model": model}, start="toy")
        assert not reply.ok
        assert "it cannot start from toy-" in reply.text
        assert why in reply.text
    assert "no job has the name nobody" in anna.ask(Submit, {"name": "o", "model": {}}, start="nobody").text
    assert 'is no version: say its number, "best"' in anna.ask(Submit, {"name": "o", "model": {}}, start="toy@x").text
    assert len(fleet.aggregator.runs) == 1


def test_a_start_from_weights_of_columns_in_another_order_is_refused(
    fleet: Fleet, spec: SpecMaker, anna: Operator
) -> None:
    names = ("a", "b", "c", "d")
    contract = ContractSpec(features=names, label="y", classes=("ok", "fault"))
    fleet.submit(spec(contract=contract))
    fleet.finish()
    tree = msgspec.to_builtins(spec(contract=contract)) | {"name": "other", "data": "toy"}
    for key, there, why in (
        ("features", names[::-1], "are the same in another order, as the 1. of them 'a' and 'd': say them as that job"),
        ("features", ("a", "b", "c", "e"), "are others, as the 4. of them 'd' and 'e'"),
        ("classes", ("fault", "ok"), "are the same in another order, as the 1. of them 'ok' and 'fault'"),
    ):
        reply = anna.ask(Submit, tree | {"contract": tree["contract"] | {key: there}}, start="toy")
        assert (reply.ok, why in reply.text) == (False, True), reply.text
    assert anna.ask(Submit, tree, start="toy").ok


def pieces(body: bytes, size: int = 300) -> Iterator[tuple[str, int, int, str]]:
    digest = hashlib.sha256(body).hexdigest()[:32]
    for at in range(0, len(body), size):
        yield digest, len(body), at, base64.b64encode(body[at : at + size]).decode()


def test_a_job_starts_from_weights_that_were_sent_in_pieces(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    job = spec()
    net = nets.build(job.model)
    chain = Chain(net.spec, job)
    rng = np.random.default_rng(1)
    model = add(chain.first().model, [Decoded(rng.integers(-(2**40), 2**40, t.shape), -40) for t in net.spec])
    body = chain.exact(Held(1, model))
    tree = msgspec.to_builtins(job)
    start = f"upload:{hashlib.sha256(body).hexdigest()[:32]}"
    assert "are not here" in anna.ask(Submit, tree, start=start).text
    for piece in pieces(body):
        for _ in range(2):  # whoever is not answered says it again
            assert anna.ask(Upload, *piece).text == str(min(piece[2] + 300, len(body)))
    reply = anna.ask(Submit, tree, start=start)
    assert reply.ok, reply.text
    assert shas(fleet, reply.text)[1] == model.sha256()
    assert fleet.finish().version == Version(1, 4)


def test_pieces_that_make_no_sense_are_refused(fleet: Fleet, spec: SpecMaker, anna: Operator) -> None:
    body = bytes(1000)
    first, second, *_ = pieces(body)
    digest, n_bytes, *_ = first
    assert "begin again" in anna.ask(Upload, *second).text
    assert anna.ask(Upload, *first).ok
    assert "300 bytes of the weights are here" in anna.ask(Upload, digest, n_bytes, 600, "AAAA").text
    assert "no base64" in anna.ask(Upload, digest, n_bytes, 300, "!").text
    assert (
        "more bytes than was said" in anna.ask(Upload, digest, n_bytes, 300, base64.b64encode(bytes(701)).decode()).text
    )
    most = fleet.limits.unassembled_bytes
    assert "unassembled_bytes in [limits]" in anna.ask(Upload, digest, most + 1, 0, "AAAA").text
    for piece in pieces(body):
        anna.ask(Upload, *piece)
    tree = msgspec.to_builtins(spec())
    reply = anna.ask(Submit, tree, start=f"upload:{digest}")
    assert (reply.ok, "it cannot start from the weights that were sent" in reply.text) == (False, True)
    lies = "ab" * 16
    anna.ask(Upload, lies, 3, 0, "AAAA")
    assert "not those that were announced" in anna.ask(Submit, tree, start=f"upload:{lies}").text
