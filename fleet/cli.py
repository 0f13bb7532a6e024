"""The `fedge` command.

Exit codes: 0 done, or asked to stop; 2 a bad configuration or command line; 3 replaced by another aggregator, where
that was asked for; 1 anything else.
Heavy imports happen inside the commands that need them, so that `fedge --help` is quick and an agent stays small.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.heap import keep_freed_memory
from runtime.settings import SettingsError

if TYPE_CHECKING:
    from fleet.console import operator
    from fleet.console.check import CheckReport

log = logging.getLogger("fedge")

# Small products on several threads are slower than on one, and end in other bits; set before NumPy is imported.
for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give the exit code."""
    arguments = _parser().parse_args(argv)
    keep_freed_memory()
    _start_log(arguments)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except SettingsError as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        log.debug("the trace of what follows", exc_info=True)
        _complain(error)
        return 1


def _complain(error: Exception) -> None:
    name = type(error).__name__
    expected = name.endswith("Error") and type(error).__module__.split(".")[0] in _OURS
    print(
        f"fedge: {error}" if expected else f"fedge: {name}: {error} (FEDGE_LOG=debug shows the trace)", file=sys.stderr
    )


_OURS = ("runtime", "broker", "models", "aggregator", "edge_agent", "fleet")


def _start_log(arguments: argparse.Namespace) -> None:
    level = os.environ.get("FEDGE_LOG", "info" if getattr(arguments, "logs", False) else "warning").upper()
    known = logging.getLevelNamesMapping()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogLine(_LOG_LINE, _LOG_TIME))
    logging.basicConfig(level=known.get(level, logging.INFO), handlers=[handler])
    # A line costs half without what no line of ours shows (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


_LOG_LINE = "%(asctime)s %(levelname).1s %(name)s %(message)s"
_LOG_TIME = "%Y-%m-%dT%H:%M:%SZ"


class _LogLine(logging.Formatter):
    """Dates, because devices run for years; in UTC, because a fleet has many time zones and they have summers."""

    converter = staticmethod(time.gmtime)


# The commands.


def _agent_run(arguments: argparse.Namespace) -> int:
    if arguments.check:
        from fleet.console.check import check_agent

        return _tell(check_agent, arguments, arguments.config)
    _refuse_json(arguments)
    from fleet.roles import load_agent, run_agent

    run_agent(load_agent(arguments.config))
    return 0


def _agent_predict(arguments: argparse.Namespace) -> int:
    from fleet.console.predict import predict

    return predict(arguments.config, arguments.input, arguments.job, as_json=arguments.json)


def _aggregator_run(arguments: argparse.Namespace) -> int:
    if arguments.check:
        from fleet.console.check import check_aggregator

        return _tell(check_aggregator, arguments, arguments.config)
    _refuse_json(arguments)
    from aggregator.service import ReplacedError
    from fleet.roles import load_aggregator, run_aggregator

    config = load_aggregator(arguments.config)
    try:
        run_aggregator(config, take_over=arguments.take_over, exit_when_replaced=arguments.exit_when_replaced)
    except ReplacedError as error:
        _complain(error)
        return 3
    return 0


def _aggregator_backup(arguments: argparse.Namespace) -> int:
    from fleet.console.backups import backup

    return backup(arguments)


def _aggregator_restore(arguments: argparse.Namespace) -> int:
    from fleet.console.backups import restore

    return restore(arguments)


def _job_submit(arguments: argparse.Namespace) -> int:
    if arguments.check:
        from fleet.console.check import check_job

        return _tell(check_job, arguments, arguments.job, arguments.config)
    _refuse_json(arguments)
    from fleet.console import operator

    job, notes = operator.submit(operator.load_config(arguments.config), arguments.job)
    print(job)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _refuse_json(arguments: argparse.Namespace) -> None:
    if arguments.json:
        raise SettingsError("--json goes with --check")


