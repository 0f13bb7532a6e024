"""What the authority knows of each device, for the aggregator to read: one file, replaced whole at every change."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from identity.keys import KeyFileError, key_of
from runtime import formats
from runtime.words import clean

log = logging.getLogger(__name__)

FORMAT = 1
LOOK_S = 1.0
MOST_BYTES = 64 * 1024 * 1024


class RegistryError(ValueError):
    """A registry that cannot be used; the message is one line, names the file and says what to do."""


class Enrolled(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device as it was enrolled last.

    epoch: how often it was enrolled; words of an earlier epoch are not believed. key: its public Ed25519 key, as text.
    serial: of its certificate, in hex; absent where it has a password. expires: when that ends. rows: at most so many
    examples are believed.
    """

    key: str
    epoch: int = 1
    serial: str | None = None
    expires: dt.datetime | None = None
    rows: int | None = None
    labels: dict[str, str] = {}
    revoked: bool = False


class Registry(msgspec.Struct, frozen=True):
    """All devices of a fleet by their ids. list_until: when the broker's list of the revoked has to be renewed."""

    fleet: str
    devices: dict[str, Enrolled] = {}
    list_until: dt.datetime | None = None
    format: int = FORMAT

    def key_of(self, device: str) -> bytes | None:
        """Return the 32 bytes of the key that a device signs with; None for one that is unknown or revoked."""
        known = self.devices.get(device)
        return None if known is None or known.revoked else key_of(known.key)


def read_registry(path: str | Path, fleet: str | None = None) -> Registry:
    """Return the registry of a file. fleet: the one that it must be of. Raises RegistryError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RegistryError(f"{path}: the registry cannot be read: {error.strerror or error}") from error
    if len(text) > MOST_BYTES:
        raise RegistryError(f"{path}: is longer than {MOST_BYTES:,} bytes")
    try:
        formats.check(str(path), msgspec.json.decode(text, type=_Numbered).format, FORMAT)
        registry = msgspec.json.decode(text, type=Registry)
        for known in registry.devices.values():
            key_of(known.key)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"{path}: is damaged: {clean(str(error))}") from error
    except (KeyFileError, formats.FormatError) as error:
        raise RegistryError(f"{path}: {error}") from error
    if fleet is not None and registry.fleet != fleet:
        raise RegistryError(f"{path}: these are the devices of the fleet {registry.fleet!r}, not of {fleet!r}")
    return registry


class WatchedRegistry:
    """The registry in a file, looked at again every LOOK_S. The last one that could be read goes on holding.

    clock: seconds that only go forward. Raises RegistryError where there is none to begin with.
    """

    def __init__(self, path: str | Path, fleet: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._fleet = fleet
        self._clock = clock
        self._stamp = self._look()
        registry = read_registry(path, fleet)
        self._keys = _keys_of(registry)
        self.rows = _rows_of(registry)
        """Device to the most examples that are believed of it, where that was stated; changes with the file."""
        self._looked_at = clock()
        self._trouble = ""
        """Why the file could not be read, the last time."""

    def key_of(self, device: str) -> bytes | None:
        """Return the 32 bytes of the key that a device signs with; None for one that is unknown or revoked."""
        return self._keys.get(device)

    def look(self) -> list[str]:
        """Look whether the file has changed, if it is time; return who is revoked since, or was enrolled anew."""
        now = self._clock()
        if now < self._looked_at + LOOK_S:
            return []
        self._looked_at, stamp = now, self._look()
        if stamp == self._stamp:
            return []
        try:
            registry = read_registry(self._path, self._fleet)
        except RegistryError as error:  # it is tried again: what was wrong need not lie in the file
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.error("%s; the devices that were known before are believed until it can be read", error)
            return []
        self._stamp, self._trouble = stamp, ""
        before, self._keys = self._keys, _keys_of(registry)
        keys, rows = self._keys, _rows_of(registry)
        self.rows.clear()
        self.rows.update(rows)
        gone = [device for device, key in before.items() if keys.get(device) != key]
        log.info("registry=%s devices=%d%s", self._path, len(keys), f" gone={','.join(gone[:20])}" if gone else "")
        return gone

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _keys_of(registry: Registry) -> dict[str, bytes]:
    return {device: key_of(known.key) for device, known in registry.devices.items() if not known.revoked}


def _rows_of(registry: Registry) -> dict[str, int]:
    return {device: known.rows for device, known in registry.devices.items() if known.rows is not None}


class _Numbered(msgspec.Struct):
    format: int = 1
