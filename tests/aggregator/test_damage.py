"""What a disk gives back that was not written: the damaged job rests, named, and the others run.

A store with two jobs is made by real runs. Each case then changes one cell or one row of one of them (`hurt`), in any
way that a disk, a stranger or an older fedge may have, half of the time with a right checksum. More of them by hand:

    DAMAGE_CASES=5000 pytest tests/aggregator/test_damage.py
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from aggregator import creation, waits
from aggregator.config import AggregatorConfig
from aggregator.effects import CoordinatorEvent, DeviceStatus
from aggregator.inbox import Inbox
from aggregator.litter import Litter
from aggregator.run import Run
from aggregator.store import DamageError, JobRow, Judgement, Store, StoreError
from broker import chunks
from broker.messages import Offer, Verdict, Version
from broker.wire import Wire
from models.chain import Chain
from models.job import JobSpec, ModelSpec, RoundsSpec
from models.nets.table import build
from runtime.faults import Marks

WIRE = Wire("f")

CASES = int(os.environ.get("DAMAGE_CASES", "150"))
MODEL = ModelSpec(inputs=3, hidden=(16,), outputs=2)
NET = build(MODEL).spec
CONFIG = AggregatorConfig(fleet="f")
MARKS = Marks(Path("/dev/null/none"))
TABLES = ("jobs", "versions", "updates", "attempts", "bodies", "litter", "meta", "deleted")


def hear(run: Run, event: CoordinatorEvent, now: float) -> None:
    run.handle(event, now)
    run.settle(now)


def spec(name: str) -> JobSpec:
    return JobSpec(name, MODEL, rounds=RoundsSpec(quorum=3, target=3, max_rounds=9, late="fold"))


def offer(run: Run, device: str) -> Offer:
    """An update to the current version."""
    base = run.version
    rng = np.random.default_rng(len(device) + base.number)
    delta = {tensor.name: (0.01 * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET}
    body = Chain(NET, run.spec).coding(base.number, run.terms).encode(delta, rng)
    return Offer(run.job, device, base, 10, chunks.digest(body), len(body), loss=0.5, report=(0.1, 0.2), body=body)


def load(row: JobRow, store: Store) -> Run:
    return Run(row, store, CONFIG, Inbox(10**6), 2, 0.0, marks=MARKS)


def work(run: Run) -> None:
    """Do all that a service does with a run."""
    for device in ("a", "bb", "ccc"):
        hear(run, DeviceStatus(device, online=True, ready=True), 0.0)
    for device in ("a", "bb", "ccc"):
        hear(run, offer(run, device), 1.0)
    outs = [*run.retained(), *run.announce(2.0), *run.tick(1e6)]
    for out in outs:
        WIRE.pack(getattr(out, "message", out))
    core = run.coordinator
    msgspec.json.encode([[*waits.standings(core, 2.0)], waits.of(core, 2.0), core.fates(), run.metrics])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with two jobs in mid-round, and its bytes beside."""
    folder = tmp_path_factory.mktemp("state")
    store = Store(folder, synced=False)
    store.raise_term()
    for job in ("hurt", "well"):
        run = load(creation.create(job, spec(job), store, CONFIG), store)
        for device in ("a", "bb", "ccc"):
            hear(run, DeviceStatus(device, online=True, ready=True), 0.0)
        for _ in range(2):
            for device in ("a", "bb", "ccc"):
                hear(run, offer(run, device), 1.0)
        store.add_verdicts(job, [Judgement(Verdict("ddd", job, Version(1, 2), "ab" * 4, refused="absurd"))])
        assert run.coordinator.attempt is not None
        hear(run, offer(run, run.coordinator.attempt.cohort[0]), 2.0)
        assert (run.version, len(run.coordinator.counted)) == (Version(1, 2), 1)
        store.forget_body(job, "1-1-0")
    store.close()
    (folder / "whole").write_bytes((folder / "aggregator.sqlite").read_bytes())
    return folder


def test_the_store_that_is_damaged_below_has_something_in_every_table(whole: Path) -> None:
    file = anew(whole)
    db = sqlite3.connect(file)
    n_rows = {
        table: db.execute(f"SELECT count(*) FROM {table} WHERE job = 'hurt'").fetchone()[0] for table in TABLES[:6]
    }
    db.close()
    assert all(n > 0 for n in n_rows.values()), n_rows
    store = Store(whole, synced=False)
    for row in store.jobs():
        work(load(row, store))
    store.close()


def anew(folder: Path) -> Path:
    """Put the store back as it was, in the same place: a copy would be given new generations."""
    file = folder / "aggregator.sqlite"
    for side in ("-wal", "-shm"):
        file.with_name(f"{file.name}{side}").unlink(missing_ok=True)
    file.write_bytes((folder / "whole").read_bytes())
    return file


@pytest.mark.parametrize("shard", range(5))
def test_one_damaged_cell_or_row_is_one_job_that_rests(whole: Path, shard: int) -> None:
    for seed in range(shard, CASES, 5):
        what = damage(anew(whole), random.Random(seed))  # noqa: S311 -- a schedule, no secret
        try:
            look(whole)
        except Exception as error:
            error.add_note(f"seed {seed}: {what}")
            raise


