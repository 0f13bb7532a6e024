from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest

from identity import certificates as c

NOW = dt.datetime.now(dt.UTC)


def chain(tmp_path: Path) -> tuple[bytes, bytes, bytes, bytes]:
    root_key, key = c.new_key(), c.new_key()
    root = c.new_root(root_key, "fleet f: root", 3650, NOW)
    return root, root_key, c.new_authority(root, root_key, key, "fleet f: devices", 365, NOW), key


def test_openssl_trusts_what_was_issued_and_not_what_was_revoked(tmp_path: Path) -> None:
    root, _, authority, key = chain(tmp_path)
    device_key = c.new_key()
    name, public = c.look_at_request(c.request(device_key, "pi-1"))
    certificate = c.issue(authority, key, public, name, 90, NOW, unit="device")
    cn, serial, since, until = c.look(certificate)
    assert (cn, since < NOW < until) == ("pi-1", True)
    files = {"root": root, "authority": authority, "device": certificate}
    files["none"] = c.revocations(authority, key, {}, 1, 7, NOW)
    files["crl"] = c.revocations(authority, key, {serial: NOW}, 2, 7, NOW)
    for file, pem in files.items():
        (tmp_path / file).write_bytes(pem)
    assert c.look_at_revocations(files["crl"])[0] == {serial}

    def verified(crl: str) -> subprocess.CompletedProcess[str]:
        line = ["openssl", "verify", "-x509_strict", "-CAfile", "root", "-untrusted", "authority"]
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


@pytest.mark.parametrize("junk", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_junk_is_named(junk: bytes) -> None:
    for read in (c.look, c.look_at_request, c.look_at_revocations):
        with pytest.raises(c.CertificateError):
            read(junk)
    with pytest.raises(c.CertificateError):
        c.request(junk, "x")
