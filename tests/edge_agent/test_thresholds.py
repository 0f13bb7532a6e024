"""The threshold of a job that finds anomalies, on its way into the model slot of a device."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from msgspec import structs

import edge_agent.slot as slot_module
from broker.messages import Head, Version
from edge_agent.card import Card, Release, SlotError
from edge_agent.effects import Connected, Deploy, Deployed, FetchVersion, Installed, JobEnded, Ready, RequestHead, Setup
from edge_agent.participant import Participant
from edge_agent.slot import Slot, open_slot
from edge_agent.slots import Calibrate, Install, Slots, slot_path
from fleet.console import anomalies
from models.job import JobSpec, ModelSpec
from models.lattice import initial
from models.nets.table import build
from models.serving import session
from models.serving.export import write_file

MODEL = ModelSpec("autoencoder", inputs=3, hidden=(2,))
NET = build(MODEL)
PARAMS = initial(NET.spec, 3).params(NET.spec)
X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
RELEASE = Release("hum-1f", 1, 7, "0" * 64)
V7 = Version(1, 7)
INSTALL = Install("hum", RELEASE, MODEL, PARAMS)


class AtOnce(Executor):
    """What is submitted is done in the caller's thread."""

    def submit(self, act: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        act(*arguments, **named)
        return Future()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


@pytest.fixture(autouse=True)
def export_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(model: ModelSpec, params: Path, target: Path, *, metadata: dict[str, str], **how: Any) -> None:
        write_file(model, params, target, metadata=metadata, **how)

    monkeypatch.setattr(slot_module, "export", export)
    monkeypatch.setattr(session, "probe", lambda: "no child in this test")


def card_of(folder: Path) -> Card:
    card = open_slot(folder).card
    assert card is not None
    return card


# The slot.


def test_a_threshold_stands_in_the_card_and_the_graph_says_who_is_above_it(tmp_path: Path) -> None:
    scores = NET.predict(PARAMS, X)
    threshold = float(np.sort(scores[:, 0])[3])
    assert Slot(tmp_path).install(RELEASE, MODEL, PARAMS, threshold=threshold) is None
    assert card_of(tmp_path).threshold == threshold
    asked = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [value.name for value in asked.get_outputs()] == ["score", "anomaly"]
    assert asked.get_modelmeta().custom_metadata_map["threshold"] == repr(threshold)
    found, told = asked.run(None, {"input": X})
    np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-5)
    assert told.tolist() == [[one > threshold] for one in found[:, 0].tolist()]
    assert asked.run(None, {"input": np.full((1, 3), np.nan, np.float32)})[1].tolist() == [[True]]


def test_without_one_there_is_the_score_alone_and_a_card_as_ever(tmp_path: Path) -> None:
    assert Slot(tmp_path).install(RELEASE, MODEL, PARAMS) is None
    assert b"threshold" not in (tmp_path / "model.json").read_bytes()
    asked = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [value.name for value in asked.get_outputs()] == ["score"]
    assert Slot(tmp_path).predict(X).shape == (6, 1)


def test_one_that_comes_later_is_put_into_the_same_version_and_no_other(tmp_path: Path) -> None:
    slots = Slots(tmp_path, (), executor=AtOnce())
    slots.put(INSTALL)
    folder = slot_path(tmp_path, "hum")
    for asked in (
        Calibrate("hum", "hum-1f", Version(1, 8), 0.5),
        Calibrate("hum", "hum-2e", V7, 0.5),
        Calibrate("dry", "dry-1f", V7, 0.5),
    ):
        slots.calibrate(asked)
    assert card_of(folder).threshold is None
    slots.calibrate(Calibrate("hum", "hum-1f", V7, 0.5))
    before, card = (folder / "current").readlink(), card_of(folder)
    assert (card.threshold, card.release) == (0.5, RELEASE)
    slots.calibrate(Calibrate("hum", "hum-1f", V7, 0.5))
    assert (folder / "current").readlink() == before
    assert len(slots.finished()) == 1
    with pytest.raises(SlotError):
        open_slot(slot_path(tmp_path, "dry"))


def test_predict_says_yes_and_no_and_nothing_without_a_threshold() -> None:
    known = Card(RELEASE, MODEL, {}, threshold=0.5)
    assert [anomalies.line(known, score) for score in (0.5, 0.6, float("nan"))] == ["0.5,no", "0.6,yes", "nan,yes"]
    assert anomalies.facts(known, [0.5, 0.6]) == {"threshold": 0.5, "anomalies": [False, True]}
    unknown = structs.replace(known, threshold=None)
    assert anomalies.line(unknown, 0.6) == "0.6,"
    assert anomalies.facts(unknown, [0.6]) == {"threshold": None}
    assert "no threshold is known yet" in anomalies.note(unknown)


# Heads.


def device(model: ModelSpec = MODEL, **state: Any) -> Participant:
    setup = Setup(device="d", job="hum-1f", spec=JobSpec("hum", model), has_slot=True, online=True, **state)
    one = Participant(setup, random.Random(1))  # noqa: S311 -- jitter
    one.receive(Ready(), 0.0)
    return one


def head(threshold: float | None = None) -> Head:
    return Head("hum-1f", 1, V7, "0" * 32, state="finished", threshold=threshold)


def test_who_deploys_the_last_version_goes_on_hearing_heads_where_there_is_a_threshold() -> None:
    for model, follows in ((MODEL, True), (ModelSpec(), False)):
        one = device(model)
        one.receive(Connected(1.0), 0.0)
        assert RequestHead() in one.receive(JobEnded(V7, 1), 0.0)
        assert [type(effect) for effect in one.receive(head(), 0.0)] == [FetchVersion]
        assert Deploy(V7) in one.receive(Installed(V7), 0.0)
        one.receive(Deployed(V7), 0.0)
        assert one.follows is follows
        one.receive(head(0.5), 1.0)
        assert one.announced.head is not None
        assert one.announced.head.threshold == 0.5


def test_a_device_that_is_started_again_asks_for_the_head_of_what_it_serves() -> None:
    for model, asks in ((MODEL, True), (ModelSpec(), False)):
        one = device(model, deployed=V7)
        effects = [*one.receive(Connected(1.0), 0.0), *one.receive(JobEnded(V7, 1), 100.0)]
        assert (RequestHead() in effects) is asks
        assert one.receive(head(0.5), 101.0) == []
        assert one.tick(10_000.0) == []


def test_a_head_without_a_threshold_has_the_bytes_that_it_had() -> None:
    import msgspec

    assert b"threshold" not in msgspec.json.encode(head())
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(head(-1.0)), type=Head)
