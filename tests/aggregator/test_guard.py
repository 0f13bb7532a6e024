"""The guard in a whole aggregator, over the broker in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from msgspec import structs

from aggregator.commands import Commands
from aggregator.config import ServerLimits
from aggregator.guard import NOTE, OURS_S, READ_EVERY_S, REVOKE, SWEEP_S
from aggregator.quotas import HELD_S, MINUTE_S
from aggregator.service import LEADS_WITH, LISTENS_TO, SAID_ONCE
from aggregator.strays import CLEARS_S, READ_AGAIN_S
from broker.memory import MemoryTransport
from broker.messages import Jobs, Reply
from broker.topic_tree import retained_at
from broker.transport import Packet
from broker.wire import Wire
from models.job import JobSpec

Fleet = Any  # tests/aggregator/conftest.py
SpecMaker = Callable[..., JobSpec]
WIRE = Wire("f")
LIMITS = ServerLimits(
    chunk_bytes=1024, heartbeat_s=5.0, spread_s=0.5, offers_a_minute=20, words_a_minute=20, flood_a_minute=100
)


class Recorder:
    """A cutter that only notes who was to be cut."""

    def __init__(self) -> None:
        self.cuts: list[Sequence[str]] = []
        self.kept_s: list[float] = []
        self.why: list[str] = []

    def cut(self, client_ids: Sequence[str], for_s: float = 0.0) -> None:
        self.cuts.append(client_ids)
        self.kept_s.append(for_s)

    def release(self) -> None:
        self.kept_s.clear()

    def failures(self) -> list[str]:
        why, self.why = self.why, []
        return why


@pytest.fixture
def cutter() -> Recorder:
    return Recorder()


@pytest.fixture
def strict(fleet: Fleet, cutter: Recorder) -> Iterator[Fleet]:
    """A fleet whose aggregator has low limits, and has led for a minute."""
    restart(fleet, cutter)
    return fleet


def restart(fleet: Fleet, cutter: Recorder | None) -> None:
    fleet.kill_aggregator()
    fleet.limits = LIMITS
    fleet.start_aggregator(cutter=cutter)
    fleet.lead()
    for _ in range(80):
        fleet.step(1.0)


def stranger(fleet: Fleet) -> MemoryTransport:
    transport: MemoryTransport = fleet.broker.transport("stranger")
    transport.open()
    return transport


def flood(fleet: Fleet, n: int, word: str = "offer", *, retain: bool = False, first: int = 0) -> None:
    transport = stranger(fleet)
    for number in range(first, first + n):
        topic = {
            "offer": f"fedge/1/f/offer/j-00000000/evil/{number}",
            "chunk": f"fedge/1/f/chunk/j-00000000/evil/{number:016x}/0",
            "device": "fedge/1/f/device/evil",
            "vitals": "fedge/1/f/vitals/evil",
        }[word]
        transport.publish(Packet(topic, b"junk", retain=retain))
    transport.close()


def retained(fleet: Fleet) -> list[str]:
    found = []
    for word in ("offer", "chunk"):
        levels = retained_at(fleet.broker._root, f"fedge/1/f/{word}/#")
        found += [level.retained.topic for level in levels if level.retained is not None]
    return found


@pytest.mark.parametrize("word", ["offer", "chunk", "device"])
def test_who_floods_is_dropped_unread_and_thrown_off(strict: Fleet, cutter: Recorder, word: str) -> None:
    flood(strict, 400, word)
    strict.step()
    assert cutter.cuts == [("evil", "f-evil")] * len(cutter.cuts)
    assert len(cutter.cuts) == 1, "what is still on its way does not count again"
    garbage = strict.aggregator.tally.counts.get("garbage", 0)
    assert garbage <= 2 * LIMITS.offers_a_minute, "what is over the limit is not even unpacked"


def test_a_flood_of_vitals_is_not_heard_and_stops_no_round(
    strict: Fleet, spec: SpecMaker, final_sha256: str, cutter: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    take = MemoryTransport.take

    def taken(link: MemoryTransport, timeout_s: float | None = 0.0) -> object:
        event = take(link, timeout_s)
        if link is strict.link:
            heard.append(getattr(event, "topic", ""))
        return event

    monkeypatch.setattr(MemoryTransport, "take", taken)
    strict.submit(spec())
    while not strict.job().coordinator.ended:
        flood(strict, 150, "vitals", retain=True)
        strict.step()
    assert strict.job().sha256 == final_sha256
    assert {topic.split("/")[3] for topic in heard if topic} >= {"offer", "device"}
    assert not [topic for topic in heard if "vitals" in topic]
    assert cutter.cuts == []
    lying = [level.retained for level in retained_at(strict.broker._root, "fedge/1/f/vitals/evil/#")]
    assert lying == [Packet("fedge/1/f/vitals/evil", b"junk", retain=True)], "one a device, and it stays"


def test_who_is_thrown_off_is_kept_out_as_long_as_it_is_held_off_and_let_in_at_our_end(
    strict: Fleet, cutter: Recorder
) -> None:
    flood(strict, 400)
    strict.step()
    assert cutter.kept_s == [HELD_S]
    strict.aggregator.stop()
    assert cutter.kept_s == []


def test_nobody_is_thrown_off_before_our_own_connection_is_the_new_one(
    strict: Fleet, cutter: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A takeover that ends our connection while it ends by itself would be held for one that leaves us alone."""
    guard, seen = strict.aggregator.guard, []
    monkeypatch.setattr(cutter, "cut", lambda _ids, _for_s: seen.append(guard._reconnects))
    flood(strict, 400)
    strict.step()
    assert seen == [False]


