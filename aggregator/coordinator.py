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
 8. While the broker is not reachable rounds stand still, and nobody is held for absent or silent. 9. While updates are
 being judged (`VerdictPending` → `VerdictStored`) their devices are answered nothing, and nothing begins or
    ends: no round, no version, no job. Whatever else is heard is noted, and what follows from it comes with the last
    `VerdictStored`. A verdict that is told a second time changes nothing.
10. While a version is being made (`Commit` → `Committed`) its base is being left, and nothing is collected for it. An
    offer that has no verdict waits, one a device, and is weighed against the version that comes: late or stale, never
    lost, never in the sum twice. A stop waits too. If no version can be made (`CommitFailed`), the job ends.

`receive(event, now)` and `tick(now)` return effects as data, to be carried out in order; `deadline` says when `tick`
wants to be called. `now` is seconds on any clock that only goes forward. No I/O, no numbers, no threads.

An event costs the same however many devices are known or drawn: it changes how one of them stands (`_refresh`), and
what is asked of all of them is kept as sets. Opening a round, ending it and a new connection look at everybody once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct, structs

from aggregator import cohort, waits
from aggregator.convergence import reason_to_end
from aggregator.effects import (
    Announce,
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
    Open,
    Publish,
    SendVerdict,
    Tell,
    VerdictPending,
    VerdictStored,
)
from aggregator.ledger import Ledger
from aggregator.members import SILENT, Members
from aggregator.pace import Pace
from aggregator.waits import Amiss
from broker.messages import Offer, Verdict, Version
from models import draw
from models.job import RoundsSpec

ABSENT = 3
"""Attempts running that a member of a fixed membership may be absent throughout."""
STUCK = 20
"""Attempts running that it may be there without anything coming of it: from then on it is as good as absent."""


class _Round(Struct):
    drawn: Attempt
    opened_at: float
    ends_at: float
    beats_at: float
    beat_s: float
    pending: set[str]
    """Devices of the cohort that have neither a verdict nor failed."""
    awaited: set[str]
    """Those of them that the round still waits for."""
    members: set[str]
    joined: list[str] = []
    """Members that came while the round was open."""

    @property
    def attempt(self) -> Attempt:
        """The round with everybody who has joined it."""
        if self.joined:
            cohort = (*self.drawn.cohort, *self.joined)
            self.drawn, self.joined = structs.replace(self.drawn, cohort=cohort), []
        return self.drawn


