"""What operators ask of devices, of a real aggregator over the in-memory broker: list, past, events, quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import structs

from aggregator import comings, quarantine
from aggregator.backup import backup, restore
from aggregator.reader import Reader
from broker.messages import (
    Devices,
    Events,
    Explain,
    Failure,
    History,
    Message,
    Pause,
    Presence,
    Quarantine,
    Release,
    Reply,
    Resume,
    Show,
)
from broker.transport import Packet
from broker.wire import Wire
from models.job import JobSpec, RoundsSpec

WIRE = Wire("f")
Fleet = Any
SpecMaker = Callable[..., JobSpec]
Ask = Callable[[Message], Reply]


@pytest.fixture
def ask(fleet: Fleet) -> Ask:
    transport = fleet.broker.transport("cli")
    transport.subscribe(WIRE.filter_for("reply", client="cli"))
    transport.open()

    def say(command: Message) -> Reply:
        fleet.say(command)
        for _ in range(50):
            fleet.step()
            packets = [event for event in iter(transport.take, None) if isinstance(event, Packet)]
            if packets:
                assert all(len(packet.payload) < 65_536 for packet in packets)
                reply = WIRE.unpack(packets[-1])
                assert isinstance(reply, Reply)
                return reply
        raise AssertionError("nobody answers")

    return say


def lines(ask: Ask, command: Any, of: str) -> Iterator[dict[str, Any]]:
    for n in range(1000):
        reply = ask(structs.replace(command, request=f"{id(command)}-{n}-{command.after}"))
        assert reply.ok, reply.text
        yield from reply.data[of]
        if not reply.more:
            return
        command = structs.replace(command, after=reply.more)


def kinds(fleet: Fleet, **limits: Any) -> list[str]:
    return [event.kind for event in reversed(fleet.store.happened(**limits))]


def any_two(**changes: Any) -> RoundsSpec:
    """Rounds that end once nobody is left to wait for."""
    fields: dict[str, Any] = {"quorum": 2, "min_devices": 2, "max_rounds": 20, "wait": "target", "deadline_s": 30.0}
    return RoundsSpec(**(fields | changes))


def go_on(fleet: Fleet, until: Callable[[], bool], *, without: str = "") -> None:
    """Give everybody one turn after the other until something is so: a fleet that is given more has soon finished."""
    for _ in range(3000):
        if until():
            return
        busy = fleet.aggregator.step(0.0)
        for name, agent in fleet.agents.items():
            busy = (name != without and agent.step(0.0)) or busy
        fleet.now += 0.0 if busy else 0.1
    raise AssertionError(f"nothing came of it: {fleet.aggregator.doing}")


def at(fleet: Fleet, number: int) -> Callable[[], bool]:
    return lambda: fleet.job().version.number >= number


def begin(fleet: Fleet) -> None:
    """Go on until a round has drawn all three."""
    go_on(fleet, lambda: (attempt := fleet.job().coordinator.attempt) is not None and len(attempt.cohort) == 3)


def say(fleet: Fleet, command: Message) -> None:
    """Ask for something in the middle of a round, and have it done in the aggregator's next turn."""
    fleet.say(command)
    fleet.aggregator.step(0.0)


# Which there are, and what became of them.


