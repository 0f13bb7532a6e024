from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from msgspec import structs

from aggregator import coordinator, waits
from aggregator.absences import ABSENT
from aggregator.coordinator import TABLE, Coordinator, State
from aggregator.effects import (
    Announce,
    AskDevices,
    Attempt,
    BrokerLost,
    Close,
    Collect,
    Commit,
    CommitFailed,
    Committed,
    CoordinatorEvent,
    DeviceStatus,
    Doubted,
    Effect,
    EndJob,
    NotRestored,
    Open,
    Pause,
    Publish,
    Restore,
    RollBack,
    SendVerdict,
    Setup,
    StoreRefusal,
    Tell,
    Tick,
    Unpause,
    VerdictPending,
    VerdictStored,
)
from aggregator.members import FIRST_ASK_S
from aggregator.pace import SLACK
from broker.messages import Offer, Verdict, Version, echo
from models import draw
from models.job import RoundsSpec, StopSpec
from runtime.states import IllegalEventError

V0, V1, V2 = Version(1, 0), Version(1, 1), Version(1, 2)
SEED = 7


def digest(device: str, base: Version = V0) -> str:
    return f"{base.number:08x}{device.encode().hex():0>24}"


def offer(device: str, base: Version = V0, n: int = 10, n_bytes: int = 9) -> Offer:
    return Offer("j", device, base, n, digest(device, base), n_bytes)


def counted(device: str, base: Version = V0) -> Verdict:
    return Verdict(device, "j", base, echo(offer(device, base)))


def refused(device: str, reason: str, base: Version = V0) -> Verdict:
    return Verdict(device, "j", base, echo(offer(device, base)), refused=reason)


def here(device: str) -> DeviceStatus:
    return DeviceStatus(device, online=True, ready=True)


def gone(device: str) -> DeviceStatus:
    return DeviceStatus(device, online=False, ready=True)


class Bench:
    """A coordinator whose shell does at once what it is told."""

    def __init__(self, rules: RoundsSpec, **state: Any) -> None:
        self.core = Coordinator(Setup(rules=rules, seed=SEED, **{"base": V0} | state), now=0.0)

    def receive(self, *events: CoordinatorEvent, now: float = 0.0) -> list[Effect]:
        """What follows, but for what operators are told."""
        effects = [effect for event in events for effect in self.core.receive(event, now)]
        return [effect for effect in effects if not isinstance(effect, Tell)]

    def see(self, *devices: str, now: float = 0.0) -> list[Effect]:
        return self.receive(*(here(device) for device in devices), now=now)

    def count(self, *devices: str, base: Version = V0, now: float = 1.0) -> list[Effect]:
        effects: list[Effect] = []
        for device in devices:
            assert self.core.receive(offer(device, base), now) == [Collect(offer(device, base), 10)]
            effects += self.judge(counted(device, base), now)
        return effects

    def judge(self, verdict: Verdict, now: float = 1.0) -> list[Effect]:
        """What follows from a verdict that is made durable at once."""
        pending = self.core.receive(VerdictPending(verdict.device), now)
        return [*pending, *self.core.receive(VerdictStored(verdict), now)]

    def commit(self, version: Version = V1, now: float = 2.0, **metrics: float) -> list[Effect]:
        return self.core.receive(Committed(version, metrics), now)


def of(kind: type, effects: Sequence[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def kinds(effects: Sequence[Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


# What the shell asks.


def test_an_update_has_company_to_wait_for_until_those_that_are_judged_end_the_round() -> None:
    bench = Bench(RoundsSpec(quorum=3))
    assert not bench.core.expects_more
    bench.see("a", "b", "c")
    for device, more in (("a", True), ("b", True), ("c", False)):
        bench.receive(offer(device), VerdictPending(device), now=1.0)
        assert bench.core.expects_more is more


def test_an_update_that_reaches_the_target_does_not_wait_for_company() -> None:
    bench = Bench(RoundsSpec(target=2, quorum=1, over_selection=2.0, min_devices=4))
    bench.see("a", "b", "c", "d")
    for device, more in (("a", True), ("b", False)):
        bench.receive(offer(device), VerdictPending(device), now=1.0)
        assert bench.core.expects_more is more


# Opening.


def test_a_round_is_durable_before_it_is_announced() -> None:
    effects = Bench(RoundsSpec()).see("a")
    assert kinds(effects) == ["Open", "Announce"]
    assert effects[0].attempt == effects[1].attempt  # type: ignore[union-attr]  # kinds says which they are


def test_a_round_waits_for_a_quorum_of_devices() -> None:
    bench = Bench(RoundsSpec(quorum=2))
    assert bench.see("a") == []
    waiting = bench.core.state
    assert kinds(bench.see("b")) == ["Open", "Announce"]
    assert (waiting, bench.core.state) == ("waiting", "running")


def test_a_round_waits_for_min_devices() -> None:
    bench = Bench(RoundsSpec(quorum=1, min_devices=3))
    assert bench.see("a", "b") == []
    assert of(Open, bench.see("c"))


def test_a_device_that_is_not_ready_opens_nothing() -> None:
    bench = Bench(RoundsSpec())
    assert bench.receive(DeviceStatus("a", online=True, ready=False, why="no data")) == []
    assert bench.receive(gone("b")) == []


def test_exactly_target_times_over_selection_are_drawn() -> None:
    bench = Bench(RoundsSpec(target=4, over_selection=1.5, min_devices=20))
    (opened,) = of(Open, bench.see(*(f"d{n}" for n in range(20))))
    attempt = opened.attempt
    assert attempt.target == 4
    assert len(attempt.cohort) == 6
    drawn = {f"d{n}" for n in range(20) if draw.ticket(draw.salt(SEED, 0), f"d{n}") <= attempt.threshold}
    assert drawn == set(attempt.cohort)


def test_a_fraction_is_of_the_eligible_devices() -> None:
    bench = Bench(RoundsSpec(fraction=0.25, min_devices=10))
    (opened,) = of(Open, bench.see(*(f"d{n}" for n in range(10))))
    assert opened.attempt.target == len(opened.attempt.cohort) == 3


def test_never_fewer_are_drawn_than_a_quorum() -> None:
    bench = Bench(RoundsSpec(fraction=0.1, quorum=5, min_devices=10))
    (opened,) = of(Open, bench.see(*(f"d{n}" for n in range(10))))
    assert len(opened.attempt.cohort) == 5


def test_when_everybody_is_wanted_whoever_comes_is_drawn_too() -> None:
    bench = Bench(RoundsSpec(target=5, quorum=1))
    (opened,) = of(Open, bench.see("a"))
    assert opened.attempt.threshold == draw.MAX_TICKET
    bench.see("b")
    assert bench.core.attempt is not None
    assert bench.core.attempt.cohort == ("a", "b")


# Concluding.


def test_the_target_ends_a_round_at_once() -> None:
    bench = Bench(RoundsSpec(target=2, quorum=1, over_selection=2.0, min_devices=4))
    (opened,) = of(Open, bench.see("a", "b", "c", "d"))
    first, second, third, _ = opened.attempt.cohort
    assert of(Commit, bench.count(first)) == []
    (commit,) = of(Commit, bench.count(second))
    assert commit.close.outcome == "committed"
    assert commit.close.fates[third] == "not counted: nothing had arrived when the round ended"


def test_a_round_ends_when_nobody_is_left_to_wait_for() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=3, min_devices=3), max_examples=2**20)
    bench.see("a", "b", "c")
    bench.count("a")
    assert bench.core.receive(offer("b", n=10**7), 1.0) == [StoreRefusal(refused("b", refusal_of_examples(10**7)))]
    assert of(Commit, bench.judge(refused("b", refusal_of_examples(10**7)), 1.0)) == []
    effects = bench.core.receive(DeviceStatus("c", online=True, ready=False, why="its disk is full"), 2.0)
    (commit,) = of(Commit, effects)
    assert commit.close.fates == {
        "a": "counted",
        "b": f"refused: {refusal_of_examples(10**7)}",
        "c": "not counted: it could not take part: its disk is full",
    }


def refusal_of_examples(n: int) -> str:
    return (
        "it claims more examples than a device of this job may have "
        f"(for the operator: {n} where max_examples = 1048576)"
    )


def having(**rows: int) -> list[DeviceStatus]:
    return [DeviceStatus(device, online=True, ready=True, rows=n) for device, n in rows.items()]


def test_the_shift_of_weights_is_that_of_the_first_cohort_and_stays_in_every_attempt_on_its_base() -> None:
    bench = Bench(RoundsSpec(quorum=2, target=3, min_devices=2, deadline_s=60.0))
    opened = of(Open, bench.receive(*having(a=3_000_000, b=1_000_000)))
    assert [one.attempt.shift for one in opened] == [2]
    assert of(Collect, bench.core.receive(offer("a", n=3_000_000), 1.0)) == [Collect(offer("a", n=3_000_000), 750_000)]
    bench.judge(counted("a"))
    bench.receive(*having(c=2**32))
    (again,) = of(Open, bench.core.tick(60.0))
    assert (again.attempt.number, again.attempt.shift) == (2, 2)
    assert bench.core.receive(offer("c", n=2**32), 61.0) == [Collect(offer("c", n=2**32), 2**20)]
    bench.judge(counted("c"), 61.0)
    (commit,) = of(Commit, bench.core.tick(120.0))
    assert commit.close.attempt.shift == 2
    (following,) = of(Open, bench.core.receive(Committed(V1, {}), 121.0))
    assert following.attempt.shift == 12, "a new base, and c is of its cohort"


def test_after_a_start_weights_have_the_shift_that_is_durable_whatever_devices_say_by_now() -> None:
    first = Bench(RoundsSpec(quorum=2, target=2))
    (opened,) = of(Open, first.receive(*having(a=3_000_000, b=3_000_000)))
    bench = Bench(RoundsSpec(quorum=2, target=2), attempt=opened.attempt, last=opened.attempt)
    bench.receive(*having(a=10, b=10))
    assert bench.core.receive(offer("a", n=3_000_000), 1.0) == [Collect(offer("a", n=3_000_000), 750_000)]
    assert bench.core.shift == 2


def test_the_first_attempt_takes_its_shift_from_late_updates_that_are_in_its_sum_already() -> None:
    left = {V0: Attempt(V0, 1, draw.salt(SEED, 0), draw.MAX_TICKET, None, ("a", "b"), shift=3)}
    bench = Bench(RoundsSpec(late="fold", quorum=2, target=3), base=V1, left=left, history=[{}, {}])
    bench.receive(*having(a=8000))
    assert bench.core.receive(offer("a", V0, n=8000), 1.0) == [Collect(offer("a", V0, n=8000), 5657 >> 3)]
    bench.judge(counted("a", V0))
    (opened,) = of(Open, bench.receive(*having(b=2**32)))
    assert opened.attempt.shift == 3


def test_rows_beyond_those_that_were_stated_or_may_be_do_not_shift_weights() -> None:
    for state in ({"stated_rows": {"a": 100}}, {"max_examples": 1000}):
        bench = Bench(RoundsSpec(quorum=1), **state)
        (opened,) = of(Open, bench.receive(*having(a=2**32)))
        assert opened.attempt.shift == 0


def test_a_quorum_at_the_deadline_makes_a_version() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2, deadline_s=60.0))
    bench.see("a", "b")
    bench.count("a")
    assert of(Commit, bench.core.tick(59.9)) == []
    (commit,) = of(Commit, bench.core.tick(60.0))
    assert commit.close.reason == "a quorum at the deadline"


