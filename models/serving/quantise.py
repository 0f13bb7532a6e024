"""An ONNX model in int8: weights and what lies between layers, by onnxruntime's own static quantisation.

Weights have a scale for each output of a layer; what lies between layers has one that is calibrated on rows of the
device (Jacob et al. 2018, eq. 1, as QuantizeLinear and DequantizeLinear of ONNX). What makes answers of raw outputs and
what normalises rows stay in float32: a softmax in steps of 1/255 is no probability.

`python -m models.serving.quantise SOURCE.onnx TARGET.onnx ROWS.npz ANSWERS.npz` is a process of its own: what it loads
is needed once a version. ROWS.npz has "calibration" and "test", (n, inputs) float32 each; ANSWERS.npz gets "float" and
"int8", the answers to the test rows, and "float_s" and "int8_s", seconds for one row. It exits with the reason on
failure.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from models.params import Float32
from models.serving.inference import RUNTIME_ERRORS, open_model, run

LAYERS = ("Conv", "Gemm", "MatMul")
"""The operators that are computed in int8."""
ROWS_AT_ONCE = 32
TIMED = 200
"""Rows that are asked one by one of either model, in turn."""


class Rows(CalibrationDataReader):  # type: ignore[misc]  # of a library without types
    """Calibration rows, as the quantiser takes them."""

    def __init__(self, name: str, X: Float32) -> None:
        self._parts = ({name: X[at : at + ROWS_AT_ONCE]} for at in range(0, len(X), ROWS_AT_ONCE))

    def get_next(self) -> dict[str, Float32] | None:
        """Return the next rows by the name of the model's input; None when there are no more."""
        return next(self._parts, None)


def write(source: Path, target: Path, X: Float32) -> None:
    """Write a model in int8. X: (n, inputs), raw rows to calibrate on. Raises ValueError where nothing of it can be."""
    quantize_static(
        *(str(source), str(target), Rows("input", X)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(LAYERS),
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )
    if target.stat().st_size >= source.stat().st_size:
        raise ValueError("it would be no smaller in int8: none of its layers is large enough")


def answers(session: onnxruntime.InferenceSession, X: Float32) -> Float32:
    """Return (n, outputs) float32 for raw rows."""
    return np.concatenate([run(session, X[at : at + ROWS_AT_ONCE]) for at in range(0, len(X), ROWS_AT_ONCE)])


def seconds(sessions: tuple[onnxruntime.InferenceSession, ...], X: Float32) -> tuple[float, ...]:
    """Return what one row takes each of these, the median of TIMED, in turn on the same rows."""
    taken: list[list[float]] = [[] for _ in sessions]
    for at in _around(len(X)):
        for times, session in zip(taken, sessions, strict=True):
            began = time.perf_counter()
            run(session, X[at : at + 1])
            times.append(time.perf_counter() - began)
    return tuple(map(median, taken))


def _around(n: int) -> Iterator[int]:
    return (at % n for at in range(TIMED))


def main() -> None:
    """See the top of this file."""
    source, target, rows, told = map(Path, sys.argv[1:])
    logging.disable(logging.WARNING)  # it recommends what changes nothing here
    try:
        with np.load(rows, allow_pickle=False) as given:
            calibration, test = given["calibration"], given["test"]
        write(source, target, calibration)
        sessions = open_model(str(source)), open_model(str(target))
        found: dict[str, Any] = {name: answers(s, test) for name, s in zip(("float", "int8"), sessions, strict=True)}
        found |= dict(zip(("float_s", "int8_s"), seconds(sessions, test), strict=True))
        np.savez(told, **found)
    except (*RUNTIME_ERRORS, KeyError, OSError, AttributeError, TypeError) as error:
        sys.exit(" ".join(str(error).split())[:500] or type(error).__name__)


if __name__ == "__main__":
    main()
