"""`fedge ca` as commands: what their lines name, and what a person or a script sees."""

from __future__ import annotations

import argparse
import datetime as dt
import socket
import sys
from pathlib import Path

from msgspec import Struct

from fleet.authority import cut, staff
from fleet.authority.said import inner, now, say, told
from fleet.authority.show import lines, shown, warnings
from identity.authority import Authority
from identity.directory import AuthorityError
from identity.keys import fingerprint, key_of
from identity.record import BrokerSide
from runtime.settings import SettingsError


class Done(Struct, frozen=True):
    """What a command has done, for scripts. failed: what is left to do, and how."""

    what: str
    name: str
    changed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Revoked(Struct, frozen=True):
    """What came of a revocation, step by step."""

    name: str
    done: bool
    steps: list[cut.Step]


def init(arguments: argparse.Namespace) -> int:
    """Make an authority."""
    hosts = arguments.server or [socket.gethostname()]
    template = None if arguments.acl is None else _read(arguments.acl)
    folder = arguments.folder
    with staff.found(folder, arguments.fleet, hosts, arguments.operator, now(), template) as made:
        mark = fingerprint(key_of(made.record.root))
        done = staff.Made(str(folder), made.record.fleet, mark, str(folder / "root"), arguments.operator)
    text = [
        f"{folder}: the authority of fleet {done.fleet}, fingerprint of the root {mark}",
        f"  {folder / 'root'}: the root's keys. Move this folder to a medium of its own, and make a copy of that",
        f"  {folder / 'broker'}: what mosquitto reads",
        f"  {folder / 'aggregator'}: what the aggregator reads; aggregator.toml is among it",
        f"  {folder / 'operators' / arguments.operator}: what the first admin, {arguments.operator}, takes along",
        f"  {folder / 'authority.toml'}: say there how the broker is told of who is revoked",
    ]
    if template is None:
        text.append(f"  no access lists yet: fedge ca acl {folder} --template deploy/mosquitto/acl")
    return say(done, text, arguments)


def show(arguments: argparse.Namespace) -> int:
    """Show who is enrolled, and what runs out."""
    with Authority(arguments.folder) as authority:
        said = shown(authority, now())
    for line in said.warnings:
        sys.stderr.write(f"warning: {line}\n")
    return say(said, lines(said), arguments)


def operator(arguments: argparse.Namespace) -> int:
    """Certify a person."""
    with Authority(arguments.folder, arguments.root) as authority:
        folder = staff.appoint(authority, arguments.name, arguments.role, now())
        failed = told(authority)
    done = Done("operator", arguments.name, (str(folder),), failed)
    text = [f"{folder}: keys and operator.toml of {arguments.role} {arguments.name}, to be handed over"]
    if arguments.role != "observer":
        text += [
            "this person's jobs are taken where the new trust.json is:",
            "  by the aggregator once it is started again",
            "  by a device after `fedge agent trust trust.json` and a new start; else with its next certificate",
            f"  the file is {arguments.folder / 'trust.json'}",
        ]
    return say(done, text, arguments)


def acl(arguments: argparse.Namespace) -> int:
    """Write the access lists anew, from another template where one is named."""
    with Authority(arguments.folder) as authority:
        if arguments.template is not None:
            authority.take_template(_read(arguments.template))
        published = authority.publish(now())
        there = (arguments.folder / "broker" / "acl.devices").exists()
        failed = (*published.failed, *(told(authority) if published.changed else ()))
    if not there and not failed:
        raise AuthorityError(f"{arguments.folder} has no template of the access lists yet: say --template FILE")
    done = Done("acl", str(arguments.folder), published.changed, failed)
    return say(done, [f"{arguments.folder / name}: written" for name in published.changed] or ["as before"], arguments)


def renew(arguments: argparse.Namespace) -> int:
    """Renew the list of revoked devices, and with the root whatever of the server runs out."""
    with Authority(arguments.folder, arguments.root) as authority:
        at = now()
        late = dt.timedelta(days=authority.settings.validity.staff_days) / 3
        ending = [
            n for n in staff.SERVER if n in authority.record.staff and authority.record.staff[n].expires - at < late
        ]
        if authority.has_root or arguments.root is not None:
            for name in ending:
                staff.certify_server(authority, name, at)
        published = authority.publish(at, fresh=True)
        failed = (*published.failed, *told(authority))
        for line in warnings(authority, at):
            sys.stderr.write(f"warning: {line}\n")
        until = authority.due()
    done = Done("renew", str(arguments.folder), published.changed, failed)
    return say(done, [f"list of revoked devices until {until:%Y-%m-%d}"], arguments)


def revoke(arguments: argparse.Namespace) -> int:
    """Put a device out, or a person, and say of each step whether it is done."""
    with Authority(arguments.folder, arguments.root) as authority:
        steps = _revoke(authority, arguments.name)
    done = Revoked(arguments.name, all(step.done for step in steps), steps)
    said = [f"{'done' if step.done else 'NOT DONE':<9} {step.what}: {step.text}" for step in steps]
    if not done.done:
        said.append(f"{arguments.name} may be in still: see to what is not done, and run this again")
    say(done, said, arguments)
    return 0 if done.done else 1


def _revoke(authority: Authority, name: str) -> list[cut.Step]:
    """Do all of it, each step whatever became of the others: run again it completes."""
    record, broker = authority.record, authority.settings.broker
    is_known = name in record.devices or name in record.staff
    password = _without_password(broker, name)
    if not is_known and password is None:
        raise AuthorityError(
            f"{name[:80]}: nobody of this name is enrolled; `fedge ca show` lists all. One that has a password only: "
            "set [broker] passwords in authority.toml, or mosquitto/add-user.sh --remove"
        )
    steps = [] if password is None else [password]
    if is_known:
        new = authority.revoke(name, now())
        steps.append(cut.Step("record", done=True, text="revoked" if new else "was revoked before"))
    missing = "; ".join(authority.publish(now()).failed)
    steps.append(cut.Step("lists", done=not missing, text=missing or "the revoked, the registry, the access lists"))
    return [*steps, cut.reload(broker), *cut.cut(inner(authority), record.fleet, name)]


def _without_password(broker: BrokerSide, name: str) -> cut.Step | None:
    """Take a name out of the broker's password file; None where nobody says which that is."""
    if broker.passwords is None:
        return None
    try:
        there = cut.remove_password(Path(broker.passwords), name)
    except OSError as error:
        return cut.Step("password", done=False, text=f"{broker.passwords}: {error.strerror or error}")
    return cut.Step("password", done=True, text=f"{broker.passwords}: {'removed' if there else 'has none of it'}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
