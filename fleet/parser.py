"""The command line of `fedge`: every group of commands there is (fleet/lines has a file for each).

Heavy imports happen inside the commands that need them, so that `fedge --help` is quick and an agent stays small. For
the same reason a line that begins with a command has no other's file imported.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from runtime.software import VERSION

LINES = {
    "demo": "alone",
    "simulate": "alone",
    "chaos": "alone",
    "agent": "agent",
    "aggregator": "aggregator",
    "job": "job",
    "round": "job",
    "device": "device",
    "events": "device",
    "watch": "watching",
    "ca": "authority",
    "enroll": "authority",
    "codec": "alone",
    "web": "web",
}
"""Every command or group of them, in the order of the help, and the file in fleet/lines whose `add_NAME` adds it."""


def parser(line: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of a command line; what is parsed has the `command` to call.

    line: what is to be parsed. Where it begins with a command the parser knows that one alone, and says of such a line
    what the whole one says; without it, or with any other line, it is the parser of all commands.
    """
    parser = argparse.ArgumentParser(
        prog="fedge",
        description="Federated learning for fleets of small devices, over MQTT.",
        epilog="example: fedge demo",
    )
    parser.add_argument(
        "--version", action="version", version=f"fedge {VERSION}", help="show the version of the program and exit"
    )
    table = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in line[:1] if line and line[0] in LINES else LINES:
        getattr(import_module(f"fleet.lines.{LINES[name]}"), f"add_{name}")(table)
    return parser
