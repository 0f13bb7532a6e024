"""The child process that holds the onnxruntime session: `python -m models.serving.inference`. Only here is it imported.

It lives apart because onnxruntime is large (its memory is the child's, not the training process's) and because it
has died of illegal instructions on small processors: what dies here is restarted or done without
(`models.serving.session`). It reads questions on stdin, answers on stdout, and ends when stdin does.

`python -m models.serving.inference --probe` exports, loads and asks a tiny model, and says by its exit code how it
went.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from models.params import Float32
from models.serving.pipe import Answer, Done, Export, Failed, Load, Message, PipeError, Predict, read, write

RUNTIME_ERRORS = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
    ValueError,
)
"""What onnxruntime says of a file or of rows that it cannot use; its own errors have no common parent."""


def open_model(model: str | bytes) -> onnxruntime.InferenceSession:
    """Open an ONNX file or its bytes on one CPU thread. Raises one of RUNTIME_ERRORS."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, X: Float32) -> Float32:
    """Return the first output, float32 (n, outputs), for rows X (n, inputs)."""
    outputs = session.run(None, {session.get_inputs()[0].name: X})[0]
    return np.ascontiguousarray(outputs, np.float32).reshape(len(X), -1)


def answer(
    session: onnxruntime.InferenceSession | None, question: Message, body: bytes
) -> tuple[onnxruntime.InferenceSession | None, Message, bytes]:
    """Return the session from now on, the answer and its body."""
    try:
        match question:
            case Load(path):
                return open_model(path), Done(), b""
            case Export(model, params, target, metadata, contract, agreed):
                # Here onnx is loaded once for all exports; a process for each would spend its time on that.
                from models.serving.export import ExportError, write_file

                try:
                    write_file(
                        *(model, Path(params), Path(target)), metadata=metadata, contract=contract, agreed=agreed
                    )
                except (ExportError, OSError) as error:
                    return session, Failed(str(error)[:1000]), b""
                return session, Done(), b""
            case Predict(rows, columns) if session is not None:
                Y = run(session, np.frombuffer(body, "<f4").reshape(rows, columns))
                return session, Answer(*Y.shape), Y.tobytes()
            case Predict():
                return None, Failed("no model is loaded"), b""
            case _:
                return session, Failed(f"{type(question).__name__} is no question"), b""
    except RUNTIME_ERRORS as error:
        return session, Failed(str(error)[:1000]), b""


def serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer one question after another until the other end is gone."""
    session = None
    while True:
        try:
            question, body = read(questions)
            session, message, result = answer(session, question, body)
            write(answers, message, result)
        except PipeError:
            return


def probe() -> None:
    """Raise whatever goes wrong with a tiny model."""
    from models.job import ModelSpec
    from models.serving.export import to_onnx

    params = {"0.weight": np.full((1, 2), 0.5, np.float32), "0.bias": np.ones(1, np.float32)}
    model = to_onnx(ModelSpec(inputs=2, outputs=1, loss="mse"), params, metadata={})
    found = run(open_model(model), np.ones((3, 2), np.float32))
    if not np.allclose(found, 2.0):
        sys.exit(f"onnxruntime computes wrongly: {found.ravel().tolist()} where 2, 2, 2 is right")


def main() -> None:
    """Serve on the pipes that were stdin and stdout; what else writes to stdout lands on stderr."""
    if "--probe" in sys.argv:
        probe()
        return
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
