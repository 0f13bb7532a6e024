"""`fedge ca …` and `fedge enroll`: who is who in a fleet."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from fleet.lines.options import Table, add, count, group


def add_ca(table: Table) -> None:
    """Add `fedge ca`."""
    ca = group(table, "ca", "Who is who in a fleet: keys, certificates, revocation.", "fedge ca init ca --fleet home")
    init = _add_act(ca, "init", "Make an authority: an offline root, and one that enrolls devices.", "ca --fleet home")
    init.add_argument("--fleet", required=True, metavar="NAME", help="as in aggregator.toml")
    init.add_argument(
        "--server", action="append", metavar="HOST", help="the broker's name or address; devices are told the first"
    )
    init.add_argument("--operator", default="admin", metavar="NAME", help="the first person, an admin (admin)")
    init.add_argument("--acl", type=Path, metavar="FILE", help="template of the access lists, as deploy/mosquitto/acl")
    _add_act(ca, "show", "Show who is enrolled, and what runs out.", "ca --json")
    operator = _add_act(
        ca, "operator", "Certify a person; the root is needed.", "ca anna --role operator --root /media/stick"
    )
    operator.add_argument("name", metavar="NAME")
    operator.add_argument("--role", required=True, choices=("observer", "steward", "operator", "admin"))
    acl = _add_act(ca, "acl", "Write the broker's access lists.", "ca --template deploy/mosquitto/acl")
    acl.add_argument("--template", type=Path, metavar="FILE", help="from now on; else the one of last time")
    revoke = _add_act(ca, "revoke", "Put a device out at once, or a person (the root is needed).", "ca pi-1")
    revoke.add_argument("name", metavar="NAME")
    renew = _add_act(ca, "renew", "Renew the list of the revoked, and what of the server runs out.", "ca")
    token = _add_act(ca, "token", "Make a one-time token, by which a device enrolls.", "ca --device pi-1", "tokens")
    token.add_argument("--device", metavar="NAME", help="the only name that it enrolls (any that is free)")
    token.add_argument("--minutes", type=float, default=60.0, metavar="N", help="how long it is good for (60)")
    _labels(token)
    token.add_argument("--rows", type=count, metavar="N", help="at most so many examples are believed")
    token.add_argument("--again", action="store_true", help="also where it is enrolled: its older self is out then")
    token.add_argument("--server", metavar="HOST", help="the broker as this device reaches it (the first of ca init)")
    _add_act(ca, "requests", "Show what tokens have asked for.", "ca --json", "tokens")
    for name, what in (("approve", "Enroll the device of a request."), ("reject", "Turn a request down.")):
        decide = _add_act(ca, name, what, "ca 5f0c-19aa-0b7e-3d21-88f4", "tokens")
        decide.add_argument("fingerprint", metavar="FINGERPRINT", help="as the device shows it")
    window = _add_act(ca, "window", "Approve requests as they come, for some minutes.", "ca --minutes 10", "tokens")
    window.add_argument("--minutes", type=float, default=10.0, metavar="N", help="0: no longer (10)")
    _add_act(ca, "serve", "Answer tokens and devices that ask for certificates.", "ca", "serve").set_defaults(logs=True)
    for parser in (operator, revoke, renew):
        parser.add_argument("--root", type=Path, metavar="DIR", help="the folder with the root's keys (DIR/root)")


def _add_act(
    table: Table,
    name: str,
    what: str,
    example: str,
    home: str = "command",
) -> argparse.ArgumentParser:
    parser = add(table, name, act, what, f"fedge ca {name} {example}")
    parser.set_defaults(act=name, home=home)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the authority")
    parser.add_argument("--json", action="store_true")
    return parser


def _labels(parser: argparse.ArgumentParser) -> None:
    words = "what a job's selector may choose it by"
    parser.add_argument("--labels", "--label", nargs="+", metavar="NAME=VALUE", help=words)


def add_enroll(table: Table) -> None:
    """Add `fedge enroll`."""
    enroll = add(
        table,
        "enroll",
        enroll_device,
        "Enroll a device: write the bundle that makes it one. Enrolled again, its older self is out.",
        "fedge enroll pi-1 --ca ca --labels site=north --out pi-1.tar",
    )
    enroll.add_argument("device", metavar="DEVICE", help="its id: letters, digits, _ -")
    enroll.add_argument("--ca", type=Path, required=True, metavar="DIR", help="the authority")
    _labels(enroll)
    enroll.add_argument("--rows", type=count, metavar="N", help="at most so many examples are believed")
    enroll.add_argument("--server", metavar="HOST", help="the broker as this device reaches it (the first of ca init)")
    enroll.add_argument("--out", type=Path, metavar="FILE", help="(DEVICE.tar)")
    enroll.add_argument("--json", action="store_true")


def act(arguments: argparse.Namespace) -> int:
    from importlib import import_module

    run: Callable[[argparse.Namespace], int] = getattr(
        import_module(f"fleet.authority.{arguments.home}"), arguments.act
    )
    return run(arguments)


def enroll_device(arguments: argparse.Namespace) -> int:
    from fleet.authority.enrolment import enroll

    return enroll(arguments)
