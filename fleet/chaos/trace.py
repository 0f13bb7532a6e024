"""Reading the traces that processes write under FEDGE_TRACE (`runtime/failpoints.py`), while they write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec


class Line(NamedTuple):
    """A point that a process passed. at: time.monotonic's seconds. what: as the code gave it."""

    at: float
    pid: int
    point: str
    what: Any


class Trace:
    """One file, whoever appends to it. A line that is not yet whole is left for the next time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self.lines: list[Line] = []

    def read(self) -> list[Line]:
        """Return the lines that are new since the last time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                fresh = file.read()
        except FileNotFoundError:
            return []
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        lines = [_decoder.decode(line) for line in whole.splitlines()]
        self.lines += lines
        return lines

    def at(self, *names: str) -> list[Line]:
        """Return the lines of these points, of those that have been read."""
        return [line for line in self.lines if line.point in names]


_decoder = msgspec.json.Decoder(Line)
