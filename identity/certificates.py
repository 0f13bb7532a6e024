"""Certificates for TLS (X.509, RFC 5280), keys on P-256: what the authority signs, and what a device asks for.

The one home of `cryptography`. It takes ten megabytes, so no process that runs for long on a device imports this file.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

EARLIER = dt.timedelta(hours=1)
"""A certificate holds from so much before it is made: clocks differ."""


class CertificateError(ValueError):
    """A certificate, a request or a key that cannot be used; the message is one line."""


def new_key() -> bytes:
    """Return a new private key on P-256, as PEM (PKCS #8, without a passphrase)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def request(key: bytes, name: str) -> bytes:
    """Return the request for a certificate of that name (PKCS #10, RFC 2986), as PEM. Raises CertificateError."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_named(name))
    return builder.sign(_private(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def new_authority(
    key: bytes, name: str, fleet: str, days: int, now: dt.datetime, *, clients_only: bool = False
) -> bytes:
    """Return the certificate of an authority that signs itself, with none below it, as PEM. Raises CertificateError.

    clients_only: nothing that it signs is believed of a server, wherever it is trusted.
    """
    private, subject = _private(key), _named(name, fleet)
    builder = _builder(subject, subject, private.public_key(), days, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    if clients_only:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    return _pem(builder.sign(private, hashes.SHA256()))


def issue(
    authority: bytes,
    authority_key: bytes,
    public: bytes,
    name: str,
    days: float,
    now: dt.datetime,
    *,
    server: Iterable[str] = (),
    unit: str | None = None,
) -> bytes:
    """Return a certificate that an authority signs, as PEM. Raises CertificateError.

    public: the public key in PEM, or the private one. name: becomes the CN, by which the broker knows the client.
    server: host names and addresses of a server; none: it is a client's. unit: the OU (device, operator, …).
    """
    issuer, key = _certificate(authority), _public(public)
    builder = _builder(issuer.subject, _named(name, unit), key, days, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    hosts = list(server)
    usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    builder = _with_keys(builder, key, issuer)
    return _pem(builder.sign(_private(authority_key), hashes.SHA256()))


def revocations(
    authority: bytes, authority_key: bytes, serials: dict[str, dt.datetime], number: int, days: float, now: dt.datetime
) -> bytes:
    """Return the list of revoked certificates (CRL, RFC 5280 section 5), as PEM. Raises CertificateError.

    serials: of each, in hex, since when. number: higher than that of the list before. days: until the next one is due.
    """
    issuer = _certificate(authority)
    builder = x509.CertificateRevocationListBuilder(issuer.subject, now - EARLIER, now + dt.timedelta(days=days))
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    builder = builder.add_extension(_authority_key(issuer), critical=False)
    for serial, since in serials.items():
        revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(since).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(_private(authority_key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def look(certificate: bytes) -> tuple[str, str, dt.datetime, dt.datetime]:
    """Return a certificate's name (CN), serial in hex, from when and until when it holds. Raises CertificateError."""
    read = _certificate(certificate)
    return _name_of(read.subject), f"{read.serial_number:x}", read.not_valid_before_utc, read.not_valid_after_utc


def is_of(certificate: bytes, key: bytes) -> bool:
    """Return whether a private key is that of a certificate. Raises CertificateError."""
    return _certificate(certificate).public_key() == _private(key).public_key()


def public_of(key: bytes) -> bytes:
    """Return the public key of a private one, both as PEM. Raises CertificateError."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return _private(key).public_key().public_bytes(serialization.Encoding.PEM, spki)


def public_key_of(certificate: bytes) -> bytes:
    """Return the public key of a certificate, both as PEM. Raises CertificateError."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return _certificate(certificate).public_key().public_bytes(serialization.Encoding.PEM, spki)


def digest_of(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate in PEM (of its DER), in hex. Raises CertificateError."""
    return _certificate(certificate).fingerprint(hashes.SHA256()).hex()


def look_at_revocations(crl: bytes) -> tuple[frozenset[str], dt.datetime]:
    """Return the serials in hex of a list of the revoked, and when the next list is due. Raises CertificateError."""
    try:
        read = x509.load_pem_x509_crl(crl)
    except ValueError as error:
        raise CertificateError(f"is no list of revoked certificates in PEM: {error}") from error
    return frozenset(f"{entry.serial_number:x}" for entry in read), read.next_update_utc or dt.datetime.max.replace(
        tzinfo=dt.UTC
    )


def look_at_request(pem: bytes) -> tuple[str, bytes]:
    """Return the name that a request asks for, and its public key in PEM, once its signature holds.

    Raises CertificateError.
    """
    try:
        read = x509.load_pem_x509_csr(pem)
        whole = read.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateError(f"is no request for a certificate: {error}") from error
    key = read.public_key()
    if not whole or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the request is not signed by the key that it names, or that is not on P-256")
    spki = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _name_of(read.subject), spki


def _named(name: str, unit: str | None = None) -> x509.Name:
    try:
        names = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if unit is not None:
            names.insert(0, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    except ValueError as error:
        raise CertificateError(f"{name[:80]!r} cannot stand in a certificate: {error}") from error
    return x509.Name(names)


def _name_of(subject: x509.Name) -> str:
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise CertificateError("it has no name (CN), or several")
    return names[0].value


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: float, now: dt.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - EARLIER).not_valid_after(now + dt.timedelta(days=days))


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _with_keys(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey, issuer: x509.Certificate
) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.add_extension(_authority_key(issuer), critical=False)


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError as error:
        raise CertificateError(f"{text[:80]!r} is no name of a host: {error}") from error


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"is no private key in PEM without a passphrase: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the key is not on P-256")
    return key


def _public(pem: bytes) -> ec.EllipticCurvePublicKey:
    if b"PRIVATE" in pem:
        return _private(pem).public_key()
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"is no public key in PEM: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the key is not on P-256")
    return key


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError(f"is no certificate in PEM: {error}") from error


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