def test_a_flood_does_not_change_what_the_fleet_comes_to(
    strict: Fleet, spec: SpecMaker, final_sha256: str, cutter: Recorder
) -> None:
    strict.submit(spec())
    number = 0
    while not strict.job().coordinator.ended:
        flood(strict, 150, ["offer", "chunk", "device"][number % 3], retain=number % 2 == 0, first=150 * number)
        number += 1
        strict.step()
        assert number < 1000
    assert strict.job().sha256 == final_sha256
    assert cutter.cuts
    assert all(ids == ("evil", "f-evil") for ids in cutter.cuts), "nobody else was"


def test_the_operator_sees_who_floods_and_hears_of_it_once_a_minute(
    strict: Fleet, spec: SpecMaker, caplog: pytest.LogCaptureFixture
) -> None:
    strict.submit(spec(data="elsewhere"))
    flood(strict, 400)
    strict.step()
    reply = Commands(strict.aggregator).obey(Jobs("cli", "1"))
    assert isinstance(reply, Reply)
    (note,) = reply.data["jobs"][0]["notes"]  # type: ignore[index]
    assert note.startswith("device evil says too much: ")
    assert "thrown off" in note
    caplog.clear()
    for _ in range(int(3 * MINUTE_S)):
        strict.step(1.0)
    assert caplog.text.count("device evil says too much") == 1
    assert Commands(strict.aggregator).obey(Jobs("cli", "2")).data["jobs"][0]["notes"] == []  # type: ignore[union-attr,index]


