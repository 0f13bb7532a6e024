"""Two states of this project on README's fleets: do they send as many bytes, and make the same models?

    python -m benchmarks.same HEAD~5 HEAD                   # two revisions
    python -m benchmarks.same main .                        # a revision, and what lies in this folder, uncommitted too
    python -m benchmarks.same main . --exact --fleets iid-10 shards-50 --codings off strong
    python -m benchmarks.same main . --data mine.npz --job mine.toml --devices 46 --partition column:device

Each fleet is simulated for 20 versions by both trees, each run a process of its own. Payload of MQTT, in either
direction, has to be within 2 % of BASE's. With --exact the SHA-256 of all versions has to be the same as well: so it is
where nothing but speed has changed. A revision is exported into a temporary folder, which is gone in the end, however
this ends; nothing is noted in the repository. Return 1 where something differs or does not run, 2 for bad input.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct

from benchmarks.trees import Answer, Fleet, Runs, Task, undisturbed
from fleet.console.display import duration, n_bytes
from fleet.local.processes import interruptible
from models.job import PRESETS

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = 20
TOLERANCE = 0.02
FLEETS = {
    "iid-10": Fleet("digits", "digits", "iid", 10, 1.0),
    "iid-100": Fleet("digits", "digits", "iid", 100, 0.1),
    "shards-50": Fleet("digits", "digits", "shards:2", 50, 0.2),
    "dirichlet-46": Fleet("digits", "digits", "dirichlet:0.1", 46, 0.1),
    "dirichlet-100": Fleet("digits", "digits", "dirichlet:0.5", 100, 0.1),
}
OWN = "own"
INTERRUPTED = 130
MEMORY_DISK = Path("/dev/shm")  # noqa: S108 -- mkdtemp makes a folder of its own there
ROOM_BYTES = 2**29
HEADER = (
    f"{'fleet':<14} {'coding':<8} {'up, base':>10} {'head':>10} {'ratio':>7} {'down, base':>10} {'head':>10} "
    f"{'ratio':>7} {'versions':>8} {'same':>5}"
)


class SameError(ValueError):
    """What cannot be compared; the message says why."""


class Tree(NamedTuple):
    """A state of the project. name: as it was asked for."""

    name: str
    folder: Path


class Compared(Struct, frozen=True):
    """One fleet in one coding, on both trees. Bytes are payloads of MQTT, of all devices together."""

    fleet: str
    coding: str
    up: tuple[int, int]
    down: tuple[int, int]
    versions: int
    same: int
    """Versions from the first one on whose SHA-256 are equal."""

    @property
    def ratios(self) -> tuple[float, float]:
        """HEAD's bytes beside BASE's: up, and down."""
        return self.up[1] / max(1, self.up[0]), self.down[1] / max(1, self.down[0])

    @property
    def is_within(self) -> bool:
        """Whether payload is as it was, or nearly so, in both directions."""
        return all(abs(ratio - 1.0) <= TOLERANCE for ratio in self.ratios)

    @property
    def is_same(self) -> bool:
        """Whether every version is the same model."""
        return self.same == self.versions


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        fleets = _fleets(asked)
        with interruptible(), _workshop() as folder:
            trees = [_tree(name, folder / side) for name, side in ((asked.base, "base"), (asked.head, "head"))]
            return _compare(asked, trees, fleets, folder / "runs")
    except SameError as error:
        print(f"same: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: nothing is left behind", file=sys.stderr)
        return INTERRUPTED


def _compare(asked: argparse.Namespace, trees: Sequence[Tree], fleets: dict[str, Fleet], folder: Path) -> int:
    tasks = [
        Task(tree.folder, side, name, fleet, coding, asked.versions)
        for (name, fleet), coding, (side, tree) in itertools.product(
            fleets.items(), asked.codings, zip(("base", "head"), trees, strict=True)
        )
    ]
    print(f"base {trees[0].name}, head {trees[1].name}, {asked.versions} versions each\n\n{HEADER}", flush=True)
    answers: dict[tuple[str, str], dict[str, Answer]] = {}
    found: list[Compared] = []
    failed: list[str] = []
    began = time.monotonic()
    with Runs(folder, asked.jobs) as runs:
        for n, (task, answer) in enumerate(runs.all(tasks), start=1):
            left_s = (time.monotonic() - began) * (len(tasks) - n) / n
            where = f"[{n}/{len(tasks)}] {task.name} {task.coding} {task.side}"
            print(f"{where}: {duration(answer.seconds)}; {duration(left_s)} left", file=sys.stderr, flush=True)
            if answer.error:
                failed.append(f"{task.name} {task.coding} on {task.side}: {answer.error}")
                continue
            both = answers.setdefault((task.name, task.coding), {})
            both[task.side] = answer
            if len(both) == len(trees):
                found.append(_compared(task, both["base"], both["head"]))
                print(_row(found[-1]), flush=True)
    return _verdict(asked, found, failed)


def _compared(task: Task, base: Answer, head: Answer) -> Compared:
    pairs = itertools.zip_longest(base.sha256, head.sha256)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    n = max(len(base.sha256), len(head.sha256))
    return Compared(task.name, task.coding, (base.up, head.up), (base.down, head.down), n, same)


def _row(row: Compared) -> str:
    (up, down), bytes_ = row.ratios, [n_bytes(n) for n in (*row.up, *row.down)]
    return (
        f"{row.fleet:<14} {row.coding:<8} {bytes_[0]:>10} {bytes_[1]:>10} {up:>7.4f} {bytes_[2]:>10} {bytes_[3]:>10} "
        f"{down:>7.4f} {row.versions:>8} {row.same if not row.is_same else 'all':>5}"
        + ("" if row.is_within else f"   more than {TOLERANCE:.0%} off")
    )


def _verdict(asked: argparse.Namespace, found: Sequence[Compared], failed: Sequence[str]) -> int:
    off, other = [row for row in found if not row.is_within], [row for row in found if not row.is_same]
    for why in failed:
        print(f"did not run: {why}", file=sys.stderr)
    print(
        f"\npayload within {TOLERANCE:.0%} on {len(found) - len(off)} of {len(found)}, "
        f"every SHA-256 equal on {len(found) - len(other)} of {len(found)}"
        + (f"; {len(failed)} runs failed" if failed else "")
    )
    for row in other:
        print(f"{row.fleet} {row.coding}: the first version that differs is {row.same + 1}")
    if asked.json is not None:
        rows = [{name: getattr(row, name) for name in row.__struct_fields__} | {"ratios": row.ratios} for row in found]
        asked.json.write_text(json.dumps({"rows": rows, "failed": list(failed)}, indent=1) + "\n", encoding="utf-8")
    return int(bool(failed or off or (asked.exact and other)))


# What is compared.


def _fleets(asked: argparse.Namespace) -> dict[str, Fleet]:
    names = asked.fleets if asked.fleets is not None else list(FLEETS)
    fleets = {name: FLEETS[name] for name in names}
    if (asked.data is None) != (asked.job is None):
        raise SameError("--data and --job go together: a fleet of one's own needs both")
    if asked.data is not None:
        for path in (asked.data, asked.job):
            if not path.is_file():
                raise SameError(f"{path}: there is no such file")
        own = (str(asked.job.resolve()), str(asked.data.resolve()), asked.partition, asked.devices, asked.fraction)
        fleets[OWN] = Fleet(*own, asked.features)
    if asked.json is not None and not asked.json.resolve().parent.is_dir():
        raise SameError(f"--json {asked.json}: there is no such folder")
    return fleets


def _tree(name: str, folder: Path, root: Path = ROOT) -> Tree:
    """Return a tree: a folder as it lies there, or a revision, exported. Raises SameError."""
    if (Path(name) / "fleet" / "cli.py").is_file():
        return Tree(name, Path(name).resolve())
    if Path(name).is_dir():
        raise SameError(f"{name} is a folder without fleet/cli.py, so it is no checkout of this project")
    revision = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    if not revision:
        raise SameError(f"{name} is neither a revision of the repository at {root} nor a folder: see git log --oneline")
    exported = _git(root, "archive", revision)
    if not exported:
        raise SameError(f"{name} cannot be exported: run `git -C {root} archive {revision[:12]}` to see why")
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        # A filter is there from Python 3.11.4 on; what is unpacked is our own.
        safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, **safe)  # noqa: S202 -- git has made it from our own history
    if not (folder / "fleet" / "cli.py").is_file():
        raise SameError(f"{name} has no fleet/cli.py: it is too old to be compared")
    return Tree(f"{name} ({revision[:9]})", folder)


def _git(root: Path, *command: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(root), *command], capture_output=True, check=False).stdout
    except OSError as error:
        raise SameError(f"git is needed to export a revision, and cannot be run: {error.strerror}") from error


@contextmanager
def _workshop() -> Iterator[Path]:
    """Return a folder for the length of a block: trees, and all that runs write; in memory where there is room."""
    try:
        roomy = shutil.disk_usage(MEMORY_DISK).free > ROOM_BYTES
    except OSError:
        roomy = False
    folder = tempfile.mkdtemp(prefix=f"fedge-same-{os.getpid()}-", dir=MEMORY_DISK if roomy else None)
    try:
        yield Path(folder)
    finally:
        with undisturbed():
            shutil.rmtree(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", metavar="BASE", help="a git revision, or a checkout's folder")
    parser.add_argument("head", metavar="HEAD", help="the same, of what is held against it")
    parser.add_argument("--exact", action="store_true", help="return 1 where a SHA-256 differs, too")
    parser.add_argument("--fleets", nargs="*", choices=list(FLEETS), metavar="NAME", help=f"of {', '.join(FLEETS)}")
    parser.add_argument("--codings", nargs="+", choices=list(PRESETS), default=list(PRESETS), metavar="CODING")
    parser.add_argument("--versions", type=_positive, default=VERSIONS, metavar="N")
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="a fleet of one's own, with --job")
    parser.add_argument("--job", type=Path, metavar="JOB.toml")
    parser.add_argument("--features", metavar="NAME", help="the array of features in FILE.npz (X)")
    parser.add_argument("--devices", type=_positive, default=10, metavar="N", help="of one's own fleet")
    parser.add_argument("--partition", default="iid", metavar="HOW", help="of one's own fleet")
    parser.add_argument("--fraction", type=float, metavar="C", help="of one's own fleet, instead of the job's")
    parser.add_argument("--jobs", type=_positive, default=2, metavar="N", help="runs at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row there")
    return parser


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
