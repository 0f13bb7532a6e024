"""An authority, made in a moment, and devices that ask it for certificates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from identity import certificates
from identity.authority import Authority
from identity.bundle import Manifest, pack
from identity.keys import SigningKey, text_of

NOW = dt.datetime.now(dt.UTC)
TEMPLATE = b"""\
user aggregator
topic read fedge/1/+/#
#@observer user {name}
#@observer topic read fedge/1/+/#
#@admin user {name}
#@admin topic readwrite fedge/1/+/#
pattern write fedge/1/+/device/%u
"""


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    with Authority.found(tmp_path / "ca", "barn", ["server.example"], NOW, template=TEMPLATE) as made:
        assert made.publish(NOW).failed == ()
        yield made


def public_key() -> bytes:
    return certificates.public_of(certificates.new_key())


def message_key() -> str:
    return text_of(SigningKey.generate().public)


def bundle_of(authority: Authority, device: str, path: Path, now: dt.datetime = NOW) -> Path:
    """Enroll a device, and pack what it is given."""
    key, message = certificates.new_key(), SigningKey.generate()
    certificate = authority.enroll(device, certificates.public_of(key), text_of(message.public), now)
    assert authority.publish(now).failed == ()
    files = authority.trust_files | {"mandate.json": authority.mandate, "agent.toml": AGENT}
    files |= {"device.key": key, "device.crt": certificate, "message.key": message.pem}
    known = authority.record.devices[device]
    until = certificates.look(certificate)[3]
    pack(path, Manifest(authority.record.fleet, device, known.epoch, until, {}), files, authority.signer())
    return path


AGENT = b'fleet = "barn"\n[broker]\nca_file = "/etc/fedge/identity/ca.crt"\n'
