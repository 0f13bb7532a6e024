"""What each command does once its line is read: it calls who knows, and prints what came of it.

Heavy imports happen inside the commands that need them, so that `fedge --help` is quick and an agent stays small.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.settings import SettingsError

if TYPE_CHECKING:
    from fleet.console import operator
    from fleet.console.check import CheckReport


def complain(error: Exception) -> None:
    """Print what went wrong, in one line."""
    name = type(error).__name__
    expected = name.endswith("Error") and type(error).__module__.split(".")[0] in _OURS
    print(
        f"fedge: {error}" if expected else f"fedge: {name}: {error} (FEDGE_LOG=debug shows the trace)", file=sys.stderr
    )


_OURS = ("runtime", "identity", "broker", "models", "aggregator", "edge_agent", "fleet")


def agent_run(arguments: argparse.Namespace) -> int:
    if arguments.check:
        from fleet.console.check import check_agent

        return _tell(check_agent, arguments, arguments.config)
    _refuse_json(arguments)
    from fleet.roles import load_agent, run_agent

    run_agent(load_agent(arguments.config))
    return 0


_OF_A_SOURCE = ("beside its path", "beside the path", "source's table", "needs the key")


@contextmanager
def _source_on_the_line() -> Iterator[None]:
    """Say of a file that wants more keys in its source's table how this command line gives them."""
    from models.data.dataset import DatasetError

    try:
        yield
    except DatasetError as error:
        if not any(words in (told := str(error)) for words in _OF_A_SOURCE):
            raise
        said = re.search(r'\b\w+ = "[^"]*"', told)
        key = said[0] if said else "KEY = VALUE"
        raise DatasetError(f"{told}; here with --source '{key}'", cell=error.cell) from error


def agent_predict(arguments: argparse.Namespace) -> int:
    from fleet.console.predict import predict

    with _source_on_the_line():
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


def ca(arguments: argparse.Namespace) -> int:
    from importlib import import_module

    run: Callable[[argparse.Namespace], int] = getattr(
        import_module(f"fleet.authority.{arguments.home}"), arguments.act
    )
    return run(arguments)


def enroll(arguments: argparse.Namespace) -> int:
    from fleet.authority.enrolment import enroll

    return enroll(arguments)


def agent_trust(arguments: argparse.Namespace) -> int:
    from msgspec.structs import asdict

    from fleet.identity import replace_pinned

    done = replace_pinned(arguments.config, arguments.file)
    text = f"{done.file}: the keys of fleet {done.fleet} with serial {done.serial}; start again what uses them"
    print(json.dumps(asdict(done), indent=2) if arguments.json else text)
    return 0


def aggregator_run(arguments: argparse.Namespace) -> int:
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


def job_submit(arguments: argparse.Namespace) -> int:
    if arguments.check:
        from fleet.console.check import check_job

        return _tell(check_job, arguments, arguments.job, arguments.config)
    _refuse_json(arguments)
    from fleet.console import operator

    config, start = operator.load_config(arguments.config), arguments.start or ""
    weights, base = b"", ""
    if start and arguments.base:
        raise SettingsError("--from and --base: say one of them, both are what the job starts from")
    if start.endswith(".npz") or arguments.base:
        from fleet.console.versions import read_weights
        from fleet.factories import find_beside

        file, start, spec = Path(arguments.base or start), "", operator.load_job(arguments.job)
        find_beside(arguments.job, spec)
        found = read_weights(file, spec, as_base=bool(arguments.base))
        weights, base = found.said, found.base
    job, notes = operator.submit(config, arguments.job, start, weights, base)
    print(job)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def job_draft(arguments: argparse.Namespace) -> int:
    from fleet.console.draft import draft_of
    from fleet.console.operator import as_json

    with _source_on_the_line():
        found = draft_of(arguments.file, arguments.label, arguments.source)
    print(as_json(found) if arguments.json else found.job, end="\n" if arguments.json else "")
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


