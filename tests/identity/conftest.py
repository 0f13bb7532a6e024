"""An authority, made in a moment, and devices that ask it for certificates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from identity import certificates
from identity.authority import Authority
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
