from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec import structs

from edge_agent.card import Release
from edge_agent.quantising import Quantised, Wish, quantise
from edge_agent.slot import Slot, open_slot
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, TrainSpec
from models.lattice import initial
from models.nets.table import build
from models.params import Float32, Params
from models.serving import session
from models.serving.export import to_onnx
from models.serving.sample import Sample, sample_of
from models.training import train

MODEL = ModelSpec(inputs=32, hidden=(64, 64), outputs=4)
VALUES = ModelSpec(inputs=32, hidden=(64,), outputs=1, loss="mse")


def make_rows(model: ModelSpec) -> Dataset:
    """Return rows that a net learns nearly all of: classes by the largest of four sums, or a sum."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(800, model.inputs)).astype(np.float32)
    sums = X @ rng.normal(size=(model.inputs, model.outputs)).astype(np.float32) / 4
    y = sums.argmax(axis=1) if model.classifies else np.tanh(sums)
    return Dataset(X, y)


def trained(model: ModelSpec, data: Dataset) -> Params:
    net = build(model)
    state = train.begin(initial(net.spec, 0).params(net.spec), bytes(32))
    run = train.steps(net, state, data, TrainSpec(epochs=12, batch_size=20, learning_rate=0.05), version_number=0)
    return train.finish(run, state).params


@pytest.fixture(scope="module", params=[MODEL, VALUES], ids=["classes", "values"])
def served(request: pytest.FixtureRequest) -> tuple[ModelSpec, Params, Sample]:
    model: ModelSpec = request.param
    data = make_rows(model)
    sample = sample_of(data, "d1")
    assert sample is not None
    return model, trained(model, data), sample


def test_a_model_in_int8_is_smaller_and_its_loss_is_measured(
    served: tuple[ModelSpec, Params, Sample], tmp_path: Path
) -> None:
    model, params, sample = served
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(model, params, metadata={"job": "j"}))
    found = quantise(path, model, Wish(0.05, sample))
    assert found.why_not == ""
    assert found.measure == ("accuracy" if model.classifies else "r2")
    assert found.rows == len(sample.y)
    assert 0.8 < found.int8 <= found.float32 + 0.02
    assert found.float32 - found.int8 <= 0.05
    assert found.speedup > 0
    assert found.size < 0.8
    proto = onnx.load(path)
    assert "QuantizeLinear" in {node.op_type for node in proto.graph.node}
    assert {prop.key: prop.value for prop in proto.metadata_props}["job"] == "j"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_one_that_loses_more_than_the_job_allows_leaves_the_model_as_it_was(
    served: tuple[ModelSpec, Params, Sample], tmp_path: Path
) -> None:
    model, params, sample = served
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(model, params, metadata={}))
    before = path.read_bytes()
    # labels that are the very answers of the model in float32: whatever int8 answers otherwise is lost
    answers = build(model).predict(params, sample.X)
    y = answers.argmax(axis=1) if model.classifies else answers
    found = quantise(path, model, Wish(0.0, sample._replace(y=y)))
    assert found.float32 == pytest.approx(1.0)
    if found.why_not:
        assert "quantise_max_loss = 0" in found.why_not
        assert path.read_bytes() == before
    else:  # of a classifier that is sure of every row
        assert found.int8 == found.float32
    if not model.classifies:
        assert found.why_not


def test_a_device_with_few_rows_says_so() -> None:
    found = quantise(Path("nowhere"), MODEL, Wish(0.01, None))
    assert "fewer than 20 rows" in found.why_not
    assert quantise(Path("nowhere"), MODEL, Wish(0.01, None, "its rows cannot be read: x")).why_not.endswith(": x")


def test_what_the_child_cannot_use_is_a_reason(served: tuple[ModelSpec, Params, Sample], tmp_path: Path) -> None:
    model, _, sample = served
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    found = quantise(path, model, Wish(0.01, sample))
    assert found.why_not
    assert path.read_bytes() == b"no model"


def test_a_slot_serves_it_and_its_card_says_how_good_it_is(
    served: tuple[ModelSpec, Params, Sample], tmp_path: Path
) -> None:
    model, params, sample = served
    slot = Slot(tmp_path)
    assert slot.install(Release("j", 1, 3, "0" * 64), model, params, wish=Wish(0.05, sample)) is None
    card = open_slot(tmp_path).card
    assert card is not None
    assert (card.format, card.quantised) == (4, slot.card and slot.card.quantised)
    assert isinstance(card.quantised, Quantised)
    assert not card.quantised.why_not
    proto = onnx.load(tmp_path / "model.onnx")
    assert "QuantizeLinear" in {node.op_type for node in proto.graph.node}


def test_a_slot_serves_float32_where_int8_loses_too_much_and_says_why(
    served: tuple[ModelSpec, Params, Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, params, _ = served
    slot = Slot(tmp_path)
    assert slot.install(Release("j", 1, 3, "0" * 64), model, params, wish=Wish(0.01, None)) is None
    assert slot.card is not None
    assert slot.card.quantised is not None
    assert "fewer than" in slot.card.quantised.why_not
    assert "not in int8" in caplog.text
    assert "QuantizeLinear" not in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


def test_a_threshold_that_comes_after_a_start_leaves_a_model_in_int8(tmp_path: Path) -> None:
    model = ModelSpec("autoencoder", inputs=32, hidden=(64, 8))
    data = make_rows(structs.replace(MODEL, outputs=32))
    sample = sample_of(data._replace(y=np.zeros(len(data.X), np.int64)), "d1")
    wish, params = Wish(1.0, sample), initial(build(model).spec, 0).params(build(model).spec)
    assert Slot(tmp_path).install(Release("j", 1, 3, "0" * 64), model, params, wish=wish) is None
    assert Slot(tmp_path).calibrate("j", 1, 3, 0.5, wish) is None
    card = open_slot(tmp_path).card
    assert card is not None
    assert card.quantised is not None
    assert (card.threshold, card.quantised.why_not) == (0.5, "")
    assert "anomaly" in {value.name for value in onnx.load(tmp_path / "model.onnx").graph.output}


HUM = ModelSpec("autoencoder", inputs=4, hidden=(2,))
SOME = Sample(np.zeros((20, 4), np.float32), np.zeros((20, 4), np.float32), np.zeros(20, np.int64))


def answering(before: Float32, after: Float32) -> Callable[..., None]:
    """Return a child that answers so, before and after it has put a model in int8."""

    def act(source: Path, target: Path, rows: Path, told: Path) -> None:
        assert rows.is_file()
        target.write_bytes(source.read_bytes()[:5])
        np.savez(told, float=before, int8=after, float_s=1.0, int8_s=0.5)

    return act


def test_rows_that_score_high_do_not_hide_what_becomes_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    scores = np.geomspace(0.01, 0.1, 20, dtype=np.float32)[:, np.newaxis]
    scores[-2:] = 1e4  # what was broken when it was recorded
    others = np.vstack([30 * scores[:-2], scores[-2:]])
    for after, is_kept in ((others, True), (1.001 * scores, False)):
        path.write_bytes(b"in float32")
        monkeypatch.setattr(session, "quantise", answering(scores, after))
        found = quantise(path, HUM, Wish(0.01, SOME))
        assert bool(found.why_not) == is_kept, found
        assert path.read_bytes() == (b"in float32" if is_kept else b"in fl")


def test_what_kills_the_child_or_fills_the_disk_leaves_the_model_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, killer = tmp_path / "model.onnx", "import os, sys; os.kill(os.getpid(), 9)"
    path.write_bytes(b"in float32")
    with monkeypatch.context() as patched:
        patched.setattr(session, "QUANTISER", (sys.executable, "-c", killer))
        assert quantise(path, HUM, Wish(0.01, SOME)).why_not == "died of SIGKILL"

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", no_room)
    assert "No space left" in quantise(path, HUM, Wish(0.01, SOME)).why_not
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"in float32"


def test_a_child_that_ends_with_its_service_is_no_verdict_the_version_is_tried_again(
    served: tuple[ModelSpec, Params, Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, params, sample = served
    monkeypatch.setattr(session, "QUANTISER", (sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"))
    slot, wish = Slot(tmp_path), Wish(0.01, sample)
    why = slot.install(Release("j", 1, 3, "0" * 64), model, params, wish=wish)
    assert why is not None
    assert "died of SIGTERM: it is tried again" in why
    assert slot.card is None
    assert list((tmp_path / "versions").iterdir()) == []


def test_what_a_child_that_is_killed_has_written_elsewhere_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"in float32")
    told = "import tempfile; raise SystemExit(tempfile.mkdtemp())"
    monkeypatch.setattr(session, "QUANTISER", (sys.executable, "-c", told))
    place = Path(quantise(path, HUM, Wish(0.01, SOME)).why_not)
    assert (place.parent.parent, place.exists()) == (tmp_path, False)


def test_what_comes_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r'quantise_max_loss: 0\.1 wants quantise = "int8"'):
        JobSpec("j", MODEL, quantise_max_loss=0.1)
    with pytest.raises(ValueError, match='with deploy = "never"'):
        JobSpec("j", MODEL, quantise="int8", deploy="never")
    assert JobSpec("j", MODEL, quantise="int8").quantise_max_loss is None