class Coordinator:
    """The rounds of one job.

    ledger: the last verdict of every device, for the job's life. counted: the devices in the sum that will make the
    next version; when not given, those whose last verdict is on the base. attempt: the round to resume, with the whole
    of its time. last: the last round that tried to leave this base. left: the last rounds of the bases before it.
    renames: former names of versions to their present ones. history: the metrics of every version so far, version 0
    first. ended: why the job is over, if it is. hint_s: how long devices may take to answer a roll call.
    """

    def __init__(
        self,
        rules: RoundsSpec,
        seed: int,
        base: Version,
        *,
        now: float,
        max_examples: int = 2**20,
        max_body_bytes: int = 2**40,
        heartbeat_s: float = 10.0,
        hint_s: float = 7.0,
        ledger: Iterable[Verdict] = (),
        counted: Iterable[str] | None = None,
        attempt: Attempt | None = None,
        last: Attempt | None = None,
        left: Mapping[Version, Attempt] | None = None,
        renames: Mapping[Version, Version] | None = None,
        history: Sequence[Mapping[str, float]] = ({},),
        ended: Literal["", "finished", "stopped"] = "",
    ) -> None:
        self.rules = rules
        self.ended = ended
        self.members = Members(hint_s, rules.grace_s, patient=rules.wait == "all")
        self._seed = seed
        self._heartbeat_s = heartbeat_s
        self.ledger = Ledger(
            rules,
            base,
            max_examples=max_examples,
            max_body_bytes=max_body_bytes,
            verdicts=ledger,
            counted=counted,
            left=left or {},
            renames=renames or {},
        )
        self._history = list(history)
        self._last = last if last is not None and last.base == base else None
        self._round: _Round | None = None
        self._committing = False
        self._judging: set[str] = set()
        """Devices whose verdicts are being made durable."""
        self._waiting: dict[str, Offer] = {}
        """What was offered while a version is made, by device, without the bodies."""
        self._stop_for: str | None = None
        """Why the job is to end, once nothing is under way."""
        self._able: set[str] = set()
        """Devices that are there, ready, and neither judged nor failed on the base."""
        self._fresh: set[str] = set()
        """Those of them that do not count yet; who was late with an update to an earlier base counts, and is able."""
        self._pace = Pace(rules.max_deadline_s)
        self._spent: set[str] = set()
        """Devices that were refused on the base, or failed on it: able again from the next one on."""
        self._idle: set[str] = set()
        """Those of them that are there and ready, and do not count."""
        self._amiss: Amiss | None = None
        """Kept from when it is asked for until a round opens, the base is left or the connection is a new one."""
        self._reason_to_end = reason_to_end(self._history, rules)
        """Why no round follows the current version; None or empty where one does."""
        self._absences: dict[str, int] = dict(self._last.absences) if self._last else {}
        self._stirred_at: float | None = None
        """Since when something has changed that no `_advance` has seen yet."""
        self._told = ""
        """What operators were told last of what the job waits for."""
        self._lost_at: float | None = None
        """Since when the broker has not been reachable; None while it is."""
        if attempt is not None and not ended:
            self._last = attempt
            for device in attempt.cohort:
                self.members.expect(device, now)
            self._begin(attempt, now)

    # What goes in.

    def receive(self, event: CoordinatorEvent, now: float) -> list[Effect]:
        """Take one event and return what follows from it."""
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
            case Committed(version, metrics):
                effects += self._leave(version, metrics, now)
            case CommitFailed(reason):
                self._committing = False
                effects += self._stop(reason)
            case EndJob(reason):
                effects += self._stop(reason)
        return effects + self._tell(now)

    def tick(self, now: float) -> list[Effect]:
        """Return what follows from the time alone."""
        effects = [*self._pass_time(now), *self._advance(now)]
        if self._round is not None and now >= self._round.beats_at and self._lost_at is None:
            effects += self.announce(now)
        return [*effects, *self._pass_time(now), *self._tell(now)]

    def announce(self, now: float) -> list[Effect]:
        """Return the announcement of the open round, if there is one: its heartbeat, or because the broker is new.

        Heartbeats come ever less often: whoever has missed the last one has waited for at most as long as the round
        had been open then.
        """
        return self._announce(now)

    def _announce(self, now: float, *, first: bool = False) -> list[Effect]:
        if self._round is None:
            return []
        if now >= self._round.beats_at and not first:
            self._round.beat_s *= 2
        self._round.beats_at = now + self._round.beat_s
        return [Announce(self._round.attempt, max(0.0, self._round.ends_at - now), first)]

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do, if nothing is received before."""
        if self.ended:
            return None
        at = math.inf
        if self._lost_at is None:
            at = self.members.next_at()
            if self._round is not None:
                at = min(at, self._round.ends_at, self._round.beats_at)
        if self._stirred_at is not None:
            at = min(at, self._stirred_at)
        return None if math.isinf(at) else at

    # What can be asked.

    @property
    def base(self) -> Version:
        """The version that rounds try to leave."""
        return self.ledger.base

    @property
    def attempt(self) -> Attempt | None:
        """The open round."""
        return self._round.attempt if self._round else None

    @property
    def counted(self) -> list[str]:
        """Devices whose updates count for the current base, in the order of their names."""
        return sorted(self.ledger.counted)

    @property
    def able(self) -> set[str]:
        """Devices that could contribute to a round on the current base, were it opened now."""
        return self._able

    @property
    def spent(self) -> set[str]:
        """Devices that were refused on the current base, or failed on it."""
        return self._spent

    @property
    def awaited(self) -> set[str]:
        """Devices that the open round waits for."""
        if self._round is None:
            return set()
        return self._round.pending if self.rules.wait == "all" else self._round.awaited

    @property
    def expects_more(self) -> bool:
        """Whether the open round would wait for others, did all that is being judged count."""
        if self._round is None:
            return False
        target, judging = self._round.drawn.target, len(self._judging)
        reached = target is not None and len(self.ledger.counted) + judging >= target
        return not reached and len(self.awaited) > judging

    @property
    def needed(self) -> int:
        """Devices that are present without which no round opens."""
        return self.rules.min_devices or self.rules.quorum

    @property
    def present(self) -> set[str]:
        """Devices that have contributed to leave the base, could, or are there and have come to nothing on it.

        The latter are present all the same: else a base could not be left where each of them is needed.
        """
        return self.ledger.counted | self._fresh | self._idle

    @property
    def n_contributing(self) -> int:
        """How many devices count for the current base, or could."""
        return len(self.ledger.counted) + len(self._fresh)

    @property
    def n_present(self) -> int:
        """How many devices are present."""
        return self.n_contributing + len(self._idle)

    @property
    def amiss(self) -> Amiss:
        """Which devices are not counted and not able, while no round is open."""
        if self._amiss is None:
            self._amiss = Amiss(waits.standings(self, 0.0))
        return self._amiss

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """The metrics of every version so far, version 0 first."""
        return self._history

    @property
    def state(self) -> Literal["waiting", "running", "finished", "stopped"]:
        """What the head says of the job."""
        return self.ended or ("running" if self._round or self._committing else "waiting")

    def seconds_left(self, now: float) -> float:
        """Return the time until the deadline of the open round; 0 where there is none."""
        return max(0.0, self._round.ends_at - now) if self._round else 0.0

    def has_failed(self, device: str) -> bool:
        """Return whether a device has said that its training on the current base failed."""
        member = self.members.get(device)
        return member is not None and member.failed is not None and self.ledger.present(member.failed) == self.base

    def fates(self) -> dict[str, str]:
        """Return for every device of the open round what has become of it so far."""
        return self._fates(self._round.attempt) if self._round else {}

    # Offers.

    def _take(self, offer: Offer, now: float) -> list[Effect]:
        self._pace.hear(offer.device, self.ledger.present(offer.base), now)
        self.members.hear(offer.device, now)
        self._refresh(offer.device, now)
        if offer.device in self._judging:
            return []
        # What else follows comes with the next tick: the verdict on this one must be durable before.
        self._stirred_at = now
        follow = self.ledger.weigh(offer, self._last, self.ended)
        if self._committing and not all(isinstance(effect, SendVerdict) for effect in follow):
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
        return [*([] if silent else [self.ledger.answer(verdict)]), *self._let_stop(), *self._advance(now)]

    # Devices.

    def _see(self, seen: DeviceStatus, now: float) -> list[Effect]:
        self.members.see(seen, now)
        round_ = self._round
        if (
            round_ is not None
            and self.rules.wait == "target"
            and seen.online
            and seen.ready
            and seen.live
            and seen.device not in round_.members
            and draw.ticket(round_.drawn.salt, seen.device) <= round_.drawn.threshold
        ):
            # It was drawn before we knew it: the round may wait for it too.
            round_.members.add(seen.device)
            round_.joined.append(seen.device)
            round_.pending.add(seen.device)
            self._pace.draw(self.base, [seen.device], now)
        self._refresh(seen.device, now)
        return self._advance(now)

    def _find_again(self, now: float) -> None:
        """Go on after an outage of the broker, which has cost nobody any time."""
        if self._lost_at is not None and self._round is not None:
            away_s = now - self._lost_at
            self._round.ends_at = max(self._round.ends_at + away_s, now + self.members.hint_s)
        self._lost_at = self._amiss = None
        self.members.doubt(now)

    def _pass_time(self, now: float) -> list[Effect]:
        if self._lost_at is not None:
            return []
        changed, ask = self.members.pass_time(now)
        for device in changed:
            self._refresh(device, now)
            self._stirred_at = now
        return [AskDevices(ask)] if ask else []

    def _refresh(self, device: str, now: float) -> None:
        """Work out anew whether a device is able to contribute, and whether the round waits for it.

        To be called after every change of what is known of a device, before anything is asked of all of them.
        """
        member, verdict = self.members.get(device), self.ledger.verdict_on(device)
        settled = verdict is not None or self.has_failed(device)
        if settled and not (verdict is not None and verdict.counted):
            self._spent.add(device)
        if member is not None and member.present and member.ready and not settled:
            self._able.add(device)
            self._spent.discard(device)
        else:
            self._able.discard(device)
        counts = device in self.ledger.counted
        _hold(self._fresh, device, wanted=device in self._able and not counts)
        idle = device in self._spent and member is not None and member.there and member.ready
        _hold(self._idle, device, wanted=idle and not counts)
        if self._amiss is not None and member is not None:
            self._amiss.note(waits.standing(self, device, now))
        round_ = self._round
        if round_ is None:
            return
        if settled:
            round_.pending.discard(device)
        if device in round_.pending and not self.members.is_given_up(device, now):
            round_.awaited.add(device)
        else:
            round_.awaited.discard(device)

    # Rounds.

    def _advance(self, now: float) -> list[Effect]:
        self._stirred_at = None
        if self.ended or self._committing or self._judging:
            return []
        if self._round is None:
            return self._open(now)
        return self._conclude(self._round, now)

    def _open(self, now: float) -> list[Effect]:
        if self._reason_to_end:
            self.ended = "finished"
            return [Publish("finished", self._reason_to_end)]
        if not self._may_open():
            return []
        attempt = self._draw(now)
        self._last = attempt
        self._begin(attempt, now)
        opened = self._round
        assert opened is not None  # noqa: S101 -- just begun
        return [Open(attempt), *self._announce(now, first=attempt.number == 1), *self._conclude(opened, now)]

    def _may_open(self) -> bool:
        """Return whether a round on this base could come to something."""
        has_quorum = len(self.ledger.counted) >= self.rules.quorum
        fixed = self.rules.wait == "all" and self._last is not None and self._last.base == self.base
        if fixed and has_quorum:
            return True  # only the absent are missing: they come, or are dropped after so many attempts
        at_most = len(self.ledger.counted) + len(self._able) + len(self._spent)
        if not (self._able or has_quorum) or at_most < max(self.needed, self.rules.quorum):
            return False
        return self.n_contributing >= self.rules.quorum and self.n_present >= self.needed

    def _begin(self, attempt: Attempt, now: float) -> None:
        self._told, self._amiss = "", None
        seconds = attempt.seconds or self._time_for(attempt)
        pending = {
            name for name in attempt.cohort if self.ledger.verdict_on(name) is None and not self.has_failed(name)
        }
        awaited = {name for name in pending if not self.members.is_given_up(name, now)}
        members = set(attempt.cohort)
        self._round = _Round(attempt, now, now + seconds, now, self._heartbeat_s, pending, awaited, members)
        self._absences = dict(attempt.absences)

    def _time_for(self, attempt: Attempt) -> float:
        deadline_s = self.rules.deadline_s
        return self._pace.deadline_s(attempt.cohort) if deadline_s == "learned" else float(deadline_s)

    def _draw(self, now: float) -> Attempt:
        """Draw the cohort of the next attempt: for a new base afresh, for the same base by widening."""
        again = self._last if self._last is not None and self._last.base == self.base else None
        counted, able = self.ledger.counted, self._able
        if again is not None and self.rules.wait == "all":
            attempt = cohort.repeat(
                self.rules,
                counted=counted,
                able=able,
                again=again,
                dropped=self._dropped() | self._spent.intersection(again.cohort),
                needed=self.needed,
                absences=self._absences,
            )
        else:
            attempt = cohort.widen(self.rules, self._seed, self.base, counted=counted, able=able, again=again)
        self._pace.draw(self.base, attempt.cohort, now)
        return structs.replace(attempt, seconds=self._time_for(attempt))

    def _dropped(self) -> set[str]:
        """Return the members that were absent for so long that nobody waits for them any more."""
        return {name for name, n in self._absences.items() if n >= ABSENT}

    def _conclude(self, round_: _Round, now: float) -> list[Effect]:
        counted, target = len(self.ledger.counted), round_.drawn.target
        if target is not None and counted >= target:
            return self._commit(f"its target of {target} updates is reached")
        if counted >= self.rules.quorum and not self.awaited:
            return self._commit("nobody is left to wait for")
        if counted < self.rules.quorum and not round_.pending and self._fresh and self.rules.wait == "target":
            return self._abandon(round_, now, "and nobody that it drew has another to send,")
        if now < round_.ends_at or self._lost_at is not None:
            return []
        for device in sorted(round_.awaited):
            member = self.members.get(device)
            if member is not None and member.there:
                self.members.miss(device, now, since=round_.opened_at)
                self._refresh(device, now)
        if counted >= self.rules.quorum and self.rules.wait == "target":
            return self._commit("a quorum at the deadline")
        return self._abandon(round_, now)

    def _abandon(self, round_: _Round, now: float, when: str = "at the deadline") -> list[Effect]:
        needed = "every drawn device" if self.rules.wait == "all" else f"a quorum of {self.rules.quorum}"
        counted = len(self.ledger.counted)
        if self.rules.wait == "all":
            self._count_absences(round_)
        abandoned = self._close("abandoned", f"{counted} updates {when} where {needed} is needed")
        gone = sorted(self._dropped())
        if gone and self.rules.absent == "end":
            return [
                abandoned,
                *self._stop(f"{', '.join(gone)}: absent throughout {ABSENT} attempts to leave a version"),
            ]
        return [abandoned, *self._open(now)]

    def _count_absences(self, round_: _Round) -> None:
        """Note which members were absent throughout this attempt: offline, unable to take part, or silent for long."""
        for name in round_.attempt.cohort:
            member = self.members.get(name)
            absent = name in round_.pending and (
                member is None
                or not member.ready
                or member.silent >= SILENT
                or member.missed >= STUCK
                or (member.gone_at is not None and member.gone_at <= round_.opened_at)
            )
            self._absences[name] = self._absences.get(name, 0) + 1 if absent else 0

    def _commit(self, reason: str) -> list[Effect]:
        self._committing = True
        return [Commit(self._close("committed", reason))]

    def _close(self, outcome: Literal["committed", "abandoned", "stopped"], reason: str) -> Close:
        assert self._round is not None  # noqa: S101 -- callers hold an open round
        attempt, self._round = self._round.attempt, None
        return Close(attempt, outcome, reason, self._fates(attempt))

    def _fates(self, attempt: Attempt) -> dict[str, str]:
        return {name: self._fate(name) for name in sorted({*attempt.cohort, *self.ledger.counted})}

    def _fate(self, name: str) -> str:
        verdict, member = self.ledger.last_of(name), self.members.get(name)
        if name in self.ledger.counted and verdict is not None and verdict.base != self.base:
            return f"counted late: its update was to version {verdict.base}"
        if verdict is not None and verdict.base == self.base:
            return "counted" if verdict.counted else f"refused: {verdict.refused}"
        if self.has_failed(name) and member is not None:
            return f"not counted: its training failed: {member.failure}"
        if self._absences.get(name, 0) >= ABSENT:
            return f"dropped: absent throughout {ABSENT} attempts"
        if member is None or not member.there:
            return "not counted: it was offline"
        if not member.ready:
            return f"not counted: it could not take part: {member.why}"
        return "not counted: nothing had arrived when the round ended"

    def _leave(self, version: Version, metrics: Mapping[str, float], now: float) -> list[Effect]:
        if not self._committing:
            raise ValueError(f"version {version} was committed, and nobody had asked for it")
        self.ledger.leave(version, self._last)
        self._last = self._amiss = None
        self._history.append(metrics)
        self._reason_to_end = reason_to_end(self._history, self.rules)
        self._committing = False
        self._absences.clear()
        there = {name for name, member in self.members if member.present and member.ready}
        self._spent = {name for name in there if self.has_failed(name)}  # under a name that this base had before
        self._able = there - self._spent
        self._idle, self._fresh = set(self._spent), set(self._able)  # nobody counts yet
        if self._stop_for is not None:
            return self._let_stop()
        opening = self._open(now)
        waiting, self._waiting = self._waiting, {}
        late = [effect for offer in waiting.values() for effect in self._take(offer, now)]
        return [*opening, *late] if self.ended else [Publish(self.state, ""), *opening, *late]

    def _let_stop(self) -> list[Effect]:
        """Return what follows from a stop that has waited."""
        return [] if self._stop_for is None else self._stop(self._stop_for)

    def _stop(self, reason: str) -> list[Effect]:
        if self.ended:
            return []
        if self._committing or self._judging:
            self._stop_for = reason if self._stop_for is None else self._stop_for
            return []
        closing: list[Effect] = [self._close("stopped", reason)] if self._round else []
        self.ended = "stopped"
        return [*closing, Publish("stopped", reason)]

    def _tell(self, now: float) -> list[Effect]:
        """Tell operators when what the job waits for has changed in kind; numbers alone change too often."""
        if self.ended or self._round is not None or self._committing or self._judging:
            return []
        kind = waits.kind(self)
        if kind == self._told:
            return []
        self._told = kind
        return [Tell(waits.of(self, now).text)]


def _hold(names: set[str], name: str, *, wanted: bool) -> None:
    """Have a set hold a name, or not."""
    if wanted:
        names.add(name)
    else:
        names.discard(name)
