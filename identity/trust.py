"""What a process pins when it is enrolled: whose words it believes. One file, `trust.json`, the same in a fleet.

The root signs it, in `trust.sig` beside it, so that no server can hand out another one; and by a mandate it says whose
key signs bundles (bundle.py) in its place, since the root itself lies on no server.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from identity.keys import KeyFileError, Signer, key_of, signature_of, text_of, verify
from runtime import formats
from runtime.words import clean

FORMAT = 1
MOST_BYTES = 262_144


class TrustError(ValueError):
    """A file of pinned keys that cannot be used; the message is one line, names the file and says what to do."""


class Trust(msgspec.Struct, frozen=True):
    """The public keys that are believed, as text (identity/keys.py).

    aggregator: those that may sign what the aggregator says; the first is the one in use. operators: by name, those
    that may sign jobs. root: signs changes of this file, and never lies on a server. serial: a higher one replaces a
    lower.
    """

    fleet: str
    root: str
    aggregator: tuple[str, ...]
    operators: dict[str, str] = {}
    serial: int = 1
    format: int = FORMAT

    @property
    def aggregator_keys(self) -> tuple[bytes, ...]:
        """The keys of the aggregator, 32 bytes each."""
        return tuple(map(key_of, self.aggregator))

    @property
    def operator_keys(self) -> dict[str, bytes]:
        """The keys of operators by their names, 32 bytes each."""
        return {name: key_of(text) for name, text in self.operators.items()}


def read_trust(path: str | Path, fleet: str | None = None) -> Trust:
    """Return the pinned keys of a file. fleet: the one that they must be of. Raises TrustError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TrustError(f"{path}: the pinned keys cannot be read: {error.strerror or error}") from error
    return parse_trust(text, str(path), fleet)


def parse_trust(text: bytes, source: str, fleet: str | None = None) -> Trust:
    """Return the pinned keys that lie in these bytes. source: names them for people. Raises TrustError."""
    if len(text) > MOST_BYTES:
        raise TrustError(f"{source}: is longer than {MOST_BYTES:,} bytes")
    try:
        number = msgspec.json.decode(text, type=_Numbered).format
        formats.check(source, number, FORMAT)
        trust = msgspec.json.decode(text, type=Trust)
        keys = (key_of(trust.root), *trust.aggregator_keys, *trust.operator_keys.values())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TrustError(f"{source}: is damaged: {clean(str(error))}; enroll again") from error
    except (KeyFileError, formats.FormatError) as error:
        raise TrustError(f"{source}: {error}") from error
    if not trust.aggregator or len(set(keys)) != len(keys):
        raise TrustError(f"{source}: names no key of an aggregator, or one key twice; enroll again")
    if fleet is not None and trust.fleet != fleet:
        raise TrustError(f"{source}: these are the keys of the fleet {trust.fleet!r}, not of {fleet!r}")
    return trust


def sign_trust(root: Signer, text: bytes) -> bytes:
    """Return what `trust.sig` holds for a `trust.json` of these bytes."""
    return text_of(root.sign(_TRUST + text)).encode() + b"\n"


def is_signed(text: bytes, signature: bytes, root: bytes) -> bool:
    """Return whether `trust.sig` is what this root (32 bytes) says of a `trust.json` of these bytes."""
    return verify(root, _TRUST + text, signature_of(signature))


class Mandate(msgspec.Struct, frozen=True):
    """The root's word on who may enroll devices: mandate.json.

    key: signs bundles, as text. authority: SHA-256, in hex, of the certificate that signs those of devices.
    """

    fleet: str
    key: str
    authority: str
    signature: str = ""

    @classmethod
    def given(cls, root: Signer, fleet: str, key: bytes, authority: str) -> Mandate:
        """Return one that the root has signed."""
        bare = cls(fleet, text_of(key), authority)
        return msgspec.structs.replace(bare, signature=text_of(root.sign(bare._words)))

    def is_of(self, root: bytes) -> bool:
        """Return whether this root (32 bytes) has signed it."""
        return verify(root, self._words, signature_of(self.signature.encode()))

    @property
    def _words(self) -> bytes:
        return _MANDATE + f"{self.fleet}\n{self.key}\n{self.authority}".encode()


_TRUST, _MANDATE = b"fedge trust 1\n", b"fedge mandate 1\n"
"""What is signed begins with what it is, so that no signature can be taken for one over something else."""


class _Numbered(msgspec.Struct):
    format: int = 1
