"""What /metrics says of the machine that an aggregator runs on: its state directory, its counters, what soon ends.

Looked at when it is asked for, so that no measure is older than its scrape; a certificate is read again where its file
has changed. What cannot be read is left out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from aggregator import counters
from aggregator.counters import Totals
from aggregator.store import FILE
from identity.registry import RegistryError, read_registry
from identity.validity import ValidityError, validity_of

REVOKED = "revoked"
"""The name of the broker's list of the revoked."""
Stamp = tuple[int, int, int]


class Premises(Struct, frozen=True):
    """How it was at one moment. Sizes in bytes; ends in seconds since 1970, by what ends."""

    totals: Totals | None = None
    store_bytes: int | None = None
    disk_free: int | None = None
    disk_size: int | None = None
    ends: Mapping[str, float] = {}


class Inspector:
    """Looks at it. certificates: what they are called, and their files. registry: the file of the fleet's devices."""

    def __init__(self, state: Path, certificates: Mapping[str, str | None], registry: str | None = None) -> None:
        self._state = state
        self._ends: list[tuple[str, Path, Callable[[Path], float | None]]] = [
            (name, Path(file), _end_of_certificate) for name, file in certificates.items() if file
        ]
        if registry:
            self._ends.append((REVOKED, Path(registry), _end_of_list))
        self._known: dict[str, tuple[Stamp, float | None]] = {}

    def look(self) -> Premises:
        """Return how it is now. Raises nothing. Called by one thread at a time."""
        size, free = None, None
        with contextlib.suppress(OSError):
            size, _, free = shutil.disk_usage(self._state)
        ends = {name: end for name, file, read in self._ends if (end := self._end(name, file, read)) is not None}
        return Premises(counters.read(self._state), _store_bytes(self._state), free, size, ends)

    def _end(self, name: str, file: Path, read: Callable[[Path], float | None]) -> float | None:
        try:
            found = file.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            known = self._known.get(name)
            if known is None or known[0] != stamp:
                known = self._known[name] = (stamp, read(file))
        except OSError:
            return None
        return known[1]


def _end_of_certificate(file: Path) -> float | None:
    """Return when a certificate ends. Raises OSError."""
    try:
        return validity_of(file.read_bytes()).until.timestamp()
    except ValidityError:
        return None


def _end_of_list(file: Path) -> float | None:
    try:
        until = read_registry(file).list_until
    except RegistryError:
        return None
    return None if until is None else until.timestamp()


def _store_bytes(state: Path) -> int | None:
    """Return what the store takes: its file, its log, and the bodies beside them."""
    total, seen = 0, False
    with contextlib.suppress(OSError), os.scandir(state) as entries:
        for entry in entries:
            if entry.name.startswith(FILE):
                total, seen = total + entry.stat().st_size, True
            elif entry.is_dir(follow_symlinks=False):
                total += _inside(entry.path)
    return total if seen else None


def _inside(folder: str) -> int:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file(follow_symlinks=False))
    return 0
