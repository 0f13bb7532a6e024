"""One job's rounds: the law of the aggregator, as a pure state machine.

    A round is an attempt to leave a base version.

                enough devices are able        target reached, nobody left to wait
                                                   for, or a quorum at the deadline
     WAITING ──────────────────────────▶ OPEN ─────────────────────────────────────▶ COMMITTING
        ▲                                 │                                               │ Committed
        │  deadline without a quorum:     │                                               ▼
        ├◀──────── abandoned ─────────────┘                       the job has converged? ─┬─▶ ENDED
        └◀──────────────────────────── no ────────────────────────────────────────────────┘

 1. One device counts at most once for a base; whatever it resends is answered with the verdict it got first. Who has
    not been drawn to leave the base gets none yet: a further attempt may draw it.
 2. Accepted is never lost: the updates of an abandoned round open the next attempt on the same base.
 3. The salt belongs to the base. A further attempt raises the threshold and so draws more devices, never others;
    with wait = "all" it does not even do that: the membership of a base is fixed at its first opening, and changes
    only when a member is dropped that was absent throughout ABSENT attempts, or that came to nothing on the base.
 4. An update for any other base than the current one is refused, undecoded; or, where the job folds late ones, it
    counts for the current base with a weight that falls with its staleness. A base may have aliases, names that it had
    before a backup was restored: an update to one of them is an update to it.
 5. An update and its verdict are durable before anything is said that follows from them (`Collect` → stored by the
    shell → `VerdictStored` → `SendVerdict`, or the end of the round), and a round is durable before it is announced
    (`Open` comes before `Announce`). A refusal is sent at once. That an update was counted goes without saying: the
    version after its base says it. It is sent where late updates are folded, for there that version says nothing of an
    update.
 6. Nobody waits for anybody for ever. A round ends committed or abandoned, with a reason and each device's fate; and
    none opens that nobody could contribute to: devices that were refused on this base, or failed on it, wait for the
    next one, and where all have, so does the job, and says so (`Tell`). One that nobody whom it drew can contribute to
    any more is not waited for where others could.
 7. A last will starts a grace, after which the round stops waiting; an update that still arrives counts all the same.
    Who is there, and offers nothing through two whole rounds, is passed over; who says nothing is asked (members.py).
 8. While the broker is not reachable rounds stand still, and nobody is held for absent or silent.
 9. While updates are being judged (`VerdictPending` → `VerdictStored`) their devices are answered nothing, and nothing
    begins or ends: no round, no version, no job. Whatever else is heard is noted, and what follows from it comes with
    the last `VerdictStored`. A verdict that is told a second time changes nothing.
10. While a version is being made (`Commit` → `Committed`) its base is being left, and nothing is collected for it. An
    offer that has no verdict waits, one a device, and is weighed against the version that comes: late or stale, never
    lost, never in the sum twice. A stop waits too. If no version can be made (`CommitFailed`), the job ends.
11. A version may be an older one again (`Restore` → `Committed`, or `NotRestored`, and nothing has changed): as an
    operator says (`RollBack`; what was counted for the base that is left so goes with it, and the open round is
    abandoned), or where a job ends by its patience and its last version is not its best. It is a version like any
    other: durable before it is announced, and numbered on. In the latter case so is the end of the job, with it.
12. While a job is paused no round opens, and the open one is abandoned; what was counted waits. It says who has paused
    it, and it still ends.
13. Who is barred (quarantine.py) is neither drawn nor waited for, and what it offers is refused for good; what was
    counted of it before stays so. With wait = "all" its membership of the base ends.
14. Where devices score versions, a version's score is known when it is left (`Committed.left`): one version later than
    on a test split. The rule to stop goes by the versions that have one.

`receive(event, now)` and `tick(now)` return effects as data, to be carried out in order; `deadline` says when `tick`
wants to be called. `now` is seconds on any clock that only goes forward. No I/O, no numbers, no threads. What devices,
operators and the broker bring is legal in every state. What the shell says of its own work is not: `TABLE` says where.

An event costs the same however many devices are known or drawn: what is asked of all of them is kept as sets, and one
device changes in them at a time. Opening a round, ending it and a new connection look at everybody once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Flag, auto
from typing import Literal

from msgspec import structs

from aggregator import fates, refusals, waits
from aggregator.absences import ABSENT
from aggregator.attendance import Attendance
from aggregator.convergence import to_serve
from aggregator.effects import (
    AskDevices,
    Attempt,
    BrokerLost,
    Close,
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
    Tell,
    Tick,
    Unpause,
    VerdictPending,
    VerdictStored,
)
from aggregator.ledger import Ledger
from aggregator.members import Members
from aggregator.progress import Progress
from aggregator.rounds import Rounds
from broker.messages import Offer, Verdict, Version
from runtime.states import StateTable


class State(Flag):
    """Where a job stands."""

    WAITING = auto()
    OPEN = auto()
    COMMITTING = auto()
    ENDED = auto()


WAITING, OPEN, COMMITTING, ENDED = State
ILLEGAL = State(0)
ANY = WAITING | OPEN | COMMITTING | ENDED

# A row for each event, a column for each state that it may come in; a cell says which states may follow.
# fmt: off
TABLE = StateTable(State, {
    #                WAITING          OPEN          COMMITTING               ENDED
    Offer:          (WAITING,         OPEN,         COMMITTING,              ENDED),
    DeviceStatus:   (ANY,             ANY,          COMMITTING,              ENDED),
    BrokerLost:     (WAITING,         OPEN,         COMMITTING,              ENDED),
    Doubted:        (WAITING,         OPEN,         COMMITTING,              ENDED),
    EndJob:         (WAITING | ENDED, OPEN | ENDED, COMMITTING,              ENDED),
    Tick:           (ANY,             ANY,          COMMITTING,              ENDED),
    RollBack:       (WAITING | COMMITTING, OPEN | COMMITTING, COMMITTING,    ENDED),
    Pause:          (WAITING,         WAITING | OPEN, COMMITTING,            ENDED),
    Unpause:        (ANY,             ANY,          COMMITTING,              ENDED),
    VerdictPending: (WAITING,         OPEN,         ILLEGAL,                 ILLEGAL),
    VerdictStored:  (ANY,             ANY,          COMMITTING,              ENDED),  # see `_reason_against`
    Committed:      (ILLEGAL,         ILLEGAL,      ANY,                     ILLEGAL),
    CommitFailed:   (ILLEGAL,         ILLEGAL,      ENDED,                   ILLEGAL),
    NotRestored:    (ILLEGAL,         ILLEGAL,      ANY,                     ILLEGAL),
}, words=("the job waits for devices", "a round is open", "a version is being made", "the job has ended"), needs={
    VerdictPending: "nothing is collected now",
    Committed: "no version is being made", CommitFailed: "no version is being made",
    NotRestored: "no version is being made",
})
# fmt: on


class Coordinator:
    """The rounds of one job."""

    def __init__(self, setup: Setup, now: float) -> None:
        self.rules = setup.rules
        self.advice = setup.advice
        """What to do where everybody's training takes steps that are far too long."""
        self.ended = setup.ended
        self.paused = setup.paused
        """Who has paused the job, and since when; "" where it is not paused."""
        self.members = Members(setup.hint_s, setup.rules.grace_s, patient=setup.rules.wait == "all")
        self.ledger = Ledger(setup)
        self.attendance = Attendance(self.members, self.ledger)
        self.rounds = Rounds(setup, self.members, self.ledger, self.attendance)
        self.wait = waits.Wait(self)
        self._state = ENDED if setup.ended else WAITING
        self.history: list[Mapping[str, float]] = list(setup.history)
        """The metrics of every version so far, version 0 first."""
        self._judging: set[str] = set()
        """Devices whose verdicts are being made durable."""
        self._waiting: dict[str, Offer] = {}
        """What was offered while a version is made, by device, without the bodies."""
        self._stop_for: str | None = None
        """Why the job is to end, once nothing is under way."""
        self._progress = Progress(self.history, setup.rules, setup.classes)
        self._roll_back_to: RollBack | None = None
        """What an operator wants restored, once nothing is under way."""
        self._restoring: Restore | None = None
        """What is being made, where that is no version of a round."""
        self._serves_best = setup.serves_best
        self._reason_to_end = self._progress.reason_to_end()
        """Why no round follows the current version; None or empty where one does."""
        self._stirred_at: float | None = None
        """Since when something has changed that no `_advance` has seen yet."""
        self._lost_at: float | None = None
        """Since when the broker has not been reachable; None while it is."""
        if setup.attempt is not None and not self.ended:
            self.rounds.resume(setup.attempt, now)
            self._state = OPEN

    # What goes in.

    def receive(self, event: CoordinatorEvent, now: float) -> list[Effect]:
        """Take one event and return what follows from it.

        Raises IllegalEventError, and changes nothing, for one that is illegal now.
        """
        follow = TABLE.follow(self._state, type(event))
        if why := self._reason_against(event):
            raise TABLE.illegal(self._state, type(event), why)
        effects = self._pass_time(now)
        match event:
            case Offer():
                effects += self._take(event, now)
            case DeviceStatus():
                effects += self._see(event, now)
            case BrokerLost():
                self._lost_at = now if self._lost_at is None else self._lost_at
            case Doubted():
                self._find_again(now)
            case VerdictPending(device):
                self._judging.add(device)
            case VerdictStored(verdict):
                effects += self._note(verdict, now)
            case Committed():
                effects += self._leave(event, now)
            case CommitFailed(reason):
                self._state = WAITING
                effects += self._stop(reason)
            case NotRestored(reason):
                effects += self._go_on_without(reason, now)
            case RollBack():
                self._roll_back_to = None if self.ended else event
                effects += self._roll_back()
            case Pause(paused):
                self.paused = paused
                effects += self._advance(now)
            case Unpause():
                self.paused = ""
                effects += self._advance(now)
            case EndJob(reason):
                effects += self._stop(reason)
        effects += self._tell(now)
        assert self._state in follow, f"{event} led to {self._state}"  # noqa: S101 -- before anything is carried out
        return effects

    def _reason_against(self, event: CoordinatorEvent) -> str:
        """Return why this very event is illegal, where its kind is not; "" where it is legal."""
        match event:
            case VerdictPending(device) if device in self._judging:
                return f"the verdict on {device} is being made durable already"
            case VerdictStored(verdict) if verdict.device not in self._judging:
                told_again = self.ledger.last_of(verdict.device) == verdict  # which changes nothing: law 9
                return "" if told_again else f"no verdict on {verdict.device} was being made durable"
            case Committed(version) if version != self.base.following():
                return f"what is made is {self.base.following()}, not {version}"
        return ""

    def tick(self, now: float) -> list[Effect]:
        """Return what follows from the time alone."""
        follow = TABLE.follow(self._state, Tick)
        effects = [*self._pass_time(now), *self._advance(now)]
        if self._lost_at is None and self.rounds.now is not None and now >= self.rounds.now.beats_at:
            effects += self.announce(now)
        effects += [*self._pass_time(now), *self._tell(now)]
        assert self._state in follow, f"the time led to {self._state}"  # noqa: S101 -- before anything is carried out
        return effects

    def announce(self, now: float) -> list[Effect]:
        """Return the announcement of the open round, if there is one: its heartbeat, or because the broker is new."""
        return [] if self.rounds.now is None else [self.rounds.now.announce(now)]

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do, if nothing is received before."""
        if self.ended:
            return None
        at = math.inf if self._stirred_at is None else self._stirred_at
        if self._lost_at is None:
            at = min(at, self.members.next_at(), self.rounds.next_at())
        return None if math.isinf(at) else at

    # What can be asked.

    @property
    def base(self) -> Version:
        """The version that rounds try to leave."""
        return self.ledger.base

    @property
    def attempt(self) -> Attempt | None:
        """The open round."""
        return self.rounds.now.attempt if self.rounds.now else None

    @property
    def shift(self) -> int:
        """By how many bits rows are shifted to be weights in the sum of the current base."""
        return self.ledger.shift(self.rounds.last)

    @property
    def counted(self) -> list[str]:
        """Devices whose updates count for the current base, in the order of their names."""
        return sorted(self.ledger.counted)

    @property
    def awaited(self) -> set[str]:
        """Devices that the open round waits for."""
        return self.rounds.awaited

    @property
    def expects_more(self) -> bool:
        """Whether the open round would wait for others, did all that is being judged count."""
        return self.rounds.expects_more(len(self._judging))

    @property
    def is_busy(self) -> bool:
        """Whether a version is being made, or updates are being judged: what would begin or end anything waits."""
        return self._state is COMMITTING or bool(self._judging)

    @property
    def state(self) -> Literal["waiting", "running", "finished", "stopped"]:
        """What the head says of the job."""
        return self.ended or ("waiting" if self._state is WAITING else "running")

    def fates(self) -> dict[str, str]:
        """Return for every device of the open round what has become of it so far."""
        return fates.of(self, self.rounds.now.attempt, is_open=True) if self.rounds.now else {}

    # Offers.

    def _take(self, offer: Offer, now: float) -> list[Effect]:
        self.rounds.hear(offer.device, self.ledger.present(offer.base), now)
        self.members.hear(offer.device, now)
        self._refresh(offer.device, now)
        if offer.device in self._judging:
            return []
        # What else follows comes with the next tick: the verdict on this one must be durable before.
        self._stirred_at = now
        barred = self.members.barred(offer.device)
        reason = f"{refusals.BARRED}: {barred}" if barred else ""
        follow = self.ledger.weigh(offer, self.rounds.last, self.ended, reason)
        if self._state is COMMITTING and not all(isinstance(effect, SendVerdict) for effect in follow):
            self._waiting[offer.device] = structs.replace(offer, body=b"")
            return []
        return follow

    def _note(self, verdict: Verdict, now: float) -> list[Effect]:
        self._judging.discard(verdict.device)
        if self.ledger.last_of(verdict.device) == verdict:
            return []
        self.ledger.note(verdict)
        self._refresh(verdict.device, now)
        silent = verdict.counted and self.rules.late == "refuse"
        stop = self._roll_back() if self._stop_for is None else self._stop(self._stop_for)
        return [*([] if silent else [self.ledger.answer(verdict)]), *stop, *self._advance(now)]

    # Devices.

    def _see(self, seen: DeviceStatus, now: float) -> list[Effect]:
        self.members.see(seen, now)
        self.rounds.welcome(seen, now)
        self._refresh(seen.device, now)
        return self._advance(now)

    def _find_again(self, now: float) -> None:
        """Go on after an outage of the broker, which has cost nobody any time."""
        if self._lost_at is not None and self.rounds.now is not None:
            self.rounds.now.make_up_for(now - self._lost_at, now + self.members.hint_s)
        self._lost_at = None
        self.wait.forget()
        self.members.doubt(now)

    def _pass_time(self, now: float) -> list[Effect]:
        if self._lost_at is not None or self.members.next_at() > now:
            return []
        changed, ask = self.members.pass_time(now)
        for device in changed:
            self._refresh(device, now)
            self._stirred_at = now
        return [AskDevices(ask)] if ask else []

    def _refresh(self, device: str, now: float) -> None:
        self.rounds.refresh(device, now)
        self.wait.note(device, now)

    # Rounds.

    def _advance(self, now: float) -> list[Effect]:
        self._stirred_at = None
        if self._state is COMMITTING or self.ended or self._judging:
            return []
        return self._open(now) if self.rounds.now is None else self._conclude(now)

    def _open(self, now: float) -> list[Effect]:
        if self._reason_to_end:
            return self._finish(self._reason_to_end)
        if self.paused or not self.rounds.may_open():
            return []
        attempt = self.rounds.draw(now)
        self.rounds.begin(attempt, now)
        self._state = OPEN
        self.wait.end()
        return [Open(attempt), self.rounds.opened.announce(now, first=attempt.number == 1), *self._conclude(now)]

    def _conclude(self, now: float) -> list[Effect]:
        """End the open round, if it is over, and go on."""
        if self.paused:
            return [self._close("abandoned", f"the job is {self.paused}")]
        ending = self.rounds.ending(now, stands_still=self._lost_at is not None)
        if ending is None:
            return []
        self.rounds.miss(ending.missed, now)
        if ending.outcome == "committed":
            close = self._close("committed", ending.reason)
            self._state = COMMITTING
            return [Commit(close)]
        gone = self.rounds.count_absences()
        abandoned = self._close("abandoned", ending.reason)
        if gone and self.rules.absent == "end":
            why = f"{', '.join(gone)}: absent throughout {ABSENT} attempts to leave a version"
            return [abandoned, *self._stop(why)]
        return [abandoned, *self._open(now)]

    def _close(self, outcome: Literal["committed", "abandoned", "stopped"], reason: str) -> Close:
        self._state, attempt = WAITING, self.rounds.close()
        return Close(attempt, outcome, reason, fates.of(self, attempt, is_open=False))

    def _leave(self, made: Committed, now: float) -> list[Effect]:
        self.ledger.leave(made.version, self.rounds.last)
        self.rounds.leave_base()
        self.attendance.begin_base()
        if made.left is not None:
            self.history[-1] = made.left
        self.history.append(made.metrics)
        self._reason_to_end = self._progress.reason_to_end()
        self._state, restored = WAITING, self._restoring
        self._restoring = None
        self.wait.forget()
        if restored is not None and restored.ends:
            return self._end("finished", restored.ends)
        if self._stop_for is not None:
            return self._stop(self._stop_for)
        if self._roll_back_to is not None:
            return [Publish("running", ""), *self._roll_back()]
        opening = self._open(now)
        waiting, self._waiting = self._waiting, {}
        late = [effect for offer in waiting.values() for effect in self._take(offer, now)]
        return [*opening, *late] if self.ended else [Publish(self.state, ""), *opening, *late]

    # Older versions again.

    def _roll_back(self) -> list[Effect]:
        """Restore what an operator wants to be, unless something is under way."""
        wanted = self._roll_back_to
        if wanted is None or self._state is COMMITTING or self._judging:
            return []
        self._roll_back_to = None
        closing = [self._close("abandoned", wanted.why)] if self._state is OPEN else []
        return [*closing, self._restore(Restore(wanted.number))]

    def _restore(self, restore: Restore) -> Restore:
        self._state, self._restoring = COMMITTING, restore
        return restore

    def _go_on_without(self, reason: str, now: float) -> list[Effect]:
        restored, self._restoring = self._restoring, None
        self._state = WAITING
        if restored is not None and restored.ends:
            return self._end("finished", f"{self._reason_to_end}; {reason}"[:500])
        return self._stop(self._stop_for) if self._stop_for is not None else self._advance(now)

    # The end of the job.

    def _finish(self, reason: str) -> list[Effect]:
        """End the job; where its patience has ended it, with its best version."""
        number = to_serve(self.history, self.rules) if self._serves_best else None
        if number is None:
            return self._end("finished", reason)
        following = self.base.following()
        return [self._restore(Restore(number, f"{reason}: version {following} is version {number} again, the best"))]

    def _stop(self, reason: str) -> list[Effect]:
        if self.ended:
            return []
        if self._state is COMMITTING or self._judging:
            self._stop_for = reason if self._stop_for is None else self._stop_for
            return []
        closing = [self._close("stopped", reason)] if self._state is OPEN else []
        return [*closing, *self._end("stopped", reason)]

    def _end(self, how: Literal["finished", "stopped"], reason: str) -> list[Effect]:
        self._state, self.ended = ENDED, how
        return [Publish(how, reason)]

    def _tell(self, now: float) -> list[Effect]:
        news = self.wait.news(now) if self._state is WAITING and not self._judging else None
        return [] if news is None else [Tell(news)]

    def check(self) -> None:
        """Raise AssertionError where this contradicts itself; it looks at everybody, and so is for tests."""
        assert (self.rounds.now is not None) == (self._state is OPEN), "a round, and none open"  # noqa: S101 -- a check
        assert bool(self.ended) == (self._state is ENDED), "ended, and goes on"  # noqa: S101 -- a check
        assert not self._judging or self._state in WAITING | OPEN, "judges for what is left"  # noqa: S101 -- a check
        self.attendance.check()
        self.rounds.check()
