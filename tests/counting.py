"""What code does, counted: the same on a slow machine and on a busy one, where a clock is not.

A step is one instruction of the interpreter. What C does within one, such as `name in names`, shows when it is done to
a `Name` or a `Number`: to compare one, or to hash it, takes steps of its own. What C copies shows in the bytes. What
neither compares nor copies is not seen here, such as the largest of many plain numbers, or whether one set is within
another: `benchmarks.scale` has a clock.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NamedTuple

FEW_BYTES = 10_000
"""So much more is no copy of thousands: a frame, a number, a message."""


class _Counted:
    """What is compared or hashed in Python, also when it is C that asks for it."""

    __slots__ = ()

    def __hash__(self) -> int:
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)

    def __lt__(self, other: Any) -> bool:
        return super().__lt__(other)  # type: ignore[misc,no-any-return]  # of str, or of int

    def __gt__(self, other: Any) -> bool:
        return super().__gt__(other)  # type: ignore[misc,no-any-return]


class Name(_Counted, str):
    """A str, of which each comparison and each hash takes steps."""

    __slots__ = ()


class Number(_Counted, int):
    """An int, of which each comparison and each hash takes steps."""

    __slots__ = ()


class Work(NamedTuple):
    """steps: instructions. n_bytes: of memory, what each act needed at its most beyond what it found."""

    steps: int
    n_bytes: int

    def is_about(self, other: Work) -> bool:
        """Return whether this is no more than twice the other: one that grows with forty times as much is more."""
        return self.steps <= 2 * other.steps and self.n_bytes <= 2 * other.n_bytes + FEW_BYTES


def work_of(acts: Iterable[Callable[[], object]]) -> Work:
    """Return what these acts do together; of ten, the dearest one is left out: now and then a table has to grow."""
    steps, n_bytes = [], []
    for act in acts:
        one = _work_of(act)
        steps.append(one.steps)
        n_bytes.append(one.n_bytes)
    n = len(steps) - len(steps) // 10
    return Work(sum(sorted(steps)[:n]), sum(sorted(n_bytes)[:n]))


def _work_of(act: Callable[[], object]) -> Work:
    steps = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        steps += event == "opcode"
        return trace

    was_on, traced_before = gc.isenabled(), sys.gettrace()
    gc.disable()  # what others have left behind is theirs
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks whether any frame wants them when the trace is set
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        sys.settrace(trace)
        try:
            act()
        finally:
            sys.settrace(traced_before)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        if was_on:
            gc.enable()
    return Work(steps, most - before)