def test_without_a_quorum_the_round_is_abandoned_and_its_updates_open_the_next() -> None:
    bench = Bench(RoundsSpec(quorum=2, target=2, deadline_s=60.0))
    bench.see("a", "b")
    bench.count("a")
    effects = bench.core.tick(60.0)
    assert kinds(effects)[:3] == ["Close", "Open", "Announce"]
    assert of(Close, effects)[0].outcome == "abandoned"
    assert of(Open, effects)[0].attempt.number == 2
    assert bench.core.counted == ["a"]
    (commit,) = of(Commit, bench.count("b", now=61.0))
    assert set(commit.close.fates) == {"a", "b"}


def test_a_further_attempt_widens_and_drops_nobody() -> None:
    names = [f"d{n}" for n in range(20)]
    bench = Bench(RoundsSpec(target=4, quorum=4, min_devices=20, deadline_s=60.0))
    (first,) = of(Open, bench.see(*names))
    (second,) = of(Open, bench.core.tick(60.0))
    assert set(first.attempt.cohort) < set(second.attempt.cohort)
    assert len(second.attempt.cohort) == 8
    assert second.attempt.salt == first.attempt.salt


def test_a_last_will_starts_a_grace_and_then_the_round_stops_waiting() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2, grace_s=5.0))
    bench.see("a", "b")
    bench.count("a")
    assert of(Commit, bench.core.receive(gone("b"), 3.0)) == []
    assert bench.core.deadline == 8.0
    assert of(Commit, bench.core.tick(7.9)) == []
    (commit,) = of(Commit, bench.core.tick(8.0))
    assert commit.close.fates["b"] == "not counted: it was offline"


def test_who_comes_back_within_its_grace_is_waited_for() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2, grace_s=5.0))
    bench.see("a", "b")
    bench.count("a")
    bench.core.receive(gone("b"), 3.0)
    bench.see("b", now=4.0)
    assert of(Commit, bench.core.tick(9.0)) == []


def test_an_update_from_a_device_that_is_gone_counts_all_the_same() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=2))
    bench.see("a", "b")
    bench.core.receive(gone("b"), 1.0)
    bench.count("b")
    assert bench.core.counted == ["b"]


def test_nothing_is_said_of_an_update_that_was_counted_until_it_is_offered_again() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=2))
    bench.see("a", "b")
    assert of(SendVerdict, bench.count("a")) == []
    assert bench.receive(offer("a"), now=2.0) == [SendVerdict(counted("a"))]


def test_where_late_updates_are_folded_every_update_is_answered() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=2, late="fold"))
    bench.see("a", "b")
    assert of(SendVerdict, bench.count("a")) == [SendVerdict(counted("a"))]


def test_a_refusal_is_said_at_once() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=2))
    bench.see("a", "b")
    bench.receive(offer("a"), now=1.0)
    verdict = refused("a", "its norm is absurd")
    assert of(SendVerdict, bench.judge(verdict, 1.0)) == [SendVerdict(verdict)]


def test_waiting_for_all_fixes_the_membership() -> None:
    bench = Bench(RoundsSpec(quorum=1, min_devices=2, wait="all", deadline_s=60.0, grace_s=1.0))
    bench.see("a", "b")
    bench.count("a")
    bench.core.receive(gone("b"), 2.0)
    (abandoned,) = of(Close, bench.core.tick(60.0))
    assert "every drawn device" in abandoned.reason
    bench.see("c", now=61.0)
    assert bench.core.attempt is not None
    assert bench.core.attempt.cohort == ("a", "b")
    assert bench.core.receive(offer("c"), 62.0) == [], "it may fill the place of one that is dropped"
    assert of(Commit, bench.count("b", now=63.0))
    bench.commit(now=63.5)
    (answer,) = bench.core.receive(offer("c"), 64.0)
    assert isinstance(answer, SendVerdict)
    assert not answer.verdict.counted


def test_waiting_for_all_fills_the_places_of_members_that_came_to_nothing() -> None:
    bench = Bench(RoundsSpec(quorum=1, wait="all", deadline_s=60.0, grace_s=1.0))
    bench.see("a")
    bench.see("b", now=1.0)
    assert bench.core.attempt is not None
    assert bench.core.attempt.cohort == ("a",)
    assert bench.core.receive(offer("b"), 2.0) == []
    bench.core.receive(DeviceStatus("a", online=True, ready=True, failed=V0, failure="diverged"), 3.0)
    bench.core.tick(60.0)
    assert bench.core.attempt.cohort == ("b",)
    assert of(Commit, bench.count("b", now=61.0))


def members_of_attempts(bench: Bench, until: float) -> list[int]:
    """Return the number of members of each attempt that opens up to then."""
    return [len(opened.attempt.cohort) for opened in of(Open, pass_time(bench, until))]


@pytest.mark.parametrize("share", [{"fraction": 0.25}, {"target": 5}], ids=str)
def test_waiting_for_all_does_not_draw_others_because_a_member_is_slow(share: dict[str, Any]) -> None:
    """As many devices must be there before a round opens, and only some of them are drawn."""
    bench = Bench(RoundsSpec(min_devices=20, wait="all", deadline_s=60.0, **share))
    bench.see(*(f"d{n}" for n in range(20)))
    assert bench.core.attempt is not None
    cohort = bench.core.attempt.cohort
    bench.count(*cohort[1:])
    bench.see(cohort[0], now=59.0)
    assert members_of_attempts(bench, 60.0) == [5]
    assert bench.core.attempt.cohort == cohort


def test_waiting_for_all_one_other_takes_the_place_of_one_that_came_to_nothing() -> None:
    bench = Bench(RoundsSpec(fraction=0.25, min_devices=20, wait="all", deadline_s=60.0))
    bench.see(*(f"d{n}" for n in range(20)))
    assert bench.core.attempt is not None
    lost, *rest = bench.core.attempt.cohort
    bench.count(*rest[1:])
    bench.receive(failed(lost), now=2.0)
    assert members_of_attempts(bench, 60.0) == [5]
    attempt = bench.core.attempt
    assert attempt is not None
    assert len(set(attempt.cohort) - {lost, *rest}) == 1
    able = {name for name in (f"d{n}" for n in range(20)) if name != lost}
    drawn = {name for name in able if draw.ticket(attempt.salt, name) <= attempt.threshold}
    assert drawn == set(attempt.cohort), "a device goes by the threshold"


def test_waiting_for_all_whoever_comes_later_takes_a_place_that_nobody_was_there_to_take() -> None:
    bench = Bench(RoundsSpec(quorum=2, wait="all", deadline_s=60.0, grace_s=1.0))
    bench.see("a", "b")
    bench.count("a")
    bench.judge(refused("b", "absurd"), 2.0)
    assert members_of_attempts(bench, 60.0) == []
    bench.see("c", now=70.0)
    assert bench.core.attempt is not None
    assert bench.core.attempt.cohort == ("a", "c")
    assert of(Commit, bench.count("c", now=71.0))


