"""Rows of a live source, put on the card: appended, synced now and then, the oldest removed whole.

   append ──▶ waiting, in memory ──sync_s, or MOST_WAITING──▶ one write, one sync ──▶ the last segment
                                                           └─ full: a new one; beyond keep_bytes: the first goes

1. What waits is in memory alone, so that a kill costs what a power cut does: the rows of sync_s at most. What is
   written is synced in the same breath. (Without that a kernel writes it within half a minute anyway: nothing is
   saved.)
2. Bytes are written at the place where the last whole line ends, as this process knows it. A write that failed is done
   again at the same place, and never leaves half a line in front of another.
3. At a start what stands behind the last end of a line is cut off, and rows go on behind it. A segment with other
   columns, or with a head that is none, is left as it is, and another one begun.
4. The ring takes keep_bytes at most, and what is being written; a segment is a sixteenth of that. Rows older than
   keep_s go as well, with the segment whose last row is so old.
5. One process holds the folder; a second one is told, and changes nothing. What a newer fedge has written is refused
   by name, and stays.
6. A disk that fails costs rows and nothing else: what cannot be written waits, MOST_WAITING bytes of it, the oldest
   rows are counted out.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from edge_agent import files
from edge_agent.live.joining import Row, Value
from models.data.ring_file import TIME, head_of, is_whole, line_of, read_head, segments
from runtime.disk import sync

MOST_WAITING = 262_144
"""Bytes of rows in memory."""
EARLY = 65_536
"""Bytes of rows that are put on disk before their time."""
AGAIN_S = 10.0
"""A disk that has not taken rows is tried again after this long."""
SEGMENTS, MOST_SEGMENT = 16, 4 * 2**20
"""Of a ring, and bytes of one: a ring of more than 64 MiB has more of them."""


class RingError(OSError):
    """A folder that is not this process's to write to; the message says why."""


class _Segment(Struct):
    path: Path
    n_bytes: int
    last_at: float
    """The time of its last row."""


