"""The coordinator's laws, held against whatever a near enough world can do to it.

The rules stay close to the live state: offers are for the current base, the one before it or one that was offered
already; verdicts and commits follow, at once or later, or the process dies before them; time moves by about as much
as matters next. And the shell errs: what it cannot have to say in a state is refused, and changes nothing.
"""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from aggregator import scale
from aggregator.absences import ABSENT
from aggregator.coordinator import Coordinator
from aggregator.effects import (
    Announce,
    AskDevices,
    Attempt,
    Close,
    Collect,
    Commit,
    CommitFailed,
    Committed,
    CoordinatorEvent,
    DeviceStatus,
    Effect,
    EndJob,
    Open,
    Publish,
    SendVerdict,
    Setup,
    StoreRefusal,
    VerdictPending,
    VerdictStored,
)
from broker.messages import Offer, Verdict, Version, echo
from models import draw
from models.job import RoundsSpec
from runtime.states import IllegalEventError

DEVICES = [f"d{n}" for n in range(6)]
SEED = 3
MOST_EXAMPLES = 100
devices = st.sampled_from(DEVICES)
Key = tuple[str, Version, str]


@st.composite
def rules_of_a_job(draw_: st.DrawFn) -> RoundsSpec:
    quorum = draw_(st.integers(1, 4))
    return RoundsSpec(
        fraction=draw_(st.sampled_from([0.5, 1.0])),
        target=draw_(st.none() | st.integers(quorum, 5)),
        quorum=quorum,
        over_selection=draw_(st.sampled_from([1.0, 1.5])),
        wait=draw_(st.sampled_from(["target", "target", "all"])),
        late=draw_(st.sampled_from(["refuse", "fold"])),
        deadline_s=60.0,
        grace_s=5.0,
        max_rounds=draw_(st.integers(1, 4)),
    )