def test_an_update_that_meets_no_open_round_and_completes_the_quorum_ends_the_wait() -> None:
    bench = Bench(RoundsSpec(quorum=2, deadline_s=60.0, grace_s=1.0))
    bench.see("a", "b")
    bench.count("a")
    bench.core.receive(gone("b"), 2.0)
    bench.core.tick(60.0)
    assert bench.core.attempt is None
    assert of(Commit, bench.count("b", now=70.0))


def test_the_next_round_opens_after_a_commit() -> None:
    bench = Bench(RoundsSpec(target=1))
    bench.see("a")
    bench.count("a")
    effects = bench.commit()
    assert kinds(effects) == ["Publish", "Open", "Announce"]
    assert of(Open, effects)[0].attempt.base == bench.core.base == V1
    assert bench.core.counted == []


# Time.


def test_the_heartbeat_says_how_much_time_is_left() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2, deadline_s=60.0))
    bench.see("a", "b")
    assert bench.core.deadline == 10.0
    assert bench.core.tick(9.9) == []
    (beat,) = bench.core.tick(10.0)
    assert isinstance(beat, Announce)
    assert beat.seconds_left == 50.0
    assert bench.core.deadline == 30.0


def test_heartbeats_come_ever_less_often() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2, deadline_s=100_000.0))
    bench.see("a", "b")
    beats = 0
    while bench.core.deadline is not None and bench.core.deadline < 86_400.0:
        beats += len(of(Announce, bench.core.tick(bench.core.deadline)))
    assert beats == 13


def test_the_heartbeat_goes_on_as_it_was_when_the_broker_is_new() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2, deadline_s=600.0))
    bench.see("a", "b")
    bench.core.tick(10.0)
    (said,) = bench.core.announce(12.0)
    assert isinstance(said, Announce)
    assert bench.core.deadline == 32.0


def test_without_a_round_there_is_nothing_to_wait_for() -> None:
    bench = Bench(RoundsSpec())
    assert bench.core.deadline is None
    assert of(Tell, bench.core.tick(1e9)) == [Tell("no device takes part yet")]
    assert bench.core.announce(1e9) == []


def test_a_tick_at_the_deadline_moves_the_deadline() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2, deadline_s=60.0, grace_s=5.0))
    bench.see("a", "b")
    bench.core.receive(gone("a"), 1.0)
    for _ in range(10):
        at = bench.core.deadline
        if at is None:
            break
        bench.core.tick(at)
        assert bench.core.deadline is None or bench.core.deadline > at


# Verdicts.


def test_a_resend_gets_the_verdict_it_got_first() -> None:
    bench = Bench(RoundsSpec(target=1, max_rounds=9))
    bench.see("a", "b")
    bench.count("a")
    assert bench.core.receive(offer("a"), 2.0) == [SendVerdict(counted("a"))]
    bench.commit()
    assert bench.core.receive(offer("a"), 3.0) == [SendVerdict(counted("a"))]


def test_another_update_to_the_same_base_is_refused() -> None:
    bench = Bench(RoundsSpec(quorum=2))
    bench.see("a", "b")
    bench.count("a")
    other = Offer("j", "a", V0, 10, "f" * 32, 9)
    (answer,) = bench.core.receive(other, 2.0)
    assert isinstance(answer, SendVerdict)
    assert "already has a verdict" in answer.verdict.refused
    assert bench.core.counted == ["a"]


@pytest.mark.parametrize("base", [V0, V2])
def test_an_update_to_another_base_is_refused_unread(base: Version) -> None:
    bench = Bench(RoundsSpec(), base=V1, history=[{}, {}])
    bench.see("a")
    (answer,) = bench.core.receive(offer("a", base), 1.0)
    assert isinstance(answer, SendVerdict)
    assert answer.verdict.refused == f"stale: it is based on version {base}, the current one is 1.1"


def test_who_was_not_drawn_has_no_answer_until_the_base_is_left() -> None:
    names = [f"d{n}" for n in range(10)]
    bench = Bench(RoundsSpec(target=1, min_devices=10))
    (opened,) = of(Open, bench.see(*names))
    other = next(name for name in names if name not in opened.attempt.cohort)
    assert bench.core.receive(offer(other), 1.0) == []
    bench.count(*opened.attempt.cohort)
    bench.commit()
    (answer,) = bench.core.receive(offer(other), 2.0)
    assert isinstance(answer, SendVerdict)
    assert answer.verdict.refused.startswith("stale")


def test_before_the_first_round_nobody_is_drawn() -> None:
    assert Bench(RoundsSpec()).receive(offer("a")) == []


def test_a_body_larger_than_any_update_is_refused_for_good() -> None:
    bench = Bench(RoundsSpec(quorum=2), max_body_bytes=100)
    bench.see("a", "b")
    (record,) = bench.core.receive(offer("a", n_bytes=101), 1.0)
    assert isinstance(record, StoreRefusal)
    bench.judge(record.verdict, 1.0)
    assert bench.core.receive(offer("a", n_bytes=101), 2.0) == [SendVerdict(record.verdict)]


def test_a_refused_update_is_no_part_of_a_quorum() -> None:
    bench = Bench(RoundsSpec(quorum=2, deadline_s=60.0))
    bench.see("a", "b")
    bench.count("a")
    bench.judge(refused("b", "absurd"), 2.0)
    assert of(Close, bench.core.tick(60.0))[0].outcome == "abandoned"


# Late updates.


def late_bench(wait: Any = "target") -> Bench:
    bench = Bench(RoundsSpec(quorum=1, target=1, min_devices=2, over_selection=2.0, late="fold", wait=wait))
    bench.see("a", "b")
    bench.count("a")
    if wait == "all":
        bench.count("b")
    bench.commit()
    return bench


def test_a_late_update_counts_for_the_current_version_with_less_weight() -> None:
    bench = late_bench()
    assert bench.core.receive(offer("b"), 3.0) == [Collect(offer("b"), 7)]
    effects = bench.judge(counted("b"), 3.0)
    assert effects[0] == SendVerdict(counted("b"))
    (commit,) = of(Commit, effects)
    assert commit.close.fates["b"] == "counted late: its update was to version 1.0"


def test_a_late_update_counts_once() -> None:
    bench = late_bench()
    bench.judge(counted("b"), 3.0)
    assert bench.core.receive(offer("b"), 4.0) == [SendVerdict(counted("b"))]
    bench.commit(V2, now=5.0)
    assert bench.core.receive(offer("b"), 6.0) == [SendVerdict(counted("b"))]


def test_who_was_not_in_the_membership_is_not_let_in_late() -> None:
    bench = late_bench(wait="all")
    (answer,) = bench.core.receive(offer("c"), 3.0)
    assert isinstance(answer, SendVerdict)
    assert not answer.verdict.counted


def test_where_late_updates_are_refused_they_are_stale() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=1, min_devices=2, over_selection=2.0))
    bench.see("a", "b")
    bench.count("a")
    bench.commit()
    (answer,) = bench.core.receive(offer("b"), 3.0)
    assert isinstance(answer, SendVerdict)
    assert "stale" in answer.verdict.refused


# The end.


def test_the_job_ends_after_max_rounds() -> None:
    bench = Bench(RoundsSpec(target=1, max_rounds=1))
    bench.see("a")
    bench.count("a")
    assert bench.commit() == [Publish("finished", "max_rounds = 1 are done")]
    assert bench.core.state == "finished"
    assert bench.see("b", now=3.0) == []
    (answer,) = bench.core.receive(offer("b", V1), 4.0)
    assert isinstance(answer, SendVerdict)
    assert answer.verdict.refused == "the job has ended"


def test_the_job_ends_when_its_target_is_reached() -> None:
    bench = Bench(RoundsSpec(target=1, stop=StopSpec(target=0.9)))
    bench.see("a")
    bench.count("a")
    (published,) = bench.commit(accuracy=0.95)
    assert published == Publish("finished", "accuracy 0.9500 has reached the target 0.9")


def test_a_job_that_had_converged_when_it_died_ends_at_the_next_event() -> None:
    bench = Bench(RoundsSpec(max_rounds=1), base=V1, history=[{}, {}])
    assert kinds(bench.see("a")) == ["Publish"]
    assert bench.core.ended == "finished"


def test_an_operator_stops_the_job() -> None:
    bench = Bench(RoundsSpec())
    bench.see("a")
    effects = bench.core.receive(EndJob("enough"), 1.0)
    assert kinds(effects) == ["Close", "Publish"]
    assert of(Close, effects)[0].outcome == "stopped"
    assert bench.core.receive(EndJob("enough"), 2.0) == []
    assert bench.core.tick(1e6) == []


# A deadline that is learned.


def test_the_first_deadline_is_the_jobs_ceiling_and_the_next_one_what_was_learned() -> None:
    bench = Bench(RoundsSpec(target=2, min_devices=2, deadline_s="learned", max_deadline_s=500.0))
    (first,) = of(Open, bench.see("a", "b"))
    bench.count("a", now=20.0)
    bench.count("b", now=60.0)
    (second,) = of(Open, bench.commit(now=60.0))
    assert (first.attempt.seconds, second.attempt.seconds) == (500.0, SLACK * 60.0)


