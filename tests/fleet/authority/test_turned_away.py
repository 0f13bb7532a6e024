"""What a device is told when the broker does not let it in, or is not the one: a real mosquitto, real certificates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from broker.connection import BrokerSettings
from broker.transport import Denied, Packet
from identity import certificates
from tests.fleet.authority.conftest import Client, Site

Connect = Callable[..., Client]
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def replaced(
    site: Site, etc: Path, *, days: float, since: dt.datetime, authority: Path | None = None
) -> BrokerSettings:
    """The device's certificate made anew by the devices' authority, or by another, for another time."""
    folder = authority or site.ca
    key = (etc / "identity" / "device.key").read_bytes()
    files = [(folder / name).read_bytes() for name in ("devices.crt", "devices.key")]
    made = certificates.issue(*files, key, "pi-1", days, since, unit="device")
    (etc / "identity" / "device.crt").write_bytes(made)
    return site.of_device(etc)


def is_told(site: Site, client: Client, *words: str) -> None:
    site.until(lambda: any(all(w in reason for w in words) for reason in client.reasons), f"{words}; {client.reasons}")
    assert not client.is_online


def test_an_expired_certificate(site: Site, connect: Connect) -> None:
    site.start_broker()
    settings = replaced(site, site.enroll("pi-1"), days=1, since=NOW - 5 * DAY)
    is_told(site, connect(settings, "pi-1"), "has expired: enroll this device again", "identity/device.crt")


def test_why_a_certificate_is_refused_is_known_from_the_second_time_on(site: Site, connect: Connect) -> None:
    """The broker's word is lost where our CONNECT crosses it; the next connection listens first."""
    site.start_broker()
    client = connect(replaced(site, site.enroll("pi-1"), days=1, since=NOW - 5 * DAY), "pi-1")
    site.until(lambda: site.log.count("certificate verify failed") >= 40, "it has tried forty times")
    assert len(client.reasons) <= 3, "known at once, or unknown once; a reason is told where it is another one"
    assert "has expired" in client.reasons[-1]


def test_a_certificate_that_is_not_valid_yet(site: Site, connect: Connect) -> None:
    site.start_broker()
    settings = replaced(site, site.enroll("pi-1"), days=9, since=NOW + 5 * DAY)
    is_told(site, connect(settings, "pi-1"), "may not be valid yet", "this machine's clock says", "timedatectl")


def test_a_certificate_of_another_fleet(site: Site, connect: Connect, tmp_path: Path) -> None:
    site.start_broker()
    site.fedge("ca", "init", tmp_path / "other", "--fleet", "stable")
    settings = replaced(site, site.enroll("pi-1"), days=9, since=NOW, authority=tmp_path / "other")
    is_told(site, connect(settings, "pi-1"), "does not know the authority", "was the authority replaced")


def test_no_certificate_at_all(site: Site, connect: Connect) -> None:
    site.start_broker()
    settings = msgspec.structs.replace(site.of_device(site.enroll("pi-1")), certificate_file=None, key_file=None)
    is_told(site, connect(settings, "pi-1"), "certificate")


def test_a_list_of_the_revoked_that_has_ended_locks_out_and_is_named_and_renewed(site: Site, connect: Connect) -> None:
    files = [(site.ca / name).read_bytes() for name in ("devices.crt", "devices.key")]
    stale = certificates.revocations(*files, {}, 1, 1, NOW - 3 * DAY)
    etc = site.enroll("pi-1")
    (site.ca / "broker" / "devices.crl").write_bytes(stale)
    site.start_broker()
    client = connect(site.of_device(etc), "pi-1")
    is_told(site, client, "the broker's list of the revoked has", "fedge ca renew")
    site.fedge("ca", "renew", site.ca)
    site.until(lambda: client.is_online, "it comes in by itself")


def test_a_broker_that_another_authority_has_certified(site: Site, connect: Connect, tmp_path: Path) -> None:
    """The authority was replaced, or somebody else has taken the broker's place."""
    site.start_broker()
    settings = site.of_device(site.enroll("pi-1"))
    site.fedge("ca", "init", tmp_path / "other", "--fleet", "barn")
    client = connect(msgspec.structs.replace(settings, ca_file=str(tmp_path / "other" / "root.crt")), "pi-1")
    is_told(site, client, "is not to be trusted", "Another authority than ours has signed it")


def test_a_broker_under_another_name(site: Site, connect: Connect, tmp_path: Path) -> None:
    site.start_broker()
    etc = site.enroll("pi-1")
    settings = msgspec.structs.replace(site.of_device(etc), host="127.0.0.2", port=site.other_port)
    is_told(site, connect(settings, "pi-1"), "is not to be trusted", "Write [broker] host as the certificate has it")


@pytest.mark.parametrize("of", ["device", "staff"])
def test_neither_listener_takes_the_certificates_of_the_other(site: Site, connect: Connect, of: str) -> None:
    """A captured authority for devices makes no operator; an operator's certificate is no device's."""
    site.start_broker()
    device, staff = site.of_device(site.enroll("pi-1")), site.of_staff("admin")
    mine, port = (device, staff.port) if of == "device" else (staff, device.port)
    client = connect(msgspec.structs.replace(mine, port=port), "me")
    is_told(site, client, "does not know the authority")


def test_a_device_called_aggregator_is_no_more_than_a_device(site: Site, connect: Connect) -> None:
    """What a captured authority for devices could make; nobody is enrolled under this name."""
    site.start_broker()
    etc = site.enroll("pi-1")
    key = (etc / "identity" / "device.key").read_bytes()
    files = [(site.ca / name).read_bytes() for name in ("devices.crt", "devices.key")]
    (etc / "identity" / "device.crt").write_bytes(
        certificates.issue(*files, key, "aggregator", 9, NOW, unit="aggregator")
    )
    forged = connect(site.of_device(etc), "aggregator")
    site.until(lambda: forged.is_online, "it comes in")
    watcher = connect(site.of_staff("admin"), "watcher", "fedge/1/barn/#")
    site.until(lambda: watcher.is_online, "who watches is there")
    assert forged.transport.publish(Packet("fedge/1/barn/aggregator", b"I lead", retain=True))
    assert forged.transport.publish(Packet("fedge/1/barn/device/aggregator", b"last", retain=True))
    site.until(lambda: bool(watcher.heard("fedge/1/barn/device/aggregator")), "what it may say has come")
    assert watcher.heard("fedge/1/barn/aggregator") == []
    forged.look()
    assert [event.topic for event in forged.events if isinstance(event, Denied)] == ["fedge/1/barn/aggregator"]


def test_a_revoked_person_is_cut_and_not_let_in(site: Site, connect: Connect) -> None:
    site.start_broker()
    site.fedge("ca", "operator", site.ca, "anna", "--role", "observer")
    anna = connect(site.of_staff("anna"), "anna")
    site.until(lambda: anna.is_online, "anna is let in")
    site.fedge("ca", "revoke", site.ca, "anna")
    is_told(site, anna, "is revoked")
    again = connect(site.of_staff("anna"), "anna-again")
    is_told(site, again, "is revoked")
