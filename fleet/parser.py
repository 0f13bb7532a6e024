"""The command line of `fedge`: every command with its options, and an example each."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from fleet import commands


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
    _add_demo(table)
    _add_simulate(table)
    _add_chaos(table)
    _add_agent(table)
    _add_aggregator(table)
    _add_job(table)
    _add_round(table)
    _add_ca(table)
    _add_enroll(table)
    _add_codec(table)
    return parser


def _add(
    table: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[argparse.Namespace], int],
    what: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = table.add_parser(name, help=what, description=what, epilog=f"example: {example}")
    parser.set_defaults(command=command)
    return parser


def _group(
    table: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, example: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    parser = table.add_parser(name, help=what, description=what, epilog=f"example: {example}")
    return parser.add_subparsers(required=True, metavar="COMMAND")


_TABLES = "CSV, JSON lines, SQLite, NPZ"
_HOW = "iid, shards:K, dirichlet:A or column:NAME (one device a value)"


def _add_demo(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = _add(
        table,
        "demo",
        commands.demo,
        "Start a broker, an aggregator and ten devices, and watch them train one model together.",
        "fedge demo --job job.toml --data readings.csv --partition column:site",
    )
    demo.add_argument("--devices", type=_count, default=10, metavar="N", help="device processes (10)")
    demo.add_argument("--job", type=Path, metavar="FILE", help="another job than the handwritten digits")
    demo.add_argument("--data", metavar="FILE", help=f"train on these rows: {_TABLES}")
    demo.add_argument("--partition", metavar="HOW", help=f"{_HOW} (iid), of --data")
    demo.add_argument("--test", type=Path, metavar="FILE", help="rows to test on; else a fifth of --data")
    _add_columns(demo)
    demo.add_argument("--base", type=Path, metavar="FILE", help=_BASE)
    demo.add_argument("--out", type=Path, default=Path("fedge-demo"), metavar="DIR", help="where the results go")
    demo.add_argument("--json", action="store_true", help="print summary.json at the end, and nothing else")


def _add_columns(parser: argparse.ArgumentParser) -> None:
    """What says which columns of a file are meant."""
    parser.add_argument("--label", metavar="NAME", help="the column or array of labels (as the job says, or y)")
    parser.add_argument(
        "--features", metavar="A,B,C", help="the columns of features, or the one array of them (as the job says, or X)"
    )
    _add_source(parser)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        metavar="KEYS",
        help='more keys of the file, as in agent.toml: \'encoding = "cp1252", time = "when"\'',
    )


_BASE = "what is frozen of the net (freeze, only or adapter in [train]): NPZ, an array for each tensor, by name"


def _add_simulate(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    simulate = _add(
        table,
        "simulate",
        commands.simulate,
        "Run a job on simulated devices in one process: the same code as on real ones, without the network.",
        "fedge simulate job.toml --data digits --devices 100 --partition dirichlet:0.5",
    )
    simulate.add_argument("job", type=Path, metavar="JOB.toml")
    simulate.add_argument("--data", required=True, metavar="FILE|digits", help=f"all devices' rows together: {_TABLES}")
    simulate.add_argument("--devices", type=_count, default=10, metavar="N")
    simulate.add_argument(
        "--partition",
        default="iid",
        metavar="HOW",
        help=_HOW,
    )
    simulate.add_argument("--test", type=Path, metavar="FILE", help="a test split; else a fifth of the data")
    _add_columns(simulate)
    simulate.add_argument("--rounds", type=_count, metavar="R", help="instead of the job's max_rounds")
    simulate.add_argument("--seed", type=int, metavar="S", help="instead of the job's seed")
    simulate.add_argument(
        "--target", metavar="[MEASURE=]VALUE", help="stop at this accuracy, or at a measure: rmse=4, recall:fault=0.9"
    )
    simulate.add_argument("--base", type=Path, metavar="FILE", help=_BASE)
    simulate.add_argument("--out", type=Path, metavar="DIR", help="leave model.onnx, metrics.csv and curves there")
    simulate.add_argument("--keys", action="store_true", help="everybody signs, and checks what it hears")
    simulate.add_argument("--json", type=Path, metavar="FILE", help="write every round there; - for standard output")


def _add_chaos(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    chaos = _add(
        table,
        "chaos",
        commands.chaos,
        "Kill aggregator, broker and devices everywhere, and compare the model with an undisturbed run's.",
        "fedge chaos --kills 120 --json chaos.json",
    )
    chaos.add_argument(
        "--devices", type=_count, default=5, metavar="N", help="device processes (5), and one that claims too much"
    )
    chaos.add_argument("--rounds", type=_count, default=20, metavar="N", help="versions to make (20)")
    chaos.add_argument("--kills", type=_count, default=120, metavar="K", help="(120)")
    chaos.add_argument("--seed", type=int, default=1, metavar="S", help="another schedule of kills (1)")
    chaos.add_argument("--minutes", type=float, default=30.0, metavar="M", help="no kills after this (30)")
    chaos.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    chaos.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="logs, traces and states (a temporary folder, kept where it is not good)",
    )
    chaos.add_argument(
        "--executor",
        choices=("inline", "threads", "processes"),
        default="threads",
        help="where the aggregator evaluates versions (threads)",
    )
    chaos.add_argument("--keys", action="store_true", help="everybody signs, and believes signed words alone")
    chaos.add_argument(
        "--sabotage",
        choices=("ledger", "outbox", "rename"),
        help="take a safeguard out, to see that its lack is noticed",
    )


def _add_agent(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    agent = _group(table, "agent", "The device's side.", "fedge agent run --config agent.toml")
    run = _add(
        agent, "run", commands.agent_run, "Take part in the fleet's jobs.", "fedge agent run --config agent.toml"
    )
    _add_config(run, "agent.toml")
    _add_check(run, "look at the configuration and everything it names, and exit")
    run.set_defaults(logs=True)
    source = _add(
        agent,
        "source",
        commands.agent_source,
        "Show what a live source of this device has kept, and what it writes to the card.",
        "fedge agent source hall --config agent.toml",
    )
    source.add_argument("name", metavar="NAME", help="of [data.NAME] with a table mqtt")
    source.add_argument("--json", action="store_true")
    _add_config(source, "agent.toml")
    adopt = _add(
        agent,
        "adopt",
        commands.agent_adopt,
        "Make this machine the device of a bundle, once all of it was checked.",
        "fedge agent adopt pi-1.tar --group fedge",
    )
    adopt.add_argument("bundle", type=Path, metavar="BUNDLE.tar", help="what `fedge enroll` has written")
    adopt.add_argument("--into", type=Path, default=Path("/etc/fedge"), metavar="DIR", help="(/etc/fedge)")
    adopt.add_argument("--group", metavar="NAME", help="who may read the files beside their owner")
    adopt.add_argument("--fingerprint", metavar="F", help="that of the root, as `fedge ca show` has it")
    adopt.add_argument("--json", action="store_true")
    trust = _add(
        agent,
        "trust",
        commands.agent_trust,
        "Put a later file in the place of the pinned keys: signed by the root or, for a new key, by the aggregator.",
        "fedge agent trust new-trust.json --config agent.toml",
    )
    trust.add_argument("file", type=Path, metavar="FILE")
    trust.add_argument("--json", action="store_true")
    _add_config(trust, "agent.toml")
    enroll = _add(
        agent,
        "enroll",
        commands.agent_enroll,
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
    predict = _add(
        agent,
        "predict",
        commands.agent_predict,
        "Answer from the current model of this device.",
        "fedge agent predict --config agent.toml --input rows.csv",
    )
    _add_config(predict, "agent.toml")
    predict.add_argument(
        "--input", type=Path, required=True, metavar="FILE", help=f"rows to answer, labels ignored: {_TABLES}"
    )
    predict.add_argument("--job", metavar="NAME", help="whose model, where there are several")
    _add_source(predict)
    predict.add_argument("--json", action="store_true", help="JSON instead of CSV")


def _add_aggregator(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    aggregator = _group(table, "aggregator", "The server's side.", "fedge aggregator run --config aggregator.toml")
    run = _add(
        aggregator,
        "run",
        commands.aggregator_run,
        "Lead the fleet's jobs.",
        "fedge aggregator run --config aggregator.toml",
    )
    _add_config(run, "aggregator.toml")
    _add_check(run, "look at the configuration and everything it names, and exit")
    run.add_argument("--take-over", action="store_true", help="lead, and have whoever leads now stand by")
    run.add_argument(
        "--exit-when-replaced", action="store_true", help="exit with 3 when another aggregator leads; else stand by"
    )
    run.set_defaults(logs=True)
    backup = _add(
        aggregator,
        "backup",
        commands.aggregator_backup,
        "Copy the aggregator's state into one file, while it runs. An earlier backup of that name is replaced.",
        "fedge aggregator backup fleet.backup --config aggregator.toml",
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="- for standard output")
    restore = _add(
        aggregator,
        "restore",
        commands.aggregator_restore,
        "Put a backup in the place of the aggregator's state, which must not run. What was there is kept beside it.",
        "fedge aggregator restore fleet.backup --config aggregator.toml",
    )
    restore.add_argument("file", type=Path, metavar="FILE", help="- for standard input")
    take_over = _add(
        aggregator,
        "take-over",
        commands.aggregator_take_over,
        "Have this aggregator, which must not run, lead the fleet from its next start on, whoever else leads it.",
        "fedge aggregator take-over --config aggregator.toml",
    )
    repair = _add(
        aggregator,
        "repair",
        commands.aggregator_repair,
        "Put right numbers of the aggregator's state, which must not run, that no honest fleet comes to.",
        "fedge aggregator repair --config aggregator.toml",
    )
    for parser in (backup, restore, take_over, repair):
        _add_config(parser, "aggregator.toml")
        parser.add_argument("--json", action="store_true", help="say what was done as JSON")


def _add_job(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    job = _group(table, "job", "Jobs of a running fleet.", "fedge job submit job.toml")
    submit = _add(
        job, "submit", commands.job_submit, "Start a job.", "fedge job submit job.toml --config aggregator.toml"
    )
    submit.add_argument("job", type=Path, metavar="JOB.toml")
    _add_config(submit, "aggregator.toml")
    _add_check(submit, "look at the job, and at the test split that FILE has for it, and exit")
    submit.add_argument(
        "--from",
        dest="start",
        metavar="JOB[@VERSION]|FILE.npz",
        help="start from these weights, of a number, best or last, and not from the seed",
    )
    submit.add_argument("--base", metavar="FILE", help=_BASE)
    draft = _add(
        job,
        "draft",
        commands.job_draft,
        "Print a job file for a table: its features, label, classes and model, to be looked at and put right.",
        "fedge job draft readings.csv --label fault > job.toml",
    )
    draft.add_argument(
        "file", type=Path, metavar="FILE", help="a table as devices have it: CSV, NPZ, SQLite, JSON lines"
    )
    draft.add_argument("--label", metavar="NAME", help="the column that the model learns to tell (guessed)")
    _add_source(draft)
    draft.add_argument("--json", action="store_true", help="what was found, and the job file, as JSON")
    list_ = _add(job, "list", commands.job_list, "Show every job.", "fedge job list --json")
    _add_config(list_, "aggregator.toml")
    list_.add_argument("--all", action="store_true", help="also those that another of their name has replaced")
    list_.add_argument("--json", action="store_true")
    show = _add(
        job,
        "show",
        commands.job_show,
        "Show one job: what it waits for, and how each device stands to it.",
        "fedge job show digits",
    )
    show.add_argument("name", metavar="NAME")
    _add_config(show, "aggregator.toml")
    show.add_argument("--json", action="store_true")
    metrics = _add(
        job,
        "metrics",
        commands.job_metrics,
        "Say how good each version of a job is, or what each device brought to it.",
        "fedge job metrics digits --csv > digits.csv",
    )
    metrics.add_argument("name", metavar="NAME")
    metrics.add_argument("--devices", action="store_true", help="a row for each version and device")
    metrics.add_argument("--csv", action="store_true", help="all measures, a column each")
    metrics.add_argument("--json", action="store_true", help="all that is known of each version")
    metrics.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="write curves there (pip install fedge[tensorboard])"
    )
    _add_config(metrics, "aggregator.toml")
    for name, command, what, example in (
        ("pause", commands.job_pause, "Open no round of a job until it is resumed.", "digits"),
        ("resume", commands.job_resume, "Go on with a job that is paused, or at rest.", "digits"),
        ("rollback", commands.job_rollback, "Make an older version of a job the next one again.", "digits best"),
        ("stop", commands.job_stop, "Stop a job; its last version stays.", "digits"),
        ("delete", commands.job_delete, "Forget a job that has ended, with its versions.", "digits-1f0c22ab"),
    ):
        act = _add(job, name, command, what, f"fedge job {name} {example}")
        act.add_argument("name", metavar="NAME", help="the job's name, or its id")
        if name == "rollback":
            act.add_argument("version", metavar="VERSION", help="its number, or best")
        _add_config(act, "aggregator.toml")
        act.add_argument("--json", action="store_true", help="say what was done as JSON")
    export = _add(
        job,
        "export",
        commands.job_export,
        "Write a version of a job as ONNX, or its weights as NPZ.",
        "fedge job export digits --out model.onnx",
    )
    export.add_argument("name", metavar="NAME", help="the job's name, or its id")
    export.add_argument("--out", type=Path, required=True, metavar="FILE.onnx|FILE.npz")
    export.add_argument("--version", metavar="N|best|last", help="another one than devices serve")
    _add_config(export, "aggregator.toml")
    export.add_argument("--json", action="store_true", help="say what was written as JSON")


def _add_round(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    round_ = _group(table, "round", "Rounds of a job.", "fedge round explain digits 12")
    explain = _add(
        round_,
        "explain",
        commands.round_explain,
        "Say of each device why it was, or was not, counted in the round that made a version.",
        "fedge round explain digits 12",
    )
    explain.add_argument("name", metavar="JOB")
    explain.add_argument("number", type=_count, metavar="N", help="number of the version that the round makes")
    explain.add_argument("--device", metavar="ID", help="of this device alone")
    explain.add_argument("--json", action="store_true")
    _add_config(explain, "aggregator.toml")


def _add_ca(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ca = _group(table, "ca", "Who is who in a fleet: keys, certificates, revocation.", "fedge ca init ca --fleet home")
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
    operator.add_argument("--role", required=True, choices=("observer", "operator", "admin"))
    acl = _add_act(ca, "acl", "Write the broker's access lists.", "ca --template deploy/mosquitto/acl")
    acl.add_argument("--template", type=Path, metavar="FILE", help="from now on; else the one of last time")
    revoke = _add_act(ca, "revoke", "Put a device out at once, or a person (the root is needed).", "ca pi-1")
    revoke.add_argument("name", metavar="NAME")
    renew = _add_act(ca, "renew", "Renew the list of the revoked, and what of the server runs out.", "ca")
    token = _add_act(ca, "token", "Make a one-time token, by which a device enrolls.", "ca --device pi-1", "tokens")
    token.add_argument("--device", metavar="NAME", help="the only name that it enrolls (any that is free)")
    token.add_argument("--minutes", type=float, default=60.0, metavar="N", help="how long it is good for (60)")
    _labels(token)
    token.add_argument("--rows", type=_count, metavar="N", help="at most so many examples are believed")
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
    table: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    example: str,
    home: str = "command",
) -> argparse.ArgumentParser:
    parser = _add(table, name, commands.ca, what, f"fedge ca {name} {example}")
    parser.set_defaults(act=name, home=home)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the authority")
    parser.add_argument("--json", action="store_true")
    return parser


def _labels(parser: argparse.ArgumentParser) -> None:
    words = "what a job's selector may choose it by"
    parser.add_argument("--labels", "--label", nargs="+", metavar="NAME=VALUE", help=words)


def _add_enroll(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    enroll = _add(
        table,
        "enroll",
        commands.enroll,
        "Enroll a device: write the bundle that makes it one. Enrolled again, its older self is out.",
        "fedge enroll pi-1 --ca ca --labels site=north --out pi-1.tar",
    )
    enroll.add_argument("device", metavar="DEVICE", help="its id: letters, digits, _ -")
    enroll.add_argument("--ca", type=Path, required=True, metavar="DIR", help="the authority")
    _labels(enroll)
    enroll.add_argument("--rows", type=_count, metavar="N", help="at most so many examples are believed")
    enroll.add_argument("--server", metavar="HOST", help="the broker as this device reaches it (the first of ca init)")
    enroll.add_argument("--out", type=Path, metavar="FILE", help="(DEVICE.tar)")
    enroll.add_argument("--json", action="store_true")


def _add_codec(table: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    codec = _group(table, "codec", "The update codec.", "fedge codec measure update.npz")
    measure = _add(
        codec,
        "measure",
        commands.codec_measure,
        "Say what the codec would do to your updates, next to the baselines.",
        "fedge codec measure update.npz --buckets 6144",
    )
    measure.add_argument("update", type=Path, metavar="UPDATE.npz", help="one array per tensor")
    measure.add_argument("--codec", default="sketch", metavar="NAME", help="sketch, float32 or int8 (sketch)")
    measure.add_argument("--buckets", type=_count, metavar="M", help="of the sketch (an eighth of the coordinates)")
    measure.add_argument("--bits", type=int, default=1, metavar="B", help="a bucket, 1 to 4 (1)")
    measure.add_argument("--json", type=Path, metavar="FILE", help="write the rows there; - for standard output")


def _add_config(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--config", type=Path, default=Path(default), metavar="FILE", help=f"({default})")


def _add_check(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--check", action="store_true", help=what)
    parser.add_argument("--json", action="store_true", help="with --check: JSON for scripts")


def _count(text: str) -> int:
    if not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)