def test_how_long_devices_take_to_agree_says_nothing_of_how_long_they_train() -> None:
    bench = Bench(RoundsSpec(target=2, min_devices=2, deadline_s="learned", max_deadline_s=500.0), untrained=0)
    bench.see("a", "b")
    bench.count("a", now=1.0)
    bench.count("b", now=1.0)
    (second,) = of(Open, bench.commit(now=1.0))
    bench.count("a", now=21.0, base=second.attempt.base)
    bench.count("b", now=31.0, base=second.attempt.base)
    (third,) = of(Open, bench.commit(V2, now=31.0))
    assert (second.attempt.seconds, third.attempt.seconds) == (500.0, SLACK * 30.0)


def test_a_device_that_comes_while_the_round_is_open_is_measured_from_then() -> None:
    bench = Bench(RoundsSpec(target=3, min_devices=1, deadline_s="learned", max_deadline_s=500.0))
    bench.see("a")
    bench.see("b", now=100.0)
    bench.count("b", now=130.0)
    (opened,) = of(Open, bench.commit(now=130.0))
    assert opened.attempt.seconds == SLACK * 30.0


# Starting again.


def attempt_of(*cohort: str, target: int | None = None) -> Attempt:
    return Attempt(V0, 1, draw.salt(SEED, 0), draw.MAX_TICKET, target, cohort)


def test_a_round_goes_on_where_it_was_with_the_whole_of_its_time() -> None:
    rules = RoundsSpec(quorum=2, deadline_s=60.0)
    bench = Bench(rules, attempt=attempt_of("a", "b"), verdicts=[counted("a")])
    assert bench.core.counted == ["a"]
    assert of(Announce, bench.core.announce(0.5))[0].seconds_left == 59.5
    assert bench.core.receive(offer("a"), 1.0) == [SendVerdict(counted("a"))]
    assert of(Commit, bench.count("b"))


def test_after_a_start_the_cohort_has_a_grace_to_come_back() -> None:
    bench = Bench(RoundsSpec(quorum=1, grace_s=5.0), attempt=attempt_of("a", "b"), verdicts=[counted("a")])
    assert of(Commit, bench.core.tick(4.9)) == []
    assert of(Commit, bench.core.tick(5.0))


def test_an_abandoned_round_is_widened_after_a_start_too() -> None:
    rules = RoundsSpec(target=1, quorum=1, deadline_s=60.0)
    names = [f"d{n}" for n in range(5)]
    salt = draw.salt(SEED, 0)
    cohort = min(names, key=lambda name: draw.ticket(salt, name))
    last = Attempt(V0, 1, salt, draw.ticket(salt, cohort), 1, (cohort,))
    bench = Bench(rules, last=last)
    (opened,) = of(Open, bench.see(*(name for name in names if name != cohort)))
    assert opened.attempt.number == 2
    assert opened.attempt.threshold > last.threshold


def test_an_update_of_the_last_round_counts_while_none_is_open() -> None:
    bench = Bench(RoundsSpec(quorum=2), last=attempt_of("a"))
    assert bench.receive(offer("a"), now=1.0) == [Collect(offer("a"), 10)]


def test_a_last_round_on_another_base_says_nothing() -> None:
    bench = Bench(RoundsSpec(), base=V1, history=[{}, {}], last=attempt_of("a"))
    (opened,) = of(Open, bench.see("a"))
    assert opened.attempt.number == 1


def test_an_ended_job_does_not_resume_its_round() -> None:
    bench = Bench(RoundsSpec(), attempt=attempt_of("a"), ended="stopped")
    assert bench.core.attempt is None
    assert bench.see("a") == []


def test_the_fates_of_an_open_round_can_be_asked() -> None:
    bench = Bench(RoundsSpec(quorum=2))
    bench.see("a", "b")
    bench.count("a")
    assert bench.core.fates() == {"a": "counted", "b": "awaited: nothing has arrived yet"}


# Devices that are absent, silent or have failed.


def unready(device: str, why: str) -> DeviceStatus:
    return DeviceStatus(device, online=True, ready=False, why=why)


def failed(device: str, base: Version = V0) -> DeviceStatus:
    return DeviceStatus(device, online=True, ready=True, failed=base, failure="it diverged")


def hint(device: str) -> DeviceStatus:
    return DeviceStatus(device, online=True, ready=True, live=False)


def pass_time(bench: Bench, until: float) -> list[Effect]:
    """Let every alarm ring up to then."""
    effects: list[Effect] = []
    while (at := bench.core.deadline) is not None and at <= until:
        effects += bench.core.tick(at)
    return effects


def all_but(*devices: str) -> Bench:
    """Devices in a round that waits for all, one of which never answers; "a" has."""
    bench = Bench(RoundsSpec(quorum=1, min_devices=len(devices), wait="all", deadline_s=60.0, grace_s=4.0))
    bench.see(*devices)
    bench.count("a")
    return bench


def test_a_member_that_is_gone_for_good_is_dropped_after_three_attempts() -> None:
    bench = all_but("a", "b")
    bench.receive(gone("b"), now=2.0)
    effects = pass_time(bench, 60.0 * (1 + ABSENT))
    assert [close.outcome for close in of(Close, effects)] == ["abandoned"] * (1 + ABSENT)
    (commit,) = of(Commit, effects)
    assert commit.close.attempt.cohort == ("a",)


def test_a_week_with_a_dead_member_is_no_week_without_a_version() -> None:
    bench = all_but("a", "b")
    bench.receive(gone("b"), now=2.0)
    bench.receive(here("c"), now=3.0)
    effects = pass_time(bench, 7 * 86_400.0)
    assert len(of(Close, effects)) <= 10
    assert len(of(Commit, effects)) == 1


def test_whoever_is_there_may_fill_the_place_of_a_dropped_member() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=2, wait="all", deadline_s=60.0, grace_s=4.0))
    bench.see("a", "b")
    bench.count("a")
    bench.receive(gone("b"), now=2.0)
    bench.receive(here("c"), now=3.0)
    pass_time(bench, 60.0 * (1 + ABSENT))
    assert bench.core.attempt is not None
    assert bench.core.attempt.cohort == ("a", "c")
    assert all(draw.ticket(bench.core.attempt.salt, d) <= bench.core.attempt.threshold for d in ("a", "c"))
    assert of(Commit, bench.count("c", now=250.0))


def test_a_member_that_comes_back_now_and_then_is_not_dropped() -> None:
    bench = all_but("a", "b")
    for attempt in range(6):
        bench.receive(gone("b"), now=60.0 * attempt + 2.0)
        bench.receive(here("b"), now=60.0 * attempt + 30.0)
        bench.receive(gone("b"), now=60.0 * attempt + 31.0)
        pass_time(bench, 60.0 * (attempt + 1))
    assert bench.core.attempt is not None
    assert bench.core.attempt.cohort == ("a", "b")


def test_a_slow_member_that_answers_when_it_is_asked_is_waited_for() -> None:
    bench = all_but("a", "b")
    asked = 0
    for minute in range(1, 12):
        effects = pass_time(bench, 60.0 * minute)
        if of(AskDevices, effects):
            asked += 1
            bench.receive(here("b"), now=60.0 * minute + 1.0)
    assert asked
    assert bench.core.attempt is not None
    assert bench.core.attempt.cohort == ("a", "b")
    assert of(Commit, bench.count("b", now=700.0))


def test_absent_end_ends_the_job() -> None:
    rules = RoundsSpec(quorum=1, min_devices=2, wait="all", deadline_s=60.0, grace_s=4.0, absent="end")
    bench = Bench(rules)
    bench.see("a", "b")
    bench.count("a")
    bench.receive(gone("b"), now=2.0)
    effects = pass_time(bench, 60.0 * (1 + ABSENT))
    (published,) = of(Publish, effects)
    assert published == Publish("stopped", f"b: absent throughout {ABSENT} attempts to leave a version")
    assert bench.core.deadline is None


def test_absences_outlive_a_restart() -> None:
    bench = all_but("a", "b")
    bench.receive(gone("b"), now=2.0)
    pass_time(bench, 60.0 * ABSENT)
    attempt = bench.core.attempt
    assert attempt is not None
    again = Bench(bench.core.rules, attempt=attempt, last=attempt, verdicts=[counted("a")])
    again.see("a", now=1.0)
    effects = pass_time(again, 60.0)
    assert [close.outcome for close in of(Close, effects)] == ["abandoned"]
    assert of(Commit, effects)


def test_absences_outlive_a_restart_while_no_round_is_open() -> None:
    last = structs.replace(attempt_of("a", "b"), absences={"b": ABSENT})
    bench = Bench(RoundsSpec(min_devices=1, wait="all", deadline_s=60.0), last=last)
    (opened,) = of(Open, bench.see("a"))
    assert opened.attempt.cohort == ("a",)


def test_a_member_that_cannot_take_part_is_as_good_as_absent() -> None:
    bench = all_but("a", "b")
    bench.receive(unready("b", "its disk is full"), now=2.0)
    effects = pass_time(bench, 60.0 * (1 + ABSENT))
    assert [close.outcome for close in of(Close, effects)][:ABSENT] == ["abandoned"] * ABSENT
    (commit,) = of(Commit, effects)
    assert commit.close.attempt.cohort == ("a",)


