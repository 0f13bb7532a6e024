"""What a round costs a job that has had many: a real store with made-up versions, and updates that are made by hand."""

from __future__ import annotations

import itertools
import random
from functools import partial
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from aggregator.run import Run
from aggregator.store import Store
from broker.messages import Offer
from models.job import StopSpec
from tests.aggregator.test_run import again, hear, job_spec, offer, see, start
from tests.counting import Work, work_of

ROUNDS = 10


def after(n: int, store: Store, compression: str) -> Run:
    """Return a job at version n, with a round open: its first version with another number, and rows of those before."""
    spec = job_spec(max_rounds=10**6, compression=compression)
    stop = StopSpec(metric="loss", target=1e-6, patience=10**6)
    run = start(store, structs.replace(spec, rounds=structs.replace(spec.rounds, stop=stop)))
    now, rng = run._learner.now, random.Random(n)  # noqa: S311 -- made-up versions, no secret
    later = now._replace(held=now.held._replace(number=n))
    with store._db.transaction("what is made up") as write:
        columns = (n, later.to_bytes(), later.sha256, run.job)
        write("UPDATE versions SET number = ?, state = ?, sha256 = ? WHERE job = ?", columns)
        for number in range(n):
            known = msgspec.json.encode({"participants": 2.0, "loss": 1 + rng.random(), "accuracy": rng.random()})
            write(
                "INSERT INTO versions (job, generation, number, sha256, metrics) VALUES (?, 1, ?, ?, ?)",
                (run.job, number, f"{number:064x}", known),
            )
    run = again(store)
    see(run, "a", "bb")
    return run


def round_of(run: Run) -> list[Offer]:
    return [offer(run, device, loss=1.5) for device in ("a", "bb")]


def goes_on(run: Run, offers: list[Offer]) -> None:
    before = run.version
    for one in offers:
        hear(run, one, 1.0)
    assert run.version == before.following()


def cost_after(n: int, folder: Path, compression: str) -> tuple[Work, float]:
    """Return what some rounds take, and how many instructions SQLite's machine carries out for them."""
    store = Store(folder, synced=False)  # no power is cut here
    run = after(n, store, compression)
    goes_on(run, round_of(run))
    counted = itertools.count()
    store._db._db.set_progress_handler(lambda: next(counted) < 0, 1)
    for _ in range(ROUNDS):
        goes_on(run, round_of(run))
    store._db._db.set_progress_handler(None, 1)
    works = [work_of([partial(goes_on, run, round_of(run))]) for _ in range(ROUNDS)]
    store.close()
    return Work(*map(sum, zip(*sorted(works)[: ROUNDS - 2], strict=True))), next(counted)


@pytest.mark.parametrize("compression", ["light", "off"])
def test_a_round_costs_the_same_after_sixteen_times_the_versions(tmp_path: Path, compression: str) -> None:
    (few, few_in_sqlite), (many, many_in_sqlite) = (cost_after(n, tmp_path / str(n), compression) for n in (500, 8000))
    assert many.steps <= 1.2 * few.steps
    assert many.is_about(few)
    assert many_in_sqlite <= 1.2 * few_in_sqlite
