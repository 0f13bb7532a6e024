from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any

import pytest

from aggregator.executor import Inline
from aggregator.scoring import Scoring
from broker.messages import Metrics

SCORE = {"accuracy": 0.5}
MODEL: Any = object()


class Scorer:
    """Stands in for what takes long: the wait is what is tested, not the numbers."""

    def __init__(self, test: object = "rows") -> None:
        self.test = test

    def __call__(self, _: object) -> Metrics:
        return SCORE


class Slow(Executor):
    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any, Any]] = []

    def submit(self, fn: Any, /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, fn, args))
        return future

    def work(self) -> None:
        future, fn, args = self.waiting.pop(0)
        if future.running() or future.set_running_or_notify_cancel():
            future.set_result(fn(*args))


def scoring(executor: Executor, scorer: Any = None, woken: list[int] | None = None) -> Scoring:
    return Scoring(scorer or Scorer(), executor, 60.0, lambda: (woken if woken is not None else []).append(1))


def test_a_version_is_scored_at_once_where_the_executor_is_the_loop_itself() -> None:
    one = scoring(Inline())
    pending = one.begin(MODEL, 0.0)
    assert pending.is_done
    assert one.end(pending) == (SCORE, "")


def test_without_a_test_split_there_is_no_score_and_nothing_to_complain_of() -> None:
    slow = Slow()
    one = scoring(slow, Scorer(None))
    assert one.end(one.begin(MODEL, 0.0)) == (None, "")
    assert slow.waiting == []


def test_the_loop_is_woken_when_an_evaluation_has_ended() -> None:
    slow, woken = Slow(), list[int]()
    one = scoring(slow, woken=woken)
    pending = one.begin(MODEL, 5.0)
    assert (pending.until, pending.is_done, woken) == (65.0, False, [])
    slow.work()
    assert woken == [1]
    assert one.end(pending) == (SCORE, "")


def test_while_an_evaluation_runs_that_nobody_waits_for_no_other_is_begun() -> None:
    slow = Slow()
    one = scoring(slow)
    pending = one.begin(MODEL, 0.0)
    assert slow.waiting[0][0].set_running_or_notify_cancel()
    scores, why = one.end(pending)
    assert (scores, one.runs_on) == ({}, True)
    assert "takes more than evaluation_s = 60" in why
    following = one.begin(MODEL, 60.0)
    assert following.is_done
    assert one.end(following)[1] == why
    slow.work()
    assert not one.runs_on
    last = one.begin(MODEL, 70.0)
    slow.work()
    assert one.end(last) == (SCORE, "")


def test_a_job_behind_anothers_evaluation_waits_once_and_tries_again_when_the_executor_is_free() -> None:
    slow = Slow()
    one = scoring(slow)
    scores, why = one.end(one.begin(MODEL, 0.0))
    assert (scores, one.runs_on) == ({}, False)
    assert "that of another job takes too long" in why
    following = one.begin(MODEL, 60.0)
    assert following.is_done
    assert one.end(following) == ({}, why)
    slow.work()  # the one that was given up
    slow.work()  # what tells that the executor is free
    last = one.begin(MODEL, 70.0)
    slow.work()
    assert one.end(last) == (SCORE, "")


def test_whoever_is_in_a_hurry_waits_no_longer_than_was_said_before() -> None:
    pending = scoring(Slow()).begin(MODEL, 0.0)
    for until, expected in ((100.0, 60.0), (10.0, 10.0), (20.0, 10.0)):
        pending.hurry(until)
        assert pending.until == expected


def test_what_an_evaluation_throws_is_thrown() -> None:
    def fail(_: object) -> Metrics:
        raise ZeroDivisionError

    fail.test = "rows"  # type: ignore[attr-defined]
    one = scoring(Inline(), fail)
    with pytest.raises(ZeroDivisionError):
        one.end(one.begin(MODEL, 0.0))
