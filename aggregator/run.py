"""One job at work: carries out what its coordinator wants, between the store and the wire.

A run is made from the store and nothing else, so that a start after `kill -9` and a reload after a full disk are the
same thing. Messages come out as values; the service sends them. Whatever is durable is so before its message is given.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from aggregator import evaluation
from aggregator.config import AggregatorConfig
from aggregator.coordinator import Coordinator
from aggregator.effects import (
    Announce,
    Answer,
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
    Stop,
)
from aggregator.gates import RefusedError
from aggregator.inbox import Inbox
from aggregator.learner import Counted, Learner, LearnerError, Next, start
from aggregator.store import BodyRow, JobRow, Store, StoreError
from broker import chunks, draw
from broker.errors import WireError
from broker.failpoints import reach
from broker.messages import (
    Body,
    Head,
    Job,
    Message,
    Metrics,
    Offer,
    Round,
    Status,
    Verdict,
    Version,
    Want,
    Way,
    along,
    body_name,
    echo,
)
from models import codec
from models.job import JobSpec

log = logging.getLogger(__name__)

FETCH_BYTES = 330
"""What it costs a device to read a head and a body at their own topics, beside the body."""
LONGEST_WAY = 16_384
"""No longer way travels with a round: whoever connects while it lies at the broker gets it too."""


class Clear(Struct, frozen=True):
    """Clear the retained topic of this message."""

    message: Message


Out = Message | Clear


class Run:
    """A job, its coordinator and its numbers."""

    def __init__(
        self, row: JobRow, store: Store, config: AggregatorConfig, inbox: Inbox, term: int, now: float
    ) -> None:
        """Load the job from the store. Raises ModelError, DatasetError or StoreError when it cannot be run here."""
        self.job = row.job
        self.spec: JobSpec = row.spec
        self.reason = row.reason
        self._store = store
        self._inbox = inbox
        self._limits = config.limits
        self._term = term
        self._net, self._test = evaluation.prepare(row.spec, config)
        self._load(row, now)

    def _load(self, row: JobRow, now: float) -> None:
        version, self._sha256, blob = self._store.last_version(self.job)
        counted = []
        try:
            self._learner = Learner(self._net, self.spec, blob)
            for update in self._store.updates(self.job):
                self._learner.restore(update.body, Counted(update.weight, update.norm, update.nmse))
                counted.append(update.device)
        except LearnerError as error:
            raise StoreError(f"job {self.job} is damaged in the state directory, restore a backup: {error}") from error
        self._history = self._store.history(self.job)
        lying = [body.chunk_bytes for body in self._store.bodies(self.job) if body.number == version.number]
        self._chunk_bytes = lying[0] if lying else self._limits.chunk_bytes
        """How the bodies of the current version are cut, whatever the settings have become since."""
        attempts = self._store.attempts(self.job, version)
        open_attempt = next((a.attempt for a in attempts if a.outcome == "open"), None)
        self.coordinator = Coordinator(
            self.spec.rounds,
            self.spec.seed,
            version,
            now=now,
            max_examples=self.spec.aggregate.max_examples,
            max_body_bytes=min(codec.max_body_bytes(self._net.spec), self._limits.unassembled_bytes),
            heartbeat_s=self._limits.heartbeat_s,
            ledger=self._store.verdicts(self.job),
            counted=counted,
            attempt=open_attempt,
            last=attempts[-1].attempt if attempts else None,
            history=self._history,
            ended=row.ended,  # type: ignore[arg-type]  # the store writes only these words
        )
        self._retire_at: dict[str, float] = {}
        self._note_retired(now)

    # What the service asks.

    @property
    def version(self) -> Version:
        """The current version."""
        return self.coordinator.base

    @property
    def metrics(self) -> Metrics:
        """What is known of the current version."""
        return self._history[-1]

    @property
    def sha256(self) -> str:
        """Of the current version."""
        return self._sha256

    def handle(self, event: Event, now: float) -> list[Out]:
        """Tell the coordinator of an event, and give the messages that follow. Raises StoreError: then reload."""
        return list(self._carry_out(self.coordinator.receive(event, now), now))

    def tick(self, now: float) -> list[Out]:
        """Give the messages that follow from the time alone. Raises StoreError: then reload."""
        messages = list(self._carry_out(self.coordinator.tick(now), now))
        due = [name for name, at in self._retire_at.items() if now >= at]
        return messages + [clear for name in due for clear in self._retire(name)]

    def announce(self, now: float) -> list[Out]:
        """Give the open round once more, if there is one."""
        return list(self._carry_out(self.coordinator.announce(now), now))

    @property
    def deadline(self) -> float | None:
        """When `tick` wants to be called."""
        deadline = self.coordinator.deadline
        return min([*self._retire_at.values(), *([] if deadline is None else [deadline])], default=None)

    def retained(self) -> list[Out]:
        """Give everything of this job that should lie at the broker, the head last."""
        bodies = [m for body in self._store.bodies(self.job) for m in self._chunks_of(body)]
        head: list[Out] = [self._head(), self._status()]
        return [*bodies, *head, self._job()] if self.coordinator.ended else [self._job(), *bodies, *head]

    def tombstone(self) -> list[Out]:
        """Give what takes this job off the broker."""
        clears: list[Out] = [Clear(m) for b in self._store.bodies(self.job) for m in self._chunks_of(b)]
        return [Job(self.job, self._term), Clear(self._head()), Clear(self._status()), *clears]

    def raise_generation(self, above: int) -> list[Out]:
        """Rename the current version and what leads to it, so that no number is given out twice.

        This run must then be loaded again.
        """
        renamed = Version(above + 1, self.version.number)
        self._store.raise_generation(self.job, renamed, _rows(renamed, self._learner.now, self._chunk_bytes))
        return []

    def explain(self, number: int) -> list[dict[str, Any]]:
        """Say of every attempt to make this version how it ended, and what became of each device."""
        attempts = self._store.attempts(self.job, Version(self.version.generation, number - 1))
        return [
            {
                "attempt": row.attempt.number,
                "base": str(row.attempt.base),
                "outcome": row.outcome,
                "reason": row.reason,
                "opened": row.opened,
                "closed": row.closed,
                "target": row.attempt.target,
                "fates": self.coordinator.fates() if row.outcome == "open" else row.fates,
            }
            for row in attempts
        ]

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
                    log.info(
                        "round open job=%s base=%s attempt=%d drawn=%d", *self._where(attempt), len(attempt.cohort)
                    )
                case Announce() as announce:
                    yield self._round(announce)
                case Collect(offer, weight):
                    answer, follow = self._collect(offer, weight, now)
                    yield from answer
                case Record(verdict):
                    self._store.add_verdict(verdict)
                    follow = self.coordinator.receive(Judged(verdict), now)
                case Answer(verdict):
                    _log_verdict(verdict)
                    yield verdict
                case Commit(close):
                    follow = self.coordinator.receive(self._commit(close, now), now)
                    yield from self._no_round()
                case Close() as close:
                    self._store.close_attempt(self.job, close)
                    if close.outcome == "abandoned":
                        log.warning(
                            "round abandoned job=%s base=%s attempt=%d: %s", *self._where(close.attempt), close.reason
                        )
                    yield from self._no_round()
                case Publish(state, reason):
                    yield from self._publish(state, reason)
            reach(f"aggregator.{type(effect).__name__}.after", effect)
            queue.extendleft(reversed(follow))

    def _no_round(self) -> list[Out]:
        """Clear the topic of the round that is over, unless the next one is about to be announced there."""
        return [] if self.coordinator.attempt else [Clear(Round(self.job, self._term, self.version, 0.0))]

    def _where(self, attempt: object) -> tuple[str, Version, int]:
        return self.job, attempt.base, attempt.number  # type: ignore[attr-defined]

    def _collect(self, offer: Offer, weight: int, now: float) -> tuple[list[Want], list[Effect]]:
        """Get the body of a welcome update and judge it, or ask for what is missing of it."""
        try:
            body = self._inbox.collect(offer, now)
        except WireError as error:
            log.warning("offer broken job=%s device=%s: %s", self.job, offer.device, error)
            return [], []
        if body is None or isinstance(body, Want):
            return ([body] if body else []), []
        verdict = self._judge(offer, weight, body)
        return [], self.coordinator.receive(Judged(verdict), now)

    def _judge(self, offer: Offer, weight: int, body: bytes) -> Verdict:
        """Hold a body against the gates, and make what comes of it durable."""
        norm, refused = 0.0, ""
        try:
            norm = self._learner.admit(body, weight, offer.nmse)
        except RefusedError as error:
            refused = str(error)[:500]
        verdict = Verdict(offer.device, self.job, offer.base, echo(offer), refused=refused)
        self._store.add_verdict(verdict, offer, weight, norm, body)
        return verdict

    def _commit(self, close: Close, now: float) -> Committed | Stop:
        """Turn the fold into the next version, and make it and the end of its round durable.

        A step that the model cannot take, as of one that has diverged, ends the job.
        """
        base = close.attempt.base
        try:
            following = self._learner.next()
        except LearnerError as error:
            reason = f"the next version cannot be made: {error}"[:500]
            self._store.close_attempt(self.job, structs.replace(close, outcome="stopped", reason=reason))
            return Stop(reason)
        version = Version(base.generation, following.state.version)
        updates = list(self._store.updates(self.job))
        metrics = {"step_scale": self._learner.step_scale} | evaluation.measure(
            self._net, following.model, self._test, updates
        )
        rows = _rows(version, following, self._limits.chunk_bytes)
        sha256 = following.model.sha256()
        self._store.commit(self.job, version, sha256, following.to_bytes(), metrics, rows, close)
        self._learner.take(following)
        self._sha256, self._chunk_bytes = sha256, self._limits.chunk_bytes
        self._history.append(metrics)
        self._inbox.forget_job(self.job)
        self._note_retired(now)
        text = " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
        log.info("round committed job=%s base=%s: %s", self.job, base, close.reason)
        log.info("version job=%s version=%s %s", self.job, version, text)
        return Committed(version, metrics)

    def _publish(self, state: str, reason: str) -> Iterator[Out]:
        if state in ("finished", "stopped"):
            self._store.end_job(self.job, state, reason)
            self.reason = reason
            log.info("job ended job=%s version=%s %s: %s", self.job, self.version, state, reason)
        for body in self._store.bodies(self.job):
            if body.number == self.version.number:
                yield from self._chunks_of(body)
        yield self._head()
        yield self._status()
        if self.coordinator.ended:
            yield self._job()

    # The projection.

    def _job(self) -> Job:
        last = self.version if self.coordinator.ended else None
        return Job(self.job, self._term, msgspec.to_builtins(self.spec), last)

    def _head(self) -> Head:
        return Head(
            self.job,
            self._term,
            self.version,
            self._sha256[:32],
            state=self.coordinator.state,
            ways=tuple(Way(way.start, len(way.body)) for way in self._learner.now.state.ways),
            chunk_bytes=self._chunk_bytes,
        )

    def _round(self, announce: Announce) -> Round:
        attempt = announce.attempt
        way = self._way_along(attempt.threshold / draw.MOST) if announce.first else b""
        proves = way or not attempt.base.number
        return Round(
            self.job,
            self._term,
            attempt.base,
            math.ceil(announce.seconds_left),
            attempt.threshold,
            attempt.number,
            self._learner.step_scale,
            along(self._sha256, way) if proves else b"",
        )

    def _way_along(self, drawn: float) -> bytes:
        """Give the way from the version before, if sending it to everybody costs less than fetching it does.

        drawn: share of the devices that this round draws. Who was drawn to leave the version before holds it.
        """
        nearest = next(iter(self._learner.now.state.ways), None)
        if nearest is None or nearest.start != self.version.number - 1 or len(nearest.body) > LONGEST_WAY:
            return b""
        useful = drawn**2
        return nearest.body if (1 - useful) * len(nearest.body) <= useful * FETCH_BYTES else b""

    def _status(self) -> Status:
        """Give what people see of the job."""
        metrics = evaluation.announced(self._history[-1])
        return Status(self.job, self.version, self.coordinator.state, self.reason, metrics)

    def _chunks_of(self, body: BodyRow) -> list[Body]:
        pieces = enumerate(chunks.cut(body.data, body.chunk_bytes))
        return [Body(self.job, body.name, index, piece) for index, piece in pieces]

    def _note_retired(self, now: float) -> None:
        """Start the grace of bodies that neither the current version nor the one before it needs."""
        for body in self._store.bodies(self.job):
            if body.number < self._learner.now.state.version - 1:
                self._retire_at.setdefault(body.name, now + self._limits.body_grace_s)

    def _retire(self, name: str) -> list[Out]:
        del self._retire_at[name]
        clears = [Clear(m) for b in self._store.bodies(self.job) if b.name == name for m in self._chunks_of(b)]
        self._store.forget_body(self.job, name)
        return list(clears)


def create(job: str, spec: JobSpec, store: Store, config: AggregatorConfig) -> JobRow:
    """Make a job and its version 0 durable. Raises ModelError or DatasetError when it cannot be run here."""
    net, test = evaluation.prepare(spec, config)
    first = start(net, spec)
    store.add_job(job, spec, first.model.sha256(), first.to_bytes(), evaluation.evaluate(net, first.model, test))
    return JobRow(job, spec, 1, "", "")


def _rows(version: Version, now: Next, chunk_bytes: int) -> list[BodyRow]:
    """Give the bodies that lead to a version."""
    ways = now.state.ways
    return [BodyRow(body_name(version, way.start), version.number, chunk_bytes, way.body) for way in ways]


def _log_verdict(verdict: Verdict) -> None:
    outcome = f"refused: {verdict.refused}" if verdict.refused else "counted"
    level = logging.WARNING if verdict.refused else logging.INFO
    log.log(level, "verdict job=%s base=%s device=%s %s", verdict.job, verdict.base, verdict.device, outcome)
