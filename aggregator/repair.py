"""Putting right the numbers of a store that no honest fleet comes to, and an operator's word that it shall lead.

An older fedge believed whatever was said on the wire, and wrote it down: a term of 2**53 + 1, a generation of 2**40.
Nothing follows such a number. Here it is replaced by one within its ceiling (broker/ceilings.py):

    term, claim    forgotten: the next leadership begins above what is then heard; also at their ceilings, where an
                   operator's word finds none above
    generations    each by a new one, at random above those in range, in every row of the job and in its order; with
                   them go verdicts, counted updates, rounds and bodies, so that nothing that was counted is lost

A name that is out of range is not kept as a former one: whoever has an update to it is told nothing, and trains again.
All of it is one transaction. The store must be open, and so locked: no aggregator runs on it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from aggregator.database import DamageError, Database, Transaction, crc
from aggregator.generations import HIGHEST, LEAP, Chance
from aggregator.rows import damaged, is_id
from broker.ceilings import MOST_CLAIM, MOST_GENERATION, MOST_TERM, after

TABLES = ("versions", "updates", "attempts")
"""Those with a generation in their rows, beside jobs."""


class Mended(Struct, frozen=True):
    """One number that was out of range. what: the term, the claim, or the generation of a job."""

    what: str
    was: int
    now: int
    job: str = ""

    def __str__(self) -> str:
        of = f" of job {self.job}" if self.job else ""
        return f"the {self.what}{of} was {self.was}, and is {self.now}"


class TakenOver(Struct, frozen=True):
    """What an operator's word has changed in a store."""

    state_dir: str
    term: int
    claim: int
    term_before: int
    claim_before: int
    was_replaced: bool
    """Whether it stood by because another aggregator had taken its place."""


def mend(db: Database, chance: Chance) -> list[Mended]:
    """Put right every number that is out of range, and return what was. Raises StoreError; nothing is then changed."""
    with db.transaction("a repair") as write:
        found = list(_words(db, write))
        for (job,) in list(db.rows("table jobs", "SELECT job FROM jobs ORDER BY job")):
            if is_id(job):
                found += _generations(db, write, job, chance)
    return found


def _words(db: Database, write: Transaction) -> Iterable[Mended]:
    most = {"term": MOST_TERM, "note:claim": MOST_CLAIM}
    words: dict[str, object] = dict(db.rows("table meta", "SELECT name, value FROM meta"))
    for name, ceiling in most.items():
        value = words.get(name)
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if isinstance(number, int) and number >= ceiling:
            write("UPDATE meta SET value = ? WHERE name = ?", ("0" if isinstance(value, str) else 0, name))
            yield Mended(name.removeprefix("note:"), number, 0)


def _generations(db: Database, write: Transaction, job: str, chance: Chance) -> list[Mended]:
    """Draw new generations for a job in the place of those that are out of range, or leave no room above."""
    known: set[int] = set()
    for table in ("jobs", *TABLES):
        sql = f"SELECT DISTINCT generation FROM {table} WHERE job = ?"  # noqa: S608 -- names of our own
        cells = db.rows(f"job {job}, table {table}", sql, (job,))
        known |= {cell for (cell,) in cells if isinstance(cell, int)}
    beyond = sorted(generation for generation in known if generation > HIGHEST)
    if not beyond:
        return []
    first = max(known.difference(beyond), default=0) + 1 + chance(LEAP)
    new = {old: first + n for n, old in enumerate(beyond)}
    _rename_rounds(db, write, job, new)
    for old, now in new.items():
        for table in ("jobs", *TABLES):
            write(f"UPDATE {table} SET generation = ? WHERE job = ? AND generation = ?", (now, job, old))  # noqa: S608
        before = f"{old}-"
        write(
            "INSERT OR REPLACE INTO bodies (job, name, number, chunk_bytes, data, crc)"
            " SELECT job, ? || substr(name, ?), number, chunk_bytes, data, crc FROM bodies"
            " WHERE job = ? AND substr(name, 1, ?) = ?",
            (f"{now}-", len(before) + 1, job, len(before), before),
        )
    _rename_aliases(db, write, job, new)
    return [Mended("generation", old, now, job) for old, now in new.items()]


def _rename_rounds(db: Database, write: Transaction, job: str, new: dict[int, int]) -> None:
    sql = "SELECT rowid, generation, number, round FROM attempts WHERE job = ?"
    for rowid, generation, number, cell in list(db.rows(f"job {job}, table attempts", sql, (job,))):
        tree = _json(job, "attempts", cell)
        base = tree.get("base") if isinstance(tree, dict) else None
        if not isinstance(tree, dict) or not (isinstance(base, list) and base and _is_beyond(base[0])):
            continue
        round_ = msgspec.json.encode(tree | {"base": [new.get(generation, generation), number]})
        write("UPDATE attempts SET round = ?, crc = ? WHERE rowid = ?", (round_, crc(round_), rowid))


def _rename_aliases(db: Database, write: Transaction, job: str, new: dict[int, int]) -> None:
    row = db.one(f"job {job}, table jobs", "SELECT aliases FROM jobs WHERE job = ?", (job,))
    tree = _json(job, "jobs", row[0] if row else "[]")
    kept = []
    for pair in tree if isinstance(tree, list) else []:
        match pair:
            case [[int(former), number], [int(present), present_number]] if former <= MOST_GENERATION:
                kept.append([[former, number], [new.get(present, present), present_number]])
    write("UPDATE jobs SET aliases = ? WHERE job = ?", (msgspec.json.encode(kept).decode(), job))


def _is_beyond(generation: object) -> bool:
    return isinstance(generation, int) and generation > HIGHEST


def _json(job: str, table: str, cell: object) -> object:
    try:
        return msgspec.json.decode(cell) if isinstance(cell, bytes | str) else None
    except msgspec.MsgspecError as error:
        raise damaged(job, table, error) from error


def next_of(term: int, claim: int) -> tuple[int, int]:
    """Return the term and the claim of a leadership that an operator has asked for.

    Raises DamageError where there is none above.
    """
    if term >= MOST_TERM or claim >= MOST_CLAIM:
        raise DamageError(
            f"the state directory has term {term} and claim {claim}, and there is none above {MOST_TERM} and "
            f"{MOST_CLAIM}: run `fedge aggregator repair` for every aggregator of this fleet first"
        )
    return after(term, MOST_TERM), after(claim, MOST_CLAIM)