def job_list(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    lines = operator.jobs(operator.load_config(arguments.config), past=arguments.all)
    if arguments.json:
        print(operator.as_json(operator.JobList(lines)))
        return 0
    print(f"{'NAME':<20} {'STATE':<14} {'VERSION':<8} {'ACCURACY':<9} {'READY':<7} JOB")
    for line in lines:
        accuracy = f"{line.metrics['accuracy']:.4f}" if "accuracy" in line.metrics else "-"
        print(f"{line.name:<20} {line.state:<14} {line.version:<8} {accuracy:<9} {line.devices_ready:<7} {line.job}")
        known = ("accuracy", "loss", "participants")
        if others := [f"{name} {value:.4g}" for name, value in line.metrics.items() if name not in known]:
            print(f"    measured: {', '.join(others)}")  # what its rule to stop goes by
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


def job_show(arguments: argparse.Namespace) -> int:
    from fleet.console import by_devices, int8, operator, scores
    from fleet.console.display import duration

    details = operator.show(operator.load_config(arguments.config), arguments.name)
    if arguments.json:
        print(operator.as_json(details))
        return 0
    line = details.job
    print(f"{line.name}  {line.job}\n    {line.state} at version {line.version}, {line.devices_ready} devices ready")
    _print_wait(line)
    for text in scores.lines(details.scores) if details.scores is not None else ():
        print(f"    {text}")
    for text in (*by_devices.lines(details.federated), *int8.lines(details.int8)):
        print(f"    {text}")
    print(f"{'DEVICE':<24} {'STATE':<10} {'EXAMPLES':<9} WHY")
    for device in details.devices:
        since = "" if device.since_s is None else f"for {duration(device.since_s)}"
        why = "; ".join(filter(None, (since, device.why, device.trouble, device.alarm)))
        print(f"{device.device:<24} {device.state:<10} {device.examples or '-':<9} {why}")
    return 0


def job_metrics(arguments: argparse.Namespace) -> int:
    from fleet.console.metrics import metrics

    return metrics(arguments)


def job_resume(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    return _done(arguments, operator.resume(operator.load_config(arguments.config), arguments.name))


def job_pause(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    return _done(arguments, operator.pause(operator.load_config(arguments.config), arguments.name))


def job_rollback(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    config = operator.load_config(arguments.config)
    return _done(arguments, operator.roll_back(config, arguments.name, arguments.version))


def job_delete(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    return _done(arguments, operator.delete(operator.load_config(arguments.config), arguments.name))


def job_stop(arguments: argparse.Namespace) -> int:
    from fleet.console import operator

    return _done(arguments, operator.stop(operator.load_config(arguments.config), arguments.name))


def _done(arguments: argparse.Namespace, text: str) -> int:
    print(json.dumps({"name": arguments.name, "text": text}, indent=2) if arguments.json else text)
    return 0


def job_export(arguments: argparse.Namespace) -> int:
    from fleet.console import operator, versions

    config = operator.load_config(arguments.config)
    exported = versions.export(config, arguments.name, arguments.out, arguments.version)
    if arguments.json:
        print(operator.as_json(exported))
        return 0
    since = exported.averaged_since
    mean = "" if since is None else f", the mean of versions {since} to {exported.version.number}"
    print(f"{arguments.out}: {arguments.name} version {exported.version}{mean}")
    if exported.note:
        print(f"note: {exported.note}", file=sys.stderr)
    return 0


def round_explain(arguments: argparse.Namespace) -> int:
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


def demo(arguments: argparse.Namespace) -> int:
    from fleet.demo.command import demo
    from fleet.demo.given import Data

    more = arguments.partition, arguments.features, arguments.label, arguments.source, arguments.test
    if arguments.data is None and any(one is not None for one in more):
        raise SettingsError("--partition, --test, --features, --label and --source are of a file: name it with --data")
    data = None if arguments.data is None else Data(arguments.data, *more)
    with _source_on_the_line():
        return demo(
            *(arguments.out, arguments.devices, arguments.job),
            as_json=arguments.json,
            data=data,
            base=arguments.base,
        )


def simulate(arguments: argparse.Namespace) -> int:
    from fleet.simulation.report import command

    with _source_on_the_line():
        return command(arguments)


def chaos(arguments: argparse.Namespace) -> int:
    from fleet.chaos.command import command

    return command(arguments)


def codec_measure(arguments: argparse.Namespace) -> int:
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
