"""What the coordinator keeps as it goes is what a scan of everybody would find, and an event costs the same with many.

The scans of `Scanned` are how each of these was worked out before anything was kept: from all devices, at every event.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from unittest import mock

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aggregator import coordinator, members, waits
from aggregator.attendance import Attendance
from aggregator.convergence import reason_to_end
from aggregator.coordinator import Coordinator
from aggregator.effects import (
    Attempt,
    BrokerLost,
    Close,
    Collect,
    Commit,
    Committed,
    CoordinatorEvent,
    DeviceStatus,
    Doubted,
    Effect,
    EndJob,
    Open,
    Publish,
    Setup,
    StoreRefusal,
    Tell,
    VerdictPending,
    VerdictStored,
)
from aggregator.ledger import Ledger
from aggregator.members import Members
from broker.messages import Offer, Verdict, Version, echo
from models import draw
from models.job import RoundsSpec, StopSpec
from tests.counting import Name, Work, work_of

OLD = Version(3, 1)
"""What version 0 was called before a backup was restored."""


class ScannedMembers(Members):
    """Every alarm is kept, and all are looked at."""

    def next_at(self) -> float:
        self._alarms = sorted(alarm for alarm in self._alarms if self._is_due(*alarm))
        return self._alarms[0][0] if self._alarms else math.inf

    def _alarm(self, at: float, device: str) -> None:
        self._alarms = sorted([*self._alarms, (at, device)])


class ScannedLedger(Ledger):
    """Every former name and every drawn device is looked at."""

    def knows(self, version: Version) -> bool:
        if version.generation == self.base.generation:
            return True
        names = (*self._renames, *self._renames.values())
        return any(version.generation == name.generation and version.number <= name.number for name in names)

    def _takes(self, attempt: Attempt | None, device: str) -> bool:
        if attempt is None or draw.ticket(attempt.salt, device) > attempt.threshold:
            return False
        return self._rules.wait == "target" or device in attempt.cohort


class ScannedAttendance(Attendance):
    """Everybody is looked at, whenever it is asked."""

    @property
    def present(self) -> set[str]:
        spent = {name for name in self.spent if (member := self._members.get(name)) and member.there and member.ready}
        return self._ledger.counted | self.able | spent

    @property
    def n_present(self) -> int:
        return len(self.present)

    @property
    def n_contributing(self) -> int:
        return len(self._ledger.counted | self.able)


class ScannedWait(waits.Wait):
    """Everybody is looked at, whenever it is asked."""

    @property
    def amiss(self) -> waits.Amiss:
        self.forget()
        return super().amiss


class Scanned(Coordinator):
    """Everybody is looked at, at every event."""

    def _open(self, now: float) -> list[Effect]:
        self._reason_to_end = reason_to_end(self.history, self.rules)
        return super()._open(now)

    def _conclude(self, now: float) -> list[Effect]:
        assert self.rounds.opened.attempt.base == self.base  # it is put together anew, with everybody who has joined
        return super()._conclude(now)


class Pair:
    """The same job, coordinated with scans and without, and all that is durable of it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.devices = [f"d{n}" for n in range(rng.choice([2, 5, 12]))]
        quorum = rng.randint(1, 3)
        self.rules = RoundsSpec(
            fraction=rng.choice([0.4, 1.0]),
            quorum=quorum,
            min_devices=rng.choice([None, max(quorum, len(self.devices) // 2)]),
            over_selection=rng.choice([1.0, 1.5]),
            wait=rng.choice(["target", "target", "all"]),
            late=rng.choice(["refuse", "fold"]),
            deadline_s=rng.choice([60.0, "learned"]),
            grace_s=5.0,
            max_rounds=rng.randint(4, 12),
            stop=StopSpec(metric="loss", patience=rng.choice([None, None, 4])),
        )
        self.now, self.version = 0.0, Version(9, 0)
        self.verdicts: dict[str, Verdict] = {}
        self.in_the_sum: list[str] = []
        self.history: list[dict[str, float]] = [{}]
        self.last: Attempt | None = None
        self.is_open = False
        self.left: dict[Version, Attempt] = {}
        self.ended = ""
        self.offers: list[Offer] = []
        self.unjudged: list[Offer] = []
        self.start()

    def start(self) -> None:
        scanned = {"Members": ScannedMembers, "Ledger": ScannedLedger, "Attendance": ScannedAttendance}
        with mock.patch.multiple(coordinator, **scanned), mock.patch.object(waits, "Wait", ScannedWait):
            self.slow = self.make(Scanned)
        self.quick = self.make(Coordinator)
        self.unjudged.clear()
        self.do(lambda core: core.tick(self.now))

    def make(self, kind: type[Coordinator]) -> Coordinator:
        setup = Setup(
            rules=self.rules,
            seed=5,
            max_examples=100,
            base=self.version,
            verdicts=list(self.verdicts.values()),
            counted=list(self.in_the_sum),
            attempt=self.last if self.is_open else None,
            last=self.last,
            left=dict(self.left),
            renames={OLD: Version(9, 0), Version(2, 7): Version(9, 1), Version(2, 3): Version(9, 2)},
            history=list(self.history),
            ended=self.ended,  # type: ignore[arg-type]  # written from the effects' own literals
        )
        return kind(setup, self.now)

    def do(self, act: Callable[[Coordinator], list[Effect]]) -> None:
        """Have both do something, see that the same comes of it, and carry it out."""
        effects = act(self.quick)
        assert effects == act(self.slow)
        self.compare()
        for effect in effects:
            match effect:
                case Open(attempt):
                    self.last, self.is_open = attempt, True
                case Close(attempt):
                    self.last, self.is_open = attempt, False
                case Collect(offer) if self.rng.random() < 0.7:
                    self.judge(offer)
                case Collect(offer):
                    self.unjudged.append(offer)
                case StoreRefusal(verdict):
                    self.note(verdict)
                case Commit(close):
                    self.commit(close)
                case Publish("finished" | "stopped" as how):
                    self.ended = how
                    self.unjudged.clear()  # when their bodies are all here they are weighed again

    def compare(self) -> None:
        quick, slow = self.quick, self.slow
        assert quick.deadline == slow.deadline
        kept, scanned = quick.attendance, slow.attendance
        assert (kept.n_present, kept.n_contributing) == (scanned.n_present, scanned.n_contributing)
        assert kept.present == scanned.present
        assert (kept.able, kept.spent, quick.awaited) == (scanned.able, scanned.spent, slow.awaited)
        assert (quick.attempt, quick.state, quick.fates()) == (slow.attempt, slow.state, slow.fates())
        assert waits.of(quick, self.now) == waits.of(slow, self.now)

    def tell(self, event: CoordinatorEvent) -> None:
        self.do(lambda core: core.receive(event, self.now))

    def judge(self, offer: Offer) -> None:
        if offer.device in self.verdicts and self.verdicts[offer.device].base >= offer.base:
            return
        self.note(Verdict(offer.device, "j", offer.base, echo(offer), refused=self.rng.choice([""] * 9 + ["its norm"])))

    def note(self, verdict: Verdict) -> None:
        self.verdicts[verdict.device] = verdict
        if verdict.counted and verdict.device not in self.in_the_sum:
            self.in_the_sum.append(verdict.device)
        self.tell(VerdictPending(verdict.device))
        self.tell(VerdictStored(verdict))

    def commit(self, close: Close) -> None:
        self.left[self.version], self.last, self.is_open = close.attempt, None, False
        self.version, metrics = Version(9, self.version.number + 1), {"loss": self.rng.random()}
        self.in_the_sum.clear()
        self.history.append(metrics)
        self.unjudged.clear()
        self.tell(Committed(self.version, metrics))

    # What can happen.

    def step(self) -> None:
        rng = self.rng
        device, attempt = rng.choice(self.devices), self.quick.attempt
        if attempt is not None and rng.random() < 0.3:
            device = rng.choice(attempt.cohort)
        match rng.choice(["seen"] * 6 + ["offer"] * 8 + ["again", "judge", "time", "time", "rings", "rare"]):
            case "seen":
                failed = rng.choice(
                    [None] * 16 + [self.version, self.version, OLD, Version(9, self.version.number + 1)]
                )
                flags = [rng.random() < share for share in (0.75, 0.85, 0.8)]
                self.tell(
                    DeviceStatus(device, flags[0], flags[1], "" if flags[1] else "no data", flags[2], failed, "nan")
                )
            case "offer":
                here = [self.version] * 6 + [Version(9, max(0, self.version.number - rng.randint(1, 2)))]
                base = rng.choice([*here, OLD, Version(2, rng.randint(2, 9)), Version(9, self.version.number + 1)])
                examples, digest = rng.choice([10, 10, 10, 101]), f"{rng.getrandbits(128):032x}"
                self.offers.append(Offer("j", device, base, examples, digest, 9))
                self.tell(self.offers[-1])
            case "again" if self.offers:
                self.tell(rng.choice(self.offers[-8:]))
            case "judge" if self.unjudged:
                self.judge(self.unjudged.pop(rng.randrange(len(self.unjudged))))
            case "time":
                self.now += rng.choice([0.5, 4.0, 8.0, 61.0])
                self.do(lambda core: core.tick(self.now))
            case "rings" if (at := self.quick.deadline) is not None:
                self.now = max(self.now, at)
                self.do(lambda core: core.tick(self.now))
            case "rare":
                self.rarely(rng.random())

    def rarely(self, which: float) -> None:
        if which < 0.4:
            self.tell(BrokerLost())
        elif which < 0.9:
            self.tell(Doubted())
        elif which < 0.98:
            self.start()
        else:
            self.tell(EndJob("enough"))


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.generate])  # a seed has nothing to shrink
def test_what_is_kept_is_what_a_scan_of_everybody_finds(seed: int) -> None:
    with mock.patch.object(members, "FEWEST_ALARMS", 2):
        pair = Pair(random.Random(seed))  # noqa: S311 -- a schedule, no secret
        for _ in range(100):
            pair.step()


# What it costs.


def work_among(n_devices: int, begin: Callable[[int], Coordinator], act: Callable[[Coordinator, int], object]) -> Work:
    """Return what 20 events among so many devices take."""
    core = begin(n_devices)

    def happens(number: int) -> None:
        act(core, number)
        assert core.deadline is None or core.deadline >= 0.0

    return work_of(partial(happens, number) for number in range(20))


def with_devices(n: int, **rules: object) -> Coordinator:
    rounds = RoundsSpec(deadline_s=600.0, **rules)  # type: ignore[arg-type]
    core = Coordinator(Setup(rules=rounds, seed=1, base=Version(1, 0)), 0.0)
    for number in range(n):
        core.receive(DeviceStatus(Name(f"d{number}"), online=True, ready=True), 0.0)
    return core


def waiting(n: int) -> Coordinator:
    """Nobody is short, and yet no round opens: half of them have failed, and most of the others would be needed."""
    core = with_devices(n, quorum=n, min_devices=n + 1)
    for number in range(0, n, 2):
        core.receive(DeviceStatus(Name(f"d{number}"), online=True, ready=True, failed=Version(1, 0)), 0.0)
    core.receive(DeviceStatus(Name("away"), online=False, ready=True), 0.0)
    core.receive(DeviceStatus(Name(f"d{n}"), online=True, ready=True, failed=Version(1, 0)), 0.0)
    assert core.attempt is None
    return core


def few(n: int) -> Coordinator:
    """Half of the devices that are needed are there, and it has been said once what is waited for."""
    core = with_devices(n, quorum=n, min_devices=n + 1)
    for number in range(0, n, 2):
        core.receive(DeviceStatus(Name(f"d{number}"), online=False, ready=True), 0.0)
    fails_and_mends(core, 0)
    assert any(isinstance(effect, Tell) for effect in fails_and_mends(core, 1))
    return core


def joined(n: int) -> Coordinator:
    """A round for everybody, which many joined while it was open; few updates do not end it."""
    core = with_devices(n, quorum=50, min_devices=50)
    core.receive(DeviceStatus(Name("away"), online=True, ready=False), 0.0)
    assert core.attempt is not None
    assert len(core.attempt.cohort) == n
    return core


def of_all(n: int) -> Coordinator:
    return with_devices(n, quorum=1, min_devices=n, wait="all")


def is_seen(core: Coordinator, number: int) -> object:
    return core.receive(DeviceStatus(Name(f"d{number}"), online=True, ready=True, failed=Version(1, 0)), 0.0)


def fails_and_mends(core: Coordinator, number: int) -> list[Effect]:
    """Each time it is another thing that the job waits for, and that is told."""
    return core.receive(
        DeviceStatus(Name("d0"), online=True, ready=True, failed=Version(1, 0) if number % 2 else None), 0.0
    )


def joins(core: Coordinator, number: int) -> object:
    return core.receive(DeviceStatus(Name(f"new{number}"), online=True, ready=True), 0.0)


def offers(core: Coordinator, number: int) -> object:
    assert core.attempt is not None
    device = core.attempt.cohort[-1 - number]  # who looks through all of them finds the last ones last
    return core.receive(Offer("j", device, Version(1, 0), 10, f"{number:032x}", 9), 1.0)


def is_judged(core: Coordinator, number: int) -> object:
    core.receive(VerdictPending(Name(f"d{number}")), 1.0)
    return core.receive(VerdictStored(Verdict(Name(f"d{number}"), "j", Version(1, 0), "abababab")), 1.0)


def comes_and_goes(core: Coordinator, number: int) -> object:
    return core.receive(DeviceStatus(Name("d1"), online=number % 2 == 1, ready=True), number / 100)


@pytest.mark.parametrize(
    ("begin", "act"),
    [
        (waiting, is_seen),
        (few, fails_and_mends),
        (joined, joins),
        (joined, is_judged),
        (joined, comes_and_goes),
        (of_all, offers),
        (of_all, is_judged),
    ],
)
def test_an_event_costs_the_same_with_forty_times_the_devices(
    begin: Callable[[int], Coordinator], act: Callable[[Coordinator, int], object]
) -> None:
    small, large = (work_among(n, begin, act) for n in (100, 4000))
    assert large.is_about(small), f"{small} with 100 devices, {large} with 4,000"


def test_a_device_that_comes_and_goes_leaves_no_alarms_behind() -> None:
    core = with_devices(3, quorum=1, grace_s=1e6)
    core.receive(DeviceStatus("d2", online=False, ready=True), 0.0)  # its alarm stands before all that follow
    for number in range(10 * members.FEWEST_ALARMS):
        comes_and_goes(core, number)
    assert len(core.members._alarms) <= members.FEWEST_ALARMS


def left_often(n: int) -> Coordinator:
    """A job at version n, with a rule to stop that never holds, and a round that one device ends."""
    rng = random.Random(n)  # noqa: S311 -- made-up versions, no secret
    stop = StopSpec(target=1.0, patience=10**6, min_delta=0.1)
    history = [{"accuracy": rng.random()} for _ in range(n + 1)]
    rounds = RoundsSpec(max_rounds=10**6, stop=stop)
    core = Coordinator(Setup(rules=rounds, seed=1, base=Version(1, n), history=history), 0.0)
    core.receive(DeviceStatus("d", online=True, ready=True), 0.0)
    return core


def leaves(core: Coordinator) -> None:
    """One round, from the update that ends it to the opening of the next one; its score comes a version later."""
    verdict, following = Verdict("d", "j", core.base, "abababab"), core.base.following()
    core.receive(VerdictPending("d"), 1.0)
    assert any(isinstance(effect, Commit) for effect in core.receive(VerdictStored(verdict), 1.0))
    scored = {"accuracy": core.base.number % 97 / 100, "federated_rows": 100.0}
    assert any(
        isinstance(effect, Open) for effect in core.receive(Committed(following, {"unscored": 1.0}, scored), 1.0)
    )


def test_a_round_costs_the_same_after_sixteen_times_the_versions() -> None:
    few, many = (work_of([partial(leaves, left_often(n))] * 20) for n in (500, 8000))
    assert many.steps <= 1.2 * few.steps
    assert many.is_about(few)
