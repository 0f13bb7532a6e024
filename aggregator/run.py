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
import numpy as np
from msgspec import Struct, structs

from aggregator import gates
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
from aggregator.inbox import Inbox
from aggregator.store import BodyRow, JobRow, Store, StoreError, UpdateRow
from aggregator.strategies import STRATEGIES, Velocity
from broker import chunks
from broker.errors import WireError
from broker.failpoints import reach
from broker.messages import (
    Body,
    BodyRef,
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
    echo,
)
from models import codec, downlink, nets
from models.dataset import Dataset
from models.downlink import DownlinkError, ServerState
from models.fold import Fold, exponents_for
from models.job import JobSpec
from models.lattice import Model
from models.nets import Net
from models.source import read

log = logging.getLogger(__name__)

INLINE_BYTES = 1024
"""A delta up to this size travels with the head; the subscription to a topic of its own would cost as much."""


class Clear(Struct, frozen=True):
    """Clear the retained topic of this message."""

    message: Message


Out = Message | Clear


class _Stored(Struct, frozen=True, array_like=True):
    """The blob in `versions.state`: the server's side of the model, and the strategy's."""

    model: bytes
    velocity: list[bytes]


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
        self._net, self._test = prepare(row.spec, config)
        self._load(row, now)

    def _load(self, row: JobRow, now: float) -> None:
        version, self._sha256, blob = self._store.last_version(self.job)
        try:
            self._state, self._velocity = _restore(blob, self._net)
        except (msgspec.MsgspecError, DownlinkError) as error:
            raise StoreError(f"job {self.job} is damaged in the state directory, restore a backup: {error}") from error
        self._history = self._store.history(self.job)
        attempts = self._store.attempts(self.job, version)
        open_attempt = next((a.attempt for a in attempts if a.outcome == "open"), None)
        self._begin_fold(self._state.model)
        counted = []
        for update in self._store.updates(self.job):
            self._fold.add(codec.decode(update.body, self._net.spec), update.weight)
            counted.append(update.device)
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

    def _begin_fold(self, model: Model) -> None:
        self._fold = Fold(self._net.spec, exponents_for(model))
        self._norms = self._store.norms(self.job)
        self._model_norm = math.sqrt(sum(float(np.vdot(v, v)) for v in model.values()))

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
        due = [digest for digest, at in self._retire_at.items() if now >= at]
        return messages + [clear for digest in due for clear in self._retire(digest)]

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
        """Rename the current version, so that no number is given out twice; this run must then be loaded again."""
        self._store.raise_generation(self.job, above)
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
                case Announce(attempt, left):
                    yield Round(self.job, self._term, attempt.base, math.ceil(left), attempt.threshold, attempt.number)
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
                    yield self._no_round()
                case Close() as close:
                    self._store.close_attempt(self.job, close)
                    if close.outcome == "abandoned":
                        log.warning(
                            "round abandoned job=%s base=%s attempt=%d: %s", *self._where(close.attempt), close.reason
                        )
                    yield self._no_round()
                case Publish(state, reason):
                    yield from self._publish(state, reason)
            reach(f"aggregator.{type(effect).__name__}.after", effect)
            queue.extendleft(reversed(follow))

    def _no_round(self) -> Out:
        return Clear(Round(self.job, self._term, self.version, 0.0))

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
        limit = gates.limit_of_norm(list(self._norms.values()), self._model_norm, self.spec.aggregate.max_norm_ratio)
        norm, refused = 0.0, ""
        try:
            norm = gates.admit(body, weight, self._net.spec, self._fold, limit)
            self._norms[offer.device] = norm
        except gates.RefusedError as error:
            refused = str(error)[:500]
        verdict = Verdict(offer.device, self.job, offer.base, echo(offer), refused=refused)
        self._store.add_verdict(verdict, offer, weight, norm, body)
        return verdict

    def _commit(self, close: Close, now: float) -> Committed | Stop:
        """Turn the fold into the next version, and make it and the end of its round durable.

        A step that the model cannot take, as of one that has diverged, ends the job.
        """
        base, rules = close.attempt.base, self.spec.aggregate
        step, velocity = STRATEGIES[rules.strategy](self._fold.mean(), self._velocity, rules)
        try:
            state, bodies, model = downlink.advance(self._state, step, self._net.spec, self.spec.coding)
        except DownlinkError as error:
            reason = f"the next version cannot be made: {error}"[:500]
            self._store.close_attempt(self.job, structs.replace(close, outcome="stopped", reason=reason))
            return Stop(reason)
        version = Version(base.generation, state.version)
        metrics = self._metrics(model)
        rows = [
            BodyRow(chunks.digest(data), version.number, self._limits.chunk_bytes, data)
            for data in (bodies.key, bodies.delta)
            if data is not None
        ]
        sha256 = model.sha256()
        self._store.commit(self.job, version, sha256, _dump(state, velocity), metrics, rows, close)
        self._state, self._velocity, self._sha256 = state, velocity, sha256
        self._history.append(metrics)
        self._begin_fold(model)
        self._inbox.forget_job(self.job)
        self._note_retired(now)
        text = " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
        log.info("round committed job=%s base=%s: %s", self.job, base, close.reason)
        log.info("version job=%s version=%s %s", self.job, version, text)
        return Committed(version, metrics)

    def _metrics(self, model: Model) -> Metrics:
        """Evaluate a version on the test split held here; without one, go by the loss that the devices reported."""
        updates = list(self._store.updates(self.job))
        told = _mean_loss(updates)
        return {
            "participants": float(len(updates)),
            "examples": float(sum(u.n_examples for u in updates)),
            **{f"device_{name}": value for name, value in told.items()},
            **(told if self._test is None else evaluate(self._net, model, self._test)),
        }

    def _publish(self, state: str, reason: str) -> Iterator[Out]:
        if state in ("finished", "stopped"):
            self._store.end_job(self.job, state, reason)
            self.reason = reason
            log.info("job ended job=%s version=%s %s: %s", self.job, self.version, state, reason)
        current = {ref.digest for ref in self._refs() if ref}
        for body in self._store.bodies(self.job):
            if body.digest in current and body.number == self.version.number:
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
        key, delta = self._refs()
        inline = self._state.bodies.delta or b""
        return Head(
            self.job,
            self._term,
            self.version,
            self._sha256[:32],
            state=self.coordinator.state,
            key=key,
            delta=delta,
            inline=inline if len(inline) <= INLINE_BYTES else b"",
        )

    def _status(self) -> Status:
        """Give what people see of the job."""
        metrics = _announced(self._history[-1])
        return Status(self.job, self.version, self.coordinator.state, self.reason, metrics)

    def _refs(self) -> tuple[BodyRef | None, BodyRef | None]:
        key, delta = (
            BodyRef(chunks.digest(data), len(data), self._limits.chunk_bytes) if data else None
            for data in self._state.bodies
        )
        return key, delta

    def _chunks_of(self, body: BodyRow) -> list[Body]:
        if len(body.data) <= INLINE_BYTES and body.data == self._state.bodies.delta:
            return []
        pieces = enumerate(chunks.cut(body.data, body.chunk_bytes))
        return [Body(self.job, body.digest, index, piece) for index, piece in pieces]

    def _note_retired(self, now: float) -> None:
        """Start the grace of bodies that neither the current version nor the one before it needs."""
        for body in self._store.bodies(self.job):
            if body.number < self._state.version - 1:
                self._retire_at.setdefault(body.digest, now + self._limits.body_grace_s)

    def _retire(self, digest: str) -> list[Out]:
        del self._retire_at[digest]
        clears = [Clear(m) for b in self._store.bodies(self.job) if b.digest == digest for m in self._chunks_of(b)]
        self._store.forget_body(self.job, digest)
        return list(clears)


