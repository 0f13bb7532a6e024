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


class Processes(Executor):
    """One child process, made when it is first needed and again where it has died."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor`. The future has BrokenExecutor where the child dies of it."""
        if self._pool is not None:
            with contextlib.suppress(BrokenExecutor):
                return self._pool.submit(fn, *args, **kwargs)
            self._pool.shutdown(wait=False)
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
        )
        return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Executor`."""
        if self._pool is not None:
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


def _begin(parent: int) -> None:
    """Have the child end with its parent, however that ends (on Linux), and leave Ctrl-C to it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
