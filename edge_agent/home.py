"""The state directory of one device: held by one process, marked with the device it belongs to, its starts counted.

    STATE/lock      held while an agent runs here; says its process id
    STATE/device    the mark: the device's id, and the incarnation of this directory
    STATE/boot      how often an agent has been started here
    STATE/jobs      an outbox for each job
    STATE/models    a model slot for each job

Its law:
1. One process. A second one is told who holds the directory, and nothing is changed.
2. One device. A directory that is marked with another id is refused by name, and nothing is changed.
3. Under one incarnation the boot only rises. Where the mark or the boot is missing or has rotted, a new incarnation is
   drawn, and is on disk before a boot is counted under it: a cut of the power in between draws once more.
4. Nothing else that a mark or a boot may hold stops an agent. What is left of it is used: a directory of a version
   before this one has a boot and no mark, and goes on counting.
5. The mark has the number of the format of the whole directory; none is 1. One of a newer fedge is refused by name, and
   nothing is changed.

An incarnation tells a card that was written anew from one that was not; a nonce, drawn at each start, tells two devices
that run from copies of one card.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Annotated

import msgspec
from msgspec import Meta, Struct

from broker.ceilings import MOST_COUNT
from broker.messages import Id
from edge_agent import files
from edge_agent.disk import Disk, below
from runtime import formats

log = logging.getLogger(__name__)

MOST_BOOTS = MOST_COUNT
"""As far as a boot can be told on the wire."""
FORMAT = 1
"""Of the directory."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system answers that knows no locks."""


class HomeError(RuntimeError):
    """A state directory that is not this agent's to use; the message says what to do."""


class ForeignHomeError(HomeError):
    """It belongs to another device, or to a newer fedge: trying again does not mend it."""


class _Mark(Struct, frozen=True):
    device: Id
    incarnation: Annotated[str, Meta(pattern=r"\A[0-9a-f]{8}\Z")]
    format: int = FORMAT


class _Numbered(Struct, frozen=True):
    """What the marks of all formats have."""

    format: int = 1


def draw() -> str:
    """Return eight random hexadecimal digits."""
    return secrets.token_hex(4)


class Home:
    """The state directory of a device, held for this process until it is closed. Open it once at each start.

    device: the id of this agent. nonce: as drawn at this start. draw: where incarnations, and a nonce that is not
    given, come from. disk: where its files are, if not in the file system; nobody else comes there, so nothing is
    locked.
    Raises HomeError when another process, another device or a newer fedge has the directory, OSError, which names the
    folder, when it cannot be read or written; nothing is then changed.
    """

    __slots__ = ("_lock", "boot", "device", "disk", "file_system", "folder", "incarnation", "nonce")

    def __init__(
        self,
        folder: Path,
        device: str,
        *,
        nonce: str | None = None,
        draw: Callable[[], str] = draw,
        disk: Disk | None = None,
    ) -> None:
        self.disk: Disk = files if disk is None else disk
        self.file_system: int | None = None
        """The device number of the one that the directory is on, if it is on one."""
        self.folder = folder
        self.device = device
        self.nonce = draw() if nonce is None else nonce
        with _naming(folder), contextlib.ExitStack() as undo:
            is_new = self.disk.make_folder(folder)
            self._lock = undo.enter_context(_locked(folder)) if disk is None else None
            if disk is None:
                self.file_system = folder.stat().st_dev
            if is_new and self._lock is None:  # else another agent may have been here before it was locked
                mark, boot = None, None
            else:
                mark, boot = _read_mark(folder, self.disk), _read_boot(folder, self.disk)
            if mark is not None and mark.device != device:
                raise ForeignHomeError(
                    f"state directory {folder} belongs to device {mark.device}, and this agent is {device}: give it a "
                    f"state_dir of its own, or remove {folder / 'device'} if {mark.device} is now called {device}"
                )
            if mark is None or boot is None:
                mark = _Mark(device, draw())
                self.disk.seal(below(folder, "device"), msgspec.json.encode(mark))
                log.info("state directory=%s is device=%s's, incarnation=%s", folder, device, mark.incarnation)
            self.incarnation = mark.incarnation
            self.boot = (boot or 0) + 1
            self.disk.seal(below(folder, "boot"), str(self.boot).encode())
            undo.pop_all()

    def close(self) -> None:
        """Let another process have the directory."""
        if self._lock is not None:
            self._lock.close()


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Name the state directory in an OSError."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(error.errno, f"state directory {folder} cannot be used: {why}") from error


def _locked(folder: Path) -> IO[str]:
    """Take the lock. Raises HomeError when another process has it, OSError when it cannot be written."""
    with contextlib.ExitStack() as undo:
        lock = undo.enter_context((folder / "lock").open("a+", encoding="ascii", errors="replace"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read(20).strip() or "unknown"
            raise HomeError(
                f"state directory {folder} is in use by process {owner}: each agent needs a state_dir of its own"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            log.warning("state directory=%s is not locked: %s; see that no two agents share it", folder, error.strerror)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        undo.pop_all()
    return lock


def _read_mark(folder: Path, disk: Disk = files) -> _Mark | None:
    """Return the mark; None when there is none, or one that is not understood.

    Raises OSError, or ForeignHomeError for one of a newer fedge.
    """
    content = _read(folder / "device", disk)
    if content is None:
        return None
    try:
        found = msgspec.json.decode(content, type=_Numbered).format
        formats.check(f"state directory {folder}", found, FORMAT, newer="upgrade this agent, or give it another")
        return msgspec.json.decode(content, type=_Mark)
    except formats.NewerFormatError as error:
        raise ForeignHomeError(str(error)) from error
    except files.UNREADABLE as error:
        log.warning("file=%s is not understood and is written anew: %s", folder / "device", error)
        return None


def _read_boot(folder: Path, disk: Disk = files) -> int | None:
    """Return how often an agent has been started here; None when that is not known. Raises OSError."""
    content = _read(folder / "boot", disk)
    if content is None:
        return None
    if content.isdigit() and len(content) <= len(str(MOST_BOOTS)) and int(content) < MOST_BOOTS:
        return int(content)
    log.warning("file=%s is not understood: the starts are counted anew", folder / "boot")
    return None


def _read(file: Path, disk: Disk) -> bytes | None:
    content = disk.unseal(file)
    if content is None and disk.exists(file):
        log.warning("file=%s is damaged and is written anew", file)
    return content
