"""The root's word on who may enroll devices, since the root itself lies on no server: mandate.json."""

from __future__ import annotations

import base64

import msgspec

from identity.keys import Signer, key_of, text_of, verify

_BEGINS = b"fedge mandate 1\n"
"""What is signed begins with what it is, so that no signature can be taken for one over something else."""


class MandateError(ValueError):
    """It is none, or nobody's."""


class Mandate(msgspec.Struct, frozen=True):
    """key: signs bundles and answers, as text. authority: SHA-256, in hex, of the certificate that signs devices'."""

    fleet: str
    key: str
    authority: str
    signature: str = ""

    @classmethod
    def given(cls, root: Signer, fleet: str, key: bytes, authority: str) -> Mandate:
        """Return one that the root has signed."""
        bare = cls(fleet, text_of(key), authority)
        return msgspec.structs.replace(bare, signature=base64.b64encode(root.sign(bare._said)).decode())

    @property
    def _said(self) -> bytes:
        return _BEGINS + f"{self.fleet}\n{self.key}\n{self.authority}".encode()


def read_mandate(text: bytes, fleet: str, root: str) -> Mandate:
    """Return the mandate of these bytes. fleet, root (a public key, as text): whose it must be. Raises MandateError."""
    try:
        mandate = msgspec.json.decode(text, type=Mandate)
        key_of(mandate.key)
        signature = base64.b64decode(mandate.signature, validate=True)
    except (ValueError, RecursionError) as error:
        raise MandateError("the mandate is damaged") from error
    if mandate.fleet != fleet or not verify(key_of(root), mandate._said, signature):
        raise MandateError("the mandate is not one of this fleet's root")
    return mandate
