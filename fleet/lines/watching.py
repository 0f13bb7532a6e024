"""`fedge watch`: a whole fleet, live."""

from __future__ import annotations

import argparse

from fleet.lines.options import Table, add, add_config
from fleet.lines.saying import say_as_it_comes
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
    watch.add_argument(
        "--follow", action="store_true", help="with --json: a line of it whenever something has changed, until Ctrl-C"
    )


def run_watch(arguments: argparse.Namespace) -> int:
    from fleet.console import watching
    from fleet.console.operator import load_config

    config = load_config(arguments.config)
    if arguments.json and arguments.once:
        raise SettingsError("--json and --once: choose one of them")
    if arguments.follow and not arguments.json:
        raise SettingsError("--follow goes with --json: without it a terminal is drawn over as long as you look")
    if arguments.follow:
        return say_as_it_comes(watching.follow_as_json(config))
    if arguments.json or arguments.once or not watching.is_terminal():
        print(watching.once(config, as_json=arguments.json))
        return 0
    watching.live(config)
    return 0
