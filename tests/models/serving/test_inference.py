from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from models.job import ModelSpec
from models.serving.export import to_onnx
from models.serving.inference import answer, open_model, probe, serve
from models.serving.pipe import Answer, Done, Failed, Load, Predict, read, write

PARAMS = {"0.weight": np.array([[1, 2]], np.float32), "0.bias": np.zeros(1, np.float32)}
MODEL = to_onnx(ModelSpec(inputs=2, outputs=1, loss="mse"), PARAMS, metadata={})
ROW = np.array([[3, 4]], np.float32)


def test_questions_are_answered_in_order_until_the_stream_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL)
    questions, answers = io.BytesIO(), io.BytesIO()
    write(questions, Predict(1, 2), ROW.tobytes())
    write(questions, Load(str(path)))
    write(questions, Predict(1, 2), ROW.tobytes())
    questions.seek(0)
    serve(questions, answers)
    answers.seek(0)
    assert read(answers) == (Failed("no model is loaded"), b"")
    assert read(answers) == (Done(), b"")
    assert read(answers) == (Answer(1, 1), np.float32(11).tobytes())


@pytest.mark.parametrize("body", [b"", b"no onnx", MODEL[:-20]])
def test_a_file_that_cannot_be_loaded_leaves_the_old_model(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(body)
    session = open_model(MODEL)
    for bad in (path, tmp_path / "missing.onnx"):
        kept, message, _ = answer(session, Load(str(bad)), b"")
        assert kept is session
        assert isinstance(message, Failed)


def test_rows_that_do_not_fit_fail_alone() -> None:
    session = open_model(MODEL)
    kept, message, _ = answer(session, Predict(1, 3), bytes(12))
    assert kept is session
    assert isinstance(message, Failed)
    assert answer(session, Done(), b"")[1] == Failed("Done is no question")


def test_the_probe_passes_here() -> None:
    probe()
