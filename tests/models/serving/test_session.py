from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from models.job import ModelSpec
from models.serving.export import to_onnx
from models.serving.session import ChildDiedError, InferenceError, Session, probe

MODEL = ModelSpec(inputs=2, outputs=1, loss="mse")
ROWS = np.array([[3, 4], [1, 0]], np.float32)


def run_code(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def save_model(path: Path, weight: float) -> Path:
    params = {"0.weight": np.full((1, 2), weight, np.float32), "0.bias": np.zeros(1, np.float32)}
    path.write_bytes(to_onnx(MODEL, params, metadata={}))
    return path


def test_a_model_is_loaded_asked_and_replaced(tmp_path: Path) -> None:
    with Session() as session:
        with pytest.raises(InferenceError, match="no model is loaded"):
            session.predict(ROWS)
        session.load(save_model(tmp_path / "a.onnx", 1))
        assert session.predict(ROWS).tolist() == [[7], [1]]
        assert session.predict(ROWS[:, ::-1]).tolist() == [[7], [1]]  # not contiguous
        session.load(save_model(tmp_path / "b.onnx", 2))
        assert session.predict(ROWS).tolist() == [[14], [2]]
        (tmp_path / "c.onnx").write_bytes(b"no onnx")
        with pytest.raises(InferenceError):
            session.load(tmp_path / "c.onnx")
        with pytest.raises(InferenceError, match="Got invalid dimensions"):
            session.predict(np.zeros((1, 3), np.float32))
        assert session.predict(ROWS).tolist() == [[14], [2]]


def test_a_dead_child_is_replaced_by_one_with_the_same_model(tmp_path: Path) -> None:
    with Session() as session:
        session.load(save_model(tmp_path / "a.onnx", 1))
        assert session._child is not None
        session._child.process.kill()
        session._child.process.wait()
        assert session.predict(ROWS).tolist() == [[7], [1]]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 4)", "SIGILL: this build of onnxruntime does not run"),
        ("import os; os.kill(os.getpid(), 9)", "died of SIGKILL"),
        ("print('x' * 100, flush=True); import time; time.sleep(60)", "talked nonsense"),
    ],
)
def test_a_child_that_dies_twice_is_given_up_with_the_reason(code: str, reason: str) -> None:
    with Session(run_code(code)) as session, pytest.raises(ChildDiedError, match=reason):
        session.predict(ROWS)


def test_a_child_that_hangs_is_killed() -> None:
    large = np.zeros((500, 500), np.float32)  # more than a pipe holds: the write itself would wait for ever
    hanging = Session(run_code("import time; time.sleep(60)"), timeout_s=0.2)
    with hanging as session, pytest.raises(ChildDiedError, match="SIGKILL"):
        session.predict(large)


def test_a_child_that_cannot_be_started_is_one_that_died() -> None:
    with Session(("/no/such/program",)) as session, pytest.raises(ChildDiedError, match="could not be started"):
        session.predict(ROWS)


def test_a_good_runtime_passes_the_probe() -> None:
    assert probe() is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 4)", "SIGILL"),
        ("import no_such_onnxruntime", "ModuleNotFoundError: No module named 'no_such_onnxruntime'"),
        ("raise SystemExit(7)", "exit code 7"),
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
    ],
)
def test_the_probe_says_why_a_runtime_cannot_be_used(code: str, reason: str) -> None:
    assert reason in str(probe(run_code(code), timeout_s=0.5 if "sleep" in code else 60.0))


def test_a_missing_interpreter_is_a_reason_too() -> None:
    assert "No such file" in str(probe(("/no/such/program",)))
