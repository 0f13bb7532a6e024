"""How a job comes to its next version: a round's fold, evaluated and made durable; or an older version once more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from typing import NamedTuple

from msgspec import structs

from aggregator import evaluation, remarks, restoring, shares
from aggregator.creation import rows_of
from aggregator.effects import Close, CommitFailed, Committed, NotRestored, Restore
from aggregator.intake import Counted
from aggregator.learner import LearnerError
from aggregator.record import Next
from aggregator.scoring import Pending
from aggregator.standing import Standing
from aggregator.store import Claim, DamageError, Scored
from broker.messages import Metrics, Version

log = logging.getLogger("aggregator.run")  # a job at work speaks under one name


class _Making(NamedTuple):
    """A version that is being evaluated, and the round that made it."""

    close: Close
    following: Next
    scores: Pending
    claims: Sequence[Claim]
    """What its updates say of themselves."""


class Maker(Standing):
    """A job that makes versions."""

    _making: _Making | None = None

    def _make(self, close: Close, now: float) -> Committed | CommitFailed | None:
        """Turn the fold into the next version, and have it evaluated; return what came of it if that is known at once.

        A step that the model cannot take, as of one that has diverged, ends the job.
        """
        self._marks.enter(self.job, "commit", f"version {close.attempt.base.following()} was made")
        try:
            claims = self._store.claims(self.job)
            close = self._capped(close, claims)
            following = self._learner.next()
        except LearnerError as error:
            self._marks.leave(self.job, "commit")
            reason = f"the next version cannot be made: {error}"[:500]
            self._store.close_attempt(self.job, structs.replace(close, outcome="stopped", reason=reason))
            self._store.counting.close_round(self.job, "stopped", now)
            return CommitFailed(reason)
        except BaseException:
            self._marks.leave(self.job, "commit")
            raise
        held = following.held
        scores = self._scoring.begin(held.model, now, held.agreed, held.buffers)
        self._making = _Making(close, following, scores, claims)
        return self._made(now) if self._making.scores.is_done else None

    def _capped(self, close: Close, claims: Sequence[Claim]) -> Close:
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
                close.fates, intake.clipped, capped, self._clamped(claims, close.attempt.shift), usual=intake.usual
            ),
        )

    def _body_of(self, one: Counted) -> bytes:
        return self._store.body_of(self.job, one.device, self.version.number if one.number is None else one.number)

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
        metrics = dict(following.metrics) | evaluation.measured(scores, making.claims)
        if unscored:
            metrics["unscored"] = 1.0
        left = self.poll.scored(base, self._history[-1])
        metrics = self.poll.note(metrics, self._history[-1] if left is None else left[0])
        log.info("round committed job=%s base=%s: %s", self.job, base, close.reason)
        was = self.no_better
        lean = self._commit(following, metrics, close, now, left=left)
        self._store.counting.close_round(self.job, close.outcome, now)
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
        rows = rows_of(version, following, self.chunk_bytes)
        stop = self.spec.rounds.stop
        known = self._history[-1] if left is None else dict(left[0])
        lean_left = self._lean if left is None else evaluation.lean(known, stop)
        states = self._keeping.next(
            *(version.number - 1, self._ranking.best_after(lean_left, metrics)),
            lambda: structs.replace(self.state(), metrics=dict(known)),
        )
        kept = self._learner.kept(following)
        self._store.commit(self.job, version, sha256, kept, metrics, rows, close, states, ends, left)
        self._keeping.take(states)
        self._learner.take(following)
        self._sha256, self.aliases = sha256, ()
        self._shelf.add(rows, version, now)
        self._newest = rows
        self._history[-1:] = [lean_left, metrics]
        self._lean = lean = evaluation.lean(metrics, stop)
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
