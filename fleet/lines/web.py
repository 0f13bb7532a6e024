"""`fedge web …`: the page of a fleet."""

from __future__ import annotations

import argparse

from fleet.lines.options import Table, add, add_config, group
from fleet.lines.web_user import add_user_lines


def add_web(table: Table) -> None:
    """Add `fedge web`."""
    web = group(table, "web", "The page of a fleet.", "fedge web run --config aggregator.toml --web 127.0.0.1:8080")
    run = add(
        web,
        "run",
        web_run,
        "Look on beside an aggregator, which otherwise starts this itself where [web] and its kind ask for it.",
        "fedge web run --config aggregator.toml --web 127.0.0.1:8080",
    )
    add_config(run, "aggregator.toml")
    add_bind(run)
    run.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    run.set_defaults(logs=True)
    add_user_lines(web)


def add_bind(parser: argparse.ArgumentParser) -> None:
    """Where the page is served."""
    parser.add_argument(
        "--web", default="", metavar="HOST:PORT", help="serve the page of the fleet there, in a process of its own"
    )
    parser.add_argument(
        "--web-in-container",
        action="store_true",
        help="HOST is in a container whose port is published at 127.0.0.1 of its host: nobody else is answered",
    )


def web_run(arguments: argparse.Namespace) -> int:
    from fleet.sight.process import run

    return run(arguments.config, arguments.web, in_container=arguments.web_in_container, parent=arguments.parent)
