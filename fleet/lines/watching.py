"""`fedge watch`: a whole fleet, live."""

from __future__ import annotations

import argparse

from fleet.lines.options import Table, add, add_config
from runtime.settings import SettingsError


def add_watch(table: Table) -> None:
    """Add `fedge watch`."""
    watch = add(
        table,
        "watch",
        run_watch,
        "Show a whole fleet, live, until q is typed: its jobs, their rounds, its devices, what has happened.",
        "fedge watch --config operator.toml",
    )
    add_config(watch, "aggregator.toml")
    watch.add_argument("--once", action="store_true", help="one picture, as where there is no terminal")
    watch.add_argument("--json", action="store_true", help="all that is seen, once, as JSON")


def run_watch(arguments: argparse.Namespace) -> int:
    from fleet.console import watching
    from fleet.console.operator import load_config

    config = load_config(arguments.config)
    if arguments.json and arguments.once:
        raise SettingsError("--json and --once: choose one of them")
    if arguments.json or arguments.once or not watching.is_terminal():
        print(watching.once(config, as_json=arguments.json))
        return 0
    watching.live(config)
    return 0
