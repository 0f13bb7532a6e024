"""`fedge aggregator …`: the server's side."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from fleet.lines.options import Table, add, add_check, add_config, add_did, group
from fleet.lines.saying import complain, refuse_json, tell
from fleet.lines.web import add_bind


def add_aggregator(table: Table) -> None:
    """Add `fedge aggregator`."""
    aggregator = group(table, "aggregator", "The server's side.", "fedge aggregator run --config aggregator.toml")
    run = add(
        aggregator,
        "run",
        aggregator_run,
        "Lead the fleet's jobs.",
        "fedge aggregator run --config aggregator.toml",
    )
    add_config(run, "aggregator.toml")
    add_check(run, "look at the configuration and everything it names, and exit")
    run.add_argument("--take-over", action="store_true", help="lead, and have whoever leads now stand by")
    run.add_argument(
        "--exit-when-replaced", action="store_true", help="exit with 3 when another aggregator leads; else stand by"
    )
    add_bind(run)
    run.set_defaults(logs=True)
    backup = add(
        aggregator,
        "backup",
        aggregator_backup,
        "Copy the aggregator's state into one file, while it runs. An earlier backup of that name is replaced.",
        "fedge aggregator backup fleet.backup --config aggregator.toml",
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="- for standard output")
    restore = add(
        aggregator,
        "restore",
        aggregator_restore,
        "Put a backup in the place of the aggregator's state, which must not run. What was there is kept beside it.",
        "fedge aggregator restore fleet.backup --config aggregator.toml",
    )
    restore.add_argument("file", type=Path, metavar="FILE", help="- for standard input")
    take_over = add(
        aggregator,
        "take-over",
        aggregator_take_over,
        "Have this aggregator, which must not run, lead the fleet from its next start on, whoever else leads it.",
        "fedge aggregator take-over --config aggregator.toml",
    )
    repair = add(
        aggregator,
        "repair",
        aggregator_repair,
        "Put right numbers of the aggregator's state, which must not run, that no honest fleet comes to.",
        "fedge aggregator repair --config aggregator.toml",
    )
    for parser in (backup, restore, take_over, repair):
        add_did(parser)


def aggregator_run(arguments: argparse.Namespace) -> int:
    if arguments.check:
        from fleet.console.check import check_aggregator

        look = partial(check_aggregator, bind=arguments.web, in_container=arguments.web_in_container)
        return tell(look, arguments, arguments.config)
    refuse_json(arguments)
    from aggregator.service import ReplacedError
    from fleet.roles import companion_of_aggregator, load_aggregator, run_aggregator

    config = load_aggregator(arguments.config, arguments.web, in_container=arguments.web_in_container)
    try:
        run_aggregator(
            config,
            take_over=arguments.take_over,
            exit_when_replaced=arguments.exit_when_replaced,
            companion=companion_of_aggregator(config, arguments.config),
        )
    except ReplacedError as error:
        complain(error)
        return 3
    return 0


def aggregator_backup(arguments: argparse.Namespace) -> int:
    from fleet.console.backups import backup

    return backup(arguments)


def aggregator_restore(arguments: argparse.Namespace) -> int:
    from fleet.console.backups import restore

    return restore(arguments)


def aggregator_take_over(arguments: argparse.Namespace) -> int:
    from fleet.console.repairs import take_over

    return take_over(arguments)


def aggregator_repair(arguments: argparse.Namespace) -> int:
    from fleet.console.repairs import repair

    return repair(arguments)
