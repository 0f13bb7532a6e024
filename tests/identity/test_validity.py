from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import certificates as c
from identity.validity import Validity, ValidityError, clock, validity_of

KEY = c.new_key()
NOW = dt.datetime(2026, 11, 27, 12, 30, 15, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
PEM = c.new_authority(KEY, "fedge root", "barn", 30, NOW)


@pytest.mark.parametrize("days", [1, 365, 20_000])
def test_it_is_read_as_the_library_reads_it(days: int) -> None:
    """A certificate that ends after 2049 has its time written in another way."""
    pem = c.issue(PEM, KEY, KEY, "pi-1", days, NOW, unit="device")
    assert tuple(validity_of(pem)) == c.look(pem)[2:]
    assert tuple(validity_of(b"# a comment\n" + pem + PEM)) == c.look(pem)[2:], "the first one of a chain"


def test_the_last_third_is_late() -> None:
    holds = Validity(NOW, NOW + 30 * DAY)
    assert [holds.is_late(NOW + days * DAY) for days in (0, 19, 21, 31)] == [False, False, True, True]
    assert holds.left(NOW + 31 * DAY) == -DAY


@pytest.mark.parametrize(
    "pem", [b"", b"x" * 9999, PEM[:200], b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_one_error(pem: bytes) -> None:
    with pytest.raises(ValidityError):
        validity_of(pem)


@given(st.integers(0, len(PEM) - 1), st.integers(0, 255))
def test_whatever_the_bytes_there_is_one_error(at: int, byte: int) -> None:
    changed = bytearray(PEM)
    changed[at] = byte
    try:
        since, until = validity_of(bytes(changed))
    except ValidityError:
        return
    assert since.tzinfo == until.tzinfo == dt.UTC


def test_the_clock_is_named_with_how_to_set_it() -> None:
    assert clock(NOW).startswith("this machine's clock says 2026-11-27 12:30 UTC. The clock may be wrong")
    assert "timedatectl set-ntp true" in clock(NOW)
