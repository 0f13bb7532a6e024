"""What a device is given when it is enrolled: one file, checked in every point before anything of it is used.

    bundle.tar       plain USTAR, regular files only, readable by its owner only: private keys are in it
      manifest.json  fleet, device, epoch, when its certificate ends, and the SHA-256 of every other member
      manifest.sig   Ed25519 over the manifest, by the key that the mandate names; base64
      mandate.json   the root's word that this key may sign bundles (mandate.py)
      trust.json     whose words are believed (trust.py), signed by the root
      ca.crt         by which the broker is known
      device.crt, device.key      by which the broker knows the device
      message.key    with which it signs
      agent.toml     ready to run

Its law:
1. It is read whole, and at most MOST_BYTES of it. A member has a name of the list above, each once, and is a regular
   file: no folder, no link, no path, no sparse file; so nothing can be unpacked anywhere else or grow.
2. Every member is the one that the manifest names, the manifest is signed by the key of the mandate, the mandate and
   the pinned keys by one root. Who carries a device's first bundle has to be trusted with its keys anyway, and can
   compare the fingerprint of the root; from then on the root is pinned, and a bundle of another one is refused.
3. The private key is that of the certificate, which holds by this machine's clock, and was signed for this device.
4. What is wrong is said in one sentence, and nothing was written.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import re
import ssl
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from identity.keys import KeyFileError, Signer, fingerprint, key_of, read_key, verify
from identity.mandate import MandateError, read_mandate
from identity.trust import Trust, TrustError, is_of_root, parse_trust
from identity.validity import ValidityError, clock, validity_of
from runtime import formats
from runtime.disk import write_private
from runtime.words import clean

FORMAT = 1
MOST_BYTES = 1 << 20
FILES = ("mandate.json", "trust.json", "ca.crt", "device.crt", "device.key", "message.key", "agent.toml")
"""What a manifest names."""
MEMBERS = ("manifest.json", "manifest.sig", *FILES)
_BLOCK = 512
_BEGINS = b"fedge bundle 1\n"
_Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
_Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class BundleError(ValueError):
    """A bundle that cannot be used; the message is one line and says what to do. Nothing was changed."""


class Manifest(Struct, frozen=True):
    """What a bundle is, and what is in it. expires: the end of its certificate. files: SHA-256 in hex by name."""

    fleet: _Name
    device: _Name
    epoch: Annotated[int, Meta(ge=1, le=2**31)]
    expires: dt.datetime
    files: dict[str, _Digest]
    format: int = FORMAT


class Bundle(Struct, frozen=True):
    """One that was checked. files: every member but the signature, by name."""

    manifest: Manifest
    trust: Trust
    files: dict[str, bytes]

    @property
    def fingerprint(self) -> str:
        """That of the root, as `fedge ca show` has it."""
        return fingerprint(key_of(self.trust.root))


def pack(path: Path, manifest: Manifest, files: Mapping[str, bytes], signer: Signer) -> None:
    """Write a bundle that only its owner can read. files: all of FILES. Raises OSError."""
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in FILES}
    text = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, files=digests)), indent=1)
    signature = base64.b64encode(signer.sign(_BEGINS + text)) + b"\n"
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, content in {"manifest.json": text, "manifest.sig": signature, **files}.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o600
                archive.addfile(member, io.BytesIO(content))
        write_private(path, buffer.getvalue())


def unpack(path: Path, now: dt.datetime) -> Bundle:
    """Return what a bundle holds, once all of it was checked (the law). Raises BundleError."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return _checked(_members(content), now)
    except BundleError as error:
        raise BundleError(f"{path}: {clean(str(error))}") from error


def assembled(fleet: str, device: str, epoch: int, files: dict[str, bytes], now: dt.datetime) -> Bundle:
    """Return what came in answer to a request, with the keys of this device, as a bundle.

    files: all of FILES. That the answer is the authority's was checked before; it is a bundle but for the signature,
    which covers keys that only this device has. Raises BundleError.
    """
    if missing := [name for name in FILES if name not in files]:
        raise BundleError(f"what the authority has sent lacks {missing[0]}")
    try:
        trust = parse_trust(files["trust.json"], "trust.json", fleet)
        read_mandate(files["mandate.json"], fleet, trust.root)
    except (TrustError, MandateError) as error:
        raise BundleError(f"what the authority has sent is damaged: {error}") from error
    if not is_of_root(trust):
        raise BundleError("what the authority has sent is damaged: trust.json is not signed by the root that it names")
    _check_certificate(files["device.crt"], files["device.key"], now)
    _check_message_key(files["message.key"])
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in FILES}
    manifest = Manifest(fleet, device, epoch, validity_of(files["device.crt"]).until, digests)
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    return Bundle(manifest, trust, {"manifest.json": text, **files})


