"""Reading data beside the loop that hears the broker: the loop asks, and is woken when the rows are there.

    asked ──its turn──▶ being read ──▶ done: rows, or an exception; whoever asked looks at its future
                             └─READ_S─▶ done: EndlessError, and the thread is left to itself

 1. One reading at a time, in the order in which they were asked for: a device has memory for one.
 2. A reading goes on under the mark of its job (runtime/faults.py): who is killed while data are read knows by whose.
    Nothing is trained meanwhile (`Readings.busy`): that would put two jobs under suspicion, and both take a processor.
 3. A reading that does not come to an end counts as thrown. What is Python in it is stopped; a disk that does not
    answer holds its thread for as long as it likes, and nobody else. No thread keeps the process from ending.

How a reading is done is one function, as with the aggregator's executors: `inline`, at once and in the loop, for
simulations; or `threads(wake)`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple, TypeVar

from runtime.faults import EndlessError, Marks, limited, throw_into

T = TypeVar("T")

READ_S = 600.0
"""What a reading may take: only its own job, and the training of others, wait for it."""

_Given = queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
Start = Callable[["Future[Any]", Callable[[], Any]], threading.Thread | None]
"""Begin a reading whose outcome goes into this future; return the thread that it is done on, if it is on one."""


def inline(future: Future[T], read: Callable[[], T]) -> None:
    """Read at once, in the thread that asks."""

    def within_limits() -> T:
        with limited(READ_S):
            return read()

    _settle(future, within_limits)


def at_once(future: Future[T], read: Callable[[], T]) -> None:
    """Read at once what cannot take long: rows that are in memory. No alarm is set, which costs four system calls."""
    _settle(future, read)


def threads(wake: Callable[[], None]) -> Start:
    """Return what reads on a thread of its own, which waits for the next reading when one has ended.

    wake: called on that thread when a reading has ended. Where one is given up, its thread is left to itself.
    """
    worker: _Worker | None = None

    def start(future: Future[Any], read: Callable[[], Any]) -> threading.Thread | None:
        nonlocal worker
        try:
            worker = worker if worker is not None and worker.is_free else _Worker(wake)
        except RuntimeError as error:  # there is no memory for one, or the process is ending
            future.set_exception(error)
            return None
        worker.give(future, read)
        return worker.thread

    return start


class _Worker:
    """A thread that does one reading after the other, and ends when nobody holds this any more.

    Raises RuntimeError where none can be made.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._given: _Given = queue.SimpleQueue()
        self._last: Future[Any] | None = None
        self.thread = threading.Thread(target=_work, args=(self._given, wake), name="reading", daemon=True)
        self.thread.start()
        weakref.finalize(self, self._given.put, None)

    @property
    def is_free(self) -> bool:
        """Whether it has come to the end of its last reading, which was not given up."""
        return self.thread.is_alive() and self._last is not None and _has_ended(self._last)

    def give(self, future: Future[Any], read: Callable[[], Any]) -> None:
        """Hand it a reading to do."""
        self._last = future
        self._given.put((future, read))


def _work(given: _Given, wake: Callable[[], None]) -> None:
    with contextlib.suppress(EndlessError):  # it was given up, and may be told so a little late
        ended = True
        while ended and (asked := given.get()) is not None:
            future, read = asked
            _settle(future, read)
            ended = _has_ended(future)
            del asked, future, read  # the rows are whoever's who asked for them
            wake()


def _has_ended(future: Future[Any]) -> bool:
    """Return whether a reading came to its own end."""
    return future.done() and not isinstance(future.exception(), EndlessError)


def _settle(future: Future[T], read: Callable[[], T]) -> None:
    """Put what comes of a reading into its future, unless it was given up."""
    with contextlib.suppress(InvalidStateError):
        try:
            rows = read()
        except BaseException as error:
            if not isinstance(error, Exception | SystemExit):
                raise
            future.set_exception(error)
        else:
            future.set_result(rows)


class _Asked(NamedTuple):
    job: str
    future: Future[Any]
    read: Callable[[], Any]


class _Current(NamedTuple):
    asked: _Asked
    thread: threading.Thread | None
    began: float


class Readings:
    """All readings of one device. clock: seconds that only go forward, real ones where threads read."""

    __slots__ = ("_clock", "_current", "_marks", "_start", "_waiting")

    def __init__(self, start: Start, marks: Marks, clock: Callable[[], float] = time.monotonic) -> None:
        self._start = start
        self._marks = marks
        self._clock = clock
        self._waiting: tuple[_Asked, ...] = ()
        self._current: _Current | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being read."""
        return self._current is not None

    def ask(self, job: str, read: Callable[[], T]) -> Future[T]:
        """Return the future of a reading for this job. It is done already where it is read in the loop."""
        future: Future[T] = Future()
        self._waiting += (_Asked(job, future, read),)
        self._go_on()
        return future

    def ended(self) -> list[str]:
        """Return the jobs whose readings have ended since, and begin the next reading."""
        jobs = []
        while (current := self._current) is not None:
            if not current.asked.future.done():
                if self._clock() - current.began < READ_S:
                    break
                self._give_up(current)
            self._end(current)
            jobs.append(current.asked.job)
            self._go_on()
        return jobs

    def forget(self, job: str) -> None:
        """Begin no reading of this job that has not begun. One that has goes on, and nobody looks at it."""
        self._waiting = tuple(asked for asked in self._waiting if asked.job != job)

    def close(self) -> None:
        """Note that the process is about to end: whoever's data are being read is not to blame."""
        self._waiting = ()
        if self._current is not None:
            self._marks.step_out(self._current.asked.job, "read")
            self._current = None

    def _go_on(self) -> None:
        while self._current is None and self._waiting:
            asked, *later = self._waiting
            self._waiting = tuple(later)
            self._marks.enter(asked.job, "read", "its data were read")
            self._current = _Current(asked, None, self._clock())
            thread = self._start(asked.future, asked.read)
            if thread is None:  # it is done, and whoever asked looks at it next
                self._end(self._current)
            else:
                self._current = self._current._replace(thread=thread)

    def _end(self, current: _Current) -> None:
        self._marks.leave(current.asked.job, "read")
        self._current = None

    def _give_up(self, current: _Current) -> None:
        # A thread may come to its end at this very moment: then that is what counts.
        with contextlib.suppress(InvalidStateError):
            current.asked.future.set_exception(EndlessError(f"its data were not read within {READ_S:g} s"))
            if current.thread is not None:
                throw_into(current.thread)
