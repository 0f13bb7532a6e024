r"""The lines of a text file of one moment, in pieces of bounded size, whatever the file is.

   file ──pread──▶ bytes ──gunzip?──▶ bytes ──decode──▶ text ──whole lines──▶ pieces

1. What is read is the file that was opened, up to the size that it had then: one that grows or is replaced meanwhile
   gives the same lines each time.
2. No line is longer than MOST_LINE: memory is that of a few pieces, whatever was compressed or left without line ends.
3. Encodings are told by their mark (UTF-8, UTF-16, UTF-32), else by `encoding`, else the file is UTF-8. What cannot be
   decoded is an error with its line; nothing is replaced by a question mark.
4. A line ends with \n, \r\n or \r, and nothing else, as in an editor. A last line without its end is left out where
   somebody may be in the middle of writing it (`ended`).
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from models.data.dataset import DatasetError

PIECE = 2**16
"""Bytes that are read at a time; the cells of a piece take some twenty times as many, which a device has to have."""
MOST_LINE = 2**22
"""Characters of a line."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""What a file begins with, and what it is encoded in; those of UTF-32 begin as those of UTF-16 do."""
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0"


class Piece(NamedTuple):
    """Some whole lines."""

    text: str
    line: int
    """Of its first one, from 1."""


class TextFile:
    """A text file that is opened, as it is then."""

    def __init__(self, path: str, encoding: str | None, *, ended: bool, what: str = "CSV") -> None:
        """Open it and look at its beginning. Raises DatasetError. what: its format, for messages."""
        self.path = path
        self._what, self.ended = what, ended
        try:
            self._file = open(path, "rb", buffering=0, opener=at_once)  # noqa: SIM115 -- until it is closed
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        try:
            found = os.fstat(self._file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise DatasetError(f"{path}: cannot be read as {what}: it is no file")
            self.n_bytes = found.st_size
            head = os.pread(self._file.fileno(), 4, 0)
            self.is_gzip = head[:2] == _GZIP
            if head in (_ZIP, _OLE):
                raise DatasetError(f"{path}: is an Excel workbook or a ZIP, not {what}: save the table as CSV")
            self.encoding, self._mark = self._encoding_of(encoding)
        except OSError as error:
            self.close()
            raise self._unreadable(error) from error
        except DatasetError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was found out by looking."""
        found = ["gzip"] if self.is_gzip else []
        return (*found, self.encoding) if self._mark and self.encoding != "utf-8" else tuple(found)

    def _encoding_of(self, said: str | None) -> tuple[str, int]:
        """Return the encoding, and how many bytes its mark has."""
        with self._bytes() as file:
            head = self._read(file, 256)
        mark = next(((name, len(mark)) for mark, name in _MARKS if head.startswith(mark)), None)
        if mark is not None:
            return mark
        if said is None and head.partition(b"\n")[0].count(0) * 3 > len(head.partition(b"\n")[0]):
            even, odd = head[::2].count(0), head[1::2].count(0)
            if min(even, odd) * 4 < max(even, odd):
                name = "utf-16-le" if odd > even else "utf-16-be"
                raise DatasetError(
                    f'{self.path}: looks like UTF-16 without its mark: say encoding = "{name}" beside its path'
                )
            raise DatasetError(
                f"{self.path}: cannot be read as {self._what}: its beginning is NUL bytes, as a power cut leaves them, "
                "or it is no text"
            )
        return said or "utf-8", 0

    def _bytes(self) -> io.BufferedIOBase | io.RawIOBase:
        raw = _Moment(self._file.fileno(), self.n_bytes)
        return gzip.GzipFile(fileobj=raw) if self.is_gzip else raw  # type: ignore[arg-type, unused-ignore]

    def _read(self, file: io.BufferedIOBase | io.RawIOBase, n: int) -> bytes:
        """Return up to n bytes; none at the end."""
        found = b""
        try:
            while len(found) < n and (more := _some(file, n - len(found))):
                found += more
        except EOFError:
            if self.ended:
                return found  # what is compressed to the end is not yet written
            raise DatasetError(
                f"{self.path}: ends in the middle: copy it again, or leave out what is damaged"
            ) from None
        except (OSError, zlib.error) as error:
            raise self._unreadable(error) from error
        return found

    def _unreadable(self, error: Exception) -> DatasetError:
        why = getattr(error, "strerror", None) or error
        return DatasetError(f"{self.path}: cannot be read as {self._what}: {why}")

    def pieces(self) -> Iterator[Piece]:
        """Yield all of its lines, some at a time. Raises DatasetError."""
        line, rest = 1, ""
        try:
            for text in self._texts():
                rest += text
                cut = max(rest.rfind("\n"), rest.rfind("\r", 0, len(rest) - 1)) + 1
                if not cut and len(rest) > MOST_LINE:
                    raise self._long(line)
                if cut:
                    piece, rest = Piece(rest[:cut], line), rest[cut:]
                    line += _ends(piece.text)
                    yield piece
        except UnicodeDecodeError as error:
            line += _ends(rest + error.object[: error.start].decode(self.encoding, "replace"))
            raise DatasetError(
                f"{self.path}, line {line}: is no {self.encoding.upper()}: say beside its path which encoding it is, "
                'as in encoding = "latin-1" (or "cp1252", of Windows)'
            ) from None
        if rest and (rest.endswith("\r") or not self.ended):
            if len(rest) > MOST_LINE:
                raise self._long(line)
            yield Piece(rest, line)

    def _long(self, line: int) -> DatasetError:
        return DatasetError(
            f"{self.path}, line {line}: is longer than {MOST_LINE:,} characters: is this a table, a row a line?"
        )

    def _texts(self) -> Iterator[str]:
        """Yield all of its text. Raises DatasetError, and UnicodeDecodeError."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        with self._bytes() as file:
            self._read(file, self._mark)
            while found := self._read(file, PIECE):
                yield decoder.decode(found)
            yield decoder.decode(b"", final=not self.ended)


def _some(file: io.BufferedIOBase | io.RawIOBase, n: int) -> bytes:
    """Return what there is at once, so that nothing is lost before a place that is damaged."""
    return (file.read1(n) if isinstance(file, gzip.GzipFile) else file.read(n)) or b""


def at_once(path: str, flags: int) -> int:
    """Open a file without waiting for whoever might write to a pipe of that name."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


class _Moment(io.RawIOBase):
    """The bytes of an open file up to the size that it had, read from the beginning, whoever else reads it too."""

    def __init__(self, fd: int, n_bytes: int) -> None:
        self._fd, self._n_bytes, self._at = fd, n_bytes, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        found = os.pread(self._fd, min(len(view), self._n_bytes - self._at), self._at)
        view[: len(found)] = found
        self._at += len(found)
        return len(found)


def split(piece: Piece) -> Iterator[str]:
    """Return the lines of a piece, with their ends."""
    return io.StringIO(piece.text, newline="")


def _ends(text: str) -> int:
    """Return how many lines end in a text."""
    return text.count("\n") + (text.count("\r") - text.count("\r\n") if "\r" in text else 0)


def is_ended(path: str) -> bool:
    """Return whether the last line has its end, as far as that can be read; of a compressed file that does not show."""
    try:
        with open(path, "rb", opener=at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or file.read(2) == _GZIP:
                return True
            file.seek(0, os.SEEK_END)
            file.seek(-min(4, file.tell()), os.SEEK_END)
            tail = file.read(4)
    except OSError:
        return True
    return not tail or tail.strip(b"\x00")[-1:] in (b"\r", b"\n")
