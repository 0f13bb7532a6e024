"""Certificates on request: what `fedge ca serve` and `fedge ca approve` do with the directory open.

Every step is on disk before the next, so whoever dies goes on where it was: the token says `issuing` before anybody is
enrolled; the certificate is on disk before the record names it; once it does, the same certificate is handed out again.
"""

from __future__ import annotations

import datetime as dt

from msgspec import structs

from fleet.authority import cut, texts
from fleet.authority.said import inner
from identity import certificates
from identity.asking import AskingError, Granted, Request
from identity.authority import Authority
from identity.certificates import CertificateError
from identity.directory import AuthorityError
from identity.tokens import Token


def check(authority: Authority, token: Token, request: Request) -> None:
    """Raise AuthorityError or AskingError where a token cannot have what it asks for."""
    known = authority.record.devices.get(request.device)
    public_of(request)
    is_itself = known is not None and not known.revoked and known.key == request.key  # approved before
    authority.check_free(request.device, None if is_itself else request.key)
    if known is not None and not known.revoked and not token.again and not is_itself:
        raise AuthorityError(
            f"{request.device} is enrolled already. If this is another device, give it another name; where it takes "
            "the place of that one, a token of `fedge ca token --again` puts the older out"
        )


def public_of(request: Request) -> bytes:
    """Return the public TLS key of a request, in PEM. Raises AskingError."""
    try:
        name, public = certificates.look_at_request(request.csr.encode())
    except CertificateError as error:
        raise AskingError(str(error)) from error
    if name != request.device:
        raise AskingError(f"the request is for {name[:64]!r} inside, and for {request.device} outside")
    return public


def change(authority: Authority, name: str, token: Token | None) -> None:
    """Change the state of a token, or remove it. Raises OSError."""
    authority.keep_tokens(authority.tokens.with_(name, token))


def approve(authority: Authority, name: str, now: dt.datetime) -> tuple[str, ...]:
    """Enroll the device of a token's request, and return what is left to do. Raises AuthorityError, AskingError."""
    token = authority.tokens.tokens[name]
    request = token.asked
    if request is None:
        raise AuthorityError(f"{name} has asked for nothing yet")
    if token.state == "waiting":
        check(authority, token, request)
        token = structs.replace(token, state="issuing")
        change(authority, name, token)
    known = authority.record.devices.get(request.device)
    if known is None or known.revoked or known.key != request.key:
        authority.enroll(
            *(request.device, public_of(request), request.key, now), labels=token.labels or None, rows=token.rows
        )
    failed = list(authority.publish(now).failed)
    if authority.record.devices[request.device].epoch > 1:
        fleet = authority.record.fleet
        steps = (cut.reload(authority.settings.broker), *cut.cut(inner(authority), fleet, request.device))
        failed += [f"of the one before: {step.what}: {step.text}" for step in steps if not step.done]
    change(authority, name, structs.replace(token, state="issued"))
    return tuple(failed)


def renew(authority: Authority, request: Request, now: dt.datetime) -> tuple[str, ...]:
    """Certify a device anew, where its certificate has half of its time left at most; return what is left to do.

    For the key that its last certificate is for nothing is done: it asks again for what it was given. A request of two
    renewals ago is refused: for its key, which the device has no more, it would take the turn of an honest one. Raises
    AuthorityError, AskingError.
    """
    public, known = public_of(request), authority.record.devices.get(request.device)
    if known is None or known.revoked or known.expires is None:
        raise AuthorityError(f"{request.device} is revoked or unknown, so its certificate is not renewed")
    if _is_for(authority, request.device, public):
        return ()
    if request.has is not None and authority.is_long_ago(request.device, request.has):
        raise AskingError(
            f"{request.device} asks with a certificate of long ago: somebody plays a former request again"
        )
    left, whole = known.expires - now, dt.timedelta(days=authority.settings.validity.device_days)
    if left > whole / 2:
        raise AuthorityError(f"the certificate of {request.device} is good until {known.expires:%Y-%m-%d}: too early")
    authority.renew(request.device, public, now)
    return authority.publish(now).failed


def _is_for(authority: Authority, device: str, public: bytes) -> bool:
    try:
        return certificates.public_key_of(authority.issued(device)) == public
    except AuthorityError:
        return False


def granted(authority: Authority, device: str) -> Granted:
    """Return what a device is answered. Raises AuthorityError."""
    record, known = authority.record, authority.record.devices[device]
    host, port = authority.hosts[0], authority.settings.broker.port
    files = {name: content.decode() for name, content in authority.trust_files.items()}
    files["mandate.json"] = authority.mandate.decode()
    files["device.crt"] = authority.issued(device).decode()
    files["agent.toml"] = texts.agent(record.fleet, device, host, port, known.labels)
    return Granted(record.fleet, device, known.epoch, files)
