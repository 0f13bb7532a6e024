"""The scores of one job's versions: begun on an executor, and waited for no longer than a limit.

What runs on a thread cannot be ended. So one evaluation that does not come to an end costs its own version a score, and
every later one while it still runs; a job that only stands behind another one's learns so once, and tries again when
the executor is free.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future

from aggregator.evaluation import Scorer
from aggregator.executor import Inline
from broker.messages import Metrics
from models.agreement import Agreed
from models.buffers import NO_BUFFERS, Buffers
from models.lattice import Model


class Pending:
    """An evaluation under way. until: when it is waited for no longer. is_begun: False where none was."""

    def __init__(self, future: Future[Metrics], until: float, *, is_begun: bool) -> None:
        self.future = future
        self.until = until
        self.is_begun = is_begun

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.future.done()

    def hurry(self, until: float) -> None:
        """Wait no longer than this."""
        self.until = min(self.until, until)


class Scoring:
    """Evaluates the versions of one job. wake: called, on any thread, when an evaluation has ended."""

    def __init__(self, scorer: Scorer, executor: Executor, limit_s: float, wake: Callable[[], None]) -> None:
        self._scorer = scorer
        self._executor = executor
        self._limit_s = limit_s
        self._wake = wake
        self._unended: Future[Metrics] | None = None
        """An evaluation of this job that still runs, and nobody waits for; until it ends no other is begun."""
        self._behind: Future[Metrics] | None = None
        """Is done once the executor has come to it: something else held it for too long."""

    @property
    def has_test(self) -> bool:
        """Whether there is a test split here."""
        return self._scorer.test is not None

    @property
    def runs_on(self) -> bool:
        """Whether an evaluation still runs that nobody waits for."""
        return self._unended is not None and not self._unended.done()

    def begin(self, model: Model, now: float, agreed: Agreed | None = None, buffers: Buffers = NO_BUFFERS) -> Pending:
        """Begin to evaluate a version. agreed: what its fleet has agreed on. buffers: those of the version."""
        is_free = not self.runs_on and (self._behind is None or self._behind.done())
        executor = self._executor if self.has_test and is_free else Inline()
        asked = (model, agreed, buffers) if buffers else (model,) if agreed is None else (model, agreed)
        future = executor.submit(self._scorer if is_free else _no_scores, *asked)
        if not future.done():
            future.add_done_callback(lambda _: self._wake())
        return Pending(future, now + self._limit_s, is_begun=is_free)

    def end(self, pending: Pending) -> tuple[Metrics | None, str]:
        """Return what a version scores, or why it has no score where it should have one; None without a test split.

        Raises what the evaluation has thrown; BrokenExecutor where its process has died.
        """
        if not self.has_test:
            return None, ""
        if pending.is_begun and pending.is_done:
            self._unended = self._behind = None
            return pending.future.result(), ""
        if pending.is_begun and pending.future.cancel():
            self._behind = self._executor.submit(_no_scores)
        elif pending.is_begun:
            self._unended = pending.future
        limit = f"evaluation_s = {self._limit_s:g}"
        if self._behind is not None and not self._behind.done():
            return (
                {},
                f"it has no score: its evaluation had not begun after {limit}, that of another job takes too long",
            )
        why = f"it has no score: to evaluate a version takes more than {limit}"
        return {}, f"{why}; look at the test split and the net, or restart the aggregator with a larger one"


def _no_scores(*_: object) -> Metrics:
    return {}
