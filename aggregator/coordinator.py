"""One job's rounds: the law of the aggregator, as a pure state machine.

    A round is an attempt to leave a base version.

                enough devices are ready           target reached, nobody left to wait
                                                   for, or a quorum at the deadline
     WAITING ──────────────────────────▶ OPEN ─────────────────────────────────────▶ COMMITTING
        ▲                                 │                                               │ Committed
        │  deadline without a quorum:     │                                               ▼
        ├◀──────── abandoned ─────────────┘                       the job has converged? ─┬─▶ ENDED
        └◀──────────────────────────── no ────────────────────────────────────────────────┘

 1. One device counts at most once for a base; whatever it resends gets the verdict it got first.
 2. Accepted is never lost: the updates of an abandoned round open the next attempt on the same base.
 3. The salt belongs to the base. A further attempt raises the threshold and so draws more devices, never others;
    with wait = "all" it does not even do that: the membership of a base is then fixed at its first opening.
 4. An update for any other base than the current one is refused, undecoded; or, where the job folds late ones, it
    counts for the current base with a weight that falls with its staleness.
 5. An update is durable before its verdict (`Collect` → stored by the shell → `Judged` → `Answer`), and a round is
    durable before it is announced (`Open` comes before `Announce`).
 6. Nobody waits for anybody for ever. A round ends committed or abandoned, with a reason and each device's fate.
 7. A last will starts a grace, after which the round stops waiting; an update that still arrives counts all the same.

`receive(event, now)` and `tick(now)` return effects as data, to be carried out in order; `deadline` says when `tick`
wants to be called. `now` is seconds on any clock that only goes forward. No I/O, no numbers, no threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct, structs

from aggregator.convergence import reason_to_end
from aggregator.effects import (
    Announce,
    Answer,
    Attempt,
    Close,
    Collect,
    Commit,
    Committed,
    Effect,
    Event,
    Judged,
    Open,
    Publish,
    Record,
    Seen,
    Stop,
)
from aggregator.pace import Pace
from broker import draw
from broker.messages import Offer, Verdict, Version, echo
from models.job import RoundsSpec


class _Device(Struct):
    ready: bool
    gone_at: float | None
    """When it went offline; None while it is online."""
    why: str = ""


class _Round(Struct):
    attempt: Attempt
    ends_at: float
    beats_at: float


class Coordinator:
    """The rounds of one job.

    ledger: the last verdict of every device, for the job's life. counted: the devices in the sum that will make the
    next version; when not given, those whose last verdict is on the base. attempt: the round to resume, with the whole
    of its time. last: the last round that tried to leave this base. history: the metrics of every version so far,
    version 0 first. ended: why the job is over, if it is.
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
        ledger: Iterable[Verdict] = (),
        counted: Iterable[str] | None = None,
        attempt: Attempt | None = None,
        last: Attempt | None = None,
        history: Sequence[Mapping[str, float]] = ({},),
        ended: Literal["", "finished", "stopped"] = "",
    ) -> None:
        self.rules = rules
        self.base = base
        self.ended = ended
        self._seed = seed
        self._max_examples = max_examples
        self._max_body_bytes = max_body_bytes
        self._heartbeat_s = heartbeat_s
        self._ledger = {verdict.device: verdict for verdict in ledger}
        self._history = list(history)
        self._devices: dict[str, _Device] = {}
        self._last = last if last is not None and last.base == base else None
        self._round: _Round | None = None
        self._committing = False
        self._now = now
        on_base = (device for device, verdict in self._ledger.items() if verdict.base == base and verdict.counted)
        self._counted = set(on_base if counted is None else counted)
        self._pace = Pace()
        self._left: dict[Version, Attempt] = {}
        if attempt is not None and not ended:
            self._last = attempt
            self._round = _Round(attempt, now + self._time_for(attempt), now)
            for device in attempt.cohort:
                self._devices[device] = _Device(ready=True, gone_at=now)

    # What goes in.

    def receive(self, event: Event, now: float) -> list[Effect]:
        """Take one event and give what follows from it."""
        self._now = now
        match event:
            case Offer():
                self._pace.hear(event.device, event.base, now)
                return [self._weigh(event)]
            case Seen():
                return self._see(event, now)
            case Judged(verdict):
                self._ledger[verdict.device] = verdict
                if verdict.counted:
                    self._counted.add(verdict.device)
                return [Answer(verdict), *self._advance(now)]
            case Committed(version, metrics):
                return self._leave(version, metrics, now)
            case Stop(reason):
                return self._stop(reason)

    def tick(self, now: float) -> list[Effect]:
        """Give what follows from the time alone."""
        self._now = now
        effects = self._advance(now)
        if self._round is not None and now >= self._round.beats_at:
            effects += self.announce(now)
        return effects

    def announce(self, now: float) -> list[Effect]:
        """Give the announcement of the open round, if there is one: its heartbeat, or because the broker is new."""
        return self._announce(now)

    def _announce(self, now: float, *, first: bool = False) -> list[Effect]:
        if self._round is None:
            return []
        self._round.beats_at = now + self._heartbeat_s
        return [Announce(self._round.attempt, max(0.0, self._round.ends_at - now), first)]

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do, if nothing is received before."""
        if self._round is None:
            return None
        gone = (device.gone_at for name in self._pending() if (device := self._devices.get(name)))
        graces = (at + self.rules.grace_s for at in gone if at is not None)
        return min(self._round.ends_at, self._round.beats_at, *(at for at in graces if at > self._now))

    # What can be asked.

    @property
    def attempt(self) -> Attempt | None:
        """The open round."""
        return self._round.attempt if self._round else None

    @property
    def counted(self) -> list[str]:
        """Devices whose updates count for the current base, in the order of their names."""
        return sorted(self._counted)

    @property
    def state(self) -> Literal["waiting", "running", "finished", "stopped"]:
        """What the head says of the job."""
        return self.ended or ("running" if self._round or self._committing else "waiting")

    def fates(self) -> dict[str, str]:
        """Say of every device of the open round what has become of it so far."""
        return self._fates(self._round.attempt) if self._round else {}

    # Offers.

    def _weigh(self, offer: Offer) -> Effect:
        known = self._ledger.get(offer.device)
        if known is not None and known.base == offer.base:
            if offer.digest.startswith(known.digest):
                return Answer(known)
            return Answer(self._refusal(offer, "this device already has a verdict for this base, on another update"))
        if reason := self._reason_to_turn_away(offer):
            return Answer(self._refusal(offer, reason))
        if reason := self._reason_to_refuse(offer):
            return Record(self._refusal(offer, reason))
        return Collect(offer, self._weight(offer))

    def _reason_to_turn_away(self, offer: Offer) -> str | None:
        """Say why this offer is none of the current base's business; nothing of it needs to be remembered."""
        if self.ended:
            return "the job has ended"
        if offer.base != self.base and self._may_come_late(offer):
            return None
        if offer.base != self.base:
            return f"stale: it is based on version {offer.base}, the current one is {self.base}"
        if self._last is None or draw.ticket(self._last.salt, offer.device) > self._last.threshold:
            return "this device was not drawn"
        if self.rules.wait == "all" and offer.device not in self._last.cohort:
            return "this device came after the membership of this base was fixed"
        return None

    def _may_come_late(self, offer: Offer) -> bool:
        """Tell whether an update to a version that has been left still counts, in the sum of the current one."""
        left, known = self._left.get(offer.base), self._ledger.get(offer.device)
        return (
            self.rules.late == "fold"
            and left is not None
            and draw.ticket(left.salt, offer.device) <= left.threshold
            and (self.rules.wait == "target" or offer.device in left.cohort)
            and self.base.number - offer.base.number <= self.rules.max_staleness
            and (known is None or known.base < offer.base)
        )

    def _weight(self, offer: Offer) -> int:
        """Give n / sqrt(1 + staleness), at least 1: the polynomial weight of Xie, Koyejo and Gupta (2019), a = 1/2."""
        staleness = self.base.number - offer.base.number
        return max(1, 1000 * offer.n_examples // math.isqrt(1_000_000 * (1 + staleness)))

    def _reason_to_refuse(self, offer: Offer) -> str | None:
        """Say why this offer, though awaited, is refused for what its envelope claims."""
        if offer.n_examples > self._max_examples:
            return f"it claims {offer.n_examples} examples, more than max_examples = {self._max_examples}"
        if offer.n_bytes > self._max_body_bytes:
            return f"its {offer.n_bytes} bytes are more than any update of this job has ({self._max_body_bytes})"
        return None

    @staticmethod
    def _refusal(offer: Offer, reason: str) -> Verdict:
        return Verdict(offer.device, offer.job, offer.base, echo(offer), refused=reason)

    # Devices.

    def _see(self, seen: Seen, now: float) -> list[Effect]:
        before = self._devices.get(seen.device)
        gone_at = None if seen.online else (before.gone_at if before and before.gone_at is not None else now)
        self._devices[seen.device] = _Device(seen.ready, gone_at, seen.why)
        round_ = self._round
        if (
            round_ is not None
            and self.rules.wait == "target"
            and seen.online
            and seen.ready
            and seen.device not in round_.attempt.cohort
            and draw.ticket(round_.attempt.salt, seen.device) <= round_.attempt.threshold
        ):
            # It was drawn before we knew it: the round may wait for it too.
            round_.attempt = structs.replace(round_.attempt, cohort=(*round_.attempt.cohort, seen.device))
            self._last = round_.attempt
        return self._advance(now)

    def _eligible(self) -> list[str]:
        return sorted(name for name, device in self._devices.items() if device.ready and device.gone_at is None)

    def _judged(self, device: str) -> bool:
        verdict = self._ledger.get(device)
        return verdict is not None and verdict.base == self.base

    def _pending(self) -> list[str]:
        """Devices of the cohort without a verdict."""
        return [name for name in self._round.attempt.cohort if not self._judged(name)] if self._round else []

    def _awaited(self, now: float) -> list[str]:
        """Devices that the round still waits for."""
        if self.rules.wait == "all":
            return self._pending()
        return [name for name in self._pending() if not self._given_up(self._devices.get(name), now)]

    def _given_up(self, device: _Device | None, now: float) -> bool:
        if device is None or not device.ready:
            return True
        return device.gone_at is not None and now >= device.gone_at + self.rules.grace_s

    # Rounds.

    def _advance(self, now: float) -> list[Effect]:
        if self.ended or self._committing:
            return []
        if self._round is None:
            return self._open(now)
        return self._conclude(self._round, now)

    def _open(self, now: float) -> list[Effect]:
        if reason := reason_to_end(self._history, self.rules):
            self.ended = "finished"
            return [Publish("finished", reason)]
        eligible = self._eligible()
        present = self._counted.union(eligible)
        if len(present) < (self.rules.min_devices or self.rules.quorum) or not eligible:
            return []
        self._last = self._draw(sorted(present))
        self._pace.open(self.base, now)
        self._round = _Round(self._last, now + self._time_for(self._last), now)
        return [Open(self._last), *self._announce(now, first=self._last.number == 1), *self._conclude(self._round, now)]

    def _time_for(self, attempt: Attempt) -> float:
        deadline_s = self.rules.deadline_s
        return self._pace.deadline_s(attempt.cohort) if deadline_s == "learned" else float(deadline_s)

    def _draw(self, present: Sequence[str]) -> Attempt:
        """Draw the cohort of the next attempt: for a new base afresh, for the same base by widening."""
        again = self._last if self._last is not None and self._last.base == self.base else None
        number = again.number + 1 if again else 1
        if again is not None and self.rules.wait == "all":
            return structs.replace(again, number=number)
        salt = again.salt if again else draw.salt(self._seed, self.base)
        wanted = min(self.rules.target or math.ceil(self.rules.fraction * len(present) - 1e-9), len(present))
        wanted = max(wanted, min(self.rules.quorum, len(present)))
        k = math.ceil((wanted - len(self._counted)) * self.rules.over_selection - 1e-9)
        k += sum(draw.ticket(salt, name) <= again.threshold for name in present) if again else 0
        threshold = max(draw.threshold(salt, present, max(k, 1)), again.threshold if again else 0)
        if k >= len(present) and self.rules.wait == "target":
            threshold = draw.MOST  # everybody is wanted: whoever comes while the round is open too
        cohort = tuple(name for name in present if draw.ticket(salt, name) <= threshold)
        target = None if self.rules.wait == "all" else wanted
        return Attempt(self.base, number, salt, threshold, target, cohort)

    def _conclude(self, round_: _Round, now: float) -> list[Effect]:
        counted, target = len(self._counted), round_.attempt.target
        if target is not None and counted >= target:
            return self._commit(f"its target of {target} updates is reached")
        if counted >= self.rules.quorum and not self._awaited(now):
            return self._commit("nobody is left to wait for")
        if now < round_.ends_at:
            return []
        if counted >= self.rules.quorum and self.rules.wait == "target":
            return self._commit("a quorum at the deadline")
        needed = "every drawn device" if self.rules.wait == "all" else f"a quorum of {self.rules.quorum}"
        abandoned = self._close("abandoned", f"{counted} updates at the deadline where {needed} is needed")
        return [abandoned, *self._open(now)]

    def _commit(self, reason: str) -> list[Effect]:
        self._committing = True
        return [Commit(self._close("committed", reason))]

    def _close(self, outcome: Literal["committed", "abandoned", "stopped"], reason: str) -> Close:
        assert self._round is not None  # noqa: S101 -- callers hold an open round
        attempt, self._round = self._round.attempt, None
        return Close(attempt, outcome, reason, self._fates(attempt))

    def _fates(self, attempt: Attempt) -> dict[str, str]:
        return {name: self._fate(name) for name in sorted({*attempt.cohort, *self._counted})}

    def _fate(self, name: str) -> str:
        verdict, device = self._ledger.get(name), self._devices.get(name)
        if name in self._counted and verdict is not None and verdict.base != self.base:
            return f"counted late: its update was to version {verdict.base}"
        if verdict is not None and verdict.base == self.base:
            return "counted" if verdict.counted else f"refused: {verdict.refused}"
        if device is None or device.gone_at is not None:
            return "not counted: it was offline"
        if not device.ready:
            return f"not counted: it could not take part: {device.why}"
        return "not counted: nothing had arrived when the round ended"

    def _leave(self, version: Version, metrics: Mapping[str, float], now: float) -> list[Effect]:
        if self._last is not None:
            self._left[self.base] = self._last
            self._left.pop(Version(version.generation, version.number - self.rules.max_staleness - 1), None)
        self.base = version
        self._history.append(metrics)
        self._committing = False
        self._counted.clear()
        opening = self._open(now)
        return opening if self.ended else [Publish(self.state, ""), *opening]

    def _stop(self, reason: str) -> list[Effect]:
        if self.ended:
            return []
        closing: list[Effect] = [self._close("stopped", reason)] if self._round else []
        self.ended = "stopped"
        return [*closing, Publish("stopped", reason)]
