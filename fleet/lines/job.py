"""`fedge job …` and `fedge round …`: jobs of a running fleet, and their rounds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fleet.lines.options import BASE, Table, add, add_check, add_config, add_did, add_source, count, group
from fleet.lines.saying import complain, refuse_json, say_as_it_comes, source_on_the_line, tell
from runtime.children import NOT_THERE
from runtime.settings import SettingsError


def add_job(table: Table) -> None:
    """Add `fedge job`."""
    job = group(table, "job", "Jobs of a running fleet.", "fedge job submit job.toml")
    submit = add(job, "submit", job_submit, "Start a job.", "fedge job submit job.toml --config aggregator.toml")
    submit.add_argument("job", type=Path, metavar="JOB.toml")
    add_config(submit, "aggregator.toml")
    add_check(submit, "look at the job, and at the test split that FILE has for it, and exit")
    submit.add_argument(
        "--from",
        dest="start",
        metavar="JOB[@VERSION]|FILE.npz",
        help="start from these weights, of a number, best or last, and not from the seed",
    )
    submit.add_argument("--base", metavar="FILE", help=BASE)
    draft = add(
        job,
        "draft",
        job_draft,
        "Print a job file for a table: its features, label, classes and model, to be looked at and put right.",
        "fedge job draft readings.csv --label fault > job.toml",
    )
    draft.add_argument(
        "file", type=Path, metavar="FILE", help="a table as devices have it: CSV, NPZ, SQLite, JSON lines"
    )
    draft.add_argument("--label", metavar="NAME", help="the column that the model learns to tell (guessed)")
    add_source(draft)
    draft.add_argument("--json", action="store_true", help="what was found, and the job file, as JSON")
    list_ = add(job, "list", job_list, "Show every job.", "fedge job list --json")
    add_config(list_, "aggregator.toml")
    list_.add_argument("--all", action="store_true", help="also those that another of their name has replaced")
    list_.add_argument("--json", action="store_true")
    show = add(
        job,
        "show",
        job_show,
        "Show one job: what it waits for, and how each device stands to it.",
        "fedge job show digits",
    )
    show.add_argument("name", metavar="NAME")
    show.add_argument("--follow", action="store_true", help="go on until it has ended, or q is typed")
    add_config(show, "aggregator.toml")
    show.add_argument("--json", action="store_true", help="with --follow a line whenever something has changed")
    plot = add(
        job,
        "plot",
        job_plot,
        "Draw a job as a picture: every measure, the devices and the bytes of each version.",
        "fedge job plot digits --out digits.png",
    )
    plot.add_argument("name", metavar="NAME", help="the job's name, or its id")
    plot.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    add_did(plot, "drawn")
    metrics = add(
        job,
        "metrics",
        job_metrics,
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
    add_config(metrics, "aggregator.toml")
    for name, command, what, example in (
        ("pause", job_pause, "Open no round of a job until it is resumed.", "digits"),
        ("resume", job_resume, "Go on with a job that is paused, or at rest.", "digits"),
        ("rollback", job_rollback, "Make an older version of a job the next one again.", "digits best"),
        ("stop", job_stop, "Stop a job; its last version stays.", "digits"),
        ("delete", job_delete, "Forget a job that has ended, with its versions.", "digits-1f0c22ab"),
    ):
        act = add(job, name, command, what, f"fedge job {name} {example}")
        act.add_argument("name", metavar="NAME", help="the job's name, or its id")
        if name == "rollback":
            act.add_argument("version", metavar="VERSION", help="its number, or best")
        add_did(act)
    export = add(
        job,
        "export",
        job_export,
        "Write a version of a job as ONNX, or its weights as NPZ.",
        "fedge job export digits --out model.onnx",
    )
    export.add_argument("name", metavar="NAME", help="the job's name, or its id")
    export.add_argument("--out", type=Path, required=True, metavar="FILE.onnx|FILE.npz")
    export.add_argument("--version", metavar="N|best|last", help="another one than devices serve")
    add_did(export, "written")


def add_round(table: Table) -> None:
    """Add `fedge round`."""
    round_ = group(table, "round", "Rounds of a job.", "fedge round explain digits 12")
    explain = add(
        round_,
        "explain",
        round_explain,
        "Say of each device why it was, or was not, counted in the round that made a version.",
        "fedge round explain digits 12",
    )
    explain.add_argument("name", metavar="JOB")
    explain.add_argument("number", type=count, metavar="N", help="number of the version that the round makes")
    explain.add_argument("--device", metavar="ID", help="of this device alone")
    explain.add_argument("--json", action="store_true")
    add_config(explain, "aggregator.toml")


def job_submit(arguments: argparse.Namespace) -> int:
    if arguments.check:
        from fleet.console.check import check_job

        return tell(check_job, arguments, arguments.job, arguments.config)
    refuse_json(arguments)
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

    with source_on_the_line():
        found = draft_of(arguments.file, arguments.label, arguments.source)
    print(as_json(found) if arguments.json else found.job, end="\n" if arguments.json else "")
    return 0


def job_list(arguments: argparse.Namespace) -> int:
    from fleet.console import joblines, operator

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
        for text in joblines.waits(line):
            print(text)
    return 0


def job_show(arguments: argparse.Namespace) -> int:
    from fleet.console import joblines, metrics, operator

    config = operator.load_config(arguments.config)
    if arguments.follow:
        how = joblines.follow_as_json if arguments.json else joblines.follow
        return say_as_it_comes(how(config, arguments.name))
    details = operator.show(config, arguments.name)
    if arguments.json:
        print(operator.as_json(details))
        return 0
    lines = metrics.versions(config, arguments.name) if details.job.version else []
    print("\n".join(joblines.described(details, lines)))
    return 0


def job_plot(arguments: argparse.Namespace) -> int:
    from fleet.console import operator
    from fleet.console.plotting import plot

    drawn = plot(operator.load_config(arguments.config), arguments.name, arguments.out)
    text = f"{drawn.file}: {arguments.name}, {drawn.versions} versions: {', '.join(drawn.curves)}"
    print(operator.as_json(drawn) if arguments.json else text)
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
    try:
        exported = versions.export(config, arguments.name, arguments.out, arguments.version)
    except operator.RefusedError as error:
        complain(error)
        return NOT_THERE
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
