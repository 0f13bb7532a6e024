"""One job at work: carries out what its coordinator wants, between the store and the wire.

A run is made from the store and nothing else, so that a start after `kill -9` and a reload after a full disk are the
same thing. Messages come out as values; the service sends them. Whatever is durable is so before its message is given.

    standing.py   what is loaded of a job, and what can be asked of it
    maker.py      how it comes to its next version
    run.py        what the service tells it, and the effects of its coordinator
    creation.py   how a job is made in the first place
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from msgspec import structs

from aggregator import projection, refusals, scale, streaks
from aggregator.effects import (
    Announce,
    AskDevices,
    Attempt,
    Close,
    Collect,
    Commit,
    CoordinatorEvent,
    Effect,
    EndJob,
    Open,
    Publish,
    Restore,
    SendVerdict,
    StoreRefusal,
    Tell,
    VerdictPending,
    VerdictStored,
)
from aggregator.gates import Admitted, RefusedError
from aggregator.maker import Maker
from aggregator.projection import Out, Question
from aggregator.rows import report_of
from aggregator.spool import SpoolError
from aggregator.store import Judgement
from broker.errors import WireError
from broker.messages import Offer, Verdict, Version, Want, echo
from models import sections
from models.measures.table import THRESHOLD
from runtime.failpoints import reach

log = logging.getLogger(__name__)

STOP_WAITS_S = 60.0
"""How long a job that is to end waits for the score of its last version."""
RESCORE_S = 2.0
"""From the first word on the last version, since it was scored, to its being scored anew by all that have come."""
NAMED = 3
"""Devices that a line of the log names, of many."""


class Run(Maker):
    """A job, its coordinator and its numbers."""

    # What the service asks.

    def handle(self, event: CoordinatorEvent, now: float) -> list[Out]:
        """Tell the coordinator of an event, and return the messages that follow. Raises StoreError: then reload."""
        if isinstance(event, EndJob) and self._making is not None:
            self._making.scores.hurry(now + STOP_WAITS_S)
        if isinstance(event, Offer) and sections.is_evaluation_alone(event.body):
            if not self.coordinator.ended:
                return []  # of a job that goes on it is no update, and a verdict would be the only one on this base
            if self.poll.is_on and self.coordinator.ledger.present(event.base) == self.version:
                return self._hear_last(event, now)
        return list(self._carry_out(self.coordinator.receive(event, now), now))

    def _hear_last(self, offer: Offer, now: float) -> list[Out]:
        """Take what a device says of the last version of a job that has ended.

        It is no update: the coordinator, whose law is of those, does not hear of it.
        """
        core, device = self.coordinator, offer.device
        has_taken_part, barred = core.ledger.last_of(device) is not None, core.members.barred(device)
        verdict, is_news = self.poll.hear_last(offer, self.version, has_taken_part=has_taken_part, barred=barred)
        if is_news:
            self._rescore_at = min(self._rescore_at, now + RESCORE_S)
        return [verdict]

    def _rescore(self) -> list[Out]:
        """Work out anew how good the last version is: many devices say so at about the same time, and it is of all."""
        self._rescore_at = math.inf
        now = self.poll.scored(self.version, self._history[-1])
        if now is None:
            return []
        self._store.score(self.job, self.version, now)
        is_new = now[0].get(THRESHOLD) != self.metrics.get(THRESHOLD)
        self._history[-1] = dict(now[0])
        return [*([projection.head(self)] if is_new else ()), projection.status(self)]

    @property
    def is_unsettled(self) -> bool:
        """Whether `settle` has something to do."""
        return bool(self._unwritten) or (self._making is not None and self._making.scores.is_done)

    @property
    def expects_more(self) -> bool:
        """Whether others will follow soon that could be settled in one with what has been judged."""
        unwritten = self._unwritten
        return bool(unwritten) and self.coordinator.expects_more and all(one.verdict.counted for one in unwritten)

    def settle(self, now: float) -> list[Out]:
        """Make durable what was judged since, or a version that is evaluated; return the messages that follow.

        Raises StoreError: then reload.
        """
        out: list[Out] = []
        judged, self._unwritten, self.unsettled_bytes = self._unwritten, [], 0
        if judged:
            self._store.add_verdicts(self.job, judged)
            self._store.counting.judge(self.job, (one.verdict for one in judged), self.version)
            _log_counted([one.verdict for one in judged if one.verdict.counted])
            self._tell_refused([one.verdict for one in judged])
            for one in judged:
                out += self._carry_out(self.coordinator.receive(VerdictStored(one.verdict), now), now)
        if self._making is not None and self._making.scores.is_done:
            out += self._end_making(now)
        return out

    def _end_making(self, now: float) -> list[Out]:
        return [*self._carry_out(self.coordinator.receive(self._made(now), now), now), *self._no_round()]

    @property
    def is_prepared(self) -> bool:
        """Whether `prepare` has nothing to do."""
        return self._learner.is_prepared

    def prepare(self, _now: float) -> list[Out]:
        """Do what the next version takes and can be done before it is due; no message follows."""
        self._learner.prepare()
        return []

    def tick(self, now: float) -> list[Out]:
        """Return the messages that follow from the time alone. Raises StoreError: then reload."""
        messages = list(self._carry_out(self.coordinator.tick(now), now))
        if self._making is not None and now >= self._making.scores.until:
            messages += self._end_making(now)
        for name in self._shelf.take_due(now):
            self._store.forget_body(self.job, name)
        return messages if now < self._rescore_at else [*messages, *self._rescore()]

    def announce(self, now: float) -> list[Out]:
        """Return the open round once more, if there is one."""
        return list(self._carry_out(self.coordinator.announce(now), now))

    @property
    def deadline(self) -> float | None:
        """When `tick` wants to be called."""
        making = math.inf if self._making is None else self._making.scores.until
        deadline = self.coordinator.deadline
        at = min(math.inf if deadline is None else deadline, self._shelf.retires_at, making, self._rescore_at)
        return None if math.isinf(at) else at

    def retained(self) -> list[Out]:
        """Return everything of this job that should lie at the broker, the head last."""
        return projection.retained(self)

    def step_out(self) -> None:
        """Note that this run is let go, also in mid-evaluation: what ends the process then is not its job's fault.

        What was judged and not written down leaves the room that it took.
        """
        judged, self._unwritten, self.unsettled_bytes = self._unwritten, [], 0
        self._store.displace(self.job, judged)
        self._marks.step_out(self.job, "commit")

    def fit(self, packet_bytes: int | None) -> None:
        """Cut bodies as this broker takes them. Raises StoreError."""
        self._packet_bytes = packet_bytes
        self.chunk_bytes = self._cut()

    # Effects.

    def _carry_out(self, effects: Sequence[Effect], now: float) -> Iterator[Out]:
        queue = deque(effects)
        while queue:
            follow: list[Effect] = []
            effect = queue.popleft()
            reach(f"aggregator.{type(effect).__name__}.before", effect)
            match effect:
                case Open(attempt):
                    self._store.open_attempt(self.job, attempt)
                    self._store.counting.open_round(self.job, now)
                    if self.reason:  # it waits no longer
                        self.reason = ""
                        yield projection.status(self)
                    log.info(
                        "round open job=%s base=%s attempt=%d drawn=%d", *self._where(attempt), len(attempt.cohort)
                    )
                case Announce() as announce:
                    yield projection.round_(self, announce)
                case Collect(offer, weight):
                    answer, follow = self._collect(offer, weight, now)
                    yield from answer
                case StoreRefusal(verdict):
                    follow = self._judge(Judgement(verdict), now)
                case SendVerdict(verdict):
                    if verdict.refused:
                        log.warning(
                            "verdict job=%s base=%s device=%s refused: %s",
                            *(verdict.job, verdict.base, verdict.device, verdict.refused),
                        )
                    yield structs.replace(verdict, refused=refusals.told(verdict.refused))
                case Commit(close):
                    made = self._make(close, now)
                    if made is not None:
                        follow = self.coordinator.receive(made, now)
                        yield from self._no_round()
                case Restore() as restore:
                    follow = self.coordinator.receive(self._restore(restore, now), now)
                case Close() as close:
                    self._store.close_attempt(self.job, close)
                    self._store.counting.close_round(self.job, close.outcome, now)
                    if close.outcome == "abandoned":
                        log.warning(
                            "round abandoned job=%s base=%s attempt=%d: %s", *self._where(close.attempt), close.reason
                        )
                    yield from self._no_round()
                case Publish(state, reason):
                    yield from self._publish(state, reason)
                case AskDevices(devices):
                    names = ", ".join(islice(devices, NAMED)) + (", …" if len(devices) > NAMED else "")
                    log.info("job=%s asks %d silent device(s) for a sign of life: %s", self.job, len(devices), names)
                    yield Question(devices)
                case Tell(reason):
                    self.reason = reason
                    log.warning("waiting job=%s version=%s: %s", self.job, self.version, reason)
                    yield projection.status(self)
            reach(f"aggregator.{type(effect).__name__}.after", effect)
            queue.extendleft(reversed(follow))

    def _no_round(self) -> list[Out]:
        """Clear the topic of the round that is over, unless the next one is about to be announced there."""
        return [] if self.coordinator.attempt else [projection.no_round(self)]

    def _where(self, attempt: Attempt) -> tuple[str, Version, int]:
        return self.job, attempt.base, attempt.number

    def _collect(self, offer: Offer, weight: int, now: float) -> tuple[list[Want], list[Effect]]:
        """Get the body of a welcome update and judge it, or ask for what is missing of it."""
        try:
            body = self._inbox.collect(offer, now)
        except WireError as error:
            log.warning("offer broken job=%s device=%s: %s", self.job, offer.device, error)
            return [], []
        except SpoolError as error:
            log.error("offer waits job=%s device=%s: %s", self.job, offer.device, error)
            return [], []
        if body is None or isinstance(body, Want):
            return ([body] if body else []), []
        return [], self._judge(self._weighed(offer, weight, body, now), now)

    def _judge(self, judgement: Judgement, now: float) -> list[Effect]:
        """Keep a verdict, to be made durable with those that come in one go with it. Raises StoreError."""
        self._unwritten.append(self._store.place(self.job, judgement))
        self.unsettled_bytes += len(judgement.body)
        verdict = judgement.verdict
        if verdict.refused and verdict.base == self.version:
            self._learner.refuse(verdict.device, judgement.norm)
            if (n := self._learner.intake.streak_of(verdict.device)) >= streaks.MANY:
                log.warning("job=%s device=%s was refused %d times in a row", self.job, verdict.device, n)
        return self.coordinator.receive(VerdictPending(judgement.verdict.device), now)

    def _weighed(self, offer: Offer, weight: int, body: bytes, now: float) -> Judgement:
        """Hold a body against the gates, and add it to the sum."""
        admitted, refused = Admitted(0.0, weight), ""
        try:
            number = None if offer.base.number == self.version.number else offer.base.number
            admitted = self._learner.admit(body, weight, report_of(offer), number, offer.device)
        except RefusedError as error:
            admitted, refused = Admitted(error.norm, weight), str(error)[:500]
        if admitted.factor is not None:
            log.warning(
                "update job=%s base=%s device=%s is scaled to %.3g of itself: its norm %.4g is far from %s",
                *(self.job, offer.base, offer.device, admitted.factor.value, admitted.norm),
                self._learner.intake.usual,
            )
        believed = self.coordinator.ledger.believed(offer.device, offer.n_examples)
        if not refused and scale.is_clamped(believed, self.coordinator.shift):
            log.warning(
                "update job=%s base=%s device=%s counts as one of %d examples, not of %d: more than its round's "
                "devices said they have",
                *(self.job, offer.base, offer.device, scale.MOST << self.coordinator.shift, believed),
            )
        if admitted.weight < weight:
            log.warning(
                "update job=%s base=%s device=%s weighs %d, not %d: its norm %.4g is far from %s",
                *(self.job, offer.base, offer.device, admitted.weight, weight, admitted.norm),
                self._learner.intake.usual,
            )
        verdict = Verdict(offer.device, self.job, offer.base, echo(offer), refused=refused)
        seconds = self._seconds(now)
        return Judgement(verdict, offer, admitted.weight, admitted.norm, body, seconds, admitted.evaluation)

    def _seconds(self, now: float) -> float | None:
        """Return how long the round has been open; None where none is."""
        opened = self.coordinator.rounds.now
        return None if opened is None else max(0.0, now - opened.opened_at)

    def _tell_refused(self, verdicts: Sequence[Verdict]) -> None:
        """Tell of the first few who were refused in one go; that those in quarantine are is no news."""
        members = self.coordinator.members
        refused = (one for one in verdicts if not one.counted and not members.barred(one.device))
        for verdict in islice(refused, NAMED):
            what = f"its update to version {verdict.base} of {self.spec.name} was refused: {verdict.refused}"
            told = f"{verdict.device}: {what}"
            self._store.events.note("device.refused", told, job=self.job, device=verdict.device)

    def _publish(self, state: str, reason: str) -> Iterator[Out]:
        if state in ("finished", "stopped"):
            left = self.poll.scored(self.version, self._history[-1])
            self._store.end_job(self.job, state, reason, self.version, left)
            if left is not None:
                self._history[-1] = dict(left[0])
            self._inbox.forget_job(self.job)
            log.info("job ended job=%s version=%s %s: %s", self.job, self.version, state, reason)
        self.reason = reason
        newest, self._newest = self._newest, []
        for row in newest or self.bodies():
            if row.number == self.version.number:
                yield from projection.chunks_of(self, row)
        yield projection.head(self)
        yield projection.status(self)
        if self.coordinator.ended:
            yield projection.job(self)


def _log_counted(verdicts: Sequence[Verdict]) -> None:
    """Note who was counted, a line for each base."""
    for job, base in dict.fromkeys((verdict.job, verdict.base) for verdict in verdicts):
        devices = ",".join(verdict.device for verdict in verdicts if verdict.base == base)
        log.info("counted job=%s base=%s devices=%s", job, base, devices)