def test_a_failed_training_says_nothing_of_the_next_base() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=3, deadline_s=60.0))
    bench.see("a", "b", "c")
    bench.receive(failed("c"), now=1.0)
    bench.count("a")
    (commit,) = of(Commit, bench.count("b"))
    assert commit.close.fates["c"] == "not counted: its training failed: it diverged"
    (opened,) = of(Open, bench.commit())
    assert opened.attempt.cohort == ("a", "b", "c")
    assert bench.core.awaited == {"a", "b", "c"}


def test_a_base_that_every_device_failed_on_opens_no_further_attempt_and_says_why() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=2, deadline_s=60.0))
    bench.see("a", "b")
    bench.receive(failed("a"), now=1.0)
    bench.receive(failed("b"), now=1.0)
    effects = pass_time(bench, 86_400.0)
    assert len(of(Close, effects)) == 1
    (told,) = of(Tell, effects)
    assert "came to nothing on version 1.0 (a failed: it diverged; b failed: it diverged)" in told.reason
    assert bench.core.state == "waiting"
    assert of(Open, bench.see("c", "d", now=90_000.0))


FAR = "its norm is far from the model's: scale the data (for the operator: 9e9 where 49 is let in)"
DIVERGED = "training diverged (loss nan) in epoch 0, batch 5, at a learning rate of 0.1: scale the data"


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("how", [FAR, DIVERGED])
def test_a_first_round_in_which_everybody_is_far_from_the_model_says_what_to_do(n: int, how: str) -> None:
    devices = "abc"[:n]
    bench = Bench(RoundsSpec(quorum=1, min_devices=n, deadline_s=60.0), advice="scale the data")
    bench.see(*devices)
    for device in devices:
        if how is FAR:
            bench.judge(refused(device, FAR), 2.0)
        else:
            bench.receive(DeviceStatus(device, online=True, ready=True, failed=V0, failure=DIVERGED), now=2.0)
    (told,) = of(Tell, pass_time(bench, 3600.0))
    who = "the one device that has trained on version 1.0 is" if n == 1 else "all 3 devices that have trained on"
    assert told.reason.startswith(who)
    assert "far from the model: scale the data (a " in told.reason
    assert told.reason.count("scale the data") == 1
    assert "peers" not in told.reason
    assert waits.of(bench.core, 3600.0).ends == "stop the job, and submit it again with that changed"
    bench.core.check()


def test_where_one_has_come_to_nothing_for_another_reason_or_a_later_version_is_there_each_has_its_own_reason() -> None:
    bench = Bench(RoundsSpec(quorum=1, min_devices=2, deadline_s=60.0), advice="scale the data")
    bench.see("a", "b")
    bench.judge(refused("a", FAR), 2.0)
    bench.receive(failed("b"), now=2.0)
    (told,) = of(Tell, pass_time(bench, 3600.0))
    assert told.reason.startswith("2 devices came to nothing on version 1.0 (a refused: its norm is far from the model")
    late = Bench(RoundsSpec(quorum=1, deadline_s=60.0), base=Version(1, 2), history=[{}] * 3, advice="scale the data")
    late.see("a")
    late.judge(refused("a", FAR, Version(1, 2)), 2.0)
    assert of(Tell, pass_time(late, 3600.0))[0].reason.startswith("1 device came to nothing on version 1.2")


def test_updates_that_are_refused_from_everybody_do_not_go_on_for_ever() -> None:
    bench = Bench(RoundsSpec(quorum=1, deadline_s=60.0))
    bench.see("a", "b")
    for device in ("a", "b"):
        bench.judge(refused(device, "its norm is far from its peers'"), 2.0)
    effects = pass_time(bench, 86_400.0)
    assert len(of(Close, effects)) == 1
    assert "far from its peers'" in of(Tell, effects)[0].reason


def test_who_was_refused_takes_part_in_the_next_base() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, deadline_s=60.0, min_devices=2))
    bench.see("a", "b")
    bench.count("a")
    effects = bench.judge(refused("b", "absurd"), 2.0)
    assert of(Commit, effects)
    (opened,) = of(Open, bench.commit())
    assert opened.attempt.cohort == ("a", "b")


def test_what_the_broker_remembers_of_a_device_is_a_hint_until_it_is_heard() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2, deadline_s=600.0, grace_s=5.0), hint_s=7.0)
    bench.receive(here("a"), hint("ghost"))
    bench.count("a")
    effects = pass_time(bench, 30.0)
    (commit,) = of(Commit, effects)
    assert commit.close.fates["ghost"] == "not counted: it was offline"
    assert of(AskDevices, effects) == [AskDevices({"ghost": -math.inf})]
    again = pass_time(bench, 20_000.0)
    assert 5 <= len(of(AskDevices, again)) <= 8, "ever less often"
    assert bench.core.deadline is None, "and in the end no more"


def test_a_hint_that_is_heard_in_time_is_waited_for() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2, deadline_s=600.0, grace_s=5.0), hint_s=7.0)
    bench.receive(here("a"), hint("b"))
    bench.count("a")
    bench.receive(here("b"), now=6.0)
    assert of(Commit, pass_time(bench, 599.0)) == []


def test_a_new_connection_makes_hints_of_all_that_was_known() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=3, min_devices=3, deadline_s=600.0, grace_s=5.0), hint_s=7.0)
    bench.see("a", "b", "c")
    bench.count("a")
    bench.receive(Doubted(), now=10.0)
    bench.receive(here("b"), now=12.0)
    pass_time(bench, 30.0)
    assert bench.core.awaited == {"b"}


def test_who_says_nothing_through_two_rounds_is_not_waited_for_until_it_is_heard() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=1, deadline_s=60.0))
    bench.see("a", "ghost")
    now, waited, asked = 0.0, [], []
    for number in range(5):
        began = now
        bench.count("a", base=Version(1, number), now=began + 1.0)
        effects = [] if bench.core.attempt is None else pass_time(bench, began + 60.0)
        now = began + 60.0 if effects else began + 1.0
        waited.append(now - began)
        bench.core.receive(Committed(Version(1, number + 1), {}), now)
        asked += of(AskDevices, [*effects, *bench.core.tick(now)])
    assert asked == [AskDevices({"ghost": 0.0})]
    assert waited == [1.0, 60.0, 60.0, 1.0, 1.0]  # the first round knew "a" alone
    bench.see("ghost", now=now)
    bench.count("a", base=Version(1, 5), now=now)
    (opened,) = of(Open, bench.commit(Version(1, 6), now=now))
    assert "ghost" in opened.attempt.cohort


def test_a_round_that_ends_early_says_nothing_of_those_who_were_not_done() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=1, over_selection=2.0, min_devices=2, deadline_s=60.0))
    bench.see("a", "slow")
    for number in range(5):
        bench.count("a", base=Version(1, number), now=float(number))
        bench.core.receive(Committed(Version(1, number + 1), {}), float(number))
    assert bench.core.attempt is not None
    assert "slow" in bench.core.attempt.cohort


def test_who_answers_and_never_offers_is_passed_over_ever_longer() -> None:
    """Uploads that a broker refuses, or a device that lies: it is alive, and rounds would wait for it for ever."""
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=1, deadline_s=60.0, max_rounds=1000))
    bench.see("a", "mute")
    now, waited = 0.0, 0
    for number in range(360):
        began = now
        bench.receive(here("mute"), now=began + 0.5)
        bench.count("a", base=Version(1, number), now=began + 1.0)
        effects = [] if bench.core.attempt is None else pass_time(bench, began + 60.0)
        waited += bool(effects)
        now = began + 60.0 if effects else began + 10.0
        bench.core.tick(now)
        bench.core.receive(Committed(Version(1, number + 1), {}), now)
    assert waited <= 10, "rounds go on to wait for it"
    standing = next(s for s in waits.standings(bench.core, now) if s.device == "mute")
    assert "it offered nothing through" in standing.why or standing.state in ("able", "awaited")
    bench.core.receive(offer("mute", Version(1, 0)), now)
    assert bench.core.members.get("mute").present  # type: ignore[union-attr]  # it is known


def test_where_all_are_waited_for_who_never_delivers_is_dropped_in_the_end() -> None:
    bench = all_but("a", "mute")
    minute = 0
    while minute < 60 and not of(Commit, pass_time(bench, 60.0 * minute)):
        bench.receive(here("mute"), now=60.0 * minute + 1.0)
        minute += 1
    assert 15 < minute < 40


def test_who_came_to_nothing_on_one_base_is_a_member_of_every_attempt_on_the_next() -> None:
    bench = Bench(RoundsSpec(quorum=1, min_devices=2, wait="all", deadline_s=60.0))
    bench.see("a", "b")
    bench.receive(failed("b", V0), now=1.0)
    assert bench.core.attendance.spent == {"b"}
    assert of(Commit, bench.count("a"))
    bench.commit(V1, now=2.0)
    assert bench.core.attendance.spent == set()
    bench.count("a", base=V1, now=3.0)
    pass_time(bench, 63.0)
    assert bench.core.attempt is not None
    assert (bench.core.attempt.number, bench.core.attempt.cohort) == (2, ("a", "b"))


