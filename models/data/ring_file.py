"""The rows of a live source on disk: a folder NAME.ring of segments, each a file of JSON lines.

    NAME.ring/00000007.jsonl   {"format":1,"columns":["temperature","y"],"crc":"0c4f7a11"}
                               {"time":1764244800.25,"temperature":21.5,"y":"run","crc":"5d1c9ab2"}
    NAME.ring/00000008.jsonl   … the next rows; the highest number is written to, the lowest goes first

 1. A row is a line of its own, with the CRC-32 of all that stands before the checksum in it. A line is believed whole
    or not at all: what a power cut has torn, and what has rotted, costs that line. Two lines whose line break has
    rotted are found all the same.
 2. `time` is when a row was received, in seconds since 1970 by this device's clock. It goes back where the clock was
    put back: whoever needs an order sorts by it. A long silence is a gap. What is missing in a row is not there.
 3. A reader opens all segments before it reads the first, and of each it reads what was there then. So a table is of
    one moment, though rows are appended and old segments removed meanwhile.
 4. A segment says its format. One of a newer fedge is refused by name; where its head has rotted it is none.

Who writes them is edge_agent/live/ring.py. Rows are counted from 0, over all segments.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from msgspec import Struct

from models.data.blocks import BLOCK_ROWS, Block, Fault, Kind
from models.data.cells import CellError, Cells, Doubles, missing_of
from models.data.dataset import DatasetError
from models.data.naming import called, places
from models.data.settings import SourceSettings
from models.data.values import Values
from runtime import formats

log = logging.getLogger(__name__)

ENDING = ".ring"
TIME, CRC = "time", "crc"
"""Columns that every row has."""
FORMAT = 1
MOST_LINE = 2**20
"""Bytes of a line: what is longer is no line of ours."""
MOST_SEGMENTS = 4096
_SEGMENT = re.compile(r"\A\d{8}\.jsonl\Z")
_BEGINS = b'{"time":'
_TAIL = re.compile(rb',"crc":"([0-9a-f]{8})"\}\Z')
_TAIL_BYTES = len(b',"crc":"00000000"}')

Value = float | int | str | bool


class Head(Struct, frozen=True):
    """The first line of a segment."""

    columns: tuple[str, ...] = ()
    format: int = 1


def line_of(values: Mapping[str, object]) -> bytes:
    """Return a line of these values, with its checksum and its end. They are `time` first, and finite."""
    body = msgspec.json.encode(values)[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body))


def head_of(columns: Sequence[str]) -> bytes:
    """Return the first line of a segment with these columns behind `time`."""
    return line_of({"format": FORMAT, "columns": list(columns)})


def is_whole(line: bytes) -> bool:
    """Return whether a line, without its end, is what was written."""
    found = _TAIL.search(line[-_TAIL_BYTES:])
    return found is not None and int(found[1], 16) == zlib.crc32(line[:-_TAIL_BYTES])


def salvaged(line: bytes) -> list[bytes]:
    """Return the rows in a line that is not whole: those on both sides of a line break that has rotted."""
    starts = [at.start() for at in re.finditer(re.escape(_BEGINS), line)]
    pieces = (line[start:end] for start, end in zip(starts, [*starts[1:], len(line)], strict=False))
    found = []
    for piece in pieces:
        text = piece[: piece.rfind(b'"}') + 2]
        if is_whole(text):
            found.append(text)
    return found


def segments(folder: Path) -> list[Path]:
    """Return the segments of a ring, the oldest first; none where there is no such folder. Raises OSError."""
    try:
        names = sorted(name for name in os.listdir(folder) if _SEGMENT.match(name))  # noqa: PTH208 -- Path throws
    except FileNotFoundError:
        return []
    return [folder / name for name in names[-MOST_SEGMENTS:]]


def read_head(file: IO[bytes], path: Path) -> Head | None:
    """Return the head of a segment, whose file stands at its beginning; None for one that has rotted, or is torn.

    Raises NewerFormatError.
    """
    line = file.readline(MOST_LINE)
    if not line.endswith(b"\n") or not is_whole(line[:-1]):
        return None
    try:
        head = msgspec.json.decode(line, type=Head)
    except msgspec.ValidationError:
        return None
    formats.check(str(path), head.format, FORMAT)
    return head if head.columns else None


def files(settings: SourceSettings) -> tuple[str, ...]:
    """Return the files that the rows lie in: what a stamp looks at."""
    try:
        return tuple(map(str, segments(Path(settings.path)))) or (settings.path,)
    except OSError:
        return (settings.path,)


class Ring:
    """The rows of a ring as they were when it was opened. Raises DatasetError where they cannot be read."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: list[tuple[IO[bytes], int]] = []
        self.n_damaged = 0
        """Lines that were left out, of those that were read last."""
        names: dict[str, None] = {TIME: None}
        try:
            for segment in segments(Path(path)):
                try:
                    file = segment.open("rb")
                except FileNotFoundError:
                    continue  # it was the oldest, and is gone
                self._open.append((file, os.fstat(file.fileno()).st_size))
                head = read_head(file, segment)
                names.update(dict.fromkeys(() if head is None else head.columns))
        except formats.FormatError as error:
            self.close()
            raise DatasetError(str(error)) from error
        except OSError as error:
            self.close()
            raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
        if not self._open:
            raise DatasetError(
                f"{path}: no reading has been kept yet: is anything published to the topics of its mqtt?"
            )
        if len(names) == 1:  # all heads have rotted
            names.update(dict.fromkeys(next(self.rows(), {})))
        self.header = tuple(names)

    def rows(self) -> Iterator[dict[str, Value]]:
        """Yield every row, the oldest first, as column to value: what is missing is not there. Raises DatasetError."""
        self.n_damaged = 0
        try:
            for file, n_bytes in self._open:
                yield from self._rows_of(file, n_bytes)
        except OSError as error:
            raise DatasetError(f"{self._path}: cannot be read: {error.strerror or error}") from error

    def close(self) -> None:
        """Let go of the files."""
        for file, _ in self._open:
            file.close()
        self._open = []

    def _rows_of(self, file: IO[bytes], n_bytes: int) -> Iterator[dict[str, Value]]:
        file.seek(0)
        left = n_bytes
        while left > 0 and (line := file.readline(min(left, MOST_LINE))):
            left -= len(line)
            if not line.endswith(b"\n"):
                if left > 0:  # longer than any line of ours
                    continue
                self.n_damaged += 1
            text = line.rstrip(b"\n")
            if text.startswith(b'{"format":') and is_whole(text):
                continue
            found = [text] if is_whole(text) else salvaged(text)
            self.n_damaged += not found
            for one in found:
                if (row := _decoded(one)) is not None:
                    yield row


