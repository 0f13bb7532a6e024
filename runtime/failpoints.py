"""Places where a process can be told to die, and a trace of those it has passed: what `fedge chaos` works with.

    FEDGE_FAILPOINT="agent.Settle.before:3,outbox.put.between"
    FEDGE_TRACE=/some/file

The first has the process kill itself, as by kill -9, the third time it reaches the one point or the first time it
reaches the other. The second appends a line of JSON for every point that is reached: [seconds, process id, point,
what]; the seconds are time.monotonic's, which all processes of one machine share. The line comes before the death, so
the last line of a process that died at a point names it.

Both are read once, at import. Without them `reach` looks at one name and returns: nothing of what the process does
depends on this file.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

FAILPOINT = "FEDGE_FAILPOINT"
TRACE = "FEDGE_TRACE"


class Points:
    """The points that one process passes.

    deaths: point to the how-many-th time (from 1) that it is the last one. trace: a file to append to.
    """

    def __init__(self, deaths: Mapping[str, int], trace: Path | None) -> None:
        self._left = dict(deaths)
        self._trace = None if trace is None else os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def reach(self, point: str, what: object) -> None:
        """Note that this point is reached, and die if it was to be here."""
        if self._trace is not None:
            line = msgspec.json.encode((round(time.monotonic(), 4), os.getpid(), point, what))
            os.write(self._trace, line + b"\n")
        if point in self._left:
            self._left[point] -= 1
            if self._left[point] == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def parse(text: str) -> dict[str, int]:
    """Read what FEDGE_FAILPOINT says. Raises ValueError."""
    deaths = {}
    for part in filter(None, text.split(",")):
        point, _, count = part.partition(":")
        if not point or not (count or "1").isdigit() or count == "0":
            raise ValueError(f'{FAILPOINT}: "{part}" is not a point, or a point:N with N from 1')
        deaths[point] = int(count or "1")
    return deaths


def points_of(environment: Mapping[str, str]) -> Points | None:
    """Return the points that these variables ask for; None where they ask for nothing. Raises ValueError or OSError."""
    failpoint, trace = environment.get(FAILPOINT, ""), environment.get(TRACE, "")
    return Points(parse(failpoint), Path(trace) if trace else None) if failpoint or trace else None


_points = points_of(os.environ)


def reach(point: str, what: object = None) -> None:
    """Pass a point. `what`: anything that msgspec writes as JSON; it stands in the trace."""
    if _points is not None:
        _points.reach(point, what)
