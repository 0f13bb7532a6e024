"""A model that is about to go into service, in int8: tried beside the model in float32, on rows of this device.

    model.onnx ──▶ in int8 ──▶ both answer the same rows ──▶ what is lost is what the job allows: it takes its place
                      └─▶ it cannot be, or too much is lost: the model in float32 stays, and the card says why

The measure is accuracy where labels are classes, and R2 else; of anomaly scores, which have no labels, that of their
logarithms, held against those in float32: a few rows that score high would hide what becomes of all others. A loss is a
difference of it. Time is that of one row, as an application asks.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from msgspec import Struct, structs

from broker.messages import Int8, Version
from models.data.dataset import DatasetError
from models.data.npz_file import read_arrays
from models.job import ModelSpec
from models.measures import exact
from models.measures.anomalies import EDGES
from models.nets.losses import Labels
from models.params import Float32
from models.serving import session
from models.serving.sample import FEWEST, Sample

MOST_WHY = 200
"""Characters of the reason why a model is not in int8 that travel; the card has all of it."""
_MOST = 1e9


class Wish(Struct, frozen=True):
    """That a model is served in int8, unless it loses more than this. sample: None where there are too few rows, or for
    another reason, which is then said.
    """

    max_loss: float
    sample: Sample | None
    why_not: str = ""


class Quantised(Struct, frozen=True, omit_defaults=True):
    """What has come of it, as the model's card says it."""

    why_not: str = ""
    """Why the model in float32 is served; empty where that in int8 is."""
    measure: str = ""
    rows: int = 0
    """On which both were measured."""
    float32: float = 0.0
    """The measure of each."""
    int8: float = 0.0
    speedup: float = 0.0
    """How many times as fast one row is answered in int8."""
    size: float = 0.0
    """The file in int8, as a share of that in float32."""

    def told(self, version: Version) -> Int8:
        """Return what the aggregator is told of it."""
        lost = max(-_MOST, min(round(self.float32 - self.int8, 6), _MOST))
        return Int8(version, lost, max(0.0, min(self.speedup, _MOST)), self.why_not[:MOST_WHY])

    def __str__(self) -> str:
        """Return it in words, for the log."""
        what = f"{self.measure} {self.float32:.4f} in float32 and {self.int8:.4f} in int8 on {self.rows} rows"
        what += f", {self.speedup:.2f}x as fast, {self.size:.2f} of the size" if self.measure else ""
        if self.why_not:
            return f"not in int8: {self.why_not}" + (f" ({what})" if self.measure else "")
        return what


def quantise(onnx: Path, model: ModelSpec, wish: Wish) -> Quantised:
    """Put a model in int8 in the place of the one in this file, if it may be and the disk has room for it.

    Raises InferenceError where the machine, or somebody, ends all processes, which says nothing of the model.
    """
    if wish.sample is None:
        few = f"this device has fewer than {FEWEST} rows to calibrate on and {FEWEST} to measure with"
        return Quantised(wish.why_not or few)
    try:
        with tempfile.TemporaryDirectory(dir=onnx.parent, prefix=".int8-") as name:
            return _tried(onnx, Path(name) / "model.onnx", model, wish.max_loss, wish.sample)
    except OSError as error:  # what is there in float32 is whole
        return Quantised(f"the disk does not take it: {error.strerror or error}"[:500])


def _tried(onnx: Path, target: Path, model: ModelSpec, max_loss: float, sample: Sample) -> Quantised:
    """Return what has come of it; the file is another one only where nothing is against it.

    Raises OSError or InferenceError.
    """
    found = _measured(onnx, target, model, sample)
    loss = found.float32 - found.int8
    if not found.why_not and not loss <= max_loss:
        why = f"it loses {loss:.4f} of {found.measure}, where the job allows quantise_max_loss = {max_loss:g}"
        return structs.replace(found, why_not=why)
    if not found.why_not:
        target.replace(onnx)
    return found


def _measured(onnx: Path, target: Path, model: ModelSpec, sample: Sample) -> Quantised:
    rows, told = target.with_name("rows.npz"), target.with_name("answers.npz")
    np.savez(rows, calibration=sample.calibration, test=sample.X)
    why = session.quantise(onnx, target, rows, told)
    if why in session.ENDED:
        raise session.InferenceError(f"the process that puts it in int8 {why}: it is tried again")
    if why:
        return Quantised(why[:500])
    try:
        answers = read_arrays(told)
        y = answers["float"] if model.finds_anomalies else sample.y
        before, after = (_measure(model, answers[name], y) for name in ("float", "int8"))
        speedup = float(answers["float_s"]) / max(float(answers["int8_s"]), 1e-9)
    except (DatasetError, KeyError, ValueError) as error:
        return Quantised(f"what it answers cannot be read: {error}"[:500])
    size = target.stat().st_size / onnx.stat().st_size
    return Quantised("", _name(model), len(sample.X), before, after, round(speedup, 3), round(size, 3))


def _name(model: ModelSpec) -> str:
    return "accuracy" if model.classifies else "r2"


def _measure(model: ModelSpec, answers: Float32, y: Labels) -> float:
    """Return the accuracy of answers, or their R2; of labels that are all the same, minus their mean squared error."""
    if model.finds_anomalies:
        return _r2(_octaves(answers), _octaves(y))
    rows = np.arange(len(answers), dtype=np.float32)[:, np.newaxis]
    found = exact.on_rows(model, lambda some: answers[some[:, 0].astype(np.int64)].copy(), rows, y).found
    return found[_name(model)] if _name(model) in found else _r2(answers, y)


def _octaves(scores: Float32) -> Float32:
    """Return the logarithms of anomaly scores, within what their histograms tell apart."""
    return np.log2(np.clip(scores, EDGES[0], EDGES[-1]))


def _r2(answers: Float32, y: Labels) -> float:
    """Return 1 minus the share of the labels' variance that is left; minus the squared error where they have none."""
    left, spread = np.square(answers - y.reshape(len(y), -1)).mean(), y.var()
    return float(1 - left / spread) if spread else -float(left)
