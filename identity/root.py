"""The root of a fleet: two keys that are needed to certify people and servers, and on no other day.

    root.key       P-256: signs the certificates of the broker, the aggregator and people
    message.key    Ed25519: signs trust.json (trust.py) and the mandate (mandate.py)

They may lie on a USB stick. Its certificate, root.crt, is public and lies everywhere.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from pathlib import Path

from identity import certificates
from identity.certificates import CertificateError
from identity.keys import KeyFileError, SigningKey, read_key, text_of, write_key
from identity.mandate import Mandate
from runtime.disk import make_private, write_private

YEARS_20 = 7305


class RootError(ValueError):
    """A root that is not there, or is another one's; the message says what to do."""


class Root:
    """Both keys, in memory for one command."""

    def __init__(self, certificate: bytes, key: bytes, message_key: SigningKey) -> None:
        self.certificate, self._key, self.message_key = certificate, key, message_key

    @classmethod
    def new(cls, folder: Path, fleet: str, now: dt.datetime) -> Root:
        """Make a root, and put its keys into a new folder. Raises OSError, CertificateError."""
        key, message_key = certificates.new_key(), SigningKey.generate()
        certificate = certificates.new_authority(key, "fedge root", fleet, YEARS_20, now)
        make_private(folder)
        write_private(folder / "root.key", key)
        write_key(folder / "message.key", message_key)
        return cls(certificate, key, message_key)

    @classmethod
    def read(cls, folder: Path, certificate: bytes, public: str) -> Root:
        """Return the root whose keys lie in a folder. certificate, public: those that it must have.

        Raises RootError.
        """
        try:
            key = (folder / "root.key").read_bytes()
            message_key = read_key(folder / "message.key")
        except FileNotFoundError as error:
            raise RootError(
                f"this needs the root, and {folder} has no root.key: attach what it lies on, and say --root DIR"
            ) from error
        except (OSError, KeyFileError) as error:
            raise RootError(f"this needs the root, and {folder} cannot be used: {error}") from error
        try:
            ours = certificates.is_of(certificate, key) and text_of(message_key.public) == public
        except CertificateError as error:
            raise RootError(f"{folder / 'root.key'}: {error}") from error
        if not ours:
            raise RootError(f"{folder}: this is the root of another authority")
        return cls(certificate, key, message_key)

    def certify(
        self, public: bytes, name: str, unit: str, days: float, now: dt.datetime, server: Iterable[str] = ()
    ) -> bytes:
        """Return a certificate of the root's, as `certificates.issue` does. Raises CertificateError."""
        return certificates.issue(self.certificate, self._key, public, name, days, now, server=server, unit=unit)

    def revocations(self, serials: dict[str, dt.datetime], now: dt.datetime) -> bytes:
        """Return the list of the revoked among people and servers. It holds as long as the root: nobody renews it."""
        until = certificates.look(self.certificate)[3]
        days = (until - now) / dt.timedelta(days=1)
        return certificates.revocations(self.certificate, self._key, serials, number_at(now), days, now)

    def mandate(self, fleet: str, signer: bytes, authority: bytes) -> Mandate:
        """Return its word that this key and this authority enroll devices."""
        return Mandate.given(self.message_key, fleet, signer, hashlib.sha256(authority).hexdigest())


def number_at(now: dt.datetime) -> int:
    """Return the number of a list of the revoked: higher than those of all lists before."""
    return int(now.timestamp() * 1000)
