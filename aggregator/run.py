"""One job at work: carries out what its coordinator wants, between the store and the wire.

A run is made from the store and nothing else, so that a start after `kill -9` and a reload after a full disk are the
same thing. Messages come out as values; the service sends them. Whatever is durable is so before its message is given.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from aggregator import (
    agreeing,
    convergence,
    evaluation,
    projection,
    refusals,
    remarks,
    restoring,
    scale,
    shares,
    streaks,
)
from aggregator.config import AggregatorConfig
from aggregator.convergence import STARTED, best_of
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
    Effect,
    EndJob,
    NotRestored,
    Open,
    Publish,
    Restore,
    SendVerdict,
    Setup,
    StoreRefusal,
    Tell,
    VerdictPending,
    VerdictStored,
)
from aggregator.executor import Inline
from aggregator.gates import Admitted, RefusedError
from aggregator.inbox import Inbox
from aggregator.intake import Counted
from aggregator.learner import Learner, LearnerError, StateFormatError
from aggregator.poll import UNSCORED, Poll
from aggregator.projection import Out, Question
from aggregator.record import Next, start
from aggregator.rows import report_of
from aggregator.scoring import Pending, Scoring
from aggregator.shelf import Shelf
from aggregator.signed import SignedSpec
from aggregator.spool import SpoolError
from aggregator.starting import Given
from aggregator.store import (
    BodyRow,
    DamageError,
    JobRow,
    Judgement,
    KeptState,
    Leaving,
    Scored,
    Start,
    Store,
)
from broker.errors import WireError
from broker.messages import Metrics, Offer, Verdict, Version, Want, body_name, echo
from models import sections
from models.codec import Terms
from models.deltas import Delta
from models.job import JobSpec
from runtime.failpoints import reach
from runtime.faults import Marks

log = logging.getLogger(__name__)

HINT_MARGIN_S = 5.0
"""What a device may need to answer a roll call, beyond the window over which answers are spread."""
STOP_WAITS_S = 60.0
"""How long a job that is to end waits for the score of its last version."""
RESCORE_S = 2.0
"""From the first word on the last version, since it was scored, to its being scored anew by all that have come."""
NAMED = 3
"""Devices that a line of the log names, of many."""


class _Making(NamedTuple):
    """A version that is being evaluated, and the round that made it."""

    close: Close
    following: Next
    scores: Pending


class Run:
    """A job, its coordinator and its numbers."""

    def __init__(
        self,
        row: JobRow,
        store: Store,
        config: AggregatorConfig,
        inbox: Inbox,
        term: int,
        now: float,
        *,
        marks: Marks,
        packet_bytes: int | None = None,
        executor: Executor | None = None,
        wake: Callable[[], None] = lambda: None,
        stated_rows: Mapping[str, int] | None = None,
        signed: SignedSpec | None = None,
        head_digits: int = 32,
    ) -> None:
        """Load the job from the store. Raises ModelError, DatasetError or StoreError when it cannot be run here.

        packet_bytes: the largest packet that the broker takes, if that is known. executor: where versions are
        evaluated; in the loop where none is given. wake: called, on any thread, when there is something to `settle`.
        stated_rows: the rows of each device as its operator stated them; looked up at every offer, so it may change.
        signed: the specification as an operator has signed it. head_digits: how many of its SHA-256 prove a version.
        """
        if row.spec is None:
            raise DamageError(row.damage)
        self.job = row.job
        self.spec: JobSpec = row.spec
        self.reason = row.reason
        self.alarm = ""
        """What an operator should know of the current version."""
        """Why the job has ended, rests, or what it waits for."""
        self.resting = False
        self.term = term
        self.signed = signed
        self.head_digits = head_digits
        self._store = store
        self._inbox = inbox
        self._limits = config.limits
        self._marks = marks
        scorer = evaluation.Scorer(row.spec, config)
        self._net = scorer.net
        executor = Inline() if executor is None else executor
        self._scoring = Scoring(scorer, executor, config.limits.evaluation_s, wake)
        self._unwritten: list[Judgement] = []
        """What is being judged: its verdicts become durable in one, when what has come in one go has been heard."""
        self._making: _Making | None = None
        self._packet_bytes = packet_bytes
        self.loaded_at = now
        self._stated_rows = stated_rows
        self.poll = Poll(
            *(row.job, row.spec, store),
            has_test=self.has_test,
            share=self._max_share,
            stated_rows=stated_rows,
        )
        """What devices say of versions."""
        self._rescore_at = math.inf
        """When the last version is scored anew; inf for not."""
        self._dominant = ""
        """Who held most of the last version's mean, and was named for it."""
        self._load(row, now)
        if row.ended and self.poll.is_behind(self.version, self.metrics):
            self._rescore_at = now

    def _load(self, row: JobRow, now: float) -> None:
        store = self._store
        last = store.last_version(self.job)
        version, self._sha256 = last.version, last.sha256
        counted = []
        try:
            self._learner = Learner(
                *(self._net, self.spec, last.state, version.number, last.sha256), steps=last.steps, record=last.record
            )
            for update in store.updates(self.job):
                number = None if update.number == version.number else update.number
                self._learner.restore(
                    update.body, Counted(update.weight, update.norm, update.report, number, update.device)
                )
                counted.append(update.device)
            for device, norm in store.refusals(self.job, version):
                self._learner.refuse(device, norm)
        except StateFormatError as error:
            raise DamageError(f"job {self.job} is left as it is in the state directory: {error}") from error
        except LearnerError as error:
            raise DamageError(f"job {self.job} is damaged in the state directory, restore a backup: {error}") from error
        *before, current = store.history(self.job)
        self._history = [*(evaluation.lean(metrics, self.spec.rounds.stop) for metrics in before), current]
        self._shelf = Shelf(
            *(store.bodies(self.job), version, now),
            averaged_from=self.spec.averaged_from,
            grace_s=self._limits.body_grace_s,
        )
        self._newest: list[BodyRow] = []
        """The bodies that lead to the version that was made last here."""
        self.chunk_bytes = self._cut()
        self.aliases = store.aliases(self.job)
        """Former names of the current version."""
        attempt, is_open = store.last_attempt(self.job, version) or (None, False)
        setup = Setup(
            rules=self.spec.rounds,
            seed=self.spec.seed,
            max_examples=self.spec.aggregate.max_examples,
            max_body_bytes=min(self._learner.max_body_bytes, self._limits.unassembled_bytes),
            heartbeat_s=self._limits.heartbeat_s,
            hint_s=self._limits.spread_s + HINT_MARGIN_S,
            base=version,
            untrained=version.number if agreeing.is_due(self.spec, self._learner.now.held) else None,
            verdicts=list(store.verdicts(self.job)),
            counted=counted,
            attempt=attempt if is_open else None,
            last=attempt,
            left=self._left(version),
            renames=store.renames(self.job),
            history=[*self._history[:-1], evaluation.lean(current, self.spec.rounds.stop)],
            classes=self.spec.contract.classes,
            ended=row.ended,  # type: ignore[arg-type]  # the store writes only these words
            stated_rows=self._stated_rows,
            advice=self.spec.contract.advice,
            paused=store.paused(self.job),
            serves_best=self.spec.averaged == 1,
        )
        self.coordinator = Coordinator(setup, now)

    def _left(self, version: Version) -> dict[Version, Attempt]:
        """Return the last rounds of bases that late updates may still come to."""
        rules = self.spec.rounds
        if rules.late != "fold":
            return {}
        return self._store.latest_attempts(self.job, max(0, version.number - rules.max_staleness))

    def _cut(self) -> int:
        """Return how all bodies are cut, as a head has one word on it: as they lie, or finer where the broker wants it.

        Never coarser: the last of the pieces that lie there would stay.
        """
        lying = {body.chunk_bytes for body in self._store.bodies(self.job)}
        cut = min({self._limits.cut_for(self._packet_bytes), *lying})
        if lying - {cut}:
            self._store.recut(self.job, cut)
        return cut

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
    def by_devices(self) -> Metrics:
        """What devices say of the version before, where they have not said yet what the current one is worth.

        Empty where the current version has its score. "scored_version": its number.
        """
        if UNSCORED not in self.metrics or len(self._history) < 2:
            return {}
        return dict(self._history[-2]) | {"scored_version": float(self.version.number - 1)}

    @property
    def no_better(self) -> str:
        """What the current version is no better than, though it was trained, in words; empty where it is better."""
        number = len(self._history) - 1
        return convergence.no_better(self.metrics, self.spec.contract.classes) if number else ""

    def scores(self) -> dict[str, Any]:
        """Return all that was measured of the current version and of the best one, as plain values."""
        number, best = len(self._history) - 1, self.best
        best = number if best is None else best
        metrics = self.metrics if best == number else self._store.history(self.job)[best]
        return {
            "classes": list(self.spec.contract.classes),
            "current": evaluation.scores_of(number, self.metrics, self.spec),
            "best": evaluation.scores_of(best, metrics, self.spec),
        }

    @property
    def sha256(self) -> str:
        """Of the current version."""
        return self._sha256

    @property
    def terms(self) -> Terms:
        """How updates are coded that leave the current version."""
        return self._learner.terms

    @property
    def octave(self) -> int:
        """The energy of the noise in the current version, as a power of two; 0 where that is not known."""
        return self._learner.now.record.octave

    @property
    def has_test(self) -> bool:
        """Whether versions are scored on a test split held here."""
        return self._scoring.has_test

    @property
    def ways(self) -> Sequence[Delta]:
        """What lies at the broker under the current generation, and leads to the current version."""
        return self._shelf.ways

    @property
    def step(self) -> bytes:
        """The body that leads to the current version from the one before; empty where there is none."""
        return self._shelf.step

    def bodies(self) -> list[BodyRow]:
        """Return what lies, or should lie, at the broker."""
        return self._store.bodies(self.job)

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
        has_taken_part = self.coordinator.ledger.last_of(offer.device) is not None
        verdict, is_news = self.poll.hear_last(offer, self.version, has_taken_part=has_taken_part)
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
        self._history[-1] = dict(now[0])
        return [projection.status(self)]

    @property
    def is_unsettled(self) -> bool:
        """Whether `settle` has something to do."""
        return bool(self._unwritten) or (self._making is not None and self._making.scores.is_done)

    @property
    def unsettled_bytes(self) -> int:
        """Bytes of the updates that wait to be settled."""
        return sum(len(one.body) for one in self._unwritten)

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
        judged, self._unwritten = self._unwritten, []
        if judged:
            self._store.add_verdicts(self.job, judged)
            _log_counted([one.verdict for one in judged if one.verdict.counted])
            for one in judged:
                out += self._carry_out(self.coordinator.receive(VerdictStored(one.verdict), now), now)
        if self._making is not None and self._making.scores.is_done:
            out += self._end_making(now)
        return out

    def _end_making(self, now: float) -> list[Out]:
        return [*self._carry_out(self.coordinator.receive(self._made(now), now), now), *self._no_round()]

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
        """Note that this run is let go, also in mid-evaluation: what ends the process then is not its job's fault."""
        self._marks.step_out(self.job, "commit")

    def fit(self, packet_bytes: int | None) -> None:
        """Cut bodies as this broker takes them. Raises StoreError."""
        self._packet_bytes = packet_bytes
        self.chunk_bytes = self._cut()

    def is_behind(self, version: Version) -> bool:
        """Return whether this version can only be of a store that had come further than this one."""
        return version > self.version and not version.is_far_above(self.version)

    def has_lost(self, version: Version, device: str) -> bool:
        """Return whether a device that is done with this version can only have had its verdict from a later store."""
        return version == self.version and not self.coordinator.attendance.is_settled(device)

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
        """Have a verdict become durable with those that come in one go with it."""
        self._unwritten.append(judgement)
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
        evaluation = b"" if refused else self._learner.intake.evaluation_of(body)
        return Judgement(verdict, offer, admitted.weight, admitted.norm, body, self._seconds(now), evaluation)

    def _seconds(self, now: float) -> float | None:
        """Return how long the round has been open; None where none is."""
        opened = self.coordinator.rounds.now
        return None if opened is None else max(0.0, now - opened.opened_at)

    def _clamped(self, shift: int) -> dict[str, tuple[int, int]]:
        believed, claims = self.coordinator.ledger.believed, self._store.claims(self.job)
        return scale.clamped(((claim.device, believed(claim.device, claim.n_examples)) for claim in claims), shift)

    def _make(self, close: Close, now: float) -> Committed | CommitFailed | None:
        """Turn the fold into the next version, and have it evaluated; return what came of it if that is known at once.

        A step that the model cannot take, as of one that has diverged, ends the job.
        """
        self._marks.enter(self.job, "commit", f"version {close.attempt.base.following()} was made")
        try:
            close = self._capped(close)
            following = self._learner.next()
        except LearnerError as error:
            self._marks.leave(self.job, "commit")
            reason = f"the next version cannot be made: {error}"[:500]
            self._store.close_attempt(self.job, structs.replace(close, outcome="stopped", reason=reason))
            return CommitFailed(reason)
        except BaseException:
            self._marks.leave(self.job, "commit")
            raise
        self._making = _Making(close, following, self._scoring.begin(following.model, now, following.held.agreed))
        return self._made(now) if self._making.scores.is_done else None

    def _capped(self, close: Close) -> Close:
        """Let no device weigh more than its share, and return the end of the round with who was changed, and how.

        Raises LearnerError.
        """
        intake, share, capped = self._learner.intake, self._max_share, dict[str, tuple[int, int]]()
        dominant, part = shares.heaviest(intake.weights)
        if len(intake.weights) < 2 or part <= shares.DOMINATES:
            dominant = ""
        if share is not None:
            capped = self._learner.cap(share, self._body_of)
            for device, (before, after) in capped.items():
                log.warning("round job=%s device=%s is capped: it weighs %d, not %d", self.job, device, after, before)
        elif dominant and dominant != self._dominant:
            log.warning(
                "round job=%s device=%s has %.4g of all weight, as it claims: max_share in [rounds] would limit it",
                *(self.job, dominant, part),
            )
        self._dominant = dominant
        return structs.replace(
            close,
            reason=remarks.on_reason(close.reason, share or 1.0, capped),
            fates=remarks.on_fates(
                close.fates, intake.clipped, capped, self._clamped(close.attempt.shift), usual=intake.usual
            ),
        )

    def _body_of(self, one: Counted) -> bytes:
        return self._store.body_of(self.job, one.device, self.version.number if one.number is None else one.number)

    @property
    def _max_share(self) -> float | None:
        """What one device may weigh in a mean; None: whatever it does."""
        share = self.spec.rounds.max_share
        return shares.USUAL if share is None and self._stated_rows else share

    def fates(self) -> dict[str, str]:
        """Return for every device of the open round what has become of it so far."""
        intake, clamped = self._learner.intake, self._clamped(self.coordinator.shift)
        return remarks.on_fates(self.coordinator.fates(), intake.clipped, {}, clamped, usual=intake.usual)

    @property
    def streaks(self) -> dict[str, int]:
        """How often in a row devices were refused by now: those that were when they were heard last."""
        return self._learner.intake.streaks

    def _made(self, now: float) -> Committed:
        """Make the version that was evaluated durable, and the end of its round."""
        assert self._making is not None  # noqa: S101 -- callers have looked
        making, self._making = self._making, None
        close, following, base = making.close, making.following, making.close.attempt.base
        try:
            scores, unscored = self._scoring.end(making.scores)
        except BrokenExecutor as error:
            raise RuntimeError(
                f"the process that evaluated version {close.attempt.base.following()} has died: killed for memory (see "
                "dmesg or the journal), or a library crashed"
            ) from error
        finally:
            if not self._scoring.runs_on:  # else the job's code still runs, and may be what ends this process
                self._marks.leave(self.job, "commit")
        version = Version(base.generation, following.held.number)
        assert version == self.version.following(), f"{version} follows {self.version}"  # noqa: S101 -- it is not durable yet
        metrics = dict(following.metrics) | evaluation.measured(scores, self._store.claims(self.job))
        if unscored:
            metrics["unscored"] = 1.0
        metrics, left = self.poll.note(metrics), self.poll.scored(base, self._history[-1])
        log.info("round committed job=%s base=%s: %s", self.job, base, close.reason)
        was = self.no_better
        lean = self._commit(following, metrics, close, now, left=left)
        self.alarm = following.alarm or unscored
        if self.alarm:
            log.warning("version job=%s version=%s: %s", self.job, version, self.alarm)
        if self.no_better and self.no_better != was:
            log.warning("version job=%s version=%s is %s", self.job, version, self.no_better)
        return Committed(version, lean, None if left is None else self._history[-2])

    def _commit(
        self,
        following: Next,
        metrics: Metrics,
        close: Close | None,
        now: float,
        ends: str = "",
        left: Scored | None = None,
    ) -> Metrics:
        """Make a version durable, with all that ends with it, and go on from there.

        left: how good the version is that is left, where its devices have said so. Return what the rules go by of the
        metrics of the new one.
        """
        version, sha256 = self.version.following(), following.sha256
        rows = _rows(version, following, self.chunk_bytes)
        known = self._history[-1] if left is None else dict(left[0])
        states = restoring.keeping(
            *([*self._history[:-1], known, metrics], self.spec.rounds, self._store.states.sizes(self.job)),
            lambda: structs.replace(self.state(), metrics=dict(known)),
        )
        kept = self._learner.kept(following)
        self._store.commit(self.job, version, sha256, kept, metrics, rows, close, states, ends, left)
        self._learner.take(following)
        self._sha256, self.aliases = sha256, ()
        self._shelf.add(rows, version, now)
        self._newest = rows
        stop = self.spec.rounds.stop
        lean = evaluation.lean(metrics, stop)
        self._history[-1:] = [evaluation.lean(known, stop), metrics]
        self._inbox.forget_job(self.job)
        text = " ".join(f"{name}={value:.4g}" for name, value in lean.items())
        log.info("version job=%s version=%s %s", self.job, version, text)
        return lean

    def _restore(self, restore: Restore, now: float) -> Committed | NotRestored:
        """Make an older version the next one again."""
        try:
            state = self._store.states.get(self.job, restore.number)
            following, metrics = restoring.again(self._learner, restore.number, state, self._history)
        except (restoring.RestoreError, DamageError) as error:
            log.warning("job=%s stays at version %s: %s", self.job, self.version, error)
            return NotRestored(str(error))
        log.info("restored job=%s: version %s is version %d again", self.job, self.version.following(), restore.number)
        left = self.poll.scored(self.version, self._history[-1])
        lean = self._commit(following, self.poll.note(metrics), None, now, restore.ends[:500], left)
        self.alarm = ""
        return Committed(self.version.following(), lean, None if left is None else self._history[-2])

    def state(self) -> KeptState:
        """Return the current version as it would be kept: said exactly, from nothing."""
        return KeptState(self.version.number, self.sha256, dict(self.metrics), self._learner.exact())

    def state_of(self, number: int) -> KeptState | None:
        """Return a version as it is kept, or would be; None where it is not. Raises StoreError."""
        if number == self.version.number:
            return self.state()
        found = self._store.states.get(self.job, number)
        if found is None and not number:
            first, body = self._learner.first(), self._learner.exact(self._learner.first())
            return KeptState(0, first.sha256(), dict(self._history[0]), body)
        return found

    def leaving(self) -> Leaving:
        """Return what remains of a job that is replaced: its best and its last state."""
        return Leaving(self.job, (self.state(),), self.best)

    @property
    def best(self) -> int | None:
        """The number of its best version, where anything says which that is."""
        return best_of(self._history, self.spec.rounds)

    @property
    def history(self) -> Sequence[Metrics]:
        """The metrics of every version, version 0 first."""
        return self._history

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


