"""`fedge agent …`: the device's side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fleet.lines.options import TABLES, Table, add, add_check, add_config, add_source, group
from fleet.lines.saying import refuse_json, source_on_the_line, tell


def add_agent(table: Table) -> None:
    """Add `fedge agent`."""
    agent = group(table, "agent", "The device's side.", "fedge agent run --config agent.toml")
    run = add(agent, "run", agent_run, "Take part in the fleet's jobs.", "fedge agent run --config agent.toml")
    add_config(run, "agent.toml")
    add_check(run, "look at the configuration and everything it names, and exit")
    run.set_defaults(logs=True)
    source = add(
        agent,
        "source",
        agent_source,
        "Show what a live source of this device has kept, and what it writes to the card.",
        "fedge agent source hall --config agent.toml",
    )
    source.add_argument("name", metavar="NAME", help="of [data.NAME] with a table mqtt")
    source.add_argument("--json", action="store_true")
    add_config(source, "agent.toml")
    adopt = add(
        agent,
        "adopt",
        agent_adopt,
        "Make this machine the device of a bundle, once all of it was checked.",
        "fedge agent adopt pi-1.tar --group fedge",
    )
    adopt.add_argument("bundle", type=Path, metavar="BUNDLE.tar", help="what `fedge enroll` has written")
    adopt.add_argument("--into", type=Path, default=Path("/etc/fedge"), metavar="DIR", help="(/etc/fedge)")
    adopt.add_argument("--group", metavar="NAME", help="who may read the files beside their owner")
    adopt.add_argument("--fingerprint", metavar="F", help="that of the root, as `fedge ca show` has it")
    adopt.add_argument("--json", action="store_true")
    trust = add(
        agent,
        "trust",
        agent_trust,
        "Put a later file in the place of the pinned keys: signed by the root or, for a new key, by the aggregator.",
        "fedge agent trust new-trust.json --config agent.toml",
    )
    trust.add_argument("file", type=Path, metavar="FILE")
    trust.add_argument("--json", action="store_true")
    add_config(trust, "agent.toml")
    enroll = add(
        agent,
        "enroll",
        agent_enroll,
        "Make this machine a device by a one-time token; its keys are made here and stay here.",
        "fedge agent enroll fedge-token://... --group fedge",
    )
    enroll.add_argument(
        "line", metavar="LINE", help="what `fedge ca token` has printed; - reads it from standard input"
    )
    enroll.add_argument("--device", metavar="NAME", help="its id, where the token leaves it open (the host's name)")
    enroll.add_argument("--etc", type=Path, default=Path("/etc/fedge"), metavar="DIR", help="(/etc/fedge)")
    enroll.add_argument("--group", metavar="NAME", help="who may read the files beside their owner")
    enroll.add_argument("--json", action="store_true")
    predict = add(
        agent,
        "predict",
        agent_predict,
        "Answer from the current model of this device.",
        "fedge agent predict --config agent.toml --input rows.csv",
    )
    add_config(predict, "agent.toml")
    predict.add_argument(
        "--input", type=Path, required=True, metavar="FILE", help=f"rows to answer, labels ignored: {TABLES}"
    )
    predict.add_argument("--job", metavar="NAME", help="whose model, where there are several")
    add_source(predict)
    predict.add_argument("--json", action="store_true", help="JSON instead of CSV")


def agent_run(arguments: argparse.Namespace) -> int:
    if arguments.check:
        from fleet.console.check import check_agent

        return tell(check_agent, arguments, arguments.config)
    refuse_json(arguments)
    from fleet.roles import load_agent, run_agent

    run_agent(load_agent(arguments.config))
    return 0


def agent_predict(arguments: argparse.Namespace) -> int:
    from fleet.console.predict import predict

    with source_on_the_line():
        return predict(
            *(arguments.config, arguments.input, arguments.job), as_json=arguments.json, source=arguments.source
        )


def agent_source(arguments: argparse.Namespace) -> int:
    from msgspec import structs

    from fleet.console.live import described, source

    kept = source(arguments.config, arguments.name)
    print(json.dumps(structs.asdict(kept), indent=2) if arguments.json else "\n".join(described(kept)))
    return 0


def agent_adopt(arguments: argparse.Namespace) -> int:
    from fleet.authority.enrolment import adopt

    return adopt(arguments)


def agent_enroll(arguments: argparse.Namespace) -> int:
    from fleet.authority.ask import enroll

    return enroll(arguments)


def agent_trust(arguments: argparse.Namespace) -> int:
    from msgspec.structs import asdict

    from fleet.identity import replace_pinned

    done = replace_pinned(arguments.config, arguments.file)
    text = f"{done.file}: the keys of fleet {done.fleet} with serial {done.serial}; start again what uses them"
    print(json.dumps(asdict(done), indent=2) if arguments.json else text)
    return 0
