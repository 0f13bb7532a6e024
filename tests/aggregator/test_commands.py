"""What operators ask a real aggregator for, over the in-memory broker."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec
import pytest
from msgspec import structs

from aggregator import commands
from aggregator.effects import Attempt, Close
from aggregator.learner import SWALLOWED
from aggregator.store import Store, StoreError
from broker.messages import (
    Curve,
    Explain,
    Int8,
    Jobs,
    Message,
    Offer,
    Presence,
    Reply,
    Resume,
    Show,
    Stop,
    Submit,
    Upload,
    Version,
)
from broker.transport import Packet
from broker.wire import Wire
from edge_agent import workspace
from fleet.console.int8 import InInt8
from fleet.console.operator import JobDetails
from models.contract import NO_CONTRACT, ContractSpec
from models.job import AggregateSpec, JobSpec, RoundsSpec, StopSpec, TrainSpec
from runtime.settings import convert

WIRE = Wire("f")

Fleet = Any
SpecMaker = Callable[..., JobSpec]
V0 = Version(1, 0)
SMALLEST_BROKER = 65_536


@pytest.fixture
def ask(fleet: Fleet) -> Callable[[Message], Reply]:
    transport = fleet.broker.transport("cli")
    transport.subscribe(WIRE.filter_for("reply", client="cli"))
    transport.open()

    def say(command: Message) -> Reply:
        fleet.say(command)
        packets: list[Packet] = []
        for _ in range(50):
            fleet.step()
            packets += [event for event in iter(transport.take, None) if isinstance(event, Packet)]
            if packets:
                break
        assert all(len(packet.payload) < SMALLEST_BROKER for packet in packets)
        replies = [WIRE.unpack(packet) for packet in packets]
        assert isinstance(replies[-1], Reply)
        return replies[-1]

    return say


Ask = Callable[[Message], Reply]


def submit(spec: JobSpec, request: str = "s") -> Submit:
    return Submit("cli", request, msgspec.to_builtins(spec))


def line(ask: Ask, name: str = "toy") -> dict[str, Any]:
    (found,) = [line for line in ask(Jobs("cli", "l")).data["jobs"] if line["name"] == name]
    return dict(found)


# Done once.


def test_a_command_that_comes_again_is_answered_again_and_not_done_again(
    fleet: Fleet, ask: Ask, spec: SpecMaker
) -> None:
    first = ask(submit(spec(data="elsewhere")))
    assert first.ok
    assert ask(submit(spec(data="elsewhere"))) == first
    assert len(fleet.aggregator.runs) == 1
    assert not ask(submit(spec(data="elsewhere"), "another")).ok
    stopped = ask(Stop("cli", "t", "toy"))
    assert ask(Stop("cli", "t", "toy")) == stopped


def test_pieces_of_weights_take_no_turn_of_commands(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MOST_TAKEN", 1)
    obey = fleet.aggregator._commands.obey
    for at in range(3):
        assert obey(Upload("cli", f"u{at}", "0" * 32, 9, 3 * at, "AAAA", to="0" * 16)).ok
    assert obey(Stop("cli", "t", "toy", to="0" * 16)) is not None
    assert obey(Stop("cli", "u", "toy", to="0" * 16)) is None


def test_a_submit_that_comes_again_after_a_restart_is_answered_with_the_job_it_made(
    fleet: Fleet, ask: Ask, spec: SpecMaker
) -> None:
    first = ask(submit(spec()))
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    again = ask(submit(spec()))
    assert (again.ok, again.text) == (True, first.text)
    assert list(fleet.aggregator.runs) == [first.text]


def test_a_submit_that_the_disk_does_not_take_leaves_nothing_behind(
    fleet: Fleet, ask: Ask, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(submit(spec()))
    fleet.finish()
    (before,) = fleet.aggregator.runs
    fleet.store._db.execute("PRAGMA query_only = ON")
    reply = ask(submit(spec(), "full"))
    assert not reply.ok
    fleet.store._db.execute("PRAGMA query_only = OFF")
    assert list(fleet.aggregator.runs) == [before]
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert {job: run.coordinator.ended for job, run in fleet.aggregator.runs.items()} == {before: "finished"}


def test_a_submit_whose_own_code_fails_is_refused_and_the_rest_goes_on(
    fleet: Fleet, ask: Ask, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(submit(spec()))

    def fail(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with monkeypatch.context() as patch:
        patch.setattr("aggregator.evaluation.evaluate", fail)
        reply = ask(submit(structs.replace(spec(), name="bad"), "bad"))
    assert not reply.ok
    assert "its own code fails: RuntimeError: mat1 and mat2 shapes cannot be multiplied" in reply.text
    assert fleet.finish().version.number == 3


def test_a_question_that_the_store_cannot_answer_ends_nothing(
    fleet: Fleet, ask: Ask, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(submit(spec()))
    fleet.finish()

    def broken(*_: object, **__: object) -> None:
        raise StoreError("the state directory cannot be read: disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "attempts_page", broken)
        assert ask(Explain("cli", "e", "toy", 1)).text == "the state directory cannot be read: disk I/O error"
    assert ask(Explain("cli", "f", "toy", 1)).ok


# What a job waits for.


def test_a_job_says_what_it_waits_for_and_what_would_end_the_wait(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    reply = ask(submit(spec(rounds=RoundsSpec(quorum=4, min_devices=4))))
    assert reply.data == {"notes": ["a round needs 4 devices, and 3 are there"]}
    fleet.step(5.0)
    fleet.kill_agent("d1")
    del fleet.agents["d1"]
    fleet.step(180.0)
    fleet.say(Presence("d9", 1, online=True, unready={reply.text: "no such file"}))
    found = line(ask)
    assert (found["state"], found["devices_ready"]) == ("waiting", 2)
    assert found["waits_for"] == (
        "4 devices that can take part are needed, 2 are there (d1 offline for 3 min; d9 unready: no such file)"
    )
    assert found["ends"] == "devices that come, or come back"
    shown = ask(Show("cli", "show", "toy")).data
    assert shown["job"] == line(ask)
    assert {device["device"]: device["state"] for device in shown["devices"]} == {
        "d0": "able",
        "d1": "offline",
        "d2": "able",
        "d9": "unready",
    }


def test_a_data_name_that_nobody_has_is_named(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    ask(submit(spec(data="elsewhere")))
    fleet.step(5.0)
    assert line(ask)["waits_for"] == "no device takes part yet", "who has not spoken may do so yet"
    fleet.step(1.0)
    assert line(ask)["waits_for"] == "none of the 3 devices that are there has [data.elsewhere] in its agent.toml"


def test_labels_that_nobody_has_are_named_at_submit(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    reply = ask(submit(spec(rounds=RoundsSpec(labels={"site": "north"}))))
    assert reply.data["notes"] == ["none of the 3 devices that are there has the labels {'site': 'north'}"]


@pytest.mark.parametrize("metric", ["accuracy", "recall:1", "auc"])
def test_a_stop_rule_on_what_nobody_measures_is_refused_at_submit_with_what_to_do(
    fleet: Fleet, ask: Ask, spec: SpecMaker, metric: str
) -> None:
    rounds = RoundsSpec(quorum=3, min_devices=3, max_rounds=3, stop=StopSpec(metric, target=0.9))
    reply = ask(submit(spec(rounds=rounds)))
    assert not reply.ok
    assert reply.text == (
        f"nobody would measure {metric}, which [rounds.stop] goes by: add [tests.toy] to aggregator.toml and start the "
        "aggregator again, or validation = 0.1 to [contract], or leave [rounds.stop] out"
    )
    assert fleet.store.jobs() == []


@pytest.mark.parametrize(
    ("stop", "contract"),
    [
        (StopSpec("loss", target=0.1), NO_CONTRACT),
        (StopSpec("accuracy", target=0.9), ContractSpec(validation=0.1)),
        (StopSpec("accuracy"), NO_CONTRACT),
    ],
)
def test_a_stop_rule_that_devices_measure_or_that_is_none_is_taken(
    ask: Ask, spec: SpecMaker, stop: StopSpec, contract: ContractSpec
) -> None:
    assert ask(submit(spec(rounds=RoundsSpec(quorum=3, stop=stop), contract=contract))).ok


def test_a_job_that_was_taken_before_its_test_split_went_goes_on_and_says_that_nobody_measures_its_metric(
    fleet: Fleet, ask: Ask, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.jobs.check_measured", lambda *_: None)
    rounds = RoundsSpec(quorum=3, min_devices=3, max_rounds=3, stop=StopSpec("accuracy", target=0.9))
    (note,) = ask(submit(spec(rounds=rounds))).data["notes"]
    assert "nobody measures accuracy: there is no [tests.toy] in aggregator.toml" in note
    assert note in line(ask)["notes"]


def test_a_job_whose_updates_are_refused_from_everybody_says_so(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    refuses = spec(aggregate=AggregateSpec(max_examples=1))
    tree = msgspec.to_builtins(refuses)
    job = ask(Submit("cli", "s", tree)).text
    for _ in range(100):
        fleet.step(5.0)
    assert len(fleet.store.attempts(job, V0)) == 1
    found = line(ask)
    assert found["state"] == "waiting"
    assert "3 devices came to nothing on version 1.0 (d0 refused: it claims more examples than" in found["waits_for"]
    assert "20 where max_examples = 1" in found["waits_for"]
    assert "other settings" in found["ends"]


def test_operators_see_how_often_in_a_row_a_device_was_refused_and_with_which_numbers(
    fleet: Fleet, ask: Ask, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim(job: str, device: str, base: Version, n: int, *rest: Any) -> Offer:
        return Offer(job, device, base, 30 if device == "d0" else n, *rest)

    monkeypatch.setattr(workspace, "Offer", claim)
    rounds = RoundsSpec(quorum=2, min_devices=3, max_rounds=50, deadline_s=30.0)
    job = fleet.submit(spec(rounds=rounds, aggregate=AggregateSpec(max_examples=29)))
    fleet.run(lambda: bool(fleet.aggregator.runs) and fleet.job().version.number >= 7)
    devices = {device["device"]: device for device in ask(Show("cli", "x", "toy")).data["devices"]}
    assert devices["d0"]["refused_in_a_row"] >= 5
    assert "refused_in_a_row" not in devices["d1"]
    (named,) = line(ask)["notes"]
    assert named.startswith("refused 5 times in a row or more: d0 (")
    fates = fleet.store.attempts(job, V0)[0].fates
    assert fates["d0"].endswith("(for the operator: 30 where max_examples = 29)")


def test_operators_see_what_has_come_of_int8_on_a_device(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    job = fleet.submit(spec(rounds=RoundsSpec(quorum=2, min_devices=3, max_rounds=50)))
    fleet.run(lambda: bool(fleet.aggregator.runs) and fleet.job().version.number > 0)
    roster = fleet.aggregator.roster
    said = structs.replace(roster.devices["d1"].presence, int8={job: Int8(V0, 0.004, 2.5, "")})
    roster.devices["d1"].presence = said
    devices = {device["device"]: device for device in ask(Show("cli", "x", "toy")).data["devices"]}
    assert devices["d1"]["int8"] == {"version": "1.0", "lost": 0.004, "speedup": 2.5, "why": ""}
    assert "int8" not in devices["d0"]
    line = convert(ask(Show("cli", "x", "toy")).data, JobDetails, "the answer").devices[1]
    assert line.int8 == InInt8("1.0", 0.004, 2.5)


def test_operators_hear_of_updates_that_are_too_fine_to_move_the_model(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    still = AggregateSpec(server_learning_rate=1e-6)
    fleet.submit(spec(compression="strong", train=TrainSpec(learning_rate=1e-5), aggregate=still))
    fleet.run(lambda: fleet.job().version.number > 0)
    assert SWALLOWED in line(ask)["notes"]


def test_a_job_at_rest_says_why_and_can_be_resumed_or_stopped(
    fleet: Fleet, ask: Ask, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("out of it")

    with monkeypatch.context() as patch:
        patch.setattr("aggregator.evaluation.measured", fail)
        job = ask(submit(spec())).text
        fleet.run(lambda: job in fleet.aggregator.resting)
        found = line(ask)
        assert (found["state"], found["version"]) == ("resting", "1.0")
        assert "MemoryError: out of it" in found["waits_for"]
        assert found["ends"] == "fedge job resume toy, or job stop"
        assert ask(Show("cli", "show", "toy")).data["job"] == line(ask)
        assert not ask(Resume("cli", "r1", "nobody")).ok
        fleet.kill_aggregator()
        fleet.start_aggregator()
        fleet.lead()
    assert ask(Resume("cli", "r2", "toy")).ok or not fleet.aggregator.resting
    assert fleet.finish().version.number == 3


def test_a_job_at_rest_can_be_stopped_for_good_and_makes_way_for_another(
    fleet: Fleet, ask: Ask, spec: SpecMaker
) -> None:
    job = ask(submit(spec(data="elsewhere"))).text
    fleet.aggregator.jobs._rest(job, "toy", "for the sake of it")
    assert "has not ended" in ask(submit(spec(), "too early")).text
    assert ask(Stop("cli", "t", "toy")).text == f"stopped {job}, which was at rest"
    assert (line(ask)["state"], line(ask)["waits_for"]) == ("stopped", "")
    assert ask(Stop("cli", "u", "toy")).text == f"{job} was stopped before"
    assert ask(Resume("cli", "r", "toy")).text == f"{job} was stopped: submit it again, under the same name"
    assert not fleet.aggregator.runs
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert line(ask)["state"] == "stopped"
    assert ask(submit(spec(), "again")).ok
    assert fleet.finish().version.number == 3
    assert fleet.aggregator.store.is_deleted(job)


def test_a_damaged_job_can_be_stopped_and_makes_way(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    job = ask(submit(spec(data="elsewhere"))).text
    fleet.kill_aggregator()
    with closing(sqlite3.connect(fleet.folder / "aggregator" / "aggregator.sqlite")) as db:
        db.execute("UPDATE jobs SET spec = X'00' WHERE job = ?", (job,))
        db.commit()
    for n in range(2):  # it stays stopped
        fleet.start_aggregator()
        fleet.lead()
        assert fleet.aggregator.resting[job].ended == ("stopped" if n else "")
        if not n:
            assert ask(Stop("cli", "t", "toy")).ok
            fleet.kill_aggregator()
    assert ask(submit(spec(), "again")).ok
    assert not fleet.aggregator.resting


# Pages.


def pages(ask: Ask, command: Any) -> list[dict[str, Any]]:
    found, after = [], ""
    for number in range(10_000):
        reply = ask(structs.replace(command, request=f"p{number}", after=after))
        assert reply.ok, reply.text
        found.append(reply.data)
        if not reply.more:
            return found
        assert reply.more != after
        after = reply.more
    raise AssertionError("there is no end")


def closed(store: Store, job: str, number: int, cohort: tuple[str, ...]) -> None:
    attempt = Attempt(V0, number, "0" * 16, 1, None, cohort)
    store.open_attempt(job, attempt)
    fates = dict.fromkeys(cohort, "not counted: nothing had arrived when the round ended")
    store.close_attempt(job, Close(attempt, "abandoned", "too few", fates))


def test_a_round_of_twenty_thousand_devices_comes_in_pages(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    job = ask(submit(spec(data="elsewhere"))).text
    cohort = tuple(f"device-{n:05d}" for n in range(20_000))
    closed(fleet.store, job, 1, cohort)
    closed(fleet.store, job, 2, cohort[:3])
    fates: dict[int, dict[str, str]] = {}
    for page in pages(ask, Explain("cli", "", "toy", 1)):
        for row in page["rounds"]:
            fates.setdefault(row["attempt"], {}).update(row["fates"])
    assert {number: len(told) for number, told in fates.items()} == {1: 20_000, 2: 3}


def test_fifteen_hundred_attempts_come_in_pages(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    job = ask(submit(spec(data="elsewhere"))).text
    for number in range(1, 1501):
        closed(fleet.store, job, number, ("a", "b"))
    told = [row["attempt"] for page in pages(ask, Explain("cli", "", "toy", 1)) for row in page["rounds"]]
    assert told == list(range(1, 1501))


def test_one_device_can_be_asked_for_alone(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    job = ask(submit(spec(data="elsewhere"))).text
    for number in range(1, 51):
        closed(fleet.store, job, number, tuple(f"d{n}" for n in range(100)))
    rows = [row for page in pages(ask, Explain("cli", "", "toy", 1, "d7")) for row in page["rounds"]]
    assert len(rows) == 50
    assert all(list(row["fates"]) == ["d7"] for row in rows)


def test_a_version_that_no_round_has_tried_to_make_is_an_error(ask: Ask, spec: SpecMaker) -> None:
    ask(submit(spec(data="elsewhere")))
    for number in (0, 1, 7):
        reply = ask(Explain("cli", f"e{number}", "toy", number))
        assert reply.text == f"job toy is at version 1.0: no round has tried to make version {number}"
    assert ask(Explain("cli", "x", "nobody", 1)).text == "no job at work has the name nobody"


@pytest.mark.parametrize("after", ["x", "1", "1:", ":", "99999999999999", "1:\x1b", "-1:d0"])
def test_a_page_that_nobody_gave_out_is_no_harm(fleet: Fleet, ask: Ask, spec: SpecMaker, after: str) -> None:
    job = ask(submit(spec(data="elsewhere"))).text
    closed(fleet.store, job, 1, ("a", "b"))
    reply = ask(Explain("cli", "e", "toy", 1, after=after))
    assert isinstance(reply.data, dict)
    ask(Show("cli", "show", "toy", after))
    ask(Jobs("cli", "j", after))


def test_many_jobs_and_many_devices_come_in_pages(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    names = [f"job{n}" for n in range(60)]
    for name in names:
        assert ask(submit(structs.replace(spec(data="elsewhere"), name=name), name)).ok
    for n in range(600):
        why = "its disk is full" * 20
        fleet.say(Presence(f"device-{n:03d}", 1, online=True, unready={next(iter(fleet.aggregator.runs)): why}))
    fleet.step()
    listed = [line["name"] for page in pages(ask, Jobs("cli", "")) for line in page["jobs"]]
    assert sorted(listed) == sorted(names)
    shown = [d["device"] for page in pages(ask, Show("cli", "", "job0")) for d in page["devices"]]
    assert shown == sorted(shown)
    assert len([device for device in shown if device.startswith("device-")]) == 600
    assert commands.PAGE_BYTES < SMALLEST_BROKER


# How a job has gone.


def test_every_version_is_told_of_in_pages_that_any_broker_takes(
    fleet: Fleet, ask: Ask, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(submit(spec(rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=5, wait="all", deadline_s=30.0))))
    fleet.finish()
    at_once = list(pages(ask, Curve("cli", "", "toy")))
    assert [line["version"] for page in at_once for line in page["versions"]] == [f"1.{n}" for n in range(6)]
    assert all(line["metrics"]["participants"] == 3 for page in at_once for line in page["versions"][1:])
    monkeypatch.setattr("aggregator.commands.PAGE_BYTES", 500)
    by_page = list(pages(ask, Curve("cli", "", "toy")))
    assert len(by_page) > 2
    assert [line for page in by_page for line in page["versions"]] == at_once[0]["versions"]


def test_what_each_device_brought_is_told_of_in_pages_too(
    fleet: Fleet, ask: Ask, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(submit(spec()))
    fleet.finish()
    at_once = [line for page in pages(ask, Curve("cli", "", "toy", devices=True)) for line in page["devices"]]
    assert [(line["version"], line["device"]) for line in at_once] == [(n, f"d{d}") for n in range(3) for d in range(3)]
    assert all(line["counted"] and line["fate"] == "counted" and line["n_examples"] == 20 for line in at_once)
    monkeypatch.setattr("aggregator.commands.PAGE_BYTES", 500)
    by_page = list(pages(ask, Curve("cli", "", "toy", devices=True)))
    assert len(by_page) > 2
    assert [line for page in by_page for line in page["devices"]] == at_once


def test_who_was_refused_stands_there_with_the_reason(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    ask(submit(spec(aggregate=AggregateSpec(max_examples=10), rounds=RoundsSpec(quorum=3, min_devices=3))))
    fleet.run(lambda: bool(fleet.aggregator.runs) and len(fleet.store.verdicts(fleet.job().job)) == 3)
    lines = [line for page in pages(ask, Curve("cli", "", "toy", devices=True)) for line in page["devices"]]
    assert [line["device"] for line in lines] == ["d0", "d1", "d2"]
    assert all(not line["counted"] and line["weight"] == 0 for line in lines)
    assert all("claims more examples" in line["fate"] for line in lines)


@pytest.mark.parametrize("after", ["", "x", "-1", "9" * 50, "1:", ":d1", "1:\x00", "٣:d1"])
def test_whoever_asks_on_with_nonsense_is_answered(after: str, fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    ask(submit(spec()))
    fleet.finish()
    for devices in (False, True):
        assert ask(Curve("cli", f"c{devices}", "toy", devices=devices, after=after)).ok
    assert ask(Curve("cli", "n", "nobody")).text == "no job at work has the name nobody"
