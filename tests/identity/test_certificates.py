from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest

from identity import certificates as c

NOW = dt.datetime.now(dt.UTC)


def test_openssl_trusts_what_was_issued_and_not_what_was_revoked(tmp_path: Path) -> None:
    key = c.new_key()
    authority = c.new_authority(key, "fedge devices", "barn", 365, NOW, clients_only=True)
    device_key = c.new_key()
    name, public = c.look_at_request(c.request(device_key, "pi-1"))
    certificate = c.issue(authority, key, public, name, 90, NOW, unit="device")
    cn, serial, since, until = c.look(certificate)
    assert (cn, since < NOW < until) == ("pi-1", True)
    files = {"authority": authority, "device": certificate}
    files["none"] = c.revocations(authority, key, {}, 1, 7, NOW)
    files["crl"] = c.revocations(authority, key, {serial: NOW}, 2, 7, NOW)
    for file, pem in files.items():
        (tmp_path / file).write_bytes(pem)
    assert c.look_at_revocations(files["crl"])[0] == {serial}

    def verified(crl: str) -> subprocess.CompletedProcess[str]:
        line = ["openssl", "verify", "-x509_strict", "-CAfile", "authority"]
        line += ["-crl_check", "-CRLfile", crl, "-purpose", "sslclient", "device"]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert verified("none").returncode == 0, verified("none").stderr
    assert "revoked" in verified("crl").stderr


def test_a_request_that_somebody_changed_is_refused() -> None:
    pem = c.request(c.new_key(), "pi-1")
    lines = pem.splitlines()
    lines[-2] = lines[-2][:-6] + (b"AAAAA=" if not lines[-2].endswith(b"AAAAA=") else b"AAAAB=")
    with pytest.raises(c.CertificateError):
        c.look_at_request(b"\n".join(lines))


def test_what_an_authority_for_clients_signs_is_no_server(tmp_path: Path) -> None:
    for name, only in (("root", False), ("devices", True)):
        key, server = c.new_key(), c.new_key()
        (tmp_path / name).write_bytes(authority := c.new_authority(key, name, "barn", 9, NOW, clients_only=only))
        (tmp_path / "server").write_bytes(c.issue(authority, key, server, "broker", 9, NOW, server=["a.example"]))
        line = ["openssl", "verify", "-CAfile", name, "-purpose", "sslserver", "server"]
        verdict = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (verdict.returncode == 0) == (not only), verdict.stderr


def test_what_cannot_stand_in_a_certificate_is_named() -> None:
    key = c.new_key()
    with pytest.raises(c.CertificateError, match="cannot stand in a certificate"):
        c.request(key, "x" * 65)
    authority = c.new_authority(key, "fedge root", "barn", 9, NOW)
    with pytest.raises(c.CertificateError, match="no name of a host"):
        c.issue(authority, key, key, "broker", 9, NOW, server=["é.example"])


@pytest.mark.parametrize("junk", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_junk_is_named(junk: bytes) -> None:
    for read in (c.look, c.look_at_request, c.look_at_revocations):
        with pytest.raises(c.CertificateError):
            read(junk)
    with pytest.raises(c.CertificateError):
        c.request(junk, "x")
