"""What signs messages: a key in a file, or one in a TPM or a PKCS #11 token by code of the device's owner.

    [identity]
    message_key = "/etc/fedge/identity/message.key"
    message_key = "our_tpm.keys:device_key"         a function that returns a `Signer` (keys.py), imported and called

A key in hardware has to sign Ed25519 (RFC 8032, pure), as PKCS #11 3.0 has it (CKM_EDDSA); few TPMs do.
"""

from __future__ import annotations

import importlib
import re
import secrets
from pathlib import Path

from identity.keys import KEY_BYTES, KeyFileError, Signer, read_key, verify

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def signer_of(name: str) -> Signer:
    """Return what signs under this name, a path or a factory. Raises KeyFileError for what does not."""
    if not _FACTORY.fullmatch(name) or Path(name).exists():
        return read_key(name)
    module, _, attribute = name.partition(":")
    try:
        signer: Signer = getattr(importlib.import_module(module), attribute)()
        probe = secrets.token_bytes(16)
        public, signature = signer.public, signer.sign(probe)
    except Exception as error:
        raise KeyFileError(f"{name}: gives no key: {type(error).__name__}: {error}") from error
    if not isinstance(public, bytes) or len(public) != KEY_BYTES or not verify(public, probe, signature):
        raise KeyFileError(f"{name}: what it signs is no Ed25519 signature of the key that it names")
    return signer
