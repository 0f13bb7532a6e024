"""What each device brought to each version that was left, in the store: for people, and for the score by devices.

   updates         of the base that is current: with the verdict, in one transaction
      │ commit, or the end of the job
      ▼
   contributions   one row a (version, device): the last MOST_ROWS of a job, and those of the version that reached that

1. A row of the base is durable with the verdict on its update; it is moved on in the transaction that makes the next
   version, together with the score that follows from it. So a death in between loses and doubles nothing.
2. What devices say of the last version of a job that has ended is added to the rows of that version.
3. Rows go by the number of the version alone, which a restored backup does not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from aggregator.database import Database, Transaction
from aggregator.rows import Natural, Norm, damaged, is_whole, read, read_json, sealed
from broker.ceilings import Number
from broker.messages import Id, Version

Scored = tuple[Mapping[str, float], Mapping[str, object]]
"""How good a version is: its metrics, and what devices say of it one by one and together (federated.py)."""

MOST_ROWS = 50_000
"""Rows of one job that are kept for people, in whole versions: 500 rounds of a hundred devices, about 15 MB."""
PRUNED_EVERY = 16
"""Versions from one look at how many rows there are to the next."""


class Contribution(Struct, frozen=True):
    """What one device brought to one version, as it is shown."""

    device: Id
    counted: bool
    n_examples: Natural
    weight: Natural
    """In the sum; before a limit of its share."""
    norm: Norm
    loss: float | None
    body_bytes: Natural | None
    seconds: Annotated[float, Meta(ge=0, le=1e12)] | None
    """From the opening of the round to its coming; of a process that was started in between, from there."""
    evaluation: bytes
    """Of the version that it trained on, on rows that it holds back (models/measures/tally.py); empty where it said
    nothing."""


class Evaluation(NamedTuple):
    """The evaluation of a version by one device, as it came. rows: what the device claims to train on."""

    device: str
    rows: int
    content: bytes


class Point(Struct, frozen=True):
    """A version, and how good it is. federated: by its devices (aggregator/federated.py), empty where that is not
    known.
    """

    version: Version
    at: str
    """When it was made, in UTC."""
    metrics: dict[str, float]
    federated: dict[str, object]


_COLUMNS = "device, counted, n_examples, weight, norm, loss, body_bytes, seconds, evaluation"
_MOVE = (
    "INSERT OR REPLACE INTO contributions (job, number, device, counted, n_examples, weight, norm, loss, body_bytes,"
    " seconds, evaluation)"
    " SELECT job, number, device, refused = '', n_examples, CASE refused WHEN '' THEN weight ELSE 0 END, norm, loss,"
    " body_bytes, seconds, evaluation FROM updates"
    " WHERE job = ?1 AND (body IS NOT NULL OR (generation = ?2 AND number = ?3)) ORDER BY generation"
)
_OF_UPDATES = (
    "SELECT device, n_examples, evaluation FROM updates WHERE job = ?1 AND generation = ?2 AND number = ?3"
    " AND refused = '' AND evaluation IS NOT NULL AND (?4 IS NULL OR device = ?4)"
)
_OF_LAST = (
    "SELECT device, n_examples, evaluation FROM contributions WHERE job = ?1 AND ?2 > 0 AND number = ?3"
    " AND evaluation IS NOT NULL AND (?4 IS NULL OR device = ?4)"
)
_PRUNE = (
    "DELETE FROM contributions WHERE job = ?1 AND number < (SELECT number FROM contributions WHERE job = ?1"
    " ORDER BY number DESC, device DESC LIMIT 1 OFFSET ?2)"
)


def move(write: Transaction, job: str, base: Version) -> None:
    """Move what came for the next version on, when its base is left or the job ends, before the bodies go."""
    write(_MOVE, (job, base.generation, base.number))
    if base.number % PRUNED_EVERY == 0:
        write(_PRUNE, (job, MOST_ROWS - 1))


def score(
    write: Transaction, job: str, version: Version, metrics: Mapping[str, float], federated: Mapping[str, object]
) -> None:
    """Write down how good a version is, now that its devices have said so."""
    write(
        "UPDATE versions SET metrics = ?, federated = ? WHERE job = ? AND generation = ? AND number = ?",
        (msgspec.json.encode(metrics), msgspec.json.encode(federated), job, version.generation, version.number),
    )


def add_last(write: Transaction, job: str, number: int, one: Evaluation) -> None:
    """Add what a device says of the last version of a job; it may have brought an update to it before."""
    write(
        "INSERT INTO contributions (job, number, device, counted, n_examples, weight, norm, loss, evaluation)"
        " VALUES (?, ?, ?, 0, ?, 0, 0.0, NULL, ?) ON CONFLICT DO UPDATE SET evaluation = excluded.evaluation",
        (job, number, one.device, one.rows, sealed(one.content)),
    )


def evaluations(db: Database, job: str, version: Version, device: str | None = None) -> list[Evaluation]:
    """Return the evaluations of the current version, by device: of those whose updates count. Raises DamageError.

    Of the last version of a job also those that came after its end. device: of this one alone.
    """
    found = {}
    for table, query in (("updates", _OF_UPDATES), ("contributions", _OF_LAST)):
        values = (job, version.generation, version.number, device)
        for cells in db.rows(f"job {job}, table {table},", query, values):
            one = _evaluation(job, table, cells)
            found[one.device] = one
    return [found[name] for name in sorted(found)]


def n_evaluations(db: Database, job: str, number: int) -> int:
    """Count the evaluations of the last version of a job that has ended."""
    sql = "SELECT count(evaluation) FROM contributions WHERE job = ? AND number = ?"
    row = db.one(f"job {job}, table contributions,", sql, (job, number))
    return 0 if row is None else int(row[0])


def of(db: Database, job: str, number: int) -> list[Contribution]:
    """Return what devices brought to the version that followed the one of this number, by device. Raises DamageError.

    Of the base that is current: what has come by now.
    """
    updates = _COLUMNS.replace("counted", "refused = ''")
    found = {}
    for table, columns in (("updates", updates), ("contributions", _COLUMNS)):
        sql = f"SELECT {columns} FROM {table} WHERE job = ? AND number = ? ORDER BY device"  # noqa: S608 -- names of ours
        for cells in db.rows(f"job {job}, table {table},", sql, (job, number)):
            one = _contribution(job, table, cells)
            found[one.device] = one
    return [found[device] for device in sorted(found)]


def curve(db: Database, job: str, after: int, most: int) -> list[Point]:
    """Return so many versions of a job at most, from behind the one of number `after`. Raises DamageError."""
    sql = (
        "SELECT generation, number, at, metrics, federated FROM versions WHERE job = ? AND number > ?"
        " ORDER BY number LIMIT ?"
    )
    return [_point(job, cells) for cells in db.rows(f"job {job}, table versions,", sql, (job, after, most))]


def federated(db: Database, job: str, number: int) -> dict[str, object]:
    """Return how good the version of this number is by its devices, or nothing. Raises DamageError."""
    sql = "SELECT federated FROM versions WHERE job = ? AND number = ? AND federated IS NOT NULL"
    row = db.one(f"job {job}, table versions,", sql, (job, number))
    return {} if row is None else read_json(dict[str, object], job, "versions", row[0])


def last_scored(db: Database, job: str) -> int | None:
    """Return the number of the last version that its devices have scored; None where there is none."""
    sql = "SELECT max(number) FROM versions WHERE job = ? AND federated IS NOT NULL"
    row = db.one(f"job {job}, table versions,", sql, (job,))
    return None if row is None or row[0] is None else read(Number, job, "versions", row[0])


def _evaluation(job: str, table: str, cells: tuple[object, ...]) -> Evaluation:
    device, rows, cell = cells
    name = read(Id, job, table, device)
    return Evaluation(name, read(Natural, job, table, rows), _content(job, table, name, cell))


def _content(job: str, table: str, device: str, cell: object) -> bytes:
    if not isinstance(cell, bytes) or len(cell) <= 4 or not is_whole(cell):
        raise damaged(job, table, f"the checksum of the evaluation of {device} is wrong")
    return cell[4:]


def _contribution(job: str, table: str, cells: tuple[object, ...]) -> Contribution:
    found = dict(zip(Contribution.__struct_fields__, cells, strict=True))
    found["counted"], cell = bool(found["counted"]), found["evaluation"]
    found["evaluation"] = b"" if cell is None else _content(job, table, str(found["device"])[:80], cell)
    return read(Contribution, job, table, found)


def _point(job: str, cells: tuple[object, ...]) -> Point:
    generation, number, at, metrics, by_devices = cells
    return Point(
        read(Version, job, "versions", (generation, number)),
        at if isinstance(at, str) else "",
        read_json(dict[str, float], job, "versions", metrics),
        {} if by_devices is None else read_json(dict[str, object], job, "versions", by_devices),
    )