def _decoded(text: bytes) -> dict[str, Value] | None:
    try:
        row = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get(TIME), int | float):
        return None
    row.pop(CRC, None)
    return row


def open_table(settings: SourceSettings, *, ended: bool = True) -> RingTable:
    """Open a ring as it is now. ended: of no use, since no row is ever half there. Raises DatasetError."""
    del ended
    ring = Ring(settings.path)
    try:
        return RingTable(ring, settings)
    except BaseException:
        ring.close()
        raise


class RingTable:
    """See `Table` (blocks.py)."""

    def __init__(self, ring: Ring, settings: SourceSettings) -> None:
        """Name its columns. Raises DatasetError."""
        self._ring, self._path = ring, settings.path
        self._values = Values(Cells(missing=missing_of(settings.missing_values)), settings.time_format)
        self.header = called(ring.header, settings)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Table`."""
        n = self._ring.n_damaged
        return (f"{n} damaged line{'s' if n > 1 else ''} left out",) if n else ()

    def close(self) -> None:
        """See `Table`."""
        self._ring.close()

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        at = places(self.header, wanted, self._path)
        return self._blocks(wanted, {name: self._ring.header[at[name]] for name in wanted})

    def _blocks(self, wanted: Mapping[str, Kind], inner: Mapping[str, str]) -> Iterator[Block]:
        rows, first = self._ring.rows(), 0
        while some := list(islice(rows, BLOCK_ROWS)):
            yield self._block(wanted, inner, some, first)
            first += len(some)

    def _block(
        self, wanted: Mapping[str, Kind], inner: Mapping[str, str], rows: list[dict[str, Value]], first: int
    ) -> Block:
        columns: dict[str, Doubles | list[str]] = {}
        faults: list[Fault] = []
        for name, kind in wanted.items():
            cells = [row.get(inner[name]) for row in rows]
            if kind is Kind.TIME and inner[name] == TIME:
                columns[name] = np.array(cells, np.float64)
                continue
            try:
                columns[name], whys = self._values.column(name, kind, cells)
            except CellError as error:
                raise DatasetError(f"{self._path}, column {name}: {error}") from None
            faults += [Fault(first + place, name, why) for place, why in whys]
        faults.sort(key=lambda fault: fault.line)
        return Block(columns, np.arange(first, first + len(rows), dtype=np.int64), tuple(faults))
