"""Where a job's own faults stop: the one broad `except` besides `main`'s, and marks for the deaths that none can catch.

Both sides run code that is not theirs: a factory's module, a net of any shape, data of any kind. What it throws is the
job's fault and puts that job at rest, with the reason; the other jobs go on.

A kill for memory, or a library that crashes, throws nothing. So a mark is written before such code is entered, and
removed after. A process that finds a mark at its start has died under it; MOST_DEATHS running in one place, with
nothing gained in between, and the job is put at rest before it is entered again. A cut of the power is nobody's fault:
deaths count only within one boot of the kernel. That is also why marks need no fsync: what a process has written
survives it. A mark says its format (none is 1, without a checksum); one of another is named in the log and counts no
more than one of another software, which gets a new chance: it stays until the job is entered there again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Literal, TypeVar, get_args

import msgspec
from msgspec import Struct

from runtime import formats
from runtime.words import clean

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_DEATHS = 3
WORDS = 400
"""Characters of an exception that are passed on."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


ENTRY_S = 120.0
"""What a job's code may take to build its net and read its data, while everybody else waits."""


class EndlessError(RuntimeError):
    """A job's code that does not come to an end."""


class Fault(Struct, frozen=True):
    """What a job's code has thrown, in a line."""

    why: str


def contain(act: Callable[[], T], *passes: type[Exception]) -> T | Fault:
    """Do something that runs a job's code; return what it gives, or the fault, which is logged with its trace at debug.

    passes: exceptions that are let through. So is what is no Exception, but for SystemExit: a module that wants to end
    the process is at fault too.
    """
    try:
        return act()
    except passes:
        raise
    except (Exception, SystemExit) as error:
        log.debug("the trace of what follows", exc_info=True)
        return Fault(f"{describe(error)} ({_where(error)})")


@contextlib.contextmanager
def limited(most_s: float) -> Iterator[None]:
    """Throw EndlessError into a block that takes longer than this, in the main thread.

    It reaches what is Python, or waits; a loop within a library of C it does not.
    """
    if math.isinf(most_s) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise EndlessError(f"it did not come to an end within {most_s:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, most_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def describe(error: BaseException) -> str:
    """Return the type's name and the text of an exception as one line.

    Never raises: an exception of somebody else's code may fail at its own text too.
    """
    text = clean(str(traceback.TracebackException(type(error), error, None)).strip(), WORDS)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _where(error: BaseException) -> str:
    """Return where an exception was thrown."""
    trace, where = error.__traceback__, "?"
    while trace is not None:
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return where


FORMAT = 2
"""Of a mark."""


class _Numbered(Struct):
    """What the marks of all formats have."""

    format: int = 1


class _Mark(Struct):
    what: str
    deaths: int
    kernel: str
    software: str
    forgiven: int = 0
    """How often it was tried again after a rest: then one death is enough."""
    inside: bool = True
    """Whether its code is being run: who dies then, dies under this mark."""
    format: int = 1
    checksum: str = ""


def throw_into(thread: threading.Thread) -> None:
    """Throw EndlessError into another thread of this process, where that still runs.

    It reaches what is Python; a call that waits, or a loop within a library of C, it reaches when that returns.
    """
    import ctypes  # here alone: nearly nobody ever needs it

    if thread.ident is not None and thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(EndlessError))


Place = Literal["submit", "begin", "read", "train", "commit"]
"""Where a job's code is entered. What goes well in one place says nothing of the deaths in another."""


