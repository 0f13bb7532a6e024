"""What a notice may be about and no topic tells: room on the server's disk, and when certificates end."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleet.notices.incidents import Surroundings
from identity.validity import ValidityError, validity_of

log = logging.getLogger(__name__)

DISK_S = 60.0
"""From one look at the disk to the next."""
FILES_S = 3600.0
MOST_BYTES = 64_000_000
"""Of a file that is read: a list of a hundred thousand revoked certificates has four million."""


class Lookaround:
    """Looks at a folder and at files, now and then. files: certificates and lists of the revoked, in PEM."""

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self._folder, self._files = folder, files
        self._free: int | None = None
        self._ends: Mapping[str, float] = {}
        self._disk_at = self._files_at = 0.0
        self._unread: set[str] = set()

    def look(self, now: float) -> Surroundings:
        """Return what is known now. now: of a clock that only goes forward, above 0."""
        if now >= self._disk_at:
            self._disk_at, self._free = now + DISK_S, self._weigh()
        if now >= self._files_at:
            self._files_at, self._ends = now + FILES_S, self._read()
        return Surroundings(str(self._folder), self._free, self._ends)

    def _weigh(self) -> int | None:
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:
            return None

    def _read(self) -> Mapping[str, float]:
        ends = {}
        for name in self._files:
            try:
                ends[name] = ends_at(Path(name))
                self._unread.discard(name)
            except (OSError, ValidityError) as error:
                if name not in self._unread:
                    log.warning("nobody will be told when %s ends: %s", name, error)
                self._unread.add(name)
        return ends


def ends_at(path: Path) -> float:
    """Return when a certificate ends, or when the next list of the revoked is due, in seconds since 1970.

    Raises OSError or ValidityError, also where what reads such a list is not installed.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValidityError("is too large")
    pem = path.read_bytes()
    if b"-----BEGIN X509 CRL-----" not in pem:
        return validity_of(pem).until.timestamp()
    try:
        from identity.certificates import CertificateError, look_at_revocations
    except ImportError as error:
        raise ValidityError("a list of the revoked is read with pip install fedge[identity]") from error
    try:
        return look_at_revocations(pem)[1].timestamp()
    except CertificateError as error:
        raise ValidityError(str(error)) from error