class Ring:
    """The folder of one source, held by this process until `close`.

    columns: those of its rows behind their time, in order. Raises OSError, RingError, and NewerFormatError.
    """

    def __init__(
        self,
        folder: Path,
        columns: Sequence[str],
        *,
        keep_bytes: int,
        keep_s: float | None = None,
        sync_s: float = 60.0,
    ) -> None:
        files.make_folder(folder)
        self._folder, self._columns = folder, tuple(columns)
        self._keep_bytes, self._keep_s, self._sync_s = keep_bytes, keep_s, sync_s
        self._segment_bytes = min(keep_bytes // SEGMENTS, MOST_SEGMENT)
        self._segments: list[_Segment] = []
        self._goes_on = False
        """Whether rows may be written to the last segment."""
        self._next = 1
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = 0
        self._since: float | None = None
        """When the oldest row that waits has come, by the clock that only goes forward."""
        self._tried_at = -math.inf
        """When a write has failed last."""
        self.n_lost = 0
        """Rows that a failing disk has cost."""
        self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._hold()
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, row: Row, now: float) -> None:
        """Take a row. now: seconds that only go forward."""
        known = {name: _short(row.values[name]) for name in self._columns if name in row.values}
        line = line_of({TIME: round(row.at, 3), **known})
        self._waiting.append((row.at, line))
        self._waiting_bytes += len(line)
        self._since = now if self._since is None else self._since
        while self._waiting_bytes > MOST_WAITING:
            self._waiting_bytes -= len(self._waiting.popleft()[1])
            self.n_lost += 1

    @property
    def due_at(self) -> float:
        """Return when `flush` has something to do, by the clock that only goes forward; inf for never."""
        if self._since is None:
            return math.inf
        due_at = self._since if self._waiting_bytes >= EARLY else self._since + self._sync_s
        return max(due_at, self._tried_at + AGAIN_S)

    @property
    def n_bytes(self) -> int:
        """Return what the ring takes on disk."""
        return sum(segment.n_bytes for segment in self._segments)

    def put_off(self, now: float) -> None:
        """Put off writing what waits: the disk did not take it."""
        self._tried_at = now

    def drop_waiting(self) -> None:
        """Forget what is not on disk yet."""
        self._waiting.clear()
        self._waiting_bytes, self._since = 0, None

    def flush(self) -> None:
        """Put what waits on disk. Raises OSError; it waits on then."""
        if not self._waiting:
            return
        last_at, data = self._waiting[-1][0], b"".join(line for _, line in self._waiting)
        self._expire(last_at)
        if self._goes_on and self._segments and self._segments[-1].n_bytes + len(data) <= self._segment_bytes:
            self._make_room(len(data), spare=1)
            self._write(self._segments[-1], data)
        else:
            data = head_of(self._columns) + data
            self._make_room(len(data), spare=0)
            self._begin(data)
        self._segments[-1].last_at = last_at
        self.drop_waiting()

    def close(self) -> None:
        """Put what waits on disk, if the disk takes it, and let go of the folder."""
        try:
            with contextlib.suppress(OSError):
                self.flush()
        finally:
            os.close(self._lock)

    # The segments.

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RingError(
                f"{self._folder} is written to by another process: each source needs a ring of its own"
            ) from error
        except OSError:  # a file system that knows no locks; the state directory's own lock guards what lies there
            return

    def _open(self) -> None:
        """Find what is there, and cut off what a power cut has torn."""
        paths = segments(self._folder)
        for path in paths:
            with path.open("rb") as file:
                head = read_head(file, path)
                self._goes_on = head is not None and head.columns == self._columns
            self._segments.append(_Segment(path, path.stat().st_size, _last_at(path)))
        if self._segments:
            self._next = int(self._segments[-1].path.stem) + 1
            self._cut(self._segments[-1])

    def _cut(self, segment: _Segment) -> None:
        """Cut off what stands behind the last end of a line."""
        content = segment.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole == len(content):
            return
        end = b"\n" if is_whole(content[whole:]) else b""  # it lacks nothing but its end
        with segment.path.open("r+b") as file:
            file.seek(len(content) if end else whole)
            file.write(end)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
            segment.n_bytes = file.tell()

    def _write(self, segment: _Segment, data: bytes) -> None:
        """Write behind the last line, and return when it is on disk. Raises OSError."""
        descriptor = os.open(segment.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            at, left = segment.n_bytes, memoryview(data)
            while left:
                n = os.pwrite(descriptor, left, at)
                at, left = at + n, left[n:]
            os.fdatasync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, segment.n_bytes)
            raise
        finally:
            os.close(descriptor)
        segment.n_bytes = at

    def _begin(self, data: bytes) -> None:
        """Begin a segment with this. Raises OSError; there is none then."""
        path = self._folder / f"{self._next:08d}.jsonl"
        try:
            with path.open("xb") as file:
                os.fchmod(file.fileno(), 0o640)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            sync(self._folder)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        self._segments.append(_Segment(path, len(data), 0.0))
        self._next, self._goes_on = self._next + 1, True

    def _make_room(self, n_bytes: int, spare: int) -> None:
        """Remove the oldest segments until so much more may be written. spare: segments that stay."""
        while len(self._segments) > spare and self.n_bytes + n_bytes > self._keep_bytes:
            self._remove(self._segments[0])

    def _expire(self, newest_at: float) -> None:
        """Remove the segments whose last row is so much older than the newest."""
        if self._keep_s is not None:
            for segment in [one for one in self._segments if one.last_at < newest_at - self._keep_s]:
                self._remove(segment)

    def _remove(self, segment: _Segment) -> None:
        segment.path.unlink(missing_ok=True)
        self._segments.remove(segment)


def _short(value: Value) -> Value:
    """Return a whole number as one, which is shorter to write."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _last_at(path: Path) -> float:
    """Return the time of the last row of a segment; that of its file where there is none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MOST_WAITING))
        for line in reversed(file.read().split(b"\n")):
            if is_whole(line) and isinstance(at := msgspec.json.decode(line).get(TIME), int | float):
                return float(at)
        return os.fstat(file.fileno()).st_mtime
