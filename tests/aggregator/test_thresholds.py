"""A fleet whose devices have rows without labels: from their scores to a threshold that its head carries."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from aggregator import projection
from aggregator.evaluation import announced
from broker import chunks
from broker.messages import Head, Int8, Offer, Verdict
from broker.transport import Packet
from edge_agent.config import ModelSettings
from edge_agent.slots import Calibrate, Install, InstallOutcome
from models import sections
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, RoundsSpec, TrainSpec
from models.lattice import initial
from models.measures import anomalies, tally
from models.nets.table import build
from tests.aggregator import conftest
from tests.aggregator.conftest import WIRE, Fleet

MODEL = ModelSpec("autoencoder", inputs=conftest.INPUTS, hidden=(2,), options={"normal_share": 0.9})


def hum(seed: int, n: int = 60) -> Dataset:
    """Rows near a plane; the scale of each device is a little larger than that of the one before."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 2)) @ np.random.default_rng(99).standard_normal((2, conftest.INPUTS))
    return Dataset((X * (1 + 0.1 * seed)).astype(np.float32), np.zeros(n, np.int64))


def job(**contract: float) -> JobSpec:
    return JobSpec(
        "hum",
        MODEL,
        data="toy",
        train=TrainSpec(learning_rate=0.05),
        contract=ContractSpec(**contract),  # type: ignore[arg-type]  # the tests know the fields
        rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=3, wait="all", deadline_s=30.0),
    )


@pytest.fixture
def humming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(conftest, "rows", hum)
    whole = Fleet(tmp_path, 3)
    whole.lead()
    yield whole
    whole.store.close()


def test_the_threshold_of_a_version_is_that_of_all_rows_that_its_devices_train_on(humming: Fleet) -> None:
    humming.submit(job())
    run = humming.finish()
    history = humming.store.history(run.job)
    net = build(MODEL)
    params = initial(net.spec, run.spec.seed).params(net.spec)
    whole = np.concatenate([net.predict(params, hum(seed).X)[:, 0] for seed in range(3)])
    counts = anomalies.histogram(whole, np.zeros(len(whole), np.int64))
    assert history[0]["threshold"] == anomalies.threshold_of(counts[0], 0.9)
    assert history[0]["false_alarms"] <= 0.1
    assert history[0]["mean_score"] == pytest.approx(float(whole.mean()), rel=1e-3)
    assert history[2]["federated_devices"] == 3
    assert history[3]["threshold"] == history[2]["threshold"]  # until somebody has scored it
    assert projection.head(run).threshold == history[3]["threshold"]
    assert announced(run.metrics)["threshold"] == pytest.approx(history[3]["threshold"], rel=1e-3)


def test_a_device_with_few_rows_says_nothing_of_its_scores(humming: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "rows", lambda seed: hum(seed, 19))
    few = Fleet(humming.folder / "few", 3)
    few.lead()
    few.submit(job())
    run = few.finish()
    assert all("threshold" not in metrics for metrics in few.store.history(run.job))
    assert projection.head(run).threshold is None
    few.store.close()


def test_what_devices_say_of_the_last_version_after_the_end_becomes_its_threshold(humming: Fleet) -> None:
    humming.submit(job())
    run = humming.finish()
    before, last = run.metrics["threshold"], run.version
    listening = humming.broker.transport("listening")
    listening.open()
    listening.subscribe(WIRE.filter_for("head", job=run.job))
    counts = anomalies.histogram(np.full(40, 8.0, np.float32), np.zeros(40, np.int64))
    said = tally.to_bytes(tally.tally(MODEL, np.full((40, 1), 8.0, np.float32), np.zeros(40, np.int64)))
    body = sections.join({sections.EVALUATION: said})
    for n, device in enumerate(humming.agents):
        offer = Offer(run.job, device, last, 60, chunks.digest(body), len(body), body=body)
        told = humming.job().handle(offer, humming.now)
        assert [one.refused for one in told if isinstance(one, Verdict)] == [""]
        if not n:  # one of three alone changes nothing
            humming.run(lambda: humming.job().metrics.get("federated_devices") == 1, 10.0)
            assert humming.job().metrics["threshold"] == before
    humming.run(lambda: humming.job().metrics["threshold"] != before, 10.0)
    wanted = anomalies.threshold_of(counts[0], 0.9)
    assert humming.job().metrics["threshold"] == wanted
    assert projection.head(humming.job()).threshold == wanted
    heads = [WIRE.unpack(event) for event in iter(listening.take, None) if isinstance(event, Packet)]
    assert [head.threshold for head in heads if isinstance(head, Head)] == [before, wanted]
    humming.kill_aggregator()
    humming.start_aggregator()
    humming.lead()
    assert projection.head(humming.job()).threshold == wanted


class Served:
    """Model slots of a device that serve at once; what they were told. See `edge_agent.slots.Slots`."""

    all: ClassVar[list[Served]] = []

    def __init__(self, *_: object, **__: object) -> None:
        self.threshold: float | None = None
        self.told: list[float | None] = []
        self._done: list[InstallOutcome] = []
        self.all.append(self)

    def deployed(self, _job: str, _name: str) -> None: ...

    def put(self, install: Install) -> None:
        self.told.append(install.threshold)
        self._done.append(InstallOutcome(install.name, install.release))

    def calibrate(self, asked: Calibrate) -> None:
        self.told.append(asked.threshold)

    def finished(self) -> list[InstallOutcome]:
        done, self._done = self._done, []
        return done

    def int8(self) -> dict[str, Int8]:
        return {}

    def sweep(self, *_: object) -> None: ...

    def close(self) -> None: ...


@pytest.mark.usefixtures("humming")
def test_devices_serve_the_last_version_with_the_threshold_that_they_have_worked_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.service.Slots", Served)
    monkeypatch.setattr(conftest, "ModelSettings", lambda **_: ModelSettings(inference=True))
    Served.all.clear()
    whole = Fleet(tmp_path / "serving", 3)
    whole.lead()
    whole.submit(job())
    run = whole.finish()
    whole.run(lambda: whole.job().metrics.get("federated_devices", 0) == 3)
    net = build(MODEL)
    params = run._learner.now.model.params(net.spec)
    scores = np.concatenate([net.predict(params, hum(seed).X)[:, 0] for seed in range(3)])
    wanted = anomalies.threshold_of(anomalies.histogram(scores, np.zeros(len(scores), np.int64))[0], 0.9)
    assert whole.job().metrics["threshold"] == wanted
    whole.run(lambda: all(one.told[-1:] == [wanted] for one in Served.all), 60.0)
    for one in Served.all:
        assert all(a != b for a, b in pairwise(one.told)), one.told  # the same threshold is put in once
    whole.store.close()
