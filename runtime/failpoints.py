"""Places where a process can be told to die, and a diary of those it has passed: what `fedge chaos` works with.

    FEDGE_FAILPOINT="agent.Settle.before:3,outbox.put.between"
    FEDGE_DIARY=/some/file

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
DIARY = "FEDGE_DIARY"


class Trail:
    """The points that one process passes.

    deaths: point to the how-many-th time (from 1) that it is the last one. diary: a file to append to.
    """

    def __init__(self, deaths: Mapping[str, int], diary: Path | None) -> None:
        self._left = dict(deaths)
        self._diary = None if diary is None else os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def reach(self, point: str, what: object) -> None:
        """Note that this point is reached, and die if it was to be here."""
        if self._diary is not None:
            line = msgspec.json.encode((round(time.monotonic(), 4), os.getpid(), point, what))
            os.write(self._diary, line + b"\n")
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


def trail_of(environment: Mapping[str, str]) -> Trail | None:
    """Return the trail that these variables ask for; None where they ask for nothing. Raises ValueError or OSError."""
    failpoint, diary = environment.get(FAILPOINT, ""), environment.get(DIARY, "")
    return Trail(parse(failpoint), Path(diary) if diary else None) if failpoint or diary else None


_trail = trail_of(os.environ)


def reach(point: str, what: object = None) -> None:
    """Pass a point. `what`: anything that msgspec writes as JSON; it stands in the diary."""
    if _trail is not None:
        _trail.reach(point, what)
