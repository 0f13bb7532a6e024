"""Keys for messages: Ed25519 (RFC 8032) signs, X25519 (RFC 7748) agrees on a session, BLAKE2b (RFC 7693) is its MAC.

The one home of PyNaCl, which is imported at the first use: a fleet without keys does not load it, and on a device it
takes a megabyte where the library for certificates takes ten. Private keys lie in PEM (PKCS #8, RFC 8410), as
`openssl genpkey -algorithm ed25519` writes them; public keys are text of 44 characters, base64 of their 32 bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from pathlib import Path
from typing import Protocol

KEY_BYTES = 32
SIGNATURE_BYTES = 64
MAC_BYTES = 16
_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
"""What stands before the 32 bytes of a seed: a PrivateKeyInfo of algorithm 1.3.101.112."""


class KeyFileError(ValueError):
    """A key that cannot be used; the message is one line, names the file and says what to do."""


class Signer(Protocol):
    """What signs: a key of a file, or one that never leaves a TPM or a PKCS #11 token."""

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public key."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of a signature."""


class SigningKey:
    """A private Ed25519 key, in memory."""

    __slots__ = ("_key", "_seed")

    def __init__(self, seed: bytes) -> None:
        """seed: 32 random bytes. Raises ValueError for another number of them."""
        from nacl.signing import SigningKey as Ed25519

        if len(seed) != KEY_BYTES:
            raise ValueError("a seed has 32 bytes")
        self._seed, self._key = seed, Ed25519(seed)

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new key."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public key."""
        return bytes(self._key.verify_key)

    @property
    def pem(self) -> bytes:
        """The private key, as it lies in a file."""
        text = base64.b64encode(_PKCS8 + self._seed)
        return b"-----BEGIN PRIVATE KEY-----\n" + text + b"\n-----END PRIVATE KEY-----\n"

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of a signature (RFC 8032, section 5.1.6)."""
        return bytes(self._key.sign(message).signature)


class ExchangeKey:
    """A private X25519 key, in memory, for as long as a process lives."""

    __slots__ = ("_secret", "public")

    def __init__(self, secret: bytes | None = None) -> None:
        """secret: 32 random bytes; drawn when not given."""
        from nacl.bindings import crypto_scalarmult_base

        self._secret = secrets.token_bytes(KEY_BYTES) if secret is None else secret
        self.public = bytes(crypto_scalarmult_base(self._secret))

    def shared(self, public: bytes) -> bytes:
        """Return the 32 bytes that two keys have in common (RFC 7748, section 6.1).

        Raises ValueError for a public key that gives the same secret with every key.
        """
        from nacl.bindings import crypto_scalarmult
        from nacl.exceptions import CryptoError

        if len(public) != KEY_BYTES:
            raise ValueError("a public key has 32 bytes")
        try:
            return bytes(crypto_scalarmult(self._secret, public))
        except CryptoError as error:  # for a point of small order
            raise ValueError("it is no key for an exchange") from error


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether a signature of 64 bytes is that of this key over this message (RFC 8032, section 5.1.7)."""
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


def mac(key: bytes, message: bytes) -> bytes:
    """Return the 16 bytes that prove a message between two who share a key of 32 bytes (keyed BLAKE2b)."""
    return hashlib.blake2b(message, digest_size=MAC_BYTES, key=key).digest()


def text_of(public: bytes) -> str:
    """Return a public key as text: base64, 44 characters."""
    return base64.b64encode(public).decode()


def key_of(text: str) -> bytes:
    """Return the 32 bytes of a public key's text. Raises KeyFileError."""
    try:
        public = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyFileError(f"{text[:60]!r} is no public key: it has to be 44 characters of base64") from error
    if len(public) != KEY_BYTES:
        raise KeyFileError(f"{text[:60]!r} is no public key: it has to be 44 characters of base64")
    return public


def fingerprint(public: bytes) -> str:
    """Return what two people compare over the telephone: the first 80 bits of the SHA-256, in groups of four digits."""
    digits = hashlib.sha256(public).hexdigest()[:20]
    return "-".join(digits[at : at + 4] for at in range(0, 20, 4))


def read_key(path: str | Path) -> SigningKey:
    """Return the private key of a file. Raises KeyFileError for one that cannot be read, or that others can read."""
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096)
    except OSError as error:
        raise KeyFileError(f"{path}: the key cannot be read: {error.strerror or error}") from error
    if mode & 0o007:
        raise KeyFileError(f"{path}: everybody on this machine can read the key: chmod 600 {path}")
    lines = text.strip().splitlines()
    if len(lines) < 3 or lines[0] != b"-----BEGIN PRIVATE KEY-----" or lines[-1] != b"-----END PRIVATE KEY-----":
        raise KeyFileError(f"{path}: is no private key in PEM")
    try:
        der = base64.b64decode(b"".join(lines[1:-1]), validate=True)
    except binascii.Error as error:
        raise KeyFileError(f"{path}: is damaged: {error}") from error
    if len(der) != len(_PKCS8) + KEY_BYTES or not der.startswith(_PKCS8):
        raise KeyFileError(f"{path}: is no Ed25519 key; message keys are Ed25519")
    return SigningKey(der[len(_PKCS8) :])


def write_key(path: Path, key: SigningKey) -> None:
    """Put a private key into a new file that only its owner can read. Raises OSError, FileExistsError among them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.pem)
        file.flush()
        os.fsync(file.fileno())
