"""What follows from an authority's record: lists of the revoked, the registry, access lists, and their copies.

Each file is written where it differs from what the record says, in an order in which the first matter most: who is
revoked is out even where the root is not at hand, or a folder elsewhere is full.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct, structs

from identity import access, certificates
from identity.certificates import CertificateError
from identity.directory import AuthorityError, Directory
from identity.record import Gone, Record, Settings, written
from identity.registry import Registry
from identity.root import Root, number_at
from identity.tokens import ACCESS, PASSWORDS, TokenError, parse_tokens
from identity.trust import Trust, TrustError, parse_trust, read_trust, sign_trust
from runtime.disk import write_private

EDITED = ("aggregator.toml",)
"""Files that people go on writing in: copied once, with the paths of where the copies are, and never written over."""


class Published(Struct, frozen=True):
    """What came of it. changed: files that are other than before. failed: what could not be done, and why."""

    changed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def publish(
    directory: Directory,
    settings: Settings,
    record: Record,
    trust: Trust,
    root: Callable[[], Root],
    now: dt.datetime,
    *,
    fresh: bool,
) -> Published:
    """Write what is to be written; `Authority.publish` says the rest."""
    changed: list[str] = []
    failed: list[str] = []
    steps: tuple[Callable[[], dict[str, bytes]], ...] = (
        lambda: _devices(directory, settings, record, now, fresh=fresh),
        lambda: _registry(directory, record),
        lambda: _access(directory, record),
        lambda: _staff(directory, record, trust, root, now),
        lambda: _known(directory),
        lambda: _tokens(directory, now),
    )
    for files in steps:
        try:
            changed += [name for name, content in files().items() if directory.put(name, content)]
        except (AuthorityError, CertificateError) as error:
            failed.append(str(error))
    failed += _mirror(directory.folder / "broker", settings.broker.files)
    failed += _mirror(directory.folder / "aggregator", settings.aggregator.files)
    return Published(tuple(changed), tuple(failed))


def _devices(
    directory: Directory, settings: Settings, record: Record, now: dt.datetime, *, fresh: bool
) -> dict[str, bytes]:
    """Return the list of revoked devices, where it lacks somebody or more than two thirds of its time are over."""
    days, name = settings.validity.crl_days, "broker/devices.crl"
    left = dt.timedelta(0) if fresh else _left(directory, name, record.revoked, now)
    if left > dt.timedelta(days=days) / 3:
        return {}
    authority, key = directory.read("devices.crt"), directory.read("devices.key")
    until = certificates.look(authority)[3]
    days = min(days, max(0.01, (until - now) / dt.timedelta(days=1)))
    return {name: certificates.revocations(authority, key, _dates(record.revoked), number_at(now), days, now)}


def _registry(directory: Directory, record: Record) -> dict[str, bytes]:
    until = certificates.look_at_revocations(directory.read("broker/devices.crl"))[1]
    return {"aggregator/registry.json": written(Registry(record.fleet, record.devices, until))}


def _access(directory: Directory, record: Record) -> dict[str, bytes]:
    if not (template := directory.read("acl.template", b"")):
        return {}
    try:
        devices, staff = access.lists(template.decode(), record.staff)
    except (access.TemplateError, UnicodeDecodeError) as error:
        raise AuthorityError(f"{directory.folder / 'acl.template'}: {error}") from error
    return {"broker/acl.devices": devices.encode(), "broker/acl.staff": staff.encode()}


def _staff(
    directory: Directory, record: Record, trust: Trust, root: Callable[[], Root], now: dt.datetime
) -> dict[str, bytes]:
    """Return what the root has to sign anew; nothing where nobody has come or gone."""
    files = {}
    if not _left(directory, "broker/staff.crl", record.revoked_staff, now):
        files["broker/staff.crl"] = root().revocations(_dates(record.revoked_staff), now)
    if _signed(directory) != trust:
        files["trust.json"] = written(sign_trust(trust, root().message_key))
    return files


def _signed(directory: Directory) -> Trust | None:
    """Return what the root has signed, without its signature."""
    try:
        return structs.replace(parse_trust(directory.read("trust.json", b""), "trust.json"), signature="")
    except TrustError:
        return None


def _known(directory: Directory) -> dict[str, bytes]:
    """Return what is copied to those who read it."""
    devices, root = directory.read("devices.crt"), directory.read("root.crt")
    files = {"broker/devices-ca.crt": devices, "broker/staff-ca.crt": root, "aggregator/ca.crt": root}
    return files | {"aggregator/trust.json": directory.read("trust.json")}


def _tokens(directory: Directory, now: dt.datetime) -> dict[str, bytes]:
    """Return what the listener for tokens reads. Its certificate brings the root's along: who comes has no file yet."""
    text, name = directory.read("tokens.json", b""), str(directory.folder / "tokens.json")
    try:
        passwords = parse_tokens(text, name).without_gone(now).passwords if text else PASSWORDS
    except TokenError as error:
        raise AuthorityError(str(error)) from error
    files = {"broker/tokens": passwords.encode(), "broker/acl.tokens": ACCESS.encode()}
    server = directory.read("broker/server.crt", b"")
    return files | ({"broker/server-chain.crt": server + directory.read("root.crt")} if server else {})


def _left(directory: Directory, name: str, revoked: Mapping[str, Gone], now: dt.datetime) -> dt.timedelta:
    """Return how long a list of the revoked is good for; not at all where it is not the one that is wanted."""
    try:
        listed, due = certificates.look_at_revocations(directory.read(name, b""))
    except CertificateError:
        return dt.timedelta(0)
    return max(dt.timedelta(0), due - now) if listed == revoked.keys() else dt.timedelta(0)


def _mirror(home: Path, elsewhere: str | None) -> list[str]:
    """Copy files to where another process reads them, for the group of that folder; return what failed."""
    if elsewhere is None:
        return []
    target = home.parent / elsewhere
    try:
        group = target.stat().st_gid
        for file in sorted(path for path in home.iterdir() if path.is_file() and not path.name.startswith(".")):
            content, copy = file.read_bytes(), target / file.name
            if file.name in EDITED:
                if copy.exists():
                    continue
                content = content.replace(f"{home.absolute()}/".encode(), f"{target.absolute()}/".encode())
            if file.name == "trust.json" and (newer := _newer(content, copy)):
                return [newer]
            if not copy.exists() or copy.read_bytes() != content:
                write_private(copy, content, 0o640)
                if copy.stat().st_gid != group:
                    os.chown(copy, -1, group)
    except OSError as error:
        return [f"{error.filename or target}: cannot be written: {error.strerror or error}"]
    return []


def _newer(content: bytes, copy: Path) -> str:
    """Return why trust.json must not be written over: keys that were changed elsewhere are not to come back."""
    try:
        mine, theirs = parse_trust(content, "trust.json"), read_trust(copy)
    except TrustError:
        return ""
    if theirs.serial <= mine.serial:
        return ""
    what = f"{copy}: has the serial {theirs.serial}, and that of the authority {mine.serial}"
    return f"{what}: keys were changed there since; see which are right, and remove the copy where it is not"


def _dates(revoked: Mapping[str, Gone]) -> dict[str, dt.datetime]:
    return {serial: gone.since or gone.until for serial, gone in revoked.items()}