def _checked(members: dict[str, bytes], now: dt.datetime) -> Bundle:
    if missing := [name for name in MEMBERS if name not in members]:
        raise BundleError(f"is no whole bundle: {missing[0]} is not in it; fetch it again")
    manifest = _manifest(members["manifest.json"])
    try:
        trust = parse_trust(members["trust.json"], "trust.json", manifest.fleet)
        mandate = read_mandate(members["mandate.json"], manifest.fleet, trust.root)
    except (TrustError, MandateError) as error:
        raise BundleError(f"was tampered with or is damaged: {error}") from error
    if not is_of_root(trust):
        raise BundleError("was tampered with or is damaged: trust.json is not signed by the root that it names")
    try:
        signature = base64.b64decode(members.pop("manifest.sig").strip(), validate=True)
    except ValueError:
        signature = b""
    if not verify(key_of(mandate.key), _BEGINS + members["manifest.json"], signature):
        raise BundleError("was tampered with or is damaged: the signature over its manifest is not right")
    for name in FILES:
        if hashlib.sha256(members[name]).hexdigest() != manifest.files.get(name):
            raise BundleError(f"was tampered with or is damaged: {name} is not the one that its manifest names")
    _check_certificate(members["device.crt"], members["device.key"], now)
    _check_message_key(members["message.key"])
    return Bundle(manifest, trust, members)


def _manifest(text: bytes) -> Manifest:
    try:
        formats.check("the bundle", msgspec.json.decode(text, type=_Numbered).format, FORMAT)
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"was tampered with or is damaged: manifest.json: {error}") from error
    except formats.FormatError as error:
        raise BundleError(str(error)) from error


def _check_certificate(certificate: bytes, key: bytes, now: dt.datetime) -> None:
    """Raise BundleError unless the certificate holds by this machine's clock, and the key is its own."""
    try:
        holds = validity_of(certificate)
    except ValidityError as error:
        raise BundleError(f"device.crt {error}") from error
    if now < holds.since:
        raise BundleError(f"its certificate is not valid before {holds.since:%Y-%m-%d %H:%M} UTC, and {clock(now)}")
    if now >= holds.until:
        why = f"its certificate has expired on {holds.until:%Y-%m-%d}: enroll the device again"
        raise BundleError(f"{why}; if that cannot be, {clock(now)}")
    with tempfile.TemporaryDirectory() as folder:  # OpenSSL reads files only; nobody else can look into this one
        write_private(Path(folder) / "crt", certificate)
        write_private(Path(folder) / "key", key)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(f"{folder}/crt", f"{folder}/key", password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise BundleError(f"device.key is not the key of device.crt: OpenSSL says {reason}") from error


def _check_message_key(pem: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_private(Path(folder) / "key", pem)
        try:
            read_key(f"{folder}/key")
        except KeyFileError as error:
            raise BundleError(f"message.key {str(error).partition(': ')[2]}") from error


# The archive.

_NUMBER = re.compile(rb"[0-7]{1,11}[\0 ]?\0*")


def _members(archive: bytes) -> dict[str, bytes]:
    """Return the files of a USTAR archive by name. Raises BundleError for anything else in it (law 1)."""
    if len(archive) > MOST_BYTES:
        raise BundleError(f"is longer than {MOST_BYTES:,} bytes, which no bundle is")
    found: dict[str, bytes] = {}
    at = 0
    while at + _BLOCK <= len(archive) and any(head := archive[at : at + _BLOCK]):
        name, n = _head(head)
        if name in found:
            raise BundleError(f"has {name} twice")
        content = archive[at + _BLOCK : at + _BLOCK + n]
        if len(content) < n:
            raise BundleError(f"is cut off in {name}: fetch it again")
        found[name] = content
        at += _BLOCK + (n + _BLOCK - 1) // _BLOCK * _BLOCK
    if not found:
        raise BundleError("is no bundle: `fedge enroll` writes one, not packed any further")
    return found


def _head(head: bytes) -> tuple[str, int]:
    """Return the name and the length of a member."""
    name = head[:100].rstrip(b"\0").decode("ascii", "replace")
    if head[257:262] != b"ustar":
        raise BundleError("is no bundle: `fedge enroll` writes one, not packed any further")
    if head[156:157] not in (b"0", b"\0"):
        raise BundleError(f"holds {name!r}, which is no regular file: nothing of it is unpacked")
    if name not in MEMBERS or any(head[345:500]):
        raise BundleError(f"holds {name!r}, which belongs into no bundle: nothing of it is unpacked")
    size = head[124:136]
    if not _NUMBER.fullmatch(size):
        raise BundleError(f"says no length of {name}")
    return name, int(size.split(b"\0")[0].split(b" ")[0], 8)


class _Numbered(Struct):
    format: int = 1