def test_an_outage_of_the_broker_costs_nobody_any_time() -> None:
    bench = all_but("a", "b")
    assert bench.core.attempt is not None
    first = bench.core.attempt
    bench.core.receive(BrokerLost(), 10.0)
    assert bench.core.deadline is None
    assert pass_time(bench, 86_400.0) == []
    assert bench.core.tick(86_400.0) == []
    bench.core.receive(Doubted(), 86_400.0)
    assert bench.core.attempt == first
    assert bench.core.rounds.opened.seconds_left(86_400.0) == pytest.approx(50.0)
    bench.see("a", "b", now=86_401.0)
    assert of(Commit, bench.count("b", now=86_420.0))


def test_after_an_outage_a_round_ends_at_its_deadline_again() -> None:
    bench = all_but("a", "b")
    bench.core.receive(BrokerLost(), 10.0)
    bench.core.receive(Doubted(), 1000.0)
    bench.see("a", "b", now=1001.0)
    assert of(Close, pass_time(bench, 1049.0)) == []
    assert [close.outcome for close in of(Close, pass_time(bench, 1051.0))] == ["abandoned"]


@pytest.mark.parametrize("wait", ["all", "target"])
def test_a_base_can_be_left_though_one_of_those_that_must_be_there_was_refused_on_it(wait: Any) -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=3, wait=wait, deadline_s=60.0, grace_s=4.0))
    bench.see("a", "b", "c")
    bench.count("a")
    bench.judge(refused("c", "absurd"), 2.0)
    bench.receive(gone("b"), now=3.0)
    pass_time(bench, 100.0)
    assert bench.core.attempt is None, "a quorum cannot be reached"
    bench.receive(here("b"), now=101.0)
    assert bench.core.attempt is not None
    assert bench.core.attempt.number == 2
    assert of(Commit, [*bench.count("b", now=110.0), *pass_time(bench, 200.0)])


def test_who_was_refused_and_has_left_is_not_there() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=3, deadline_s=60.0, grace_s=4.0))
    bench.see("a", "b", "c")
    bench.count("a")
    bench.judge(refused("c", "absurd"), 2.0)
    for device in ("b", "c"):
        bench.receive(gone(device), now=3.0)
    pass_time(bench, 100.0)
    bench.receive(here("b"), now=101.0)
    assert bench.core.attempt is None
    assert waits.of(bench.core, 101.0).text.endswith("3 devices that can take part are needed, 2 are there")
    bench.receive(here("c"), now=102.0)
    assert bench.core.attempt is not None


def test_who_was_there_before_an_outage_was_not_absent_throughout() -> None:
    bench = all_but("a", "b")
    bench.receive(gone("b"), now=5.0)
    bench.core.receive(BrokerLost(), 10.0)
    bench.core.receive(Doubted(), 1000.0)
    bench.see("a", now=1001.0)
    pass_time(bench, 1100.0)
    assert bench.core.attempt is not None
    assert (bench.core.attempt.number, dict(bench.core.attempt.absences)) == (2, {})


def test_who_is_gone_or_a_member_already_does_not_join_an_open_round() -> None:
    bench = Bench(RoundsSpec(min_devices=2, deadline_s=60.0))
    bench.see("a", "b")
    bench.receive(gone("c"), here("a"), now=1.0)
    assert bench.core.attempt is not None
    assert bench.core.attempt.cohort == ("a", "b")
    bench.receive(here("c"), now=2.0)
    assert bench.core.attempt.cohort == ("a", "b", "c")


def test_only_who_is_drawn_ready_and_heard_joins_an_open_round_and_once() -> None:
    names = [f"d{n}" for n in range(20)]
    bench = Bench(RoundsSpec(target=4, min_devices=20, deadline_s=60.0))
    (opened,) = of(Open, bench.see(*names))
    drawn = opened.attempt
    others = [f"e{n}" for n in range(200)]
    wanted = [name for name in others if draw.ticket(drawn.salt, name) <= drawn.threshold]
    assert len(wanted) > 3
    unready, unheard, *_ = wanted
    bench.receive(DeviceStatus(unready, online=True, ready=False), hint(unheard), now=1.0)
    bench.receive(*(here(name) for name in others if name not in (unready, unheard)), now=2.0)
    bench.receive(here(wanted[-1]), now=3.0)
    assert bench.core.attempt is not None
    assert bench.core.attempt.cohort == (*drawn.cohort, *wanted[2:])


def test_a_round_waits_for_who_has_joined_it_and_for_who_comes_back_to_it() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=2, deadline_s=60.0, grace_s=4.0))
    bench.see("a", "b")
    bench.count("a")
    bench.receive(gone("b"), now=2.0)
    pass_time(bench, 7.0)
    assert bench.core.awaited == set()
    bench.receive(here("c"), now=8.0)
    assert bench.core.awaited == {"c"}
    bench.receive(here("b"), now=9.0)
    assert bench.core.awaited == {"b", "c"}


def test_what_follows_from_an_offer_comes_with_the_next_tick() -> None:
    bench = Bench(RoundsSpec(quorum=2, deadline_s=60.0))
    bench.see("a", "b")
    assert kinds(bench.core.receive(offer("a"), 5.0)) == ["Collect"]
    assert bench.core.deadline == 5.0


def test_operators_are_told_again_what_a_job_waits_for_after_each_round() -> None:
    core = Bench(RoundsSpec(quorum=2, deadline_s=60.0, grace_s=1.0)).core
    told = []
    for began in (0.0, 1000.0):
        told += of(Tell, core.receive(here("a"), began))
        opened = core.receive(here("b"), began + 1.0)
        assert of(Open, opened)
        core.receive(gone("a"), began + 2.0)
        core.receive(gone("b"), began + 2.0)
        told += of(Tell, core.tick(began + 61.0))
    assert len(told) == 3, "once at the start, and once after each round"


def test_after_an_outage_a_round_lasts_at_least_as_long_as_devices_may_take_to_answer() -> None:
    bench = all_but("a", "b")
    bench.core.receive(BrokerLost(), 59.0)
    bench.core.receive(Doubted(), 1000.0)
    assert bench.core.rounds.opened.seconds_left(1000.0) == pytest.approx(bench.core.members.hint_s)


def test_a_silent_device_is_asked_ever_less_often_and_then_no_more() -> None:
    bench = Bench(RoundsSpec(quorum=2, min_devices=2, deadline_s=60.0))
    bench.see("a", "ghost")
    bench.count("a")
    effects = pass_time(bench, 90 * 86_400.0)
    assert 5 <= len(of(AskDevices, effects)) <= 10
    assert bench.core.deadline is None
    assert waits.of(bench.core, 1e7).text.endswith("and was asked)")
    assert FIRST_ASK_S < 120.0


# Other names of a base.


def test_an_update_to_a_former_name_of_the_base_counts_and_is_answered_by_that_name() -> None:
    old, new = Version(1, 5), Version(9, 5)
    bench = Bench(RoundsSpec(quorum=2), base=new, history=[{}] * 6, renames={old: new})
    bench.see("a", "b")
    (collect,) = bench.receive(offer("a", old), now=1.0)
    assert isinstance(collect, Collect)
    assert collect.offer.base == new
    verdict = Verdict("a", "j", new, echo(offer("a", old)))
    bench.judge(verdict, 1.0)
    (answer,) = of(SendVerdict, bench.receive(offer("a", old), now=2.0))
    assert answer.verdict.base == old
    assert bench.core.counted == ["a"]


def test_who_counted_under_a_former_name_is_not_counted_again() -> None:
    old, new = Version(1, 5), Version(9, 5)
    ledger = [Verdict("a", "j", new, echo(offer("a", old)))]
    bench = Bench(RoundsSpec(quorum=2), base=new, history=[{}] * 6, renames={old: new}, verdicts=ledger)
    opened = of(Open, bench.see("a", "b"))[0]
    assert bench.core.counted == ["a"]
    assert bench.core.awaited == {"b"}
    (again,) = of(SendVerdict, bench.receive(offer("a", old), now=1.0))
    assert again.verdict.counted
    (commit,) = of(Commit, bench.count("b", base=new))
    assert commit.close.attempt.base == opened.attempt.base == new


def test_who_counts_late_for_this_base_is_said_to_count() -> None:
    rules = RoundsSpec(quorum=2, late="fold")
    bench = Bench(rules, base=V1, history=[{}] * 2, verdicts=[counted("a", V0)], counted=["a"])
    bench.see("a", "b")
    assert {s.device: s.state for s in waits.standings(bench.core, 0.0)} == {"a": "counted", "b": "awaited"}


def test_who_failed_on_a_base_under_its_former_name_has_failed_on_it() -> None:
    old, new = Version(1, 5), Version(9, 5)
    bench = Bench(RoundsSpec(target=2, min_devices=2), base=new, history=[{}] * 6, renames={old: new})
    bench.see("a", "b")
    bench.receive(failed("b", old), now=1.0)
    assert bench.core.attendance.spent == {"b"}
    (commit,) = of(Commit, bench.count("a", base=new))
    assert commit.close.fates["b"] == "not counted: its training failed: it diverged"


