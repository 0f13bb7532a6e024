"""Where a job stands: what is loaded of it from the store, and nothing else, and what can be asked of it then."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from aggregator import agreeing, bases, convergence, evaluation, remarks, scale, shares
from aggregator.config import AggregatorConfig
from aggregator.convergence import UNSCORED
from aggregator.coordinator import Coordinator
from aggregator.effects import Attempt, Setup
from aggregator.executor import Inline
from aggregator.inbox import Inbox
from aggregator.intake import Counted
from aggregator.learner import Learner, LearnerError, StateFormatError
from aggregator.poll import Poll
from aggregator.ranking import Ranking
from aggregator.restoring import Keeping
from aggregator.scoring import Scoring
from aggregator.shelf import Shelf
from aggregator.signed import SignedSpec
from aggregator.store import (
    BodyRow,
    Claim,
    DamageError,
    JobRow,
    Judgement,
    KeptState,
    Leaving,
    Store,
)
from broker.messages import Metrics, Version
from models.codec import Terms
from models.deltas import Delta
from models.job import JobSpec
from models.lengths import whole_bytes
from runtime.faults import Marks

HINT_MARGIN_S = 5.0
"""What a device may need to answer a roll call, beyond the window over which answers are spread."""


class Standing:
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
        """Why the job has ended, rests, or what it waits for."""
        self.alarm = ""
        """What an operator should know of the current version."""
        self.resting = False
        self.term = term
        self.signed = signed
        self.head_digits = head_digits
        self._store = store
        self._inbox = inbox
        self._limits = config.limits
        self._marks = marks
        self.base = store.base_at(row.job)
        """How what is frozen of its net lies at the broker, where devices cannot make it."""
        if self.base is not None:
            bases.note(store, row.job)
            bases.restore(config, self.base.sha256, lambda: store.base(row.job))
        scorer = evaluation.Scorer(row.spec, config, "" if self.base is None else self.base.sha256)
        self._net = scorer.net
        self.whole_bytes = whole_bytes(row.spec, self._net.spec, self._net.buffers)
        """How long a body is that says a version whole, where all are as long; else 0."""
        executor = Inline() if executor is None else executor
        self._scoring = Scoring(scorer, executor, config.limits.evaluation_s, wake)
        self._unwritten: list[Judgement] = []
        """What is being judged: its verdicts become durable in one, when what has come in one go has been heard."""
        self.unsettled_bytes = 0
        """Of the updates that wait to be settled."""
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
        self._lean = evaluation.lean(current, self.spec.rounds.stop)
        """What the rules go by of the current version; once it is left, all that is held of it."""
        self._ranking = Ranking(self._history, self.spec.rounds)
        self._keeping = Keeping(self.spec.rounds, store.states.sizes(self.job))
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
            history=[*self._history[:-1], self._lean],
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
        if self.base is not None:
            lying.add(self.base.chunk_bytes)
        cut = min({self._limits.cut_for(self._packet_bytes), *lying})
        if lying - {cut}:
            self._store.recut(self.job, cut)
            self.base = self._store.base_at(self.job)
        return cut

    # What can be asked.

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
            "classes": list(self.spec.contract.class_names) if self.spec.model.classifies else [],
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

    def base_bytes(self) -> bytes:
        """Return what is frozen of its net, as it lies at the broker."""
        return self._store.base(self.job)

    def is_behind(self, version: Version) -> bool:
        """Return whether this version can only be of a store that had come further than this one."""
        return version > self.version and not version.is_far_above(self.version)

    def has_lost(self, version: Version, device: str) -> bool:
        """Return whether a device that is done with this version can only have had its verdict from a later store."""
        return version == self.version and not self.coordinator.attendance.is_settled(device)

    @property
    def best(self) -> int | None:
        """The number of its best version, where anything says which that is."""
        return self._ranking.best()

    @property
    def history(self) -> Sequence[Metrics]:
        """The metrics of every version, version 0 first."""
        return self._history

    @property
    def _max_share(self) -> float | None:
        """What one device may weigh in a mean; None: whatever it does."""
        share = self.spec.rounds.max_share
        return shares.USUAL if share is None and self._stated_rows else share

    def _clamped(self, claims: Sequence[Claim], shift: int) -> dict[str, tuple[int, int]]:
        believed = self.coordinator.ledger.believed
        return scale.clamped(((claim.device, believed(claim.device, claim.n_examples)) for claim in claims), shift)

    def fates(self) -> dict[str, str]:
        """Return for every device of the open round what has become of it so far."""
        intake, clamped = self._learner.intake, self._clamped(self._store.claims(self.job), self.coordinator.shift)
        return remarks.on_fates(self.coordinator.fates(), intake.clipped, {}, clamped, usual=intake.usual)

    @property
    def streaks(self) -> dict[str, int]:
        """How often in a row devices were refused by now: those that were when they were heard last."""
        return self._learner.intake.streaks

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
