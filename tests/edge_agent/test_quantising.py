from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_agent.quantising import Quantised, Wish, quantise
from edge_agent.slot import Release, Slot, open_slot
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, TrainSpec
from models.lattice import initial
from models.nets.table import build
from models.params import Params
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


def test_what_comes_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r'quantise_max_loss: 0\.1 wants quantise = "int8"'):
        JobSpec("j", MODEL, quantise_max_loss=0.1)
    with pytest.raises(ValueError, match='with deploy = "never"'):
        JobSpec("j", MODEL, quantise="int8", deploy="never")
    assert JobSpec("j", MODEL, quantise="int8").quantise_max_loss is None
