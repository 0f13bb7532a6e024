"""A fleet whose job asks for all there is at once: it agrees, balances, holds back, stops by patience, keeps, averages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from aggregator.run import Run
from broker.messages import Version
from edge_agent.config import ModelSettings
from edge_agent.slots import Install, InstallOutcome
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.job import AggregateSpec, CompressionSpec, JobSpec, RoundsSpec, StopSpec
from models.nets.normalised import normalised
from tests.aggregator.conftest import INPUTS, OUTPUTS, Fleet

SpecMaker = Callable[..., JobSpec]
FLEET = sys.modules[Fleet.__module__]
CONTRACT = ContractSpec(normalise="standard", class_weight="balanced", validation=0.2, classes=("ok", "fault"))
ROUNDS = RoundsSpec(
    quorum=3, min_devices=3, max_rounds=6, wait="all", deadline_s=30.0, late="fold", max_share=0.5, keep_every=2
)
CODINGS: dict[str, Any] = {"off": "off", "light": "light", "strong": "strong", "int8": CompressionSpec(codec="int8")}
STRATEGIES = {
    "fedavg": AggregateSpec(),
    "momentum": AggregateSpec(server_momentum=0.9),
    "fedadam": AggregateSpec(strategy="fedadam", server_learning_rate=0.02),
    "median": AggregateSpec(strategy="median"),
}


def raw(seed: int, n: int = 40) -> Dataset:
    """Two clouds that differ in what is small, of which some are held back."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % OUTPUTS
    z = rng.standard_normal((n, INPUTS)) + 2.0 * y[:, None]
    X = (z * [1e5, 1, 1e-2, 1e4] + [1e5, 0, 0, 1e9]).astype(np.float32)
    return Dataset(X[n // 5 :], y[n // 5 :], held_out=Dataset(X[: n // 5], y[: n // 5]))


@pytest.fixture(autouse=True)
def _raw_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FLEET, "rows", raw)


INSTALLS: list[Install] = []


class NoChildren:
    """Slots that note what they are given, and have it in service at once."""

    def __init__(self, *_: object, **__: object) -> None:
        self._done: list[InstallOutcome] = []

    def deployed(self, *_: object) -> Version | None:
        return None

    def put(self, install: Install) -> None:
        INSTALLS.append(install)
        self._done.append(InstallOutcome(install.name, install.release))

    def finished(self) -> list[InstallOutcome]:
        done, self._done = self._done, []
        return done

    def sweep(self, *_: object) -> None:
        """Nothing lies anywhere."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[Install]:
    """What is put into service, of all devices of fleets that are made from here on."""
    monkeypatch.setattr("edge_agent.service.Slots", NoChildren)
    monkeypatch.setattr(FLEET, "ModelSettings", lambda **_: ModelSettings(inference=True))
    INSTALLS.clear()
    return INSTALLS


def accuracy(run: Run, rows: Dataset) -> float:
    held = run._learner.now.held
    net = normalised(run._net, run.spec.contract, held.agreed)
    found = net.evaluate(held.model.params(net.spec), rows.X, rows.y).accuracy
    assert found is not None
    return found


def test_the_last_version_is_scored_on_rows_as_its_fleet_normalises_them(
    installs: list[Install], fleet: Fleet, spec: SpecMaker
) -> None:
    fleet.submit(spec(contract=CONTRACT, rounds=ROUNDS, deploy="final"))
    run = fleet.finish()
    fleet.run(lambda: fleet.job().metrics.get("federated_devices", 0) == 3)
    held_out = [rows for seed in range(3) if (rows := raw(seed).held_out) is not None]
    assert fleet.job().metrics["accuracy"] == pytest.approx(sum(accuracy(run, rows) for rows in held_out) / 3)
    assert len(installs) == 3