class CoordinatorLaws(RuleBasedStateMachine):
    """A coordinator, what is durable beside it, and a record of all that was ever said."""

    @initialize(job=rules_of_a_job(), is_slow=st.booleans(), limit=st.sampled_from([None, MOST_EXAMPLES]))
    def begin(self, job: RoundsSpec, is_slow: bool, limit: int | None) -> None:
        self.job = job
        self.limit = limit
        """max_examples of the job."""
        self.weights: dict[Key, tuple[Offer, int]] = {}
        """Of what is in the sum, or may be soon."""
        self.now = 0.0
        # Durable.
        self.version = Version(1, 0)
        self.verdicts: dict[str, Verdict] = {}
        self.sum: list[Key] = []
        self.attempts: dict[tuple[Version, int], tuple[Attempt, str]] = {}
        self.ended = ""
        self.is_slow = is_slow
        """Whether the shell takes its time for verdicts and versions."""
        # Remembered for the laws.
        self.offered: list[Offer] = []
        self.said: dict[Key, bool] = {}
        self.folded: list[Key] = []
        self.seen = {device: DeviceStatus(device, online=True, ready=True) for device in DEVICES}
        self.known: dict[str, DeviceStatus] = {}
        self.barred: set[str] = set()
        """Durable: devices of which nothing is to be counted."""
        self.were_barred: set[str] = set()
        """Since the base is what it is."""
        self.waited_since = 0.0
        self.start()
        self.everybody_connects_again()

    def start(self) -> None:
        here = [pair for (base, _), pair in sorted(self.attempts.items()) if base == self.version]
        setup = Setup(
            rules=self.job,
            seed=SEED,
            max_examples=self.limit,
            base=self.version,
            verdicts=list(self.verdicts.values()),
            counted=[device for device, _, _ in self.sum],
            attempt=next((attempt for attempt, how in here if how == "open"), None),
            last=here[-1][0] if here else None,
            left=self.left() if self.job.late == "fold" else {},
            history=[{}] * (self.version.number + 1),
            ended=self.ended,  # type: ignore[arg-type]  # written from the effects' own literals
        )
        self.core = Coordinator(setup, self.now)
        self.waited_since = self.now
        self.known = {}
        # What a slow shell is at.
        self.pending: dict[str, Verdict] = {}
        self.making: Close | None = None
        for device in sorted(self.barred):
            self.carry_out(self.core.receive(DeviceStatus(device, False, False, live=False, barred="why"), self.now))
        self.carry_out(self.core.tick(self.now))

    def left(self) -> dict[Version, Attempt]:
        rounds = sorted(self.attempts.values(), key=lambda pair: (pair[0].base, pair[0].number))
        return {attempt.base: attempt for attempt, _ in rounds if attempt.base < self.version}

    def carry_out(self, effects: list[Effect], die_at: int | None = None) -> None:
        """Do what is wanted, and perhaps die before one of the effects, and start again from what is durable."""
        todo = list(effects)
        while todo:
            if die_at is not None:
                if die_at == 0:
                    self.start()
                    return
                die_at -= 1
            todo = self.do(todo[0]) + todo[1:]

    def do(self, effect: Effect) -> list[Effect]:
        if isinstance(effect, Open | Close | Commit | Publish):
            assert not self.pending, "begins or ends something while updates are judged"
            assert self.making is None, "begins or ends something while a version is made"
        match effect:
            case Open(attempt):
                self.check_widened(attempt)
                self.attempts[attempt.base, attempt.number] = (attempt, "open")
                self.waited_since = self.now
            case Announce(attempt, left):
                assert self.attempts[attempt.base, attempt.number][1] == "open", "announced before it was durable"
                assert attempt.base == self.version
                assert 0 <= left <= 60.0
            case Collect(offer, weight):
                assert self.making is None, "collects for a base that is being left"
                assert offer.device not in self.barred, "counts who is barred"
                assert 1 <= weight <= min(offer.n_examples, scale.MOST)
                late = offer.base != self.version
                assert offer.base <= self.version, "an update to a version that does not exist"
                self.weights[offer.device, offer.base, echo(offer)] = offer, weight
                assert not late or self.job.late == "fold"
                return self.judge(Verdict(offer.device, "j", offer.base, echo(offer)))
            case StoreRefusal(verdict):
                assert not verdict.counted
                return self.judge(verdict)
            case SendVerdict(verdict):
                key = (verdict.device, verdict.base, verdict.digest)
                kept = self.verdicts.get(verdict.device)
                if key in self.said and kept is not None and kept.base <= verdict.base:
                    assert self.said[key] == verdict.counted, "another verdict than the first"
                assert not verdict.counted or key in self.said, "counted, but not durable"
            case Commit(close):
                return self.commit(close)
            case Close(attempt, outcome, reason, fates):
                assert reason
                assert set(attempt.cohort) <= set(fates)
                self.attempts[attempt.base, attempt.number] = (attempt, outcome)
            case Publish(state, _):
                if state in ("finished", "stopped"):
                    self.ended = state
        return []

    def judge(self, verdict: Verdict) -> list[Effect]:
        assert verdict.device not in self.pending, "has an update judged while one is"
        effects = self.core.receive(VerdictPending(verdict.device), self.now)
        self.pending[verdict.device] = verdict
        return effects if self.is_slow else [*effects, *self.store(verdict)]

    def store(self, verdict: Verdict) -> list[Effect]:
        del self.pending[verdict.device]
        key = (verdict.device, verdict.base, verdict.digest)
        assert key not in self.said, "judged twice"
        kept = self.verdicts.get(verdict.device)
        assert kept is None or kept.base < verdict.base, "two verdicts for one base"
        self.said[key] = verdict.counted
        self.verdicts[verdict.device] = verdict
        if verdict.counted:
            self.sum.append(key)
        return self.core.receive(VerdictStored(verdict), self.now)

    def commit(self, close: Close) -> list[Effect]:
        members = {device for device, _, _ in self.sum}
        assert len(members) >= self.job.quorum
        assert self.core.counted == sorted(members), "what is counted is not what is in the sum"
        assert close.attempt.base == self.version
        for key in self.sum:
            offer, weight = self.weights[key]
            staleness = self.version.number - offer.base.number
            rows = 1000 * offer.n_examples // math.isqrt(1_000_000 * (1 + staleness))
            assert weight == scale.weight(rows, close.attempt.shift), "one sum has weights of two scales"
        if self.job.wait == "all":
            judged = {device for device, verdict in self.verdicts.items() if verdict.base == self.version}
            assert set(close.attempt.cohort) <= judged | self.were_barred, "did not wait for all"
        if self.is_slow:
            self.making = close
            return []
        return self.make(close)

    def make(self, close: Close) -> list[Effect]:
        self.making = None
        self.attempts[close.attempt.base, close.attempt.number] = (close.attempt, close.outcome)
        self.folded += self.sum
        self.sum = []
        self.version = Version(1, self.version.number + 1)
        self.were_barred = set(self.barred)
        return self.core.receive(Committed(self.version, {}), self.now)

    def check_widened(self, attempt: Attempt) -> None:
        before = self.attempts.get((attempt.base, attempt.number - 1))
        assert (attempt.number == 1) == (before is None)
        if before is not None:
            assert before[1] == "abandoned"
            assert attempt.salt == before[0].salt
            assert attempt.threshold >= before[0].threshold
            assert attempt.shift == before[0].shift
            eligible = {name for name, seen in self.known.items() if seen.online and seen.ready} - self.barred
            fresh = [name for name in eligible if draw.ticket(attempt.salt, name) > before[0].threshold]
            if self.job.wait == "all":
                dropped = set(before[0].cohort) - set(attempt.cohort)
                absent = {name for name in dropped if before[0].absences.get(name, 0) == ABSENT - 1}
                refused = {v.device for v in self.verdicts.values() if v.base == attempt.base and not v.counted}
                assert dropped <= absent | refused | self.were_barred, "dropped too soon"
                assert dropped or attempt.cohort == before[0].cohort
            elif fresh:
                assert set(attempt.cohort) & set(fresh), "did not widen"
        counted = {device for device, _, _ in self.sum}
        assert self.barred.intersection(attempt.cohort) <= counted, "draws who is barred"
        assert attempt.cohort or len(self.sum) >= self.job.quorum, "draws nobody, and cannot end at once"
        assert all(draw.ticket(attempt.salt, device) <= attempt.threshold for device in attempt.cohort)

    # What can happen.

    @rule(
        device=devices,
        online=st.sampled_from([True, True, False]),
        ready=st.sampled_from([True, True, True, False]),
        rows=st.sampled_from([0, 10, 2**20, 2**22, 2**32]),
    )
    def a_device_is_seen(self, device: str, online: bool, ready: bool, rows: int) -> None:
        barred = "why" if device in self.barred else ""
        self.seen[device] = self.known[device] = DeviceStatus(device, online, ready, rows=rows, barred=barred)
        self.carry_out(self.core.receive(self.seen[device], self.now))

    @rule(device=devices, barred=st.booleans())
    def an_operator_bars_or_releases(self, device: str, barred: bool) -> None:
        (self.barred.add if barred else self.barred.discard)(device)
        self.were_barred |= self.barred
        self.seen[device] = self.known[device] = structs.replace(self.seen[device], barred="why" if barred else "")
        self.carry_out(self.core.receive(self.seen[device], self.now))

    def offer(self, device: str, base: Version, n: int = 10) -> Offer | None:
        """Return what an honest device offers: once for a base, and only when a round has drawn it."""
        tried = [attempt for (left, _), (attempt, _) in self.attempts.items() if left == base]
        drawn = any(draw.ticket(attempt.salt, device) <= attempt.threshold for attempt in tried)
        if not drawn or any((one.device, one.base) == (device, base) for one in self.offered):
            return None
        self.offered.append(Offer("j", device, base, n, f"{len(self.offered):08x}" + "0" * 24, 9))
        return self.offered[-1]

    @rule(device=devices, back=st.sampled_from([0, 0, 1]), n=st.sampled_from([10, 10, MOST_EXAMPLES + 1, 2**24]))
    def a_drawn_device_offers(self, device: str, back: int, n: int) -> None:
        offer = self.offer(device, Version(1, max(0, self.version.number - back)), n)
        if offer is not None:
            self.carry_out(self.core.receive(offer, self.now))

    @rule(device=devices)
    def an_update_comes_from_the_future(self, device: str) -> None:
        offer = Offer("j", device, Version(1, self.version.number + 1), 10, "f" * 32, 9)
        self.carry_out(self.core.receive(offer, self.now))

    @precondition(lambda self: self.core.attempt is not None)
    @rule(all_but=st.integers(0, 2), dies_at=st.none() | st.integers(0, 4))
    def a_round_is_played(self, all_but: int, dies_at: int | None) -> None:
        attempt = self.core.attempt
        assert attempt is not None
        for device in attempt.cohort[: max(1, len(attempt.cohort) - all_but)]:
            offer = self.offer(device, attempt.base)
            if offer is not None:
                self.carry_out(self.core.receive(offer, self.now))
        if self.offered:
            self.carry_out(self.core.receive(self.offered[-1], self.now), dies_at)

    @precondition(lambda self: self.offered)
    @rule(data=st.data())
    def an_offer_comes_again(self, data: st.DataObject) -> None:
        offer = data.draw(st.sampled_from(self.offered[-12:]))
        self.carry_out(self.core.receive(offer, self.now))

    @rule(device=devices, n=st.integers(0, 4))
    def the_process_dies_while_it_judges(self, device: str, n: int) -> None:
        offer = self.offer(device, self.version)
        if offer is not None:
            self.carry_out(self.core.receive(offer, self.now), die_at=n)

    @rule(seconds=st.sampled_from([0.5, 5.0, 11.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.core.tick(self.now))

    @precondition(lambda self: self.core.deadline is not None)
    @rule(die_at=st.none() | st.integers(0, 3))
    def the_alarm_rings(self, die_at: int | None) -> None:
        deadline = self.core.deadline
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.carry_out(self.core.tick(self.now), die_at)
        later = self.core.deadline
        assert die_at is not None or self.pending or later is None or later > self.now, "it spins"

    @rule()
    def the_process_starts_again(self) -> None:
        self.start()

    @rule()
    def everybody_connects_again(self) -> None:
        for seen in self.seen.values():
            self.known[seen.device] = seen
            self.carry_out(self.core.receive(seen, self.now))
        self.carry_out(self.core.announce(self.now))

    @precondition(lambda self: self.version.number > 2)
    @rule()
    def an_operator_stops_it(self) -> None:
        self.carry_out(self.core.receive(EndJob("enough"), self.now))

    # What the shell does in its own time, and what it never should.

    @rule(is_slow=st.booleans())
    def the_shell_changes_its_pace(self, is_slow: bool) -> None:
        self.is_slow = is_slow

    @precondition(lambda self: self.pending)
    @rule(dies_at=st.none() | st.integers(0, 4))
    def the_verdicts_become_durable(self, dies_at: int | None) -> None:
        for verdict in list(self.pending.values()):
            if verdict.device in self.pending:  # it has not died
                self.carry_out(self.store(verdict), dies_at)

    @precondition(lambda self: self.making is not None)
    @rule(dies_at=st.none() | st.integers(0, 4), device=devices)
    def the_version_is_made(self, dies_at: int | None, device: str) -> None:
        self.the_shell_errs(device, 0.0)
        assert self.making is not None
        self.carry_out(self.make(self.making), dies_at)

    @precondition(lambda self: self.core.attempt is not None)
    @rule(device=devices, seconds=st.sampled_from([0.5, 61.0]), stops=st.sampled_from([None, None, 1, 2, 2]))
    def a_round_is_played_slowly(self, device: str, seconds: float, stops: int | None) -> None:
        """Have all but one offer before anything is durable; a stop comes before the verdicts or the version."""
        attempt, self.is_slow = self.core.attempt, True
        assert attempt is not None
        for name in attempt.cohort:
            offer = self.offer(name, attempt.base)
            if offer is not None and name not in (device, *self.pending):
                self.carry_out(self.core.receive(offer, self.now))
        for stage in (1, 2):
            self.the_shell_errs(device, 0.0)
            if stops == stage:
                self.carry_out(self.core.receive(EndJob("enough"), self.now))
            self.time_passes(seconds)
            if stage == 1:
                self.the_verdicts_become_durable(None)
                self.time_passes(0.0)
        late = [one for one in self.offered if one.device == device][-1:]
        for offer in late:
            self.carry_out(self.core.receive(offer, self.now))
        if self.making is not None:
            self.carry_out(self.make(self.making))

    @precondition(lambda self: self.verdicts)
    @rule(data=st.data())
    def a_verdict_is_told_again(self, data: st.DataObject) -> None:
        verdict = data.draw(st.sampled_from(list(self.verdicts.values())))
        if verdict.device not in self.pending:
            before = self.core.counted, self.core.attempt, self.core.state
            assert not [e for e in self.core.receive(VerdictStored(verdict), self.now) if not isinstance(e, AskDevices)]
            assert (self.core.counted, self.core.attempt, self.core.state) == before

    def illegal(self, device: str) -> list[CoordinatorEvent]:
        """Return what nobody can have to say now."""
        following = self.version.following()
        events: list[CoordinatorEvent] = [Committed(following.following(), {}), Committed(self.version, {})]
        if device in self.pending:
            events += [VerdictPending(device)]
        else:
            events += [VerdictStored(Verdict(device, "j", self.version, "e" * 8))]
            events += [VerdictStored(Verdict(device, "j", self.version, "e" * 8, refused="absurd"))]
        if self.making is None:
            events += [Committed(following, {}), CommitFailed("it has diverged")]
        if self.making is not None or self.ended:
            events += [VerdictPending(device)]
        return events

    @rule(device=devices, seconds=st.sampled_from([0.0, 5.0, 61.0]))
    def the_shell_errs(self, device: str, seconds: float) -> None:
        before = pickle.dumps(self.core)
        for event in self.illegal(device):
            with pytest.raises(IllegalEventError, match=f"^{type(event).__name__} came while "):
                self.core.receive(event, self.now + seconds)
            assert pickle.dumps(self.core) == before, "an illegal event has changed something"

    # What must always hold.

    @invariant()
    def the_coordinator_does_not_contradict_itself(self) -> None:
        self.core.check()

    @invariant()
    def nothing_counted_is_lost_or_counted_twice(self) -> None:
        sums = self.folded + self.sum
        assert len(sums) == len(set(sums))
        assert set(sums) == {key for key, counted in self.said.items() if counted}

    @invariant()
    def the_coordinator_knows_what_is_durable(self) -> None:
        assert self.core.base == self.version
        assert self.core.ended == self.ended
        assert self.core.counted == sorted({device for device, _, _ in self.sum})
        assert self.version.number <= self.job.max_rounds

    @invariant()
    def a_round_is_over_at_its_deadline(self) -> None:
        if self.core.attempt is not None:
            assert self.attempts[self.core.attempt.base, self.core.attempt.number][1] == "open"
            deadline = self.core.deadline
            assert deadline is not None
            assert deadline <= self.waited_since + 60.0 or deadline <= self.now

    @invariant()
    def a_target_that_is_reached_ends_the_round(self) -> None:
        attempt = self.core.attempt
        if attempt is not None and attempt.target is not None and not self.pending:
            assert len(self.core.counted) < attempt.target


TestCoordinatorLaws = CoordinatorLaws.TestCase
TestCoordinatorLaws.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
