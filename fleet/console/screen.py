"""A terminal that is drawn over again and again, and left as it was found.

    enter: other screen, no cursor, keys without Enter and without echo
    draw:  each line over the old one; nothing is written where nothing has changed
    leave: whatever ends the block, all of that is taken back

Plain ANSI (ECMA-48 and the alternate screen of xterm), so that it works over ssh and in a console.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType
from typing import Any, TextIO

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
_LEAVE = "\x1b[?25h\x1b[?1049l"
QUIT = ("q", "Q", "\x03", "\x04")
"""Keys that end a watch: q, Ctrl-C, Ctrl-D."""


class Screen:
    """The terminal of this process, for the length of a block. keys: where they are typed; None: nowhere."""

    def __init__(self, stream: TextIO | None = None, keys: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        keys = keys or sys.stdin
        self._keys = keys.fileno() if keys.isatty() else None
        self._before: list[Any] | None = None
        self._handler: Any = None
        self._drawn: Sequence[str] = ()
        self._wake = os.pipe()
        os.set_blocking(self._wake[1], False)
        for end in self._wake:
            os.set_inheritable(end, False)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, as they are now."""
        found = shutil.get_terminal_size()
        try:
            asked = os.get_terminal_size(self._stream.fileno())
        except OSError:
            return found.columns, found.lines
        return asked.columns or found.columns, asked.lines or found.lines

    def __enter__(self) -> Screen:
        """Take the terminal."""
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        self._handler = signal.signal(signal.SIGWINCH, self._resized)
        self._write(_ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back as it was."""
        self._write(_LEAVE)
        signal.signal(signal.SIGWINCH, self._handler)
        if self._keys is not None and self._before is not None:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)
        for end in self._wake:
            os.close(end)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, from the top, and nothing else."""
        if lines == self._drawn:
            return
        self._drawn = lines
        self._write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")

    def key(self, timeout_s: float) -> str:
        """Return a key that was typed, waiting this long at most; "" where none was, or the size has changed."""
        wanted = [self._wake[0], *([] if self._keys is None else [self._keys])]
        ready, _, _ = select.select(wanted, [], [], timeout_s)
        if self._wake[0] in ready:
            os.read(self._wake[0], 64)
            self._drawn = ()
        if self._keys is not None and self._keys in ready:
            typed = os.read(self._keys, 1)
            return typed.decode("latin-1") if typed else "q"  # the terminal is gone
        return ""

    def _resized(self, _number: int, _frame: FrameType | None) -> None:
        try:
            os.write(self._wake[1], b".")
        except BlockingIOError:
            return  # it is woken already

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
