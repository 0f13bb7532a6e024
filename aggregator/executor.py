"""Where versions are evaluated: any `concurrent.futures.Executor`, so that the loop which hears the broker never waits.

    inline      in the loop itself, at once: for simulations, and where there is one core and little to evaluate
    threads     on a thread of its own; NumPy and onnxruntime let the loop go on while they multiply
    processes   in a process of its own: a net that kills it, for memory or by a crash, leaves the aggregator alone

An engine of a cluster that has this interface will do as well. What is submitted can be pickled, and so can what comes
back. One thing is done at a time: jobs wait for one another, and their rounds go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Literal, ParamSpec, TypeVar

from runtime.children import end_with
from runtime.faults import Fault, contain, describe

P = ParamSpec("P")
T = TypeVar("T")

Kind = Literal["inline", "threads", "processes"]


class Inline(Executor):
    """Does everything at once, in the thread that asks."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor`."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            if not isinstance(error, Exception | SystemExit):
                raise
            future.set_exception(error)
        return future


class ThrownError(RuntimeError):
    """What a call has thrown in another process, in words: the exception itself may not survive the way."""


class Processes(Executor):
    """One child process, made when it is first needed and again where it has died.

    Calls wait on a thread here and come to the child one at a time: what kills it takes no other along.
    """

    def __init__(self) -> None:
        self._waiting = ThreadPoolExecutor(1, "evaluation")
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor`. The future has BrokenExecutor where the child dies of it, ThrownError for what it throws."""
        return self._waiting.submit(self._call, fn, args, kwargs)

    def _call(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        came = self._send(fn, args, kwargs).result()
        if isinstance(came, Fault):
            raise ThrownError(came.why)
        return came

    def _send(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[T | Fault]:
        """Return the child a call, or another child where this one has died."""
        if self._pool is not None:
            with contextlib.suppress(BrokenExecutor):
                return self._pool.submit(_answer, fn, args, kwargs)
            self._pool.shutdown(wait=False)
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
        )
        return self._pool.submit(_answer, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Executor`. What still waits and is not cancelled is done first; so the child may end later than this."""
        self._waiting.shutdown(wait=wait, cancel_futures=cancel_futures)
        if self._pool is not None and (wait or cancel_futures):
            self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def of_kind(kind: Kind) -> Executor:
    """Return a new executor; who makes it shuts it down."""
    makers: dict[str, Callable[[], Any]] = {
        "inline": Inline,
        "threads": lambda: ThreadPoolExecutor(1, "evaluation"),
        "processes": Processes,
    }
    executor: Executor = makers[kind]()
    return executor


def _answer(fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T | Fault:
    """In the child: return what a call gives, or in words what it throws.

    An exception that cannot be unpickled would break the pool, with no death to account for it.
    """
    try:
        return contain(lambda: fn(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001 -- nobody in the child is interrupted by it, and the call's owner is told
        return Fault(describe(error))


def _begin(parent: int) -> None:
    """End the child with its parent, however that ends, and leave Ctrl-C to the parent."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