def test_every_device_is_listed_with_how_it_is_known(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    fleet.submit(spec())
    go_on(fleet, at(fleet, 1))
    fleet.kill_agent("d1")
    del fleet.agents["d1"]
    for _ in range(100):
        fleet.step()
    found = {line["device"]: line for line in lines(ask, Devices("cli", ""), "devices")}
    assert sorted(found) == ["d0", "d1", "d2"]
    assert [found[name]["state"] for name in sorted(found)] == ["online", "offline", "online"]
    assert found["d0"]["jobs"] == {"toy": {"examples": 20}}
    assert found["d0"]["software"] == fleet.aggregator.roster.devices["d0"].presence.software
    assert found["d1"]["since_s"] > 5.0
    assert found["d0"]["heard_s"] >= 0.0
    assert "quarantine" not in found["d0"]


def test_a_device_that_says_a_lot_still_fits_a_page(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    for n in range(40):
        labels = {f"{k:02}" + "x" * 70: "y" * 80 for k in range(64)}
        fleet.say(Presence(f"hostile{n:02}", 1, online=True, unready={job: "\x1b" * 500}, labels=labels, nonce="1"))
    found = list(lines(ask, Devices("cli", ""), "devices"))
    assert [line["device"] for line in found] == ["d0", "d1", "d2", *(f"hostile{n:02}" for n in range(40))]


def test_the_past_of_a_device_names_each_round(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    fleet.finish()
    found = list(lines(ask, History("cli", "", "d0"), "rounds"))
    assert [(line["number"], line["attempt"], line["fate"]) for line in found] == [(n, 1, "counted") for n in (3, 2, 1)]
    assert all(line["job"] == job and line["name"] == "toy" and "loss" in line for line in found)
    assert list(lines(ask, History("cli", "", "nobody"), "rounds")) == []
    assert len(list(lines(ask, History("cli", "", "d0", after="2"), "rounds"))) == 1


# What has happened.


def test_the_life_of_a_job_is_told(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    fleet.finish()
    assert kinds(fleet, kind="job") == ["job.submitted", "job.finished"]
    assert kinds(fleet, kind="version") == ["version.made"] * 3
    assert kinds(fleet, kind="aggregator") == ["aggregator.started", "aggregator.leads"]
    found = list(lines(ask, Events("cli", "", job="toy"), "events"))
    assert [line["kind"] for line in found] == ["job.finished", *["version.made"] * 3, "job.submitted"]
    assert all(line["job"] == job for line in found)
    assert "loss=" in found[1]["text"]
    after = list(lines(ask, Events("cli", "", since=found[-1]["n"], job="toy"), "events"))
    assert after == list(reversed(found[:-1]))


def test_a_device_that_goes_and_comes_back_is_told_of_once_each(fleet: Fleet, spec: SpecMaker) -> None:
    before = kinds(fleet, kind="device")
    presence = Presence("pi", 1, online=True, nonce="1", incarnation="a")
    fleet.say(presence)
    fleet.step()
    fleet.say(structs.replace(presence, online=False))
    fleet.step(comings.AWAY_S / 2)
    fleet.say(presence)  # as after a question, or over a new connection
    fleet.step(comings.AWAY_S)
    fleet.step()
    assert kinds(fleet, device="pi") == ["device.new"]
    fleet.say(structs.replace(presence, online=False))
    for _ in range(100):
        fleet.step()
    assert kinds(fleet, device="pi") == ["device.new", "device.gone"]
    fleet.say(presence)
    fleet.step()
    assert kinds(fleet, device="pi") == ["device.new", "device.gone", "device.back"]
    assert len(kinds(fleet, kind="device")) == len(before) + 3


def test_retained_words_are_no_events(fleet: Fleet) -> None:
    before = kinds(fleet, kind="device")
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.lead()
    assert len(fleet.aggregator.roster.devices) == 3
    assert kinds(fleet, kind="device") == before


def test_why_a_device_is_out_and_that_it_failed_and_that_it_is_two_is_told(fleet: Fleet, spec: SpecMaker) -> None:
    job = fleet.submit(spec())
    version = fleet.job().version
    one = Presence("pi", 1, online=True, nonce="1", incarnation="a", unready={job: "it has no such data"})
    fleet.say(one)
    fleet.step()
    fleet.say(structs.replace(one, unready={}, ready={job: 5}, failed={job: Failure(version, "nan")}))
    fleet.step()
    for nonce in ("2", "1", "2", "1"):
        fleet.say(structs.replace(one, nonce=nonce))
        fleet.step()
    found = {event.kind: event for event in fleet.store.happened(device="pi")}
    assert sorted(found) == ["device.clone", "device.failed", "device.new", "device.out"]
    assert found["device.out"].text == "pi: it cannot take part in toy: it has no such data"
    assert "version 1.0 of toy failed: nan" in found["device.failed"].text
    assert len(fleet.store.happened(kind="device.clone")) == 1


def test_garbage_is_told_by_the_minute(fleet: Fleet) -> None:
    for _ in range(50):
        fleet.say(Packet("fedge/1/f/device/d0", b"\xff"))
    fleet.step()
    assert kinds(fleet, kind="words") == []
    for _ in range(70):
        fleet.step(1.0)
    (event,) = fleet.store.happened(kind="words")
    assert event.text.startswith("50 messages were refused within a minute: garbage")


def test_what_happened_is_written_within_seconds_though_nothing_else_is(fleet: Fleet) -> None:
    fleet.say(Presence("pi", 1, online=True, nonce="1"))
    for _ in range(40):
        fleet.step()
    reader = Reader(fleet.store.folder)
    assert [event.kind for event in reader.events(device="pi")] == ["device.new"]
    reader.close()


# Quarantine.


def test_who_is_in_quarantine_is_not_drawn_and_not_waited_for(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    fleet.submit(spec(rounds=any_two()))
    go_on(fleet, at(fleet, 1))
    say(fleet, Quarantine("cli", "q", "d1", "its clock"))
    assert fleet.store.quarantined() == {"d1": "its clock"}
    number = fleet.job().version.number
    go_on(fleet, at(fleet, number + 3))
    say(fleet, Pause("cli", "p", "toy"))
    fates = [
        line["fates"].get("d1", "")
        for n in (number + 2, number + 3)
        for line in lines(ask, Explain("cli", "", "toy", n), "rounds")
    ]
    assert set(fates) == {""}  # not drawn
    told = [line["fates"] for line in lines(ask, Explain("cli", "", "toy", number + 1), "rounds")]
    assert told[0].get("d1") in (
        None,
        "counted",
        "refused: in quarantine: its clock",
        "not counted: in quarantine: its clock",
    )
    (line,) = [line for line in lines(ask, Show("cli", "", "toy"), "devices") if line["device"] == "d1"]
    assert (line["state"], line["why"]) == ("quarantined", "its clock")
    (line,) = [line for line in lines(ask, Devices("cli", ""), "devices") if line["device"] == "d1"]
    assert (line["state"], line["quarantine"]) == ("quarantined", "its clock")
    assert ask(Release("cli", "r", "d1")).ok
    assert fleet.store.quarantined() == {}
    ask(Resume("cli", "s", "toy"))
    fleet.finish()
    last = fleet.job().version.number
    assert [one.device for one in fleet.store.contributions(fleet.job().job, last - 1)] == ["d0", "d1", "d2"]
    assert kinds(fleet, device="d1") == ["device.quarantined", "device.released"]


def test_what_it_offers_is_refused_with_the_reason(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    heard = fleet.broker.transport("ear")
    heard.subscribe(WIRE.filter_for("verdict"))
    heard.open()
    assert ask(Quarantine("cli", "q", "d1", "its clock")).text == "d1 is in quarantine: its clock"
    fleet.submit(spec(rounds=any_two()))
    fleet.finish()
    verdicts = [WIRE.unpack(event) for event in iter(heard.take, None) if isinstance(event, Packet)]
    of_d1 = [verdict.refused for verdict in verdicts if verdict.device == "d1"]  # type: ignore[union-attr]
    assert of_d1
    assert set(of_d1) == {"in quarantine: its clock"}
    (durable,) = [verdict for verdict in fleet.store.verdicts(fleet.job().job) if verdict.device == "d1"]
    assert durable.refused == "in quarantine: its clock"
    assert kinds(fleet, kind="device.refused") == []


def test_a_job_that_needs_who_was_refused_for_a_quarantine_says_so_and_what_to_do(
    fleet: Fleet, ask: Ask, spec: SpecMaker
) -> None:
    fleet.submit(spec(rounds=any_two(quorum=3, min_devices=3)))
    begin(fleet)
    say(fleet, Quarantine("cli", "q", "d1", "its clock"))
    go_on(fleet, lambda: any(one.device == "d1" for one in fleet.store.verdicts(fleet.job().job)))
    say(fleet, Release("cli", "r", "d1"))
    go_on(fleet, lambda: fleet.job().coordinator.attempt is None)
    job = ask(Show("cli", "", "toy")).data["job"]
    assert "d1 refused: in quarantine: its clock" in job["waits_for"]
    assert "again --from itself" in job["ends"]


def test_what_was_counted_before_stays_counted(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    fleet.submit(spec())
    begin(fleet)
    go_on(fleet, lambda: fleet.job().coordinator.counted == ["d0", "d1"], without="d2")
    say(fleet, Quarantine("cli", "q", "d0"))
    assert fleet.store.quarantined().keys() == {"d0"}
    assert fleet.job().coordinator.counted == ["d0", "d1"]
    go_on(fleet, at(fleet, 1))
    (row,) = fleet.store.attempts_page(fleet.job().job, 0, most=1)
    assert row.fates["d0"] == "counted"


@pytest.mark.parametrize("quorum", [2, 1])
def test_a_job_that_waits_for_all_does_not_wait_for_who_is_in_quarantine(
    fleet: Fleet, ask: Ask, spec: SpecMaker, quorum: int
) -> None:
    rounds = RoundsSpec(quorum=quorum, min_devices=2, max_rounds=5, wait="all", deadline_s=30.0, absent="end")
    fleet.submit(spec(rounds=rounds))
    begin(fleet)
    go_on(fleet, lambda: fleet.job().coordinator.counted == ["d0", "d2"], without="d1")
    assert fleet.job().coordinator.awaited == {"d1"}
    say(fleet, Quarantine("cli", "q", "d1", "its clock"))
    assert "d1" not in fleet.job().coordinator.awaited
    run = fleet.finish()
    assert (run.coordinator.ended, run.version.number) == ("finished", 5)
    assert run.reason != "d1: absent throughout 3 attempts to leave a version"


def test_it_outlives_a_restart_a_backup_and_a_restore(fleet: Fleet, ask: Ask, spec: SpecMaker) -> None:
    fleet.submit(spec(rounds=RoundsSpec(quorum=2, min_devices=2, max_rounds=50, wait="all", deadline_s=30.0)))
    go_on(fleet, lambda: fleet.job().coordinator.attempt is not None)
    say(fleet, Pause("cli", "p", "toy"))
    ask(Quarantine("cli", "q", "d1", "its clock"))
    ask(Quarantine("cli", "q2", "never-heard-of", "who knows"))
    assert "nothing has been heard" in ask(Quarantine("cli", "q3", "never-heard-of", "who else")).text
    backup(fleet.store.folder, fleet.folder / "backup", lambda _done, _all: None)
    for restored in (False, True):
        fleet.kill_aggregator()
        if restored:
            with (fleet.folder / "backup").open("rb") as source:
                restore(source, "backup", fleet.folder / "aggregator", lambda _done, _all: None)
        fleet.start_aggregator()
        go_on(fleet, lambda: fleet.aggregator.leads and bool(fleet.aggregator.runs))
        say(fleet, Resume("cli", f"s{restored}", "toy"))
        assert fleet.aggregator.roster.quarantined == {"d1": "its clock", "never-heard-of": "who else"}
        members = fleet.job().coordinator.members
        assert (members.barred("d1"), members.barred("never-heard-of")) == ("its clock", "who else")
        number = fleet.job().version.number
        go_on(fleet, at(fleet, number + 3))
        assert "d1" not in {one.device for one in fleet.store.contributions(fleet.job().job, number + 2)}


def test_the_same_again_is_answered_again_and_a_release_of_nobody_is_refused(fleet: Fleet, ask: Ask) -> None:
    first, again = ask(Quarantine("cli", "q", "d1", "why")), ask(Quarantine("cli", "q2", "d1", "why"))
    assert first.text == again.text
    assert kinds(fleet, kind="device.quarantined") == ["device.quarantined"]
    assert ask(Quarantine("cli", "q3", "d2")).text.endswith(quarantine.UNSAID)
    refused = ask(Release("cli", "r", "d0"))
    assert (refused.ok, refused.text) == (False, "d0 is not in quarantine")


def test_why_is_kept_as_it_may_be_shown(fleet: Fleet, ask: Ask) -> None:
    assert ask(Quarantine("cli", "q", "d1", "\x1b[31mits\nclock\u202e")).ok
    assert fleet.store.quarantined() == {"d1": "\ufffdits clock\ufffd"}
    assert ask(Quarantine("cli", "q2", "d2", "")).ok
    assert fleet.store.quarantined()["d2"] == quarantine.UNSAID


def test_there_is_an_end_to_it(fleet: Fleet, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MOST", 1)
    assert ask(Quarantine("cli", "q", "d1")).ok
    refused = ask(Quarantine("cli", "q2", "d2"))
    assert not refused.ok
    assert "release some" in refused.text
    assert fleet.store.quarantined().keys() == {"d1"}
