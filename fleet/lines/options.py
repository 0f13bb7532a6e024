"""What the lines of several commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Table: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where commands are added."""
TABLES = "CSV, JSON lines, SQLite, NPZ"
HOW = "iid, shards:K, dirichlet:A or column:NAME (one device a value)"
BASE = "what is frozen of the net (freeze, only or adapter in [train]): NPZ, an array for each tensor, by name"


def add(
    table: Table,
    name: str,
    command: Callable[[argparse.Namespace], int],
    what: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a command."""
    parser = table.add_parser(name, help=what, description=what, epilog=f"example: {example}")
    parser.set_defaults(command=command)
    return parser


def group(table: Table, name: str, what: str, example: str) -> Table:
    """Add a group of commands."""
    parser = table.add_parser(name, help=what, description=what, epilog=f"example: {example}")
    return parser.add_subparsers(required=True, metavar="COMMAND")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """What says which columns of a file are meant."""
    parser.add_argument("--label", metavar="NAME", help="the column or array of labels (as the job says, or y)")
    parser.add_argument(
        "--features", metavar="A,B,C", help="the columns of features, or the one array of them (as the job says, or X)"
    )
    add_source(parser)


def add_source(parser: argparse.ArgumentParser) -> None:
    """What else a file needs to be read."""
    parser.add_argument(
        "--source",
        metavar="KEYS",
        help='more keys of the file, as in agent.toml: \'encoding = "cp1252", time = "when"\'',
    )


def add_config(parser: argparse.ArgumentParser, default: str) -> None:
    """Which configuration."""
    parser.add_argument("--config", type=Path, default=Path(default), metavar="FILE", help=f"({default})")


def add_did(parser: argparse.ArgumentParser, what: str = "done") -> None:
    """Which configuration of a server, and whether what was done is said as JSON."""
    add_config(parser, "aggregator.toml")
    parser.add_argument("--json", action="store_true", help=f"say what was {what} as JSON")


def add_check(parser: argparse.ArgumentParser, what: str) -> None:
    """Look, and do nothing."""
    parser.add_argument("--check", action="store_true", help=what)
    parser.add_argument("--json", action="store_true", help="with --check: JSON for scripts")


def count(text: str) -> int:
    """Return a positive number that was typed."""
    if not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)
