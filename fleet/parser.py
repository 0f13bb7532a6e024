"""The command line of `fedge`: every group of commands there is (fleet/lines has a file for each).

Heavy imports happen inside the commands that need them, so that `fedge --help` is quick and an agent stays small.
"""

from __future__ import annotations

import argparse

from fleet.lines import agent, aggregator, alone, authority, device, job, watching, web


class _Version(argparse.Action):
    """Read what is installed only where somebody asks: a megabyte that an agent need not hold."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"fedge {version('fedge')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; what is parsed has the `command` to call."""
    parser = argparse.ArgumentParser(
        prog="fedge",
        description="Federated learning for fleets of small devices, over MQTT.",
        epilog="example: fedge demo",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version of the program and exit")
    table = parser.add_subparsers(required=True, metavar="COMMAND")
    alone.add_demo(table)
    alone.add_simulate(table)
    alone.add_chaos(table)
    agent.add_agent(table)
    aggregator.add_aggregator(table)
    job.add_job(table)
    job.add_round(table)
    device.add_device(table)
    device.add_events(table)
    watching.add_watch(table)
    authority.add_ca(table)
    authority.add_enroll(table)
    alone.add_codec(table)
    web.add_web(table)
    return parser
