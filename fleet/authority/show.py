"""What there is to see of an authority: who is enrolled, until when everything holds, and what runs out."""

from __future__ import annotations

import datetime as dt

from msgspec import Struct

from identity import certificates
from identity.authority import Authority
from identity.keys import fingerprint, key_of

DAY = dt.timedelta(days=1)


class Line(Struct, frozen=True):
    """One who is certified. state: good, expired or revoked. epoch, rows, labels: of a device alone."""

    name: str
    role: str
    state: str
    expires: dt.datetime | None
    days_left: int | None
    serial: str | None
    key: str | None
    epoch: int | None = None
    rows: int | None = None
    labels: dict[str, str] = {}


class Shown(Struct, frozen=True):
    """An authority. fingerprint: of the root, for those who enroll to compare. list_until: of the revoked devices."""

    folder: str
    fleet: str
    fingerprint: str
    root_is_here: bool
    hosts: tuple[str, ...]
    list_until: dt.datetime
    list_days_left: int
    authority_until: dt.datetime
    """Of the authority for devices."""
    devices: list[Line]
    staff: list[Line]
    warnings: list[str]


def shown(authority: Authority, now: dt.datetime) -> Shown:
    """Return all that is to be seen. Raises AuthorityError."""
    record = authority.record
    devices = [
        Line(
            *(name, "device", _state(one.revoked, one.expires, now), one.expires, _days(one.expires, now)),
            *(one.serial, one.key, one.epoch, one.rows, one.labels),
        )
        for name, one in sorted(record.devices.items())
    ]
    staff = [
        Line(
            name,
            one.role,
            _state(one.revoked, one.expires, now),
            one.expires,
            _days(one.expires, now),
            one.serial,
            one.key,
        )
        for name, one in sorted(record.staff.items())
    ]
    until = authority.due()
    return Shown(
        str(authority.folder),
        record.fleet,
        fingerprint(key_of(record.root)),
        authority.has_root,
        authority.hosts,
        until,
        (until - now) // DAY,
        certificates.look((authority.folder / "devices.crt").read_bytes())[3],
        devices,
        staff,
        warnings(authority, now),
    )


def warnings(authority: Authority, now: dt.datetime) -> list[str]:
    """Return what runs out: whatever has less than a third of its time left."""
    validity, found = authority.settings.validity, []
    until = authority.due()
    if (until - now) < validity.crl_days * DAY / 3:
        what = "has ended: the broker lets no device in" if until <= now else "ends, and then no device is let in"
        found.append(f"the list of revoked devices {what} ({until:%Y-%m-%d}): run `fedge ca renew {authority.folder}`")
    for name, one in sorted(authority.record.staff.items()):
        if not one.revoked and one.expires - now < validity.staff_days * DAY / 3:
            how = f"fedge ca operator {authority.folder} {name} --role {one.role}"
            if one.role in ("broker", "aggregator", "authority"):
                how = f"fedge ca renew {authority.folder}"
            found.append(f"the certificate of {name} {_ends(one.expires, now)}: run `{how} --root DIR`")
    for name, device in sorted(authority.record.devices.items()):
        late = device.expires is not None and device.expires - now < validity.device_days * DAY / 3
        if late and not device.revoked and device.expires is not None:
            what = "it should renew it: does `fedge ca serve` run, and the device? Otherwise enroll it again"
            found.append(f"the certificate of device {name} {_ends(device.expires, now)}: {what}")
    return found


def lines(said: Shown) -> list[str]:
    """Return what people read of it."""
    root = "its keys are here: move them to a medium of their own" if said.root_is_here else "its keys are not here"
    out = [
        f"fleet {said.fleet}, the root's fingerprint {said.fingerprint}; {root}",
        f"list of revoked devices until {said.list_until:%Y-%m-%d} ({said.list_days_left} days)",
        f"{'NAME':<24} {'ROLE':<11} {'EPOCH':<6} {'STATE':<8} {'UNTIL':<11} DAYS",
    ]
    for line in (*said.staff, *said.devices):
        until = "-" if line.expires is None else f"{line.expires:%Y-%m-%d}"
        days = "-" if line.days_left is None else str(line.days_left)
        out.append(f"{line.name:<24} {line.role:<11} {line.epoch or '-':<6} {line.state:<8} {until:<11} {days}")
    return out


def _state(revoked: bool, expires: dt.datetime | None, now: dt.datetime) -> str:
    if revoked:
        return "revoked"
    return "expired" if expires is not None and expires <= now else "good"


def _days(expires: dt.datetime | None, now: dt.datetime) -> int | None:
    return None if expires is None else (expires - now) // DAY


def _ends(expires: dt.datetime, now: dt.datetime) -> str:
    return f"has expired on {expires:%Y-%m-%d}" if expires <= now else f"ends on {expires:%Y-%m-%d}"
