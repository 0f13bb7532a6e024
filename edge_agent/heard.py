"""What a device with pinned keys must not forget of what it has heard, so that nobody plays old words to it.

    STATE/heard     the highest term that was heard, and the jobs that are over for good

A word of a lower term is not followed, and a job whose tombstone was heard never begins again: not even where whoever
has taken over the aggregator signs its announcement anew. (A job that comes back with a restored backup has to be
submitted again.) Of the jobs the last MOST_ENDED are remembered. A file that is missing or has rotted is begun anew.

The term is that of words under the keys that are pinned. Where those of the aggregator are others than before, it
begins anew: nobody can play what was signed with the former ones, and a thief of one may have said a term beyond reach.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
from msgspec import Struct

from edge_agent import files
from edge_agent.disk import Disk
from runtime import formats

log = logging.getLogger(__name__)

FORMAT = 1
MOST_ENDED = 1000
NAME = "heard"


class _Heard(Struct, frozen=True):
    term: int = 0
    keys: str = ""
    """Names the keys of the aggregator that the term was heard under."""
    ended: tuple[str, ...] = ()
    format: int = FORMAT


class _Numbered(Struct, frozen=True):
    format: int = 1


class Heard:
    """The file, and what is in it. Its methods raise nothing: what cannot be written is known until the process ends.

    keys: names the keys of the aggregator that are pinned.
    Raises NewerFormatError for a file of a newer fedge, OSError where it cannot be read.
    """

    def __init__(self, folder: Path, disk: Disk = files, *, keys: str = "") -> None:
        self._path = folder / NAME
        self._disk = disk
        self._known = self._read()
        if self._known.keys != keys:
            self._known = msgspec.structs.replace(self._known, keys=keys, term=0)
        self._ended = dict.fromkeys(self._known.ended)

    @property
    def term(self) -> int:
        """The highest term that was heard."""
        return self._known.term

    def has_ended(self, job: str) -> bool:
        """Return whether a job's tombstone was heard."""
        return job in self._ended

    def note_term(self, term: int) -> None:
        """Remember a term, if it is the highest."""
        if term > self.term:
            self._write(msgspec.structs.replace(self._known, term=term))

    def end(self, job: str) -> None:
        """Remember that a job is over for good."""
        if job not in self._ended:
            self._ended[job] = None
            while len(self._ended) > MOST_ENDED:
                del self._ended[next(iter(self._ended))]
            self._write(msgspec.structs.replace(self._known, ended=tuple(self._ended)))

    def _write(self, known: _Heard) -> None:
        self._known = known
        try:
            self._disk.seal(self._path, msgspec.msgpack.encode(known))
        except OSError as error:
            log.error(
                "file=%s cannot be written: %s; what it should hold is known until the next start",
                *(
                    self._path,
                    error.strerror or error,
                ),
            )

    def _read(self) -> _Heard:
        content = self._disk.unseal(self._path)
        if content is None:
            if self._disk.exists(self._path):
                log.warning("file=%s is damaged and is begun anew", self._path)
            return _Heard()
        try:
            found = msgspec.msgpack.decode(content, type=_Numbered).format
            formats.check(str(self._path), found, FORMAT, newer="upgrade this agent")
            return msgspec.msgpack.decode(content, type=_Heard)
        except formats.NewerFormatError:
            raise
        except files.UNREADABLE as error:
            log.warning("file=%s is not understood and is begun anew: %s", self._path, error)
            return _Heard()