# What cannot be.


def waiting() -> Bench:
    return Bench(RoundsSpec(quorum=2))


def opened() -> Bench:
    bench = Bench(RoundsSpec(quorum=2))
    bench.see("a", "b")
    return bench


def committing() -> Bench:
    bench = opened()
    assert of(Commit, bench.count("a", "b"))
    return bench


def ended() -> Bench:
    bench = opened()
    bench.receive(EndJob("enough"))
    return bench


# Older versions again, and pauses: laws 11 and 12.

BACK = RollBack(0, "version 0 was restored by anna")


def test_a_rollback_abandons_the_round_and_the_next_one_leaves_what_is_restored() -> None:
    bench = opened()
    bench.count("a")
    close, restore = bench.receive(BACK, now=2.0)
    assert (close.outcome, close.reason, close.fates["a"]) == ("abandoned", "version 0 was restored by anna", "counted")
    assert restore == Restore(0)
    assert bench.core.receive(offer("b"), 2.0) == [], "which is offered meanwhile waits"
    effects = bench.commit(V1)
    assert kinds(effects)[:3] == ["Publish", "Open", "Announce"]
    (late,) = of(SendVerdict, effects)
    assert late.verdict == refused("b", "stale: it is based on version 1.0, the current one is 1.1")
    assert bench.core.counted == []
    bench.core.check()


def test_a_rollback_waits_for_the_version_that_is_being_made() -> None:
    bench = committing()
    assert bench.receive(BACK) == []
    assert kinds(bench.commit(V1)) == ["Publish", "Restore"]
    assert kinds(bench.commit(V2)) == ["Publish", "Open", "Announce"]
    bench.core.check()


def test_a_rollback_waits_for_verdicts() -> None:
    bench = opened()
    bench.receive(offer("a"), VerdictPending("a"), now=1.0)
    assert bench.receive(BACK, now=1.0) == []
    assert bench.core.is_busy
    assert kinds(bench.receive(VerdictStored(counted("a")), now=1.0)) == ["Close", "Restore"]


def test_a_rollback_that_comes_to_nothing_lets_the_next_attempt_open_with_what_was_counted() -> None:
    bench = opened()
    bench.count("a")
    bench.receive(BACK, now=2.0)
    effects = bench.receive(NotRestored("version 0 is not kept"), now=2.0)
    (again,) = of(Open, effects)
    assert (again.attempt.base, again.attempt.number) == (V0, 2)
    assert bench.core.counted == ["a"]
    bench.core.check()


def test_a_stop_wins_over_a_rollback() -> None:
    bench = committing()
    bench.receive(BACK, EndJob("enough"))
    assert bench.commit(V1) == [Publish("stopped", "enough")]
    assert bench.receive(BACK) == []


PATIENT = RoundsSpec(quorum=2, stop=StopSpec(metric="loss", patience=2))
HISTORY = [{}, {"loss": 1.0}, {"loss": 2.0}]
REASON = "no better loss than 1.0000 for 2 rounds"


def at_its_end(**state: Any) -> Bench:
    bench = Bench(PATIENT, base=V2, history=HISTORY, **state)
    bench.see("a", "b")
    bench.count("a", "b", base=V2)
    return bench


def test_a_job_that_ends_by_its_patience_restores_its_best_version_and_ends_with_it() -> None:
    bench = at_its_end()
    why = f"{REASON}: version 1.4 is version 1 again, the best"
    assert kinds(bench.commit(Version(1, 3), loss=2.0)) == ["Publish", "Restore"]
    assert bench.core.state == "running"
    assert bench.commit(Version(1, 4), loss=1.0, restored=1.0) == [Publish("finished", why)]
    bench.core.check()


def test_a_start_before_the_best_version_was_restored_restores_it() -> None:
    bench = Bench(PATIENT, base=Version(1, 3), history=[*HISTORY, {"loss": 2.0}])
    (restore,) = bench.core.tick(1.0)
    assert restore == Restore(1, f"{REASON}: version 1.4 is version 1 again, the best")
    assert bench.receive(NotRestored("version 1 is not kept")) == [
        Publish("finished", f"{REASON}; version 1 is not kept")
    ]


def test_a_job_that_serves_a_mean_ends_with_its_last_version() -> None:
    bench = at_its_end(serves_best=False)
    assert bench.commit(Version(1, 3), loss=2.0) == [Publish("finished", REASON)]


def test_while_a_job_is_paused_no_round_opens_and_what_was_counted_waits() -> None:
    bench = opened()
    bench.count("a")
    (close,) = bench.receive(Pause("paused by anna since noon"), now=2.0)
    assert (close.outcome, close.reason) == ("abandoned", "the job is paused by anna since noon")
    assert bench.see("c", now=3.0) == []
    assert waits.of(bench.core, 3.0) == waits.Waits("it is paused by anna since noon", "fedge job resume, or job stop")
    assert kinds(bench.count("b", now=3.0)) == []
    effects = bench.receive(Unpause(), now=4.0)
    assert kinds(effects)[:2] == ["Open", "Announce"]
    assert bench.core.counted == ["a", "b"]


def test_a_job_is_paused_once_the_verdicts_are_durable() -> None:
    bench = opened()
    bench.receive(offer("a"), VerdictPending("a"), now=1.0)
    assert bench.receive(Pause("paused by anna since noon"), now=1.0) == []
    assert kinds(bench.receive(VerdictStored(counted("a")), now=1.0)) == ["Close"]


def test_a_job_that_was_paused_before_a_start_is_paused_and_ends_the_round_that_was_open() -> None:
    attempt = Attempt(V0, 1, "salt", draw.MAX_TICKET, None, ("a", "b"))
    bench = Bench(RoundsSpec(quorum=2), attempt=attempt, last=attempt, paused="paused by anna since noon")
    assert kinds(bench.core.tick(0.0))[0] == "Close"
    assert bench.see("a", "b") == []


STATES = {State.WAITING: waiting, State.OPEN: opened, State.COMMITTING: committing, State.ENDED: ended}

SAID: dict[type, CoordinatorEvent] = {
    Offer: offer("c"),
    DeviceStatus: here("c"),
    BrokerLost: BrokerLost(),
    Doubted: Doubted(),
    EndJob: EndJob("enough"),
    VerdictPending: VerdictPending("c"),
    VerdictStored: VerdictStored(counted("c")),
    Committed: Committed(V1, {}),
    CommitFailed: CommitFailed("it has diverged"),
    NotRestored: NotRestored("version 3 is not kept"),
    RollBack: RollBack(0, "version 0 was restored by anna"),
    Pause: Pause("paused by anna since today"),
    Unpause: Unpause(),
}


def test_the_table_has_a_row_for_every_event() -> None:
    assert TABLE.rows.keys() == {*get_args(CoordinatorEvent), Tick}
    assert SAID.keys() == {*get_args(CoordinatorEvent)}


@pytest.mark.parametrize("kind", SAID, ids=[kind.__name__ for kind in SAID])
@pytest.mark.parametrize("state", STATES, ids=[state.name for state in STATES])
def test_an_event_leads_where_the_table_says_or_raises_and_changes_nothing(state: State, kind: type) -> None:
    bench = STATES[state]()
    bench.core.check()
    before = pickle.dumps(bench.core)
    follow = TABLE.rows[kind][state]
    if follow and kind is not VerdictStored:
        bench.core.receive(SAID[kind], 2.0)
        assert bench.core._state in follow
        bench.core.check()
        return
    with pytest.raises(IllegalEventError, match=rf"^{kind.__name__} came while .+: .+ nothing has changed"):
        bench.core.receive(SAID[kind], 2.0)
    assert pickle.dumps(bench.core) == before


def test_a_version_out_of_nowhere_moves_no_base() -> None:
    core = Coordinator(Setup(rules=RoundsSpec(), seed=1, base=V0), 0.0)
    with pytest.raises(IllegalEventError, match="Committed came while the job waits for devices: no version is being"):
        core.receive(Committed(Version(7, 99), {}), 0.0)
    assert (core.base, core.history, core.state) == (V0, [{}], "waiting")


@pytest.mark.parametrize("version", [V0, V2, Version(7, 99), Version(7, 1)])
def test_no_other_version_is_committed_than_the_next_one(version: Version) -> None:
    bench = committing()
    with pytest.raises(IllegalEventError, match=r"what is made is 1\.1, not "):
        bench.commit(version)
    assert (bench.core.base, bench.core.state) == (V0, "running")
    assert bench.commit(V1)
    assert bench.core.base == V1


def test_a_failure_to_make_a_version_that_nobody_makes_ends_no_job() -> None:
    bench = opened()
    with pytest.raises(IllegalEventError, match="CommitFailed came while a round is open: no version is being made"):
        bench.receive(CommitFailed("it has diverged"))
    assert bench.core.state == "running"
    assert kinds(bench.count("a", "b")) == ["Commit"]


def test_a_verdict_is_durable_only_of_an_update_that_was_judged() -> None:
    bench = opened()
    bench.count("a")
    for verdict in (counted("b"), refused("a", "absurd"), counted("a", V1)):
        with pytest.raises(IllegalEventError, match=f"no verdict on {verdict.device} was being made durable"):
            bench.receive(VerdictStored(verdict))
    assert bench.core.counted == ["a"]


