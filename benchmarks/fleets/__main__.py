"""Codings on many fleets: rounds and bytes beside float32 on the same seeds, the worst fleet first.

    python -m benchmarks.fleets --quick
    python -m benchmarks.fleets --data DIR --jobs 2 --markdown fleets.md
    python -m benchmarks.fleets --data DIR --codings light strong extreme --fleets activity air
    python -m benchmarks.fleets --data DIR --codings strong --coding finer=finer.toml --seeds 4
    python -m benchmarks.fleets --data DIR --trust off          # runs of float32 are kept though the code has changed

DIR holds mnist_train.npz and mnist_test.npz (X uint8, y), har_spsw.npz and beijing_air.npz, or some of them. Fleets
whose data are not there are listed as left out; those of scikit-learn's sets need no file. Every run goes through the
real aggregator, agents and codec (`fleet.simulation.simulate`). What has finished is kept (--cache): the same command
goes on where it was stopped. Without --codings and --coding the preset of a job that names none is compared. FILE.toml
holds the keys of a job's [compression], at its top or under [compression].
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec

from benchmarks.fleets import plan, report, workers
from benchmarks.fleets.catalogue import FLEETS, Fleet
from benchmarks.fleets.data import Files
from benchmarks.fleets.plan import FLOAT32
from benchmarks.fleets.progress import Progress
from benchmarks.fleets.report import Row
from benchmarks.fleets.runs import Cache, Kept, Task, code_hash
from models.data.dataset import DatasetError
from models.job import PRESETS
from runtime.settings import SettingsError

DEFAULT = "strong"
INTERRUPTED = 130
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Answers(NamedTuple):
    """What came of the tasks, by key."""

    kept: dict[str, Kept]
    failed: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not kept yet and print the table. Return 1 if a run has failed, 2 for bad input."""
    asked = _parser().parse_args(arguments)
    try:
        with _stoppable():
            return _main(asked)
    except (SettingsError, DatasetError) as error:
        print(f"fleets: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(
            f"stopped by {stop}: what has finished is kept in {asked.cache}, the same command goes on", file=sys.stderr
        )
        return INTERRUPTED


def _main(asked: argparse.Namespace) -> int:
    files = plan.files_of(asked.data, {"mnist_train": asked.mnist_train, "mnist_test": asked.mnist_test})
    fleets, left_out = _fleets(asked, files)
    codings = plan.codings(_names(asked), asked.coding)
    _check_trusted(asked.trust, [coding.name for coding in codings])
    _check_writable(asked)
    code = asked.code_key or code_hash()
    tasks = plan.planned(fleets, codings, asked.seeds, files, code)
    cache = Cache(asked.cache)
    answers = _Answers(_kept(tasks, cache, asked.trust), {})
    if asked.kept:
        tasks = [task for task in tasks if task.key in answers.kept]
        there = {task.fleet.name for task in tasks if task.coding.name != FLOAT32}
        left_out |= {fleet.name: "no coded run is kept" for fleet in fleets if fleet.name not in there}
    _run(tasks, answers, files, cache, asked.jobs)
    _tell(asked, _rows(tasks, answers), left_out, _remarks(code, answers))
    return int(bool(answers.failed))


def _names(asked: argparse.Namespace) -> list[str]:
    """Return the presets that are asked for: a job's own, unless others or variants are named."""
    if asked.codings is not None:
        return list(asked.codings)
    return [] if asked.coding else [DEFAULT]


def _fleets(asked: argparse.Namespace, files: Files) -> tuple[list[Fleet], dict[str, str]]:
    """Return the fleets to run, and those that cannot be, with the reason. Raises SettingsError."""
    for name in asked.fleets or ():
        if name not in FLEETS:
            close = difflib.get_close_matches(name, FLEETS, n=1)
            meant = f'; did you mean "{close[0]}"?' if close else f": there are {', '.join(FLEETS)}"
            raise SettingsError(f"there is no fleet {name}{meant}")
        if why := plan.missing(FLEETS[name], files):
            raise SettingsError(f"the fleet {name} cannot be run: {why} (--data, --mnist-train, --mnist-test)")
    wanted = [FLEETS[name] for name in dict.fromkeys(asked.fleets or FLEETS)]
    if asked.quick:
        wanted = plan.quick(wanted)
    if not wanted:
        raise SettingsError(f"--quick: none of {', '.join(asked.fleets)} is one of its fleets")
    left_out = {fleet.name: why for fleet in wanted if (why := plan.missing(fleet, files))}
    able = [fleet for fleet in wanted if fleet.name not in left_out]
    if not able:
        raise SettingsError(f"no fleet can be run: {', '.join(sorted(set(left_out.values())))}")
    return able, left_out


def _check_trusted(trusted: Sequence[str], names: Sequence[str]) -> None:
    for name in trusted:
        if name not in names:
            raise SettingsError(f"--trust {name}: that coding is not run here, {', '.join(names)} are")


