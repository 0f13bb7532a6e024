"""What a device asks its authority for, and what it is answered: JSON behind a proof of who says it.

    a request    64 bytes: Ed25519 by the device's message key     16: MAC of the token, or zeros     Request
    an answer    64 bytes: of the token, or Ed25519 by the authority's signer                         Answer

Its law:
1. A proof covers the topic, which names fleet, errand and who asks, and all that follows it: what was said elsewhere is
   no proof here.
2. Enrolling, both sides hold the token's secret, and the broker does not: it is shown a password that is made of it.
   So whoever owns the broker can neither ask in a token's name nor answer it. Renewing, the request is signed by the
   key that is enrolled, the answer by the key that the root's mandate names, which the device has.
3. A request is one thing by its digest: who asks again with the same keys asks the same, and is answered the same. One
   that is played again after two renewals names a certificate of long ago, and is not answered.
4. Lengths are checked before anything is read; what is wrong raises AskingError, whatever the bytes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from identity.keys import KEY_BYTES, MAC_BYTES, SIGNATURE_BYTES, Signer, fingerprint, key_of, mac, verify
from runtime.words import clean

MOST_ASKED = 4096
MOST_ANSWERED = 524_288
"""The pinned keys are in it: 262,144 bytes at most."""
_ASKED, _ANSWERED = b"fedge asked 1\n", b"fedge answered 1\n"

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
T = TypeVar("T")
Text = Annotated[str, Meta(max_length=2048)]


class AskingError(ValueError):
    """A request or an answer that is none, or that somebody else has made; the message is one line."""


class Request(Struct, frozen=True, omit_defaults=True):
    """A certificate, please. csr: PKCS #10 in PEM. key: the public message key, as text. done: it has come, thanks.

    has: when the certificate ends that the device has, where it renews one; absent from an older agent.
    """

    device: Name
    csr: Text
    key: Annotated[str, Meta(max_length=64)]
    done: bool = False
    has: Annotated[dt.datetime, Meta(tz=True)] | None = None

    @property
    def digest(self) -> str:
        """Return what it is known by: the same for the same device and keys."""
        return hashlib.sha256(f"{self.device}\n{self.key}\n{self.csr}".encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Return what operator and owner compare."""
        return fingerprint(bytes.fromhex(self.digest))


class Granted(Struct, frozen=True):
    """What makes a device of its keys: the files of a bundle but the private ones, as text."""

    fleet: Name
    device: Name
    epoch: Annotated[int, Meta(ge=1, le=2**31)]
    files: dict[str, str]


class Answer(Struct, frozen=True, omit_defaults=True):
    """To the request of that digest. text: why it was refused, or what it waits for."""

    asked: str
    state: Literal["waiting", "refused", "granted"]
    text: Annotated[str, Meta(max_length=2000)] = ""
    granted: Granted | None = None


class Secret:
    """What a token's secret is good for: a password for the broker, and proofs that the broker cannot make."""

    __slots__ = ("password", "proof_key")

    def __init__(self, secret: str) -> None:
        self.password = hashlib.blake2b(secret.encode(), digest_size=24, person=b"fedge password").hexdigest()
        self.proof_key = hashlib.blake2b(secret.encode(), digest_size=KEY_BYTES, person=b"fedge proof").digest()


def ask(topic: str, request: Request, signer: Signer, proof_key: bytes | None = None) -> bytes:
    """Return the payload of a request. proof_key: of the token, where one asks."""
    text = msgspec.json.encode(request)
    said = _ASKED + topic.encode() + b"\n" + text
    proof = bytes(MAC_BYTES) if proof_key is None else mac(proof_key, said)
    return signer.sign(proof + said) + proof + text


def asked(topic: str, payload: bytes, *, key: str | None = None, proof_key: bytes | None = None) -> Request:
    """Return the request of a payload. key: whose it must be, as text; else it is the one that it names itself.

    proof_key: of the token. Raises AskingError.
    """
    head = SIGNATURE_BYTES + MAC_BYTES
    if not head < len(payload) <= MOST_ASKED:
        raise AskingError(f"a request of {len(payload):,} bytes, and {MOST_ASKED:,} are the most")
    signature, proof, text = payload[:SIGNATURE_BYTES], payload[SIGNATURE_BYTES:head], payload[head:]
    said = _ASKED + topic.encode() + b"\n" + text
    if proof_key is not None and not hmac.compare_digest(proof, mac(proof_key, said)):
        raise AskingError("a request that was not made with the secret of its token")
    request = _decoded(text, Request)
    try:
        is_signed = verify(key_of(key or request.key), proof + said, signature)
    except ValueError as error:
        raise AskingError(str(error)) from error
    if not is_signed:
        raise AskingError("a request that is not signed by the message key of its device")
    return request


def answer(topic: str, said: Answer, by: Signer | bytes) -> bytes:
    """Return the payload of an answer. by: the key of a token's proofs, or the authority's signer."""
    text = msgspec.json.encode(said)
    return (_proof(by, topic, text) if isinstance(by, bytes) else by.sign(_answered(topic, text))) + text


def answered(topic: str, payload: bytes, by: bytes, *, signed: bool) -> Answer:
    """Return the answer of a payload. by: the key of the token's proofs, or the signer's public one where it is signed.

    Raises AskingError.
    """
    if not SIGNATURE_BYTES < len(payload) <= MOST_ANSWERED:
        raise AskingError(f"an answer of {len(payload):,} bytes, and {MOST_ANSWERED:,} are the most")
    proof, text = payload[:SIGNATURE_BYTES], payload[SIGNATURE_BYTES:]
    is_right = (
        verify(by, _answered(topic, text), proof) if signed else hmac.compare_digest(proof, _proof(by, topic, text))
    )
    if not is_right:
        raise AskingError("an answer that this fleet's authority has not given")
    return _decoded(text, Answer)


def _answered(topic: str, text: bytes) -> bytes:
    return _ANSWERED + topic.encode() + b"\n" + text


def _proof(key: bytes, topic: str, text: bytes) -> bytes:
    return hashlib.blake2b(_answered(topic, text), digest_size=SIGNATURE_BYTES, key=key).digest()


def _decoded(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AskingError(f"what was said is damaged: {clean(str(error))}") from error