class Marks:
    """Marks of one state directory, a small file for each job and place. kernel: identifies this boot of the machine.

    software: the version that runs; another one gets a new chance.
    """

    def __init__(self, folder: Path, software: str = "", kernel: str | None = None) -> None:
        self._folder = folder
        self._software = software
        self._kernel = _kernel() if kernel is None else kernel
        self._marks: dict[str, _Mark] = {}
        for path in self._folder.glob("*") if self._folder.is_dir() else ():
            try:
                mark = _read(path)
            except formats.NewerFormatError as error:
                log.warning("%s", error)
                continue
            if mark is not None and (mark.kernel, mark.software) == (self._kernel, software):
                mark.deaths += mark.inside
                mark.inside = False
                self._marks[path.name] = mark
                self._write(path.name)
            else:
                self._remove(path.name)

    def reason(self, job: str) -> str:
        """Return why a job must not be entered; empty when it may be."""
        for name in _names(job):
            mark = self._marks.get(name)
            if mark is not None and mark.deaths >= MOST_DEATHS + mark.forgiven:
                return (
                    f"{mark.deaths} processes running have died while {mark.what}: killed for memory (see dmesg or the "
                    f"journal), or a library crashed; remove {self._folder / name} to have it tried again"
                )
        return ""

    def enter(self, job: str, place: Place, what: str) -> None:
        """Note what is begun, or gone on with."""
        name = _name(job, place)
        mark = self._marks.setdefault(name, _Mark(what, 0, self._kernel, self._software))
        mark.what, mark.inside = what, True
        self._write(name)

    def step_out(self, job: str, place: Place) -> None:
        """Note that another job has its turn; what was begun here is not at its end."""
        name = _name(job, place)
        mark = self._marks.get(name)
        if mark is None or not mark.inside:
            return
        mark.inside = False
        if mark.deaths or mark.forgiven:
            self._write(name)
        else:
            self.leave(job, place)

    def has_deaths(self, job: str, place: Place) -> bool:
        """Return whether a process has died here, with nothing gained since."""
        mark = self._marks.get(_name(job, place))
        return mark is not None and mark.deaths > 0

    def gain(self, job: str, place: Place) -> None:
        """Note that something has been gained that no death takes away: those before it count no more."""
        name = _name(job, place)
        mark = self._marks.get(name)
        if mark is not None and mark.deaths:
            mark.deaths = mark.forgiven = 0
            self._write(name)

    def forgive(self, job: str) -> int:
        """Let a job be entered once more that has rested; return how often that was done before."""
        forgiven = 0
        for name in _names(job):
            mark = self._marks.get(name)
            if mark is not None and mark.deaths >= MOST_DEATHS + mark.forgiven:
                forgiven = max(forgiven, mark.forgiven)
                mark.forgiven = mark.deaths - MOST_DEATHS + 1
                self._write(name)
        return forgiven

    def leave(self, job: str, place: Place | None = None) -> None:
        """Note that it came to an end, good or bad; without a place, forget all marks of a job."""
        for name in _names(job) if place is None else (_name(job, place),):
            if self._marks.pop(name, None) is not None:
                self._remove(name)

    @contextlib.contextmanager
    def entered(self, job: str, place: Place, what: str, *, most_s: float = math.inf) -> Iterator[None]:
        """Enter for the length of a block. most_s: what takes longer is thrown out with EndlessError."""
        self.enter(job, place, what)
        try:
            with limited(most_s):
                yield
        finally:
            self.leave(job, place)

    def _write(self, name: str) -> None:
        # A mark that cannot be written guards nothing; that is no reason not to do the work.
        mark = self._marks[name]
        mark.format, mark.checksum = FORMAT, formats.ZEROS
        content = formats.stamped(msgspec.json.encode(mark))
        with contextlib.suppress(OSError):
            try:
                _put(self._path(name), content)
            except FileNotFoundError:
                self._folder.mkdir(parents=True, exist_ok=True)
                _put(self._path(name), content)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path(name))  # noqa: PTH108 -- once a training

    def _path(self, name: str) -> str:
        """Return where a mark lies: a string, since one is written and removed with every training."""
        return f"{self._folder}{os.sep}{name}"


def _put(path: str, content: bytes) -> None:
    """Write a small file over the one that is there. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        os.write(file, content)
    finally:
        os.close(file)


def _name(job: str, place: Place) -> str:
    return f"{job}.{place}"


def _names(job: str) -> list[str]:
    return [_name(job, place) for place in get_args(Place)]


def _read(path: Path) -> _Mark | None:
    """Return a mark; None for one that cannot be read, or has rotted. Raises NewerFormatError."""
    try:
        content = path.read_bytes()
        number = msgspec.json.decode(content, type=_Numbered).format
        if (number > 1 or formats.is_stamped(content)) and not formats.is_whole(content):
            return None
        formats.check(f"{path}, which says how often a job has died,", number, FORMAT)
        return msgspec.json.decode(content, type=_Mark)
    except formats.NewerFormatError:
        raise
    except (OSError, ValueError, RecursionError):  # msgspec's errors, and a text that is not UTF-8, are ValueErrors
        return None


def _kernel() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