def _check_writable(asked: argparse.Namespace) -> None:
    """Make the cache; say now, and not after an hour, where nothing can be written."""
    try:
        asked.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--cache {asked.cache}: {error.strerror or error}") from error
    for path in (asked.markdown, asked.json):
        if path is not None and not path.absolute().parent.is_dir():
            raise SettingsError(f"{path}: there is no such folder")
    for folder in (asked.cache, *(path.absolute().parent for path in (asked.markdown, asked.json) if path is not None)):
        if not os.access(folder, os.W_OK):
            raise SettingsError(f"{folder}: nothing can be written there")


def _kept(tasks: Sequence[Task], cache: Cache, trusted: Sequence[str]) -> dict[str, Kept]:
    """Return what has run before, by key."""
    found = ((task.key, cache.find(task, trusted=task.coding.name in trusted)) for task in tasks)
    return {key: kept for key, kept in found if kept is not None}


def _run(tasks: Sequence[Task], answers: _Answers, files: Files, cache: Cache, jobs: int) -> None:
    """Run what is not kept and put it with the answers."""
    progress = Progress(jobs, FLOAT32, answers.kept.values())
    left = {task.key: task for task in progress.longest_first(task for task in tasks if task.key not in answers.kept)}
    progress.begin(len(answers.kept), list(left.values()))
    with contextlib.closing(workers.run_all(list(left.values()), files, cache, jobs)) as ended:
        for n_done, done in enumerate(ended, start=1):
            del left[done.task.key]
            if isinstance(done.kept, str):
                answers.failed[done.task.key] = done.kept
            else:
                answers.kept[done.task.key] = done.kept
            progress.ended(done, n_done, list(left.values()))


def _rows(tasks: Sequence[Task], answers: _Answers) -> list[Row]:
    """Compare every coding on every fleet with float32."""
    by_place: dict[tuple[str, str], dict[int, Task]] = {}
    for task in tasks:
        by_place.setdefault((task.fleet.name, task.coding.name), {})[task.seed] = task

    def runs(place: dict[int, Task]) -> dict[int, Kept]:
        return {seed: answers.kept[task.key] for seed, task in place.items() if task.key in answers.kept}

    rows = []
    for (fleet, coding), place in by_place.items():
        baseline = by_place.get((fleet, FLOAT32), {})
        failed = [
            answers.failed[task.key] for task in (*place.values(), *baseline.values()) if task.key in answers.failed
        ]
        if coding != FLOAT32:
            one = next(iter(place.values())).fleet
            rows.append(report.row(one, coding, runs(place), runs(baseline), failed[0] if failed else ""))
    return rows


def _remarks(code: str, answers: _Answers) -> list[str]:
    """Return what code the runs were made with."""
    others = sorted({kept.code for kept in answers.kept.values()} - {code})
    trusted = sorted({kept.coding for kept in answers.kept.values() if kept.code != code})
    return [f"Code: {code}."] + ([f"Trusted: {', '.join(trusted)}, made with {', '.join(others)}."] if others else [])


def _tell(asked: argparse.Namespace, rows: list[Row], left_out: dict[str, str], remarks: list[str]) -> None:
    table = report.markdown(rows)
    absent = [f"Left out: {name}: {why}." for name, why in left_out.items()]
    text = "\n\n".join([table, report.NOTES, *absent, " ".join(remarks)]) + "\n"
    print(text, end="")
    if asked.markdown is not None:
        asked.markdown.write_text(text, encoding="utf-8")
    if asked.json is not None:
        found = {"rows": report.worst_first(rows), "left_out": left_out, "remarks": remarks}
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Have whatever ends a process end a block by KeyboardInterrupt, once: a second one would leave workers behind."""

    def stop(stopped_by: int, _frame: FrameType | None) -> None:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(stopped_by).name)

    # A hangup that is ignored stays so: that is what nohup is for. An ignored Ctrl-C is only what "&" of a script does.
    caught = [one for one in STOPS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedge-fleets"
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder with the NPZ files")
    parser.add_argument("--mnist-train", type=Path, metavar="FILE.npz")
    parser.add_argument("--mnist-test", type=Path, metavar="FILE.npz")
    parser.add_argument("--fleets", nargs="+", metavar="NAME", help=f"of {', '.join(FLEETS)}")
    parser.add_argument(
        "--codings", nargs="+", metavar="NAME", help=f"of {', '.join(PRESETS)} ({DEFAULT}); off is always run"
    )
    parser.add_argument("--coding", action="append", default=[], metavar="NAME=FILE.toml", help="one more, in numbers")
    parser.add_argument("--seeds", type=_count, metavar="N", help="instead of as many as each fleet says")
    parser.add_argument("--quick", action="store_true", help="fewer fleets, seeds and rounds")
    parser.add_argument("--jobs", type=_count, default=os.cpu_count() or 1, metavar="N", help="processes at once")
    parser.add_argument("--cache", type=Path, default=cache, metavar="DIR", help="where runs are kept (%(default)s)")
    parser.add_argument("--kept", action="store_true", help="run nothing: the table of what is kept so far")
    parser.add_argument("--trust", nargs="+", default=[], metavar="CODING", help="take kept runs made with other code")
    parser.add_argument("--code-key", metavar="NAME", help="a name in place of the hash of the source code")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row there, with its curves")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
