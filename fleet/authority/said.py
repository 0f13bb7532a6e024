"""What the commands of an authority have in common: the time, the way to the broker, and what is said at the end."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from broker.connection import BrokerSettings
from fleet.authority import cut
from identity.authority import Authority


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def say(done: Struct, text: Sequence[str], arguments: argparse.Namespace) -> int:
    """Say it to a person or a script; 1 where something is left to do."""
    failed: Sequence[str] = getattr(done, "failed", ())
    if arguments.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(done), indent=2).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in text))
    for line in failed:
        sys.stderr.write(f"fedge: not done: {line}\n")
    return 1 if failed else 0


def told(authority: Authority) -> tuple[str, ...]:
    """Tell the broker to read its files anew where it is known how; return what failed."""
    broker = authority.settings.broker
    if broker.pid_file is None and not broker.reload:
        return ()
    step = cut.reload(broker)
    return () if step.done else (step.text,)


def inner(authority: Authority) -> BrokerSettings:
    """Return how `fedge ca` itself comes to the broker."""
    broker, folder = authority.settings.broker, authority.folder
    return BrokerSettings(
        broker.inner_host,
        broker.inner_port,
        ca_file=str(folder / "root.crt"),
        certificate_file=str(folder / "client" / "authority.crt"),
        key_file=str(folder / "client" / "authority.key"),
        connect_timeout_s=3.0,
    )
