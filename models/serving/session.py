"""The parent's side of the child processes that hold onnx and onnxruntime.

Nothing here imports either: a process that trains stays small, and survives a runtime that does not.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, cast

import msgspec
import numpy as np

from models.contract import NO_CONTRACT, ContractSpec
from models.job import ModelSpec
from models.params import Float32
from models.serving.pipe import Answer, Export, Failed, Load, Message, PipeError, Predict, read, write
from runtime.children import environment

PYTHON = (sys.executable, "-P", "-m")
"""-P: the working directory is not searched, where somebody else's `models` may lie."""
CHILD = (*PYTHON, "models.serving.inference")
EXPORTER = (*PYTHON, "models.serving.export")
QUANTISER = (*PYTHON, "models.serving.quantise")


class InferenceError(RuntimeError):
    """The child answered that it cannot: a bad file, or rows that do not fit the model."""


class ChildDiedError(InferenceError):
    """The child died or hung, twice running. Do without it."""


class _Child(NamedTuple):
    process: subprocess.Popen[bytes]
    questions: IO[bytes]
    answers: IO[bytes]


class Session:
    """An ONNX model behind a child process, which is started when first needed and once more if it dies.

    One owner thread. A question that is not answered within timeout_s kills the child.
    """

    def __init__(self, command: Sequence[str] = CHILD, *, timeout_s: float = 60.0) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._child: _Child | None = None
        self._path: Path | None = None

    def load(self, path: Path) -> None:
        """Serve this ONNX file. On InferenceError whatever was served before still is."""
        self._ask(Load(str(path)))
        self._path = path

    def export(
        self,
        model: ModelSpec,
        params: Path,
        target: Path,
        *,
        metadata: dict[str, str],
        contract: ContractSpec = NO_CONTRACT,
        agreed: bytes = b"",
    ) -> None:
        """Write the params of an NPZ file as ONNX. On InferenceError the target may be half written.

        contract, agreed: of its job, and the bytes of what the fleet has agreed on.
        """
        self._ask(Export(model, str(params), str(target), metadata, contract, agreed))

    def predict(self, X: Float32) -> Float32:
        """Return (n, outputs) float32 for X (n, inputs). Raises InferenceError."""
        message, body = self._ask(Predict(*X.shape), np.ascontiguousarray(X, "<f4").tobytes())
        if not isinstance(message, Answer):
            raise InferenceError(f"the child answered {message} to rows")
        return np.frombuffer(body, "<f4").astype(np.float32).reshape(message.rows, message.columns)

    def close(self) -> None:
        """End the child. The next question starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.process.kill()
            child.process.communicate()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, question: Message, body: bytes = b"") -> tuple[Message, bytes]:
        """Return the answer, from a fresh child if the first try shows that the old one is dead."""
        try:
            message, result = self._exchange(question, body)
        except PipeError:
            self.close()
            try:
                message, result = self._exchange(question, body)
            except PipeError as error:
                reason = _cause_of_death(self._child)
                self.close()
                raise ChildDiedError(f"the inference child {reason}: {error}") from error
        if isinstance(message, Failed):
            raise InferenceError(message.reason)
        return message, result

    def _exchange(self, question: Message, body: bytes) -> tuple[Message, bytes]:
        if self._child is None:
            self._child = _start(self._command)
            if self._path is not None and not isinstance(question, Load):
                self._exchange(Load(str(self._path)), b"")
        process, questions, answers = self._child
        # Killing the child ends both a write that it does not read and a read that it does not answer.
        timer = threading.Timer(self._timeout_s, process.kill)
        timer.start()
        try:
            write(questions, question, body)
            return read(answers)
        finally:
            timer.cancel()


def probe(command: Sequence[str] = (*CHILD, "--probe"), *, timeout_s: float = 60.0) -> str | None:
    """Try onnxruntime on a tiny model in a process of its own: give None, or why it cannot be used here."""
    return _run(command, b"", timeout_s)


def export(
    model: ModelSpec,
    params: Path,
    target: Path,
    *,
    metadata: dict[str, str],
    contract: ContractSpec = NO_CONTRACT,
    agreed: bytes = b"",
    timeout_s: float = 120.0,
) -> str | None:
    """Write the params of an NPZ file as ONNX in a process of its own: give None, or why it could not be.

    The target may be half written when it could not.
    """
    order = msgspec.json.encode({"model": model, "metadata": metadata, "contract": contract, "agreed": agreed})
    return _run((*EXPORTER, str(params), str(target)), order, timeout_s)


def quantise(source: Path, target: Path, rows: Path, told: Path, *, timeout_s: float = 600.0) -> str | None:
    """Write a model in int8, and how both answer, in a process of its own: give None, or why it could not be.

    See `models.serving.quantise` for what is in the files.
    """
    return _run((*QUANTISER, str(source), str(target), str(rows), str(told)), b"", timeout_s)


def _start(command: Sequence[str]) -> _Child:
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment())
    except OSError as error:
        raise PipeError(str(error)) from error
    return _Child(process, cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout))


def _run(command: Sequence[str], given: bytes, timeout_s: float) -> str | None:
    """Run to the end: give None on success, else one line of why."""
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, timeout=timeout_s, env=environment(), check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return str(error)
    if done.returncode < 0:
        return _name_signal(-done.returncode)
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return (lines[-1] if lines else f"exit code {done.returncode}") if done.returncode else None


def _cause_of_death(child: _Child | None) -> str:
    if child is None:
        return "could not be started"
    try:
        code = child.process.wait(1.0)
    except subprocess.TimeoutExpired:
        return "talked nonsense"
    return _name_signal(-code) if code < 0 else f"ended with exit code {code}"


def _name_signal(number: int) -> str:
    if number == signal.SIGILL:
        return "died of SIGILL: this build of onnxruntime does not run on this processor"
    return f"died of {signal.Signals(number).name}"
