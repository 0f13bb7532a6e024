"""What a run on this machine leaves behind: a table of its versions, and their curves.

DIR/model.onnx   metrics.csv   MEASURE-by-round.png   MEASURE-by-bytes.png
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from fleet.console.metrics import Cell, as_csv
from models.job import JobSpec
from models.measures import table as measures
from runtime.settings import SettingsError

NO_PICTURES = 'no pictures: they need matplotlib, pip install "fedge[demo]"'


def headline(spec: JobSpec) -> str:
    """Return the measure that says most of a job: that of its rule to stop, else accuracy, or R2 of values."""
    stop = spec.rounds.stop
    if stop.is_set and stop.metric != "loss":
        return stop.metric
    if spec.model.finds_anomalies:
        return "auc"
    return "accuracy" if spec.model.classifies else "r2"


def folder(out: Path) -> Path:
    """Make the folder of the results. Raises SettingsError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be made: {error.strerror}") from error
    return out


def write_metrics(out: Path, rows: Sequence[Mapping[str, Cell]]) -> Path:
    """Write a row a version. Raises OSError."""
    path = out / "metrics.csv"
    plain = [{name: value for name, value in row.items() if not measures.is_detail(name)} for row in rows]
    path.write_text(as_csv(plain), encoding="utf-8")
    return path


def draw(
    out: Path,
    title: str,
    measure: str,
    values: Sequence[float | None],
    sent: Sequence[float],
    sent_float32: Sequence[float] | None = None,
    central: float | None = None,
) -> list[Path]:
    """Draw a measure of version 1, 2, … over the rounds, and over the bytes of a device; nothing without matplotlib.

    sent, sent_float32: a number of bytes for each version; the second of the same rounds in float32, where that is
    known. Returns the files.
    """
    known = [at for at, value in enumerate(values) if value is not None and math.isfinite(value)]
    if not known or find_spec("matplotlib") is None:
        return []
    from fleet.demo import plots  # matplotlib is an extra

    called = "".join(sign if sign.isalnum() else "-" for sign in measure)
    by_round, by_bytes = out / f"{called}-by-round.png", out / f"{called}-by-bytes.png"
    found = [float(values[at] or 0.0) for at in known]
    plots.by_round([at + 1 for at in known], found, measure, central, title, by_round)
    float32 = None if sent_float32 is None else [sent_float32[at] for at in known]
    plots.by_bytes(found, [sent[at] for at in known], float32, measure, title, by_bytes)
    return [by_round, by_bytes]