def prepare(spec: JobSpec, config: AggregatorConfig) -> tuple[Net, Dataset | None]:
    """Build a job's net and read its test split, if there is one here. Raises ModelError or DatasetError."""
    net = nets.build(spec.model, allow=config.models.allow)
    source = config.tests.get(spec.data_name)
    return net, read(source, spec.model) if source else None


def create(job: str, spec: JobSpec, store: Store, config: AggregatorConfig) -> JobRow:
    """Make a job and its version 0 durable. Raises ModelError or DatasetError when it cannot be run here."""
    net, test = prepare(spec, config)
    state = downlink.start(net.spec, spec.seed)
    store.add_job(job, spec, state.model.sha256(), _dump(state, ()), evaluate(net, state.model, test))
    return JobRow(job, spec, 1, "", "")


def evaluate(net: Net, model: Model, test: Dataset | None) -> Metrics:
    """Give loss and accuracy on the test split; nothing without one."""
    if test is None:
        return {}
    metrics = net.evaluate(model.params(net.spec), test.X, test.y)
    found = {"loss": metrics.loss} | ({} if metrics.accuracy is None else {"accuracy": metrics.accuracy})
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _mean_loss(updates: Sequence[UpdateRow]) -> Metrics:
    """Average the training loss that devices reported, weighted by their examples."""
    told = [(u.n_examples, u.loss) for u in updates if u.loss is not None]
    mean = sum(n * loss for n, loss in told) / sum(n for n, _ in told) if told else math.nan
    return {"loss": mean} if math.isfinite(mean) else {}


ANNOUNCED = ("accuracy", "loss", "participants")
"""The metrics that everybody may see; the rest is in the store and in the log."""


def _announced(metrics: Metrics) -> Metrics:
    return {name: float(f"{metrics[name]:.4g}") for name in ANNOUNCED if name in metrics}


def _log_verdict(verdict: Verdict) -> None:
    outcome = f"refused: {verdict.refused}" if verdict.refused else "counted"
    level = logging.WARNING if verdict.refused else logging.INFO
    log.log(level, "verdict job=%s base=%s device=%s %s", verdict.job, verdict.base, verdict.device, outcome)


def _dump(state: ServerState, velocity: Velocity) -> bytes:
    raw = [v.astype("<f8", copy=False).tobytes() for v in velocity]
    return msgspec.msgpack.encode(_Stored(state.to_bytes(), raw))


def _restore(blob: bytes, net: Net) -> tuple[ServerState, Velocity]:
    stored = msgspec.msgpack.decode(blob, type=_Stored)
    pairs = zip(stored.velocity, net.spec, strict=False)
    velocity = tuple(np.frombuffer(raw, "<f8").reshape(tensor.shape) for raw, tensor in pairs)
    return ServerState.from_bytes(stored.model, net.spec), velocity