def _tell(look: Callable[..., CheckReport], arguments: argparse.Namespace, *files: Path) -> int:
    """Say what `--check` has found; 2 where something is wrong."""
    from fleet.console.check import CheckReport
    from fleet.console.operator import as_json

    try:
        report = look(*files)
    except SettingsError as error:
        report = CheckReport(str(files[0]), good=False, errors=[str(error)])
    if arguments.json:
        print(as_json(report))
    else:
        for line in report.lines:
            print(f"{line.where} {line.text}")
        if report.good:
            print(f"{report.file}: good")
    for text in report.errors:
        print(f"fedge: {text}", file=sys.stderr)
    return 0 if report.good else 2


def _job_list(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    lines = operator.jobs(operator.load_config(arguments.config))
    if arguments.json:
        print(operator.as_json(operator.JobList(lines)))
        return 0
    print(f"{'NAME':<20} {'STATE':<14} {'VERSION':<8} {'ACCURACY':<9} {'READY':<7} JOB")
    for line in lines:
        accuracy = f"{line.metrics['accuracy']:.4f}" if "accuracy" in line.metrics else "-"
        print(f"{line.name:<20} {line.state:<14} {line.version:<8} {accuracy:<9} {line.devices_ready:<7} {line.job}")
        _print_wait(line)
    return 0


def _print_wait(line: operator.JobLine) -> None:
    said = (
        ("over: ", line.reason if not line.waits_for else ""),
        ("waits for: ", line.waits_for),
        ("ended by: ", line.ends),
    )
    for what, text in (*said, *(("note: ", note) for note in line.notes)):
        if text:
            print(f"    {what}{text}")


def _job_show(arguments: argparse.Namespace) -> int:
    from fleet.console import operator
    from fleet.console.display import duration

    details = operator.show(operator.load_config(arguments.config), arguments.name)
    if arguments.json:
        print(operator.as_json(details))
        return 0
    line = details.job
    print(f"{line.name}  {line.job}\n    {line.state} at version {line.version}, {line.devices_ready} devices ready")
    _print_wait(line)
    print(f"{'DEVICE':<24} {'STATE':<10} {'EXAMPLES':<9} WHY")
    for device in details.devices:
        since = "" if device.since_s is None else f"for {duration(device.since_s)}"
        why = "; ".join(filter(None, (since, device.why, device.trouble, device.alarm)))
        print(f"{device.device:<24} {device.state:<10} {device.examples or '-':<9} {why}")
    return 0


def _job_resume(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    print(operator.resume(operator.load_config(arguments.config), arguments.name))
    return 0


def _job_stop(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    print(operator.stop(operator.load_config(arguments.config), arguments.name))
    return 0


def _job_export(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    exported = operator.export(operator.load_config(arguments.config), arguments.name, arguments.out)
    since = exported.averaged_since
    mean = "" if since is None else f", the mean of versions {since} to {exported.version.number}"
    print(f"{arguments.out}: {arguments.name} version {exported.version}{mean}")
    return 0


def _round_explain(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    config = operator.load_config(arguments.config)
    rounds = operator.explain(config, arguments.name, arguments.number, arguments.device)
    if arguments.json:
        print(operator.as_json(operator.Rounds(operator.whole(rounds))))
        return 0
    told = 0
    for line in rounds:
        if line.attempt != told:
            told = line.attempt
            wanted = "all of its devices" if line.target is None else f"{line.target} updates"
            print(f"round {arguments.number}, attempt {line.attempt}, from version {line.base}, wanted {wanted}")
            print(f"  opened {line.opened}, {line.outcome} {line.closed or ''}: {line.reason or 'it is still open'}")
        for device, fate in line.fates.items():
            print(f"  {device:<24} {fate}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from fleet.demo.command import demo

    return demo(arguments.out, arguments.devices, arguments.job, as_json=arguments.json)


def _simulate(arguments: argparse.Namespace) -> int:
    from fleet.simulation.report import command

    return command(arguments)


def _chaos(arguments: argparse.Namespace) -> int:
    from fleet.chaos.command import command

    return command(arguments)


def _codec_measure(arguments: argparse.Namespace) -> int:
    from fleet.console.measure import measure, table

    rows = measure(arguments.update, arguments.codec, arguments.buckets, arguments.bits)
    if arguments.json is not None:
        text = json.dumps({"rows": rows}, indent=2)
        if arguments.json == Path("-"):
            print(text)
            return 0
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(table(rows))
    return 0


# The command line.


class _Version(argparse.Action):
    """Read what is installed only where somebody asks: a megabyte that an agent need not hold."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"fedge {version('fedge')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedge",
        description="Federated learning for fleets of small devices, over MQTT.",
        epilog="example: fedge demo",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version of the program and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_simulate(commands)
    _add_chaos(commands)
    _add_agent(commands)
    _add_aggregator(commands)
    _add_job(commands)
    _add_round(commands)
    _add_codec(commands)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[argparse.Namespace], int],
    what: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what, epilog=f"example: {example}")
    parser.set_defaults(command=command)
    return parser


def _group(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, example: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    parser = commands.add_parser(name, help=what, description=what, epilog=f"example: {example}")
    return parser.add_subparsers(required=True, metavar="COMMAND")


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = _add(
        commands,
        "demo",
        _demo,
        "Start a broker, an aggregator and ten devices, and watch them train one model together.",
        "fedge demo --devices 20 --out my-demo",
    )
    demo.add_argument("--devices", type=_count, default=10, metavar="N", help="device processes (10)")
    demo.add_argument("--job", type=Path, metavar="FILE", help="another job than the handwritten digits")
    demo.add_argument("--out", type=Path, default=Path("fedge-demo"), metavar="DIR", help="where the results go")
    demo.add_argument("--json", action="store_true", help="print summary.json at the end, and nothing else")


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    simulate = _add(
        commands,
        "simulate",
        _simulate,
        "Run a job on simulated devices in one process: the same code as on real ones, without the network.",
        "fedge simulate job.toml --data digits --devices 100 --partition dirichlet:0.5",
    )
    simulate.add_argument("job", type=Path, metavar="JOB.toml")
    simulate.add_argument("--data", required=True, metavar="FILE.npz|digits", help="all devices' examples together")
    simulate.add_argument("--devices", type=_count, default=10, metavar="N")
    simulate.add_argument(
        "--partition",
        default="iid",
        metavar="HOW",
        help="iid, shards:K, dirichlet:A or column:NAME (one device a value)",
    )
    simulate.add_argument("--test", type=Path, metavar="FILE.npz", help="a test split; else a fifth of the data")
    simulate.add_argument("--features", metavar="NAME", help="the array of features in the NPZ files (X)")
    simulate.add_argument("--rounds", type=_count, metavar="R", help="instead of the job's max_rounds")
    simulate.add_argument("--seed", type=int, metavar="S", help="instead of the job's seed")
    simulate.add_argument("--target", type=float, metavar="ACC", help="stop at this accuracy")
    simulate.add_argument("--json", type=Path, metavar="FILE", help="write every round there; - for standard output")


def _add_chaos(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    chaos = _add(
        commands,
        "chaos",
        _chaos,
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
    chaos.add_argument(
        "--sabotage",
        choices=("ledger", "outbox", "rename"),
        help="take a safeguard out, to see that its lack is noticed",
    )


def _add_agent(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    agent = _group(commands, "agent", "The device's side.", "fedge agent run --config agent.toml")
    run = _add(agent, "run", _agent_run, "Take part in the fleet's jobs.", "fedge agent run --config agent.toml")
    _add_config(run, "agent.toml")
    _add_check(run, "look at the configuration and everything it names, and exit")
    run.set_defaults(logs=True)
    predict = _add(
        agent,
        "predict",
        _agent_predict,
        "Answer from the current model of this device.",
        "fedge agent predict --config agent.toml --input rows.csv",
    )
    _add_config(predict, "agent.toml")
    predict.add_argument("--input", type=Path, required=True, metavar="ROWS.csv", help="rows of features")
    predict.add_argument("--job", metavar="NAME", help="whose model, where there are several")
    predict.add_argument("--json", action="store_true", help="JSON instead of CSV")


def _add_aggregator(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    aggregator = _group(commands, "aggregator", "The server's side.", "fedge aggregator run --config aggregator.toml")
    run = _add(
        aggregator, "run", _aggregator_run, "Lead the fleet's jobs.", "fedge aggregator run --config aggregator.toml"
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
        _aggregator_backup,
        "Copy the aggregator's state into one file, while it runs. An earlier backup of that name is replaced.",
        "fedge aggregator backup fleet.backup --config aggregator.toml",
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="- for standard output")
    restore = _add(
        aggregator,
        "restore",
        _aggregator_restore,
        "Put a backup in the place of the aggregator's state, which must not run. What was there is kept beside it.",
        "fedge aggregator restore fleet.backup --config aggregator.toml",
    )
    restore.add_argument("file", type=Path, metavar="FILE", help="- for standard input")
    for parser in (backup, restore):
        _add_config(parser, "aggregator.toml")
        parser.add_argument("--json", action="store_true", help="say what was done as JSON")


def _add_job(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    job = _group(commands, "job", "Jobs of a running fleet.", "fedge job submit job.toml")
    submit = _add(job, "submit", _job_submit, "Start a job.", "fedge job submit job.toml --config aggregator.toml")
    submit.add_argument("job", type=Path, metavar="JOB.toml")
    _add_config(submit, "aggregator.toml")
    _add_check(submit, "look at the job, and at the test split that FILE has for it, and exit")
    list_ = _add(job, "list", _job_list, "Show every job.", "fedge job list --json")
    _add_config(list_, "aggregator.toml")
    list_.add_argument("--json", action="store_true")
    show = _add(
        job,
        "show",
        _job_show,
        "Show one job: what it waits for, and how each device stands to it.",
        "fedge job show digits",
    )
    show.add_argument("name", metavar="NAME")
    _add_config(show, "aggregator.toml")
    show.add_argument("--json", action="store_true")
    resume = _add(job, "resume", _job_resume, "Try a job again that is at rest.", "fedge job resume digits")
    resume.add_argument("name", metavar="NAME")
    _add_config(resume, "aggregator.toml")
    stop = _add(job, "stop", _job_stop, "Stop a job; its last version stays.", "fedge job stop digits")
    stop.add_argument("name", metavar="NAME")
    _add_config(stop, "aggregator.toml")
    export = _add(
        job, "export", _job_export, "Write a job's current version as ONNX.", "fedge job export digits --out model.onnx"
    )
    export.add_argument("name", metavar="NAME")
    export.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    _add_config(export, "aggregator.toml")


def _add_round(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    round_ = _group(commands, "round", "Rounds of a job.", "fedge round explain digits 12")
    explain = _add(
        round_,
        "explain",
        _round_explain,
        "Say of each device why it was, or was not, counted in the round that made a version.",
        "fedge round explain digits 12",
    )
    explain.add_argument("name", metavar="JOB")
    explain.add_argument("number", type=_count, metavar="N", help="number of the version that the round makes")
    explain.add_argument("--device", metavar="ID", help="of this device alone")
    explain.add_argument("--json", action="store_true")
    _add_config(explain, "aggregator.toml")


def _add_codec(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    codec = _group(commands, "codec", "The update codec.", "fedge codec measure update.npz")
    measure = _add(
        codec,
        "measure",
        _codec_measure,
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


if __name__ == "__main__":
    sys.exit(main())
