"""Certificates of the root's, with the files that their owners take: the broker, the aggregator, `fedge ca`, people."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

from msgspec import Struct

from fleet.authority import texts
from identity import certificates
from identity.authority import Authority
from identity.keys import SigningKey, text_of
from identity.record import COMMANDING, Role
from runtime.disk import make_private, write_private

SERVER: dict[str, tuple[Role, str]] = {
    "broker": ("broker", "broker/server"),
    "aggregator": ("aggregator", "aggregator/aggregator"),
    "authority": ("authority", "client/authority"),
}
"""Parts of the server: role, and where key and certificate lie."""


class Made(Struct, frozen=True):
    """A fleet that was founded."""

    folder: str
    fleet: str
    fingerprint: str
    root: str
    operator: str


def found(
    folder: Path, fleet: str, hosts: list[str], operator: str, now: dt.datetime, template: bytes | None
) -> Authority:
    """Make an authority with all that a server needs, and a first person. Raises AuthorityError, OSError."""
    authority = Authority.found(folder, fleet, hosts, now, template=template)
    try:
        for name in SERVER:
            certify_server(authority, name, now)
        text = texts.aggregator(fleet, authority.settings.broker, (folder / "aggregator").absolute())
        write_private(folder / "aggregator" / "aggregator.toml", text.encode())
        appoint(authority, operator, "admin", now)
    except BaseException:
        authority.close()
        shutil.rmtree(folder, ignore_errors=True)  # half of one is of no use, and none is ever written over
        raise
    return authority


def certify_server(authority: Authority, name: str, now: dt.datetime) -> None:
    """Certify a part of the server, for the key that it has or a new one. Needs the root. Raises AuthorityError."""
    role, file = SERVER[name]
    key_file = authority.folder / f"{file}.key"
    make_private(key_file.parent)
    if not key_file.exists():
        write_private(key_file, certificates.new_key())
    certificate = authority.certify(name, role, certificates.public_of(key_file.read_bytes()), None, now)
    write_private(authority.folder / f"{file}.crt", certificate)


def appoint(authority: Authority, name: str, role: Role, now: dt.datetime) -> Path:
    """Certify a person, with new keys, and return the folder of files to hand over. Raises AuthorityError."""
    signs = role in COMMANDING
    key, message_key = certificates.new_key(), SigningKey.generate()
    public = text_of(message_key.public) if signs else None
    certificate = authority.certify(name, role, certificates.public_of(key), public, now)
    failed = authority.publish(now).failed  # first: trust.json, which is handed over, names the new key
    folder = authority.folder / "operators" / name
    make_private(folder.parent)
    make_private(folder)
    files = {f"{name}.key": key, f"{name}.crt": certificate, **authority.trust_files}
    host, port = authority.hosts[0], authority.settings.broker.people_port
    files["operator.toml"] = texts.operator(authority.record.fleet, name, host, port, signs=signs).encode()
    if signs:
        files["message.key"] = message_key.pem
    for file, content in files.items():
        write_private(folder / file, content)
    if failed:
        raise OSError(None, f"{name} is certified, but {failed[0]}")
    return folder