def create(
    job: str,
    spec: JobSpec,
    store: Store,
    config: AggregatorConfig,
    check: Callable[[int], None] = lambda _rows: None,
    *,
    replaces: Sequence[str] = (),
    leaving: Sequence[Leaving] = (),
    request: str = "",
    given: Given | None = None,
) -> JobRow:
    """Make a job and its version 0 durable, in the place of those that it replaces, in one.

    leaving: what remains of these. given: weights that it starts from, as version 1. check: told how many rows the test
    split has before anything of the net's size is made; raises ModelError where that is too much. Raises ModelError or
    DatasetError when it cannot be run here, StoreError when it cannot be written.
    """
    scorer = evaluation.Scorer(spec, config)
    check(0 if scorer.test is None else len(scorer.test.y))
    first = start(scorer.net, spec)
    metrics = scorer(first.model)
    evaluation.check_defined(spec, scorer.test, metrics)
    begins = None
    if given is not None:
        learner = Learner(scorer.net, spec, first.to_bytes(), 0, first.sha256)
        held = given.held(scorer.net, spec, config)
        following = learner.jump(held)
        rows = _rows(Version(1, 1), following, config.limits.cut_for(config.broker.max_packet_bytes))
        scores = scorer(held.model, held.agreed)
        begins = Start(following.sha256, learner.kept(following), scores | {STARTED: 1.0}, rows)
    store.add_job(
        *(job, spec, first.sha256, first.to_bytes(), metrics),
        replaces=replaces,
        leaving=leaving,
        request=request,
        start=begins,
    )
    return JobRow(job, spec.name, spec, 1, "", "")


def as_tree(spec: JobSpec) -> dict[str, object]:
    """Return a job's specification as plain values, as it travels."""
    tree: dict[str, object] = msgspec.to_builtins(spec)
    return tree


def _rows(version: Version, now: Next, chunk_bytes: int) -> list[BodyRow]:
    """Return the bodies that lead to a version."""
    return [BodyRow(body_name(version, start), version.number, chunk_bytes, body) for start, body in now.ways]


def _log_counted(verdicts: Sequence[Verdict]) -> None:
    """Note who was counted, a line for each base."""
    for job, base in dict.fromkeys((verdict.job, verdict.base) for verdict in verdicts):
        devices = ",".join(verdict.device for verdict in verdicts if verdict.base == base)
        log.info("counted job=%s base=%s devices=%s", job, base, devices)
