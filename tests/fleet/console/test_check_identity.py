"""`--check` on keys and certificates: what ends, what has ended, and what is not what it should be."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from fleet.cli import main
from fleet.console.check import CheckReport, check_agent, check_aggregator
from identity import certificates
from runtime.settings import SettingsError

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    assert main(["ca", "init", str(tmp_path / "ca"), "--fleet", "barn", "--server", "broker.example"]) == 0
    return tmp_path / "ca"


@pytest.fixture
def aggregator(ca: Path) -> Path:
    file = ca / "aggregator" / "aggregator.toml"
    file.write_text(file.read_text().replace("/var/lib/fedge-aggregator", str(ca.parent / "state")))
    return file


def said(report: CheckReport, where: str) -> str:
    return "; ".join(line.text for line in report.lines if line.where == where)


def with_certificate(ca: Path, days: float, since: dt.datetime) -> None:
    """The aggregator's certificate made anew, for another time."""
    key = (ca / "aggregator" / "aggregator.key").read_bytes()
    files = [(ca / name).read_bytes() for name in ("root.crt", "root/root.key")]
    made = certificates.issue(*files, key, "aggregator", days, since)
    (ca / "aggregator" / "aggregator.crt").write_bytes(made)


def test_an_aggregator_says_until_when_all_holds_and_whom_it_believes(ca: Path, aggregator: Path) -> None:
    assert main(["enroll", "pi-1", "--ca", str(ca), "--out", str(ca.parent / "b.tar")]) == 0
    report = check_aggregator(aggregator)
    assert report.good, report.errors
    assert "729 days" in said(report, "[broker]") or "730 days" in said(report, "[broker]")
    assert "1 devices, 0 of them revoked; the broker's list of the revoked holds until" in said(
        report, "[identity] registry"
    )
    assert "those of 1 operators" in said(report, "[identity] trust")


def test_a_certificate_that_ends_soon_is_said_and_one_that_has_ended_is_an_error(ca: Path, aggregator: Path) -> None:
    with_certificate(ca, 9, NOW - 7 * DAY)
    report = check_aggregator(aggregator)
    assert report.good
    assert "have it renewed before" in said(report, "[broker]")
    for days, since, why in ((9, NOW - 20 * DAY, "has expired"), (9, NOW + 20 * DAY, "is not valid before")):
        with_certificate(ca, days, since)
        report = check_aggregator(aggregator)
        assert not report.good
        assert why in report.errors[0]
        assert "timedatectl" in report.errors[0]


def test_a_list_of_the_revoked_that_ends_soon_is_said_and_one_that_has_ended_is_an_error(
    ca: Path, aggregator: Path
) -> None:
    registry = ca / "aggregator" / "registry.json"
    text = registry.read_text()
    until = next(line for line in text.splitlines() if "list_until" in line)
    for days, good in ((5, True), (-1, False)):
        registry.write_text(text.replace(until, f' "list_until": "{NOW + days * DAY:%Y-%m-%dT%H:%M:%SZ}",'))
        report = check_aggregator(aggregator)
        assert report.good is good
        assert "run `fedge ca renew`" in (said(report, "[identity] registry") if good else report.errors[0])


def test_keys_of_another_fleet_and_keys_that_lie_open_are_errors(ca: Path, aggregator: Path) -> None:
    aggregator.write_text(aggregator.read_text().replace('fleet = "barn"', 'fleet = "stable"'))
    (ca / "aggregator" / "message.key").chmod(0o644)
    (ca / "aggregator" / "aggregator.key").chmod(0o644)
    report = check_aggregator(aggregator)
    errors = "\n".join(report.errors)
    assert "these are the keys of the fleet 'barn', not of 'stable'" in errors
    assert "these are the devices of the fleet 'barn'" in errors
    assert "message.key: everybody on this machine can read the key: chmod 600" in errors
    assert f"chmod o= {ca / 'aggregator' / 'aggregator.key'}" in said(report, "[broker]")


@pytest.mark.parametrize("uri", ["pkcs11:token=fedge;object=key", "engine:tpm2tss:0x81000001", "handle:0x81000001"])
def test_a_uri_in_the_place_of_a_key_file_is_refused_with_what_to_do(tmp_path: Path, uri: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'fleet = "barn"\ndevice = "pi-1"\n[broker]\nkey_file = "{uri}"\n')
    with pytest.raises(SettingsError, match="Python's TLS opens files alone: name the PEM file"):
        check_agent(file)