def test_an_update_is_judged_once_at_a_time() -> None:
    bench = opened()
    judging(bench, "a")
    with pytest.raises(IllegalEventError, match="the verdict on a is being made durable already"):
        bench.receive(VerdictPending("a"))
    assert kinds(bench.receive(VerdictStored(counted("a")), VerdictPending("b"), VerdictStored(counted("b")))) == [
        "Commit"
    ]


@pytest.mark.parametrize("state", STATES, ids=[state.name for state in STATES])
def test_what_devices_and_operators_bring_is_never_illegal(state: State) -> None:
    events = [here("a"), gone("a"), here("a"), offer("a"), offer("a", V2), offer("z", Version(9, 9)), EndJob("enough")]
    for event in (*events, BrokerLost(), *events, BrokerLost(), Doubted(), *events, Doubted()):
        bench = STATES[state]()
        for again in (event, here("a"), event):
            bench.core.receive(again, 1e4)
        bench.core.check()


@pytest.mark.parametrize(
    ("name", "value"),
    [("_state", State.WAITING), ("_state", State.ENDED), ("ended", "stopped")],
)
def test_a_coordinator_that_contradicts_itself_is_found(name: str, value: object) -> None:
    bench = opened()
    setattr(bench.core, name, value)
    with pytest.raises(AssertionError):
        bench.core.check()


def test_a_state_that_the_table_does_not_know_stops_before_anything_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coordinator, "TABLE", TABLE.but(DeviceStatus, State.WAITING, State.WAITING))
    with pytest.raises(AssertionError, match=r"DeviceStatus\(device='b'.+ led to State.OPEN"):
        opened()


# What it waits for.


def test_what_a_job_waits_for_can_be_asked() -> None:
    bench = Bench(RoundsSpec(quorum=3, target=3, min_devices=3, deadline_s=60.0))
    assert waits.of(bench.core, 0.0).text == "no device takes part yet"
    bench.receive(here("a"), unready("b", "no such file"), gone("c"))
    text = waits.of(bench.core, 200.0).text
    assert text == (
        "3 devices that can take part are needed, 1 is there (b unready: no such file; c offline for 3 min)"
    )
    bench.see("b", "c")
    bench.count("a")
    assert waits.of(bench.core, 20.0) == waits.Waits(
        "attempt 1 to leave version 1.0: 1 counted, 2 of 3 drawn awaited (b, c)",
        "their updates, or 3 updates; at the latest the deadline in 40 s",
    )


def test_operators_are_told_once_of_each_kind_of_wait() -> None:
    bench = Bench(RoundsSpec(quorum=9, min_devices=9))
    told = [len(of(Tell, bench.core.receive(here(f"d{n}"), 0.0))) for n in range(5)]
    assert told == [1, 0, 0, 0, 0]


def test_twenty_thousand_devices_are_no_burden() -> None:
    """Work is counted, not time: nothing is sorted or searched at each of these events."""
    n = 20_000
    bench = Bench(RoundsSpec(quorum=1, fraction=0.01, min_devices=n, deadline_s=60.0))
    for number in range(n):
        bench.core.receive(here(f"device-{number}"), 0.0)
    assert bench.core.attempt is not None
    assert len(bench.core.attempt.cohort) == 200


# While updates are judged, and a version is made.


def judging(bench: Bench, *devices: str) -> list[Effect]:
    """Have welcome updates be judged, whose verdicts are not durable yet."""
    effects: list[Effect] = []
    for device in devices:
        assert bench.receive(offer(device), now=1.0) == [Collect(offer(device), 10)]
        effects += bench.receive(VerdictPending(device), now=1.0)
    return effects


def test_a_round_ends_with_everything_that_is_being_judged() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=1, min_devices=3, over_selection=3.0))
    bench.see("a", "b", "c")
    assert judging(bench, "a", "b") == []
    assert bench.receive(VerdictStored(counted("a")), now=1.0) == []
    (commit,) = bench.receive(VerdictStored(counted("b")), now=1.0)
    assert commit.close.fates == {
        "a": "counted",
        "b": "counted",
        "c": "not counted: nothing had arrived when the round ended",
    }


def test_nothing_begins_or_ends_while_an_update_is_judged() -> None:
    bench = Bench(RoundsSpec(quorum=1, min_devices=2, deadline_s=60.0))
    bench.see("a", "b")
    judging(bench, "a")
    assert bench.receive(DeviceStatus("b", online=False, ready=True), now=2.0) == []
    assert of(Commit, bench.core.tick(1000.0)) == []
    assert bench.receive(EndJob("enough"), now=1000.0) == []
    assert bench.core.state == "running"
    effects = bench.receive(VerdictStored(counted("a")), now=1000.0)
    assert kinds(effects) == ["Close", "Publish"]
    assert effects[0].fates["a"] == "counted"  # type: ignore[union-attr]  # kinds says that it is a Close
    assert bench.core.state == "stopped"


def test_who_offers_again_while_its_update_is_judged_is_answered_with_the_verdict() -> None:
    bench = Bench(RoundsSpec(quorum=2))
    bench.see("a", "b")
    judging(bench, "a")
    assert bench.receive(offer("a"), now=1.0) == []
    assert bench.receive(VerdictStored(refused("a", "absurd")), now=1.0) == [SendVerdict(refused("a", "absurd"))]
    assert bench.receive(offer("a"), now=2.0) == [SendVerdict(refused("a", "absurd"))]


def test_a_verdict_that_is_told_a_second_time_changes_nothing() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=2, min_devices=2))
    bench.see("a", "b")
    bench.count("a")
    assert bench.receive(VerdictStored(counted("a")), now=1.0) == []
    bench.count("b")
    bench.commit()
    assert bench.receive(VerdictStored(counted("a")), now=3.0) == []
    assert bench.core.counted == []


@pytest.mark.parametrize("late", ["refuse", "fold"])
def test_what_is_offered_while_a_version_is_made_is_weighed_against_that_version(late: Any) -> None:
    bench = Bench(RoundsSpec(quorum=1, target=1, min_devices=2, over_selection=2.0, late=late))
    bench.see("a", "b")
    with_body = structs.replace(offer("b"), body=b"the update")
    bench.count("a")
    for _ in range(3):
        assert bench.receive(with_body, now=1.0) == []
    effects = [e for e in bench.commit() if isinstance(e, SendVerdict | Collect) and "b" in str(e)]
    if late == "fold":
        assert effects == [Collect(offer("b"), 7)], "once, without its body, which is asked for"
    else:
        (answer,) = effects
        assert isinstance(answer, SendVerdict)
        assert "stale" in answer.verdict.refused
    assert bench.core._waiting == {}


def test_who_has_a_verdict_is_answered_while_a_version_is_made() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=1, min_devices=2, over_selection=2.0))
    bench.see("a", "b")
    bench.count("a")
    assert bench.receive(offer("a"), now=1.0) == [SendVerdict(counted("a"))]


def test_a_stop_waits_for_the_version_that_is_made() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=1))
    bench.see("a")
    bench.count("a")
    assert bench.receive(EndJob("enough"), now=1.0) == []
    assert bench.receive(EndJob("more than enough"), now=1.0) == []
    assert bench.core.tick(500.0) == []
    assert bench.commit() == [Publish("stopped", "enough")]
    assert bench.core.base == V1
    assert bench.receive(offer("a", V1), now=3.0)[0].verdict.refused == "the job has ended"  # type: ignore[union-attr]


def test_devices_that_come_and_go_while_a_version_is_made_are_there_or_not_for_the_next() -> None:
    bench = Bench(RoundsSpec(quorum=1, min_devices=1))
    bench.see("a")
    bench.count("a")
    bench.see("b")
    bench.receive(gone("a"), now=1.0)
    bench.receive(BrokerLost(), Doubted(), now=1.0)
    bench.see("b", now=1.0)
    (opened,) = of(Open, bench.commit(now=50.0))
    assert opened.attempt.cohort == ("b",)


def test_a_job_of_which_no_version_can_be_made_ends() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=1))
    bench.see("a")
    bench.count("a")
    assert bench.receive(CommitFailed("it has diverged"), now=1.0) == [Publish("stopped", "it has diverged")]
    assert bench.core.state == "stopped"


def test_a_round_whose_devices_can_bring_nothing_any_more_makes_way_for_others() -> None:
    bench = Bench(RoundsSpec(quorum=1, target=1, min_devices=3, deadline_s=3600.0))
    bench.see("a", "b", "c")
    attempt = bench.core.attempt
    assert attempt is not None
    (drawn,) = attempt.cohort
    bench.receive(offer(drawn), now=1.0)
    effects = bench.judge(refused(drawn, "absurd"), 1.0)
    (closed,), (opened,) = of(Close, effects), of(Open, effects)
    assert (closed.outcome, opened.attempt.number) == ("abandoned", 2)
    assert closed.reason == "0 updates and nobody that it drew has another to send, where a quorum of 1 is needed"
    assert len(opened.attempt.cohort) == 1
    assert opened.attempt.cohort != attempt.cohort
