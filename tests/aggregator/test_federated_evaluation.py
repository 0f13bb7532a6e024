"""Devices score versions on rows that they hold back: from the device's rows to what the job is stopped by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from aggregator.store import Store
from broker.messages import Curve
from edge_agent import work
from models import sections
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.data.source import DataSource
from models.job import JobSpec, RoundsSpec, StopSpec
from models.measures import tally
from models.nets.table import build
from tests.aggregator import conftest
from tests.aggregator.conftest import Fleet, toy

HELD_OUT = {"d0": 10, "d1": 20, "d2": 40}


def with_held_out(seed: int) -> Dataset:
    """What a device trains on, and other rows of the same two clouds."""
    rng = np.random.default_rng(100 + seed)
    n = HELD_OUT[f"d{seed}"]
    y = np.arange(n) % 2
    X = rng.standard_normal((n, conftest.INPUTS)) + 2.0 * y[:, None]
    return plain_rows(seed)._replace(held_out=Dataset(np.ascontiguousarray(X, np.float32), y))


plain_rows = conftest.rows


def evaluated(**changes: object) -> JobSpec:
    fields: dict[str, object] = {"contract": ContractSpec(validation=0.2, classes=("ok", "fault"))}
    return toy(**(fields | changes))


def stopping(**stop: object) -> RoundsSpec:
    return RoundsSpec(
        quorum=3,
        min_devices=3,
        max_rounds=30,
        wait="all",
        deadline_s=30.0,
        max_share=0.4,
        stop=StopSpec(**stop),  # type: ignore[arg-type]  # the tests know the fields
    )


@pytest.fixture
def scoring_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(conftest, "rows", with_held_out)
    whole = Fleet(tmp_path, 3)
    whole.lead()
    yield whole
    whole.store.close()


def accuracy_of(fleet: Fleet, number: int) -> dict[str, float]:
    """What each device must say of a version: the model of that number on its own rows."""
    run = fleet.job()
    net = build(run.spec.model)
    model = models_of(fleet)[number]
    found = {}
    for name in fleet.agents:
        held_out = with_held_out(int(name[1:])).held_out
        assert held_out is not None
        found[name] = net.evaluate(model.params(net.spec), held_out.X, held_out.y).accuracy or 0.0
    return found


MODELS: dict[int, object] = {}


def models_of(fleet: Fleet):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return MODELS


def test_smoke(scoring_fleet: Fleet) -> None:
    fleet = scoring_fleet
    fleet.submit(evaluated(rounds=stopping(target=0.95)))
    run = fleet.finish()
    print(run.reason, run.version)
    for p in fleet.store.curve(run.job, most=99):
        print(p)
    from aggregator import curves
    for line in curves.devices(run, fleet.store, "", 100000)[0]: print(line)
    assert 0
