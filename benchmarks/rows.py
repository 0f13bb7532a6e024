"""Ten million rows on a device: what its process takes of memory of its own while it reads them and trains on them.

    python -m benchmarks.rows [ROWS] [FORMAT ...]

Each format is read and trained on by a child process with an agent's modules. What counts is RssAnon, the memory that
nobody can take away from it; pages of files are the kernel's, which drops them where memory is short. The files are
written to the folder TMPDIR, some 1.5 GB.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

ROWS, FEATURES, BLOCK = 10_000_000, 6, 100_000
FORMATS = ("csv", "npz", "db")
STEPS = 2000
BATCH = 100


class Cost(NamedTuple):
    """What a child has told: MB of RssAnon before, at most while it read and while it trained, and seconds."""

    idle_mb: float
    read_mb: float
    train_mb: float
    read_s: float
    fit_s: float
    train_s: float
    rows: int


def write(folder: Path, kind: str, n: int) -> Path:
    """Write n rows of a few features and a class, the same ones in every format; BLOCK different ones."""
    rng = np.random.default_rng(0)
    path = folder / f"rows.{kind}"
    X = rng.normal(size=(min(n, BLOCK), FEATURES)).astype(np.float32).round(3)
    y = (X.sum(axis=1) > 0).astype(np.int64)
    times, rest = divmod(n, len(y))
    names = [f"x{at}" for at in range(FEATURES)]
    if kind == "npz":
        np.savez(
            path, X=np.concatenate([np.tile(X, (times, 1)), X[:rest]]), y=np.concatenate([np.tile(y, times), y[:rest]])
        )
        return path
    if kind == "db":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"CREATE TABLE readings ({', '.join([*names, 'y'])})")
            rows = [(*map(float, row), int(label)) for row, label in zip(X, y, strict=True)]
            for part in [rows] * times + [rows[:rest]]:
                connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?, ?)", part)
            connection.commit()
        return path
    lines = [f"{','.join(map(str, row))},{label}\n" for row, label in zip(X.tolist(), y.tolist(), strict=True)]
    whole = "".join(lines)
    with path.open("w") as file:
        file.write(f"{','.join([*names, 'y'])}\n")
        for _ in range(times):
            file.write(whole)
        file.writelines(lines[:rest])
    return path


def anonymous_mb() -> float:
    """Return what this process has of memory of its own, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1000
    return 0.0


def child(path: str, scratch: str) -> Cost:
    """Read, fit and train in this process."""
    import edge_agent.service  # noqa: F401 -- what an agent has in memory
    from models.contract import ContractSpec
    from models.data import reader
    from models.data.dataset import fit
    from models.data.source import DataSource
    from models.job import ModelSpec, TrainSpec
    from models.lattice import initial
    from models.nets import table as nets
    from models.training import train

    model = ModelSpec(inputs=FEATURES, hidden=(16,), outputs=2)
    settings = DataSource(path, query="SELECT * FROM readings" if path.endswith(".db") else None)
    named = not path.endswith(".npz")
    names = tuple(f"x{at}" for at in range(FEATURES))[::-1] if named else tuple(f"x{at}" for at in range(FEATURES))
    contract = ContractSpec(features=names, label="y", classes=("0", "1"))
    peaks = {"read": 0.0, "train": 0.0}

    def look(what: str) -> Callable[[], None]:
        def pause() -> None:
            peaks[what] = max(peaks[what], anonymous_mb())

        return pause

    idle_mb, began = anonymous_mb(), time.monotonic()
    found = reader.read_file(settings, contract, Path(scratch), pause=look("read")).data
    read_s, began = time.monotonic() - began, time.monotonic()
    data = fit(found, model, Path(scratch))
    assert data.fingerprint
    look("read")()
    fit_s, began = time.monotonic() - began, time.monotonic()
    net = nets.build(model)
    state = train.begin(initial(net.spec, 0).params(net.spec), train.seed_for(0, 1, "device"))
    run = train.steps(net, state, data, TrainSpec(epochs=1, batch_size=BATCH), version_number=1)
    for _, at in zip(run, range(STEPS), strict=False):
        if at % 50 == 0:
            look("train")()
    return Cost(idle_mb, peaks["read"], peaks["train"], read_s, fit_s, time.monotonic() - began, len(data.y))


def measure(n: int = ROWS, formats: tuple[str, ...] = FORMATS) -> Iterator[tuple[str, Cost]]:
    """Write, read and train on n rows of each format. Raises CalledProcessError where a child fails."""
    with tempfile.TemporaryDirectory() as folder:
        for kind in formats:
            path = write(Path(folder), kind, n)
            words = (sys.executable, "-m", "benchmarks.rows", "--child", str(path), folder)
            told = subprocess.run(words, check=True, capture_output=True, text=True)
            yield kind, msgspec.json.decode(told.stdout, type=Cost)
            path.unlink()


def main(words: list[str]) -> None:
    """Print a line a format."""
    if words[:1] == ["--child"]:
        print(msgspec.json.encode(child(*words[1:])).decode())
        return
    n = int(words[0]) if words else ROWS
    print("format        rows   idle MB   read MB   train MB   read s   fit s   train s")
    for kind, cost in measure(n, tuple(words[1:]) or FORMATS):
        print(
            f"{kind:6} {cost.rows:>11,} {cost.idle_mb:>9.1f} {cost.read_mb:>9.1f} {cost.train_mb:>10.1f}"
            f" {cost.read_s:>8.1f} {cost.fit_s:>7.1f} {cost.train_s:>9.1f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