def look(folder: Path) -> None:
    """Open what there is: only StoreErrors come out, and the job that is well works."""
    try:
        store = Store(folder, synced=False)
    except StoreError as error:
        says(error, "restore")
        return
    try:
        rows = {row.job: row for row in store.jobs()}
        assert not rows["well"].damage
        assert len(store.claims("well")) == 1
        assert len(store.latest_attempts("well", 0)) == 3
        assert len(store.aliases("well")) == store.moved
        work(load(rows["well"], store))
        for row in rows.values():
            assert (row.spec is None) == bool(row.damage)
            for use in USES:
                try:
                    use(store, row)
                except DamageError as error:
                    says(error, row.job)
                    says(error, "restore a backup")
                except StoreError as error:
                    says(error, "state directory")
        for word in WORDS:
            try:
                word(store)
            except DamageError as error:
                says(error, "restore a backup")
    finally:
        store.close()


def says(error: Exception, words: str) -> None:
    assert words in str(error)


USES: tuple[Callable[[Store, JobRow], object], ...] = (
    lambda store, row: work(load(row, store)),
    lambda store, row: store.verdicts(row.job),
    lambda store, row: store.claims(row.job),
    lambda store, row: list(store.updates(row.job)),
    lambda store, row: store.bodies(row.job),
    lambda store, row: store.history(row.job),
    lambda store, row: store.latest_attempts(row.job, 0),
    lambda store, row: store.attempts_page(row.job, 1, most=5),
    lambda store, row: store.aliases(row.job),
    lambda store, _: Litter(store, clock=time.monotonic, send=list).clear(),
    lambda store, row: store.raise_generation(row.job, 7),
    lambda store, row: store.end_job(row.job, "deleted", ""),
)
WORDS: tuple[Callable[[Store], object], ...] = (
    lambda store: store.term,
    lambda store: store.raise_term(7),
    lambda store: store.note("restored"),
    lambda store: store.deleted(9),
    lambda store: store.job_of_request("r"),
)


# Ways to damage.


def damage(file: Path, rng: random.Random) -> str:
    """Change something of the job `hurt`, or of nobody's; say what."""
    db = sqlite3.connect(file, isolation_level=None)
    db.text_factory = bytes
    try:
        table = rng.choice(TABLES)
        columns = [row[1].decode() for row in db.execute(f"PRAGMA table_info({table})")]
        where = "job = 'hurt'" if "job" in columns else "1"
        rows = db.execute(f"SELECT * FROM {table} WHERE {where}").fetchall()
        if rng.random() < 0.1:
            db.execute("UPDATE meta SET value = 'elsewhere' WHERE name = 'place'")
        if not rows:
            return "nothing"
        row = dict(zip(columns, rng.choice(rows), strict=True))
        keys = [name for name in ("job", "device", "name", "generation", "number", "attempt", "n") if name in columns]
        this = " AND ".join(f"{key} IS ?" for key in keys)
        values = [_as_stored(row[key]) for key in keys]
        match rng.randrange(8):
            case 0:
                db.execute(f"DELETE FROM {table} WHERE {this}", values)
                return f"{table}: {values} is missing"
            case 1:
                twin = row | {(key := rng.choice(keys)): rng.choice([None, 77, "twin", -1])}
                marks = ", ".join("?" for _ in columns)
                db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", [_as_stored(v) for v in twin.values()])
                return f"{table}: {values} twice, with another {key}"
            case _:
                column = rng.choice(columns)
                new = wrong(row[column], rng, [other[columns.index(column)] for other in rows])
                new = None if column == "job" and new in (b"well", "well") else new
                db.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {this}", [new, *values])
                if rng.random() < 0.2:
                    db.execute(f"UPDATE OR IGNORE {table} SET {column} = CAST(X'FF30' AS TEXT) WHERE {this}", values)
                if "crc" in columns and column in ("spec", "body", "round", "data") and rng.random() < 0.5:
                    raw = new if isinstance(new, bytes) else new.encode() if isinstance(new, str) else b""
                    db.execute(f"UPDATE {table} SET crc = ? WHERE {this}", [zlib.crc32(raw), *values])
                return f"{table}.{column} of {values}: {row[column]!r:.60} -> {new!r:.60}"
    except sqlite3.IntegrityError:
        return "nothing"  # a row's number is a number
    finally:
        db.close()


def _as_stored(value: object) -> object:
    """Give text, which is read as bytes here, as text again where it is some."""
    try:
        return value.decode() if isinstance(value, bytes) and b"\0" not in value else value
    except UnicodeDecodeError:
        return value


NASTY: tuple[Any, ...] = (
    *(None, "", "text", b"", b"\xff\xfe", 0, -1, 1, 2, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)),
    *(0.5, -0.5, 1e308, float("inf"), float("-inf"), "x" * 10_000, b"x" * 10_000, "\x1b[31m", "a/b/#"),
    *(b"null", b"{}", b"[]", b"[" * 5000, b'{"a": 1e999}', b'"\\ud800"', b'{"": ""}', b"1" * 400, b"[[1,0],[1,0]]"),
)


def wrong(value: object, rng: random.Random, others: list[object]) -> Any:
    """Return something in the place of a cell."""
    if isinstance(value, bytes) and value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        flipped = value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :]
        found = rng.choice([flipped, flipped, value[:at], value + value[:at], value[at:], bytes(len(value))])
        if len(value) > 200 and rng.random() < 0.5:  # the state, under its own checksum
            found = zlib.crc32(found[4:]).to_bytes(4, "little") + found[4:]
        return found if rng.random() < 0.5 else _as_stored(found)
    if isinstance(value, int) and rng.random() < 0.4:
        return rng.choice([value + 1, value - 1, value ^ 1 << rng.randrange(60), float(value), str(value)])
    return rng.choice([*NASTY, rng.choice(others)])