def test_who_floods_again_and_again_is_to_be_revoked(strict: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    for turn in range(REVOKE):
        flood(strict, 150)
        for _ in range(120 * 2**turn):
            strict.step(1.0)
    assert "evil: thrown off for the 5. time" in caplog.text
    assert "revoke it" in caplog.text


# Who floods on.


def flood_on(fleet: Fleet, word: str = "offer") -> None:
    """Flood, be thrown off, come back and flood on."""
    for _ in range(2):
        flood(fleet, 400, word)
        fleet.step(2.0)


@pytest.mark.parametrize("word", ["offer", "chunk", "device"])
def test_who_floods_on_is_not_even_passed_on_until_nobody_is_held_off(strict: Fleet, word: str) -> None:
    flood_on(strict, word)
    assert strict.aggregator.guard.is_cordoned(word)
    received = strict.link.counters.received_packets
    flood(strict, 400, word)
    strict.step()
    assert strict.link.counters.received_packets - received < 50
    for _ in range(70):
        strict.step(1.0)
    assert not strict.aggregator.guard.is_cordoned(word)
    assert sorted(strict.link._filters) == sorted(
        WIRE.filter_for(each) for each in (*LISTENS_TO, *LEADS_WITH, *SAID_ONCE)
    )


def test_the_others_go_on_while_one_floods_and_so_do_those_that_come_later(
    strict: Fleet, spec: SpecMaker, undisturbed: Callable[[JobSpec], str]
) -> None:
    strict.agents["d2"].stop()
    for _ in range(20):
        strict.step()
    flood_on(strict)
    strict.kill_agent("d2")
    strict.agents["d2"] = strict.start_agent("d2")
    strict.agents["d3"] = strict.start_agent("d3")
    guard, began = strict.aggregator.guard, strict.now
    strict.run(lambda: "d3" in guard._inside, 10.0)
    strict.submit(spec(rounds=structs.replace(spec().rounds, min_devices=4, quorum=4, max_rounds=2)))
    strict.run(lambda: strict.job().version.number >= 1)
    assert strict.now < began + 50.0
    assert guard.is_cordoned("offer")


def test_who_is_new_is_heard_of_while_one_floods_with_presences_for_hours(strict: Fleet) -> None:
    for _ in range(REVOKE):  # each time it is held off for twice as long
        flood_on(strict, "device")
        strict.run(lambda: not strict.aggregator.guard.is_cordoned("device"), 2000.0)
    flood_on(strict, "device")
    guard, began = strict.aggregator.guard, strict.now
    strict.agents["d7"] = strict.start_agent("d7")
    flood(strict, 50, "device", retain=True)
    while "d7" not in strict.aggregator.roster.devices:
        flood(strict, 50, "device")
        strict.step(0.5)
        assert strict.now < began + READ_EVERY_S + 5.0
    assert "d7" in guard._inside
    for _ in range(int(2 * READ_EVERY_S)):
        flood(strict, 50, "device")
        strict.step(1.0)
    held = guard.quotas.held("evil", strict.now)
    assert held is not None
    assert held.at <= began, "what is heard of it by our own doing does not count"
    received = strict.link.counters.received_packets
    flood(strict, 400, "device")
    strict.step()
    assert strict.link.counters.received_packets - received < 50
    strict.run(lambda: not guard.is_cordoned("device"), 7200.0)
    assert sorted(strict.link._filters) == sorted(
        WIRE.filter_for(each) for each in (*LISTENS_TO, *LEADS_WITH, *SAID_ONCE)
    )


def test_what_was_retained_before_the_cordon_is_cleared_after_it(strict: Fleet) -> None:
    flood(strict, 400, retain=True)
    strict.step(2.0)
    flood(strict, 400, retain=True, first=400)
    strict.step(0.1)
    began = strict.now
    while retained(strict):
        strict.step(0.5)
        assert strict.now < began + 300.0


def test_a_cordon_that_is_left_because_another_leads_leaves_no_filters(strict: Fleet) -> None:
    flood_on(strict)
    strict.aggregator.guard.stand_down()
    assert not any("/d1" in name for name in strict.link._filters)
    assert not strict.aggregator.guard.is_cordoned("offer")


# What is retained.


@pytest.mark.parametrize("word", ["offer", "chunk"])
def test_what_is_retained_while_we_listen_is_cleared_at_once(strict: Fleet, word: str) -> None:
    flood(strict, 5, word, retain=True)
    assert len(retained(strict)) == 5
    for _ in range(3):
        strict.step()
    assert retained(strict) == []
    assert strict.aggregator.guard.strays.cleared == 5
    assert strict.aggregator.tally.counts["retained"] == 5


def test_20_000_retained_topics_at_the_start_are_cleared_and_a_round_goes_on(
    fleet: Fleet, spec: SpecMaker, final_sha256: str, cutter: Recorder
) -> None:
    fleet.kill_aggregator()
    flood(fleet, 10_000, "offer", retain=True)
    flood(fleet, 10_000, "chunk", retain=True)
    fleet.start_aggregator(cutter=cutter)
    fleet.lead()
    fleet.submit(spec())
    assert fleet.finish().sha256 == final_sha256
    assert len(retained(fleet)) > 0, "the round did not wait for it"
    before, began = fleet.aggregator.guard.strays.cleared, fleet.now
    while retained(fleet):
        fleet.step(0.1)
        assert fleet.now < began + 60.0
    assert fleet.aggregator.guard.strays.cleared >= 20_000
    assert 20_000 - before <= CLEARS_S * (fleet.now - began + 1.0)


@pytest.mark.parametrize("word", ["offer", "chunk"])
def test_who_retains_is_thrown_off_long_before_he_has_said_too_much(
    fleet: Fleet, cutter: Recorder, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "LIMITS", structs.replace(LIMITS, flood_a_minute=10_000))
    restart(fleet, cutter)
    flood(fleet, 110, word, retain=True)
    fleet.step()
    assert cutter.cuts == [("evil", "f-evil")]


def test_what_the_broker_has_dropped_on_its_way_is_found_by_reading_again(strict: Fleet) -> None:
    strict.broker.max_queued = 10
    flood(strict, 50, retain=True)
    began = strict.now
    while retained(strict):
        strict.step(0.5)
        assert strict.now < began + 20 * READ_AGAIN_S
    for _ in range(int(2 * READ_AGAIN_S + 2 * SWEEP_S)):
        strict.step(1.0)
    assert not math.isfinite(strict.aggregator.guard._sweep_ends), "and then nothing is read any more"
    assert not any(name.endswith("#") for name in strict.link._filters)


def test_the_packets_that_clear_are_no_words_of_a_device(strict: Fleet, cutter: Recorder) -> None:
    for turn in range(10):
        flood(strict, 15, retain=True, first=15 * turn)
        for _ in range(int(MINUTE_S)):
            strict.step(1.0)
    assert strict.aggregator.guard.quotas.dropped == 150, "those that it retained, and no more"
    assert cutter.cuts == []


def test_who_stands_by_clears_nothing(strict: Fleet) -> None:
    strict.aggregator.guard.stand_down()
    strict.aggregator.leadership.state = "standby"
    flood(strict, 5, retain=True)
    for _ in range(3):
        strict.step()
    assert len(retained(strict)) == 5


# Where nobody can be thrown off.


def test_without_a_way_to_throw_off_that_is_said_once(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    restart(fleet, None)
    flood(fleet, 1000)
    fleet.step()
    assert caplog.text.count("cannot be thrown off") == 1


def test_where_our_own_connection_ends_by_it_nobody_is_thrown_off_any_more(
    strict: Fleet, cutter: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    guard = strict.aggregator.guard
    for turn in range(3):
        flood(strict, 400)
        strict.step()
        assert len(cutter.cuts) == 1
        if not turn:
            guard.lost(strict.now)
        for _ in range(2 * int(MINUTE_S)):
            strict.step(1.0)
    assert caplog.text.count("cannot be thrown off") == 1
    assert "has ended this aggregator's own connection" in caplog.text


def test_a_connection_that_is_lost_long_after_a_takeover_has_nothing_to_do_with_it(
    strict: Fleet, cutter: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        flood(strict, 400)
        for _ in range(2 * int(MINUTE_S)):
            strict.step(1.0)
        strict.aggregator.guard.lost(strict.now)
    assert "cannot be thrown off" not in caplog.text
    assert strict.store.note(NOTE) == ""


def test_where_it_has_ended_the_process_the_next_one_does_not_try(
    strict: Fleet, cutter: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    flood(strict, 400)
    strict.step()
    assert strict.store.note(NOTE) == "tried"
    cutter.cuts.clear()
    restart(strict, cutter)
    flood(strict, 400)
    strict.step()
    assert cutter.cuts == []
    assert caplog.text.count("cannot be thrown off") == 1
    assert strict.store.note(NOTE) == "", "the one after it tries again"


def test_a_takeover_that_leaves_us_alone_is_proved_and_needs_no_note_any_more(strict: Fleet) -> None:
    flood(strict, 400)
    strict.step()
    strict.step(OURS_S + 0.1)
    strict.step()
    assert strict.store.note(NOTE) == ""
    assert strict.aggregator.guard.deadline > strict.now


def test_a_takeover_that_fails_is_told(strict: Fleet, cutter: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    cutter.why = ["nobody listens"]
    strict.step()
    strict.step()
    assert caplog.text.count("could not be thrown off: nobody listens") == 1


def test_an_honest_fleet_is_never_limited(strict: Fleet, spec: SpecMaker, cutter: Recorder) -> None:
    strict.submit(spec(rounds=structs.replace(spec().rounds, max_rounds=60)))
    strict.finish()
    assert strict.aggregator.guard.quotas.dropped == 0
    assert cutter.cuts == []


def test_a_presence_that_the_broker_has_kept_is_no_word(strict: Fleet, cutter: Recorder) -> None:
    guard = strict.aggregator.guard
    packet = Packet("fedge/1/f/device/d1", b"{}", retain=True)
    assert all(guard.admits(packet, strict.now) for _ in range(1000))
    assert cutter.cuts == []
