"""Progress for people: lines that stay, and on a terminal one status line that is written over.

Where there is no terminal (a pipe, a log, TERM=dumb) the status line is left out and every line stands alone.
"""

from __future__ import annotations

import os
import shutil
from typing import TextIO


class Display:
    """Writes to one stream; None for silence."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._live = stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._shown = ""

    def line(self, text: str = "") -> None:
        """Write a line that stays."""
        if self._stream is not None:
            self._erase()
            self._stream.write(text + "\n")
            self._stream.flush()

    def status(self, text: str) -> None:
        """Show this below the lines until the next call of anything."""
        if self._live and self._stream is not None and text != self._shown:
            self._erase()
            self._shown = text[: shutil.get_terminal_size().columns - 1]
            self._stream.write(self._shown)
            self._stream.flush()

    def _erase(self) -> None:
        if self._shown and self._stream is not None:
            self._stream.write("\r\x1b[K")
            self._shown = ""


def n_bytes(n: float) -> str:
    """Return a number of bytes as people read it: 812 B, 3.4 kB, 2.10 MB (decimal)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}" if n < 999.5 * size else f"{n / size:.0f} {unit}"
    return f"{n:.0f} B"


def duration(seconds: float) -> str:
    """Return a time as people read it: 8 s, 2 min 05 s, 1 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
