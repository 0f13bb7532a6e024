"""Many who look at once, in one process that takes little: open event streams that are read and thrown away.

    python -m benchmarks.looking.viewers HOST:PORT N SLOW PATH…      told by words on its standard input (told.py):

    open     N streams, dealt over the paths, and SLOW more that take a byte a second
    close    all of them; answers what came of them

A stream that is refused, or cut off, is opened again AGAIN_S later, as a browser does.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence

from benchmarks.connections import limit_files
from benchmarks.looking.told import answer, heard

AGAIN_S = 3.0
READ_S = 0.2
"""It looks so rarely at what has come: one read takes more at once."""
NICE = 19
WINDOW = 4096
"""Bytes that the kernel keeps for who is slow."""
OPENS_S = 60.0


class Viewer:
    """One stream. is_open: whether its answer has begun. read_at: not before, where it is slow."""

    def __init__(self, path: str, *, slow: bool) -> None:
        self.path, self.slow = path, slow
        self.socket: socket.socket | None = None
        self.is_open = False
        self.read_at = 0.0


class Viewers:
    """All of them. Counts what comes of them."""

    def __init__(self, address: str, n: int, slow: int, paths: Sequence[str]) -> None:
        host, _, port = address.rpartition(":")
        self._address, self._host = (host, int(port)), address
        self._all = [Viewer(paths[i % len(paths)], slow=i >= n) for i in range(n + slow)]
        self._waiting: deque[tuple[float, Viewer]] = deque()
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(1 << 20))
        self.n_bytes = self.cuts = self.refused = 0

    def open(self) -> None:
        """Open all; return once each has its answer, or OPENS_S have passed."""
        self.n_bytes = self.cuts = self.refused = 0
        for viewer in self._all:
            self._begin(viewer)
        until = time.monotonic() + OPENS_S
        while self.n_open < len(self._all) and time.monotonic() < until:
            self.look()

    def close(self) -> None:
        """Close all."""
        for viewer in self._all:
            self._end(viewer)
        self._waiting.clear()

    @property
    def n_open(self) -> int:
        """Streams that have begun."""
        return sum(viewer.is_open for viewer in self._all)

    def look(self) -> None:
        """Read what has come, and open again what was cut off; takes READ_S."""
        began = time.monotonic()
        while self._waiting and self._waiting[0][0] <= began:
            self._begin(self._waiting.popleft()[1])
        for key, _ in self._selector.select(0.0):
            self._read(key.data)
        time.sleep(max(0.0, began + READ_S - time.monotonic()))

    def _begin(self, viewer: Viewer) -> None:
        made = socket.socket()
        if viewer.slow:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        try:
            made.connect(self._address)
            made.sendall(f"GET {viewer.path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        except OSError:
            made.close()
            self.refused += 1
            self._waiting.append((time.monotonic() + AGAIN_S, viewer))
            return
        made.setblocking(False)
        viewer.socket = made
        self._selector.register(made, selectors.EVENT_READ, viewer)

    def _end(self, viewer: Viewer) -> None:
        if viewer.socket is not None:
            self._selector.unregister(viewer.socket)
            viewer.socket.close()
        viewer.socket, viewer.is_open, viewer.read_at = None, False, 0.0

    def _read(self, viewer: Viewer) -> None:
        now = time.monotonic()
        if viewer.socket is None or (viewer.is_open and now < viewer.read_at):
            return
        n = 0
        with contextlib.suppress(ConnectionError):
            n = viewer.socket.recv_into(self._buffer, 1 if viewer.is_open and viewer.slow else 0)
        self.n_bytes += n
        if not viewer.is_open and n:
            viewer.is_open = bytes(self._buffer[:12]) == b"HTTP/1.1 200"
            self.refused += not viewer.is_open
        elif not n:
            self.cuts += viewer.is_open
        if not viewer.is_open or not n:
            self._end(viewer)
            self._waiting.append((now + AGAIN_S, viewer))
        viewer.read_at = now + 1.0 if viewer.slow else 0.0


def main(address: str, n: str, slow: str, *paths: str) -> None:
    """Look, until there are no more words."""
    os.nice(NICE)
    limit_files(2 * (int(n) + int(slow)) + 64)
    viewers, began, used = Viewers(address, int(n), int(slow), paths), 0.0, 0.0
    while (word := heard(0.0 if began else 3600.0)) is not None:
        match word:
            case "open":
                viewers.open()
                began, used = time.monotonic(), time.process_time()
                answer(open=viewers.n_open, refused=viewers.refused)
            case "close":
                took = {"seconds": time.monotonic() - began, "cpu_s": time.process_time() - used}
                left = {"open": viewers.n_open, "cuts": viewers.cuts, "refused": viewers.refused}
                viewers.close()
                began = 0.0
                answer(n_bytes=viewers.n_bytes, **left, **took)
            case _ if began:
                viewers.look()


if __name__ == "__main__":
    main(*sys.argv[1:])
