"""What a demo ends with: summary.json, and what a person sees of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from fleet.console.display import Display, n_bytes
from fleet.console.metrics import Cell, VersionLine, row_of_version
from fleet.results import NO_PICTURES
from models.data.dataset import Dataset
from models.job import JobSpec
from models.measures import exact
from models.serving import inference


class Version(Struct, frozen=True):
    """A version, and what had passed when it appeared. Bytes: MQTT payload of all devices so far, everything."""

    round: int
    participants: int
    accuracy: float | None
    """None of a model of values."""
    loss: float | None
    bytes_up: int
    bytes_down: int
    seconds: float
    """Since the devices were started."""
    measures: dict[str, float] = {}
    """What the job's rule to stop goes by, where that is neither accuracy nor loss."""


class Summary(Struct, frozen=True):
    """summary.json. Bytes a device are MQTT payload, counted by a proxy before the broker, control included."""

    job: str
    data: str
    accuracy: float | None
    """None of a model of values, and so are the two below."""
    central_accuracy: float | None
    """The same net, trained in one place on all devices' examples together."""
    onnx_accuracy: float | None
    """Of the ONNX file of a device, in onnxruntime."""
    rounds: int
    devices: int
    examples: int
    test_examples: int
    parameters: int
    compression: str
    reason: str
    """Why it ended."""
    seconds: float
    broker: str
    bytes_up_per_device: int
    bytes_down_per_device: int
    body_bytes_up_per_device: int
    """Of bytes_up_per_device, those of updates."""
    body_bytes_down_per_device: int
    """Of bytes_down_per_device, those of versions."""
    wire_bytes_up_per_device: int
    """Everything that MQTT sent, headers, acknowledgements, subscriptions and pings included; counted by the proxy."""
    wire_bytes_down_per_device: int
    float32_bytes_up_per_device: int
    """Had the same updates been float32: control as it was, 4 bytes a parameter for each update that was counted."""
    float32_bytes_down_per_device: int
    """Had the versions been float32: 4 bytes a parameter for each that a counted update was trained on, but the first,
    which comes from the seed, and for the last one, which every device serves."""
    onnx: str
    plots: list[str]
    sha256: str
    """Of the last version: what its head says."""
    history: list[Version]
    measure: str = "accuracy"
    """What says most of this job: what its rule to stop goes by, else the accuracy, or R2 of values;"""
    value: float | None = None
    """of the last version,"""
    central_value: float | None = None
    """of the net that was trained in one place,"""
    onnx_value: float | None = None
    """and of the ONNX file."""
    refused: dict[str, str] = {}
    """Devices that were left out, and why."""
    metrics: str = ""
    """The file with every measure of every version."""
    threshold: float | None = None
    """Of a model that finds anomalies: the score above which a row is one, as a device's model has it."""


def score_of(onnx: Path, spec: JobSpec, test: Dataset, measure: str) -> float | None:
    """Return a measure of an ONNX file in onnxruntime; None where it is not defined on these rows."""
    model = inference.open_model(str(onnx))
    contract = spec.contract
    found = exact.on_rows(
        spec.model, lambda X: inference.run(model, X), test.X, test.y, contract.class_names, (measure,)
    ).found
    return found.get(measure)


def table_of(lines: Sequence[VersionLine], history: Sequence[Version], n_devices: int) -> list[dict[str, Cell]]:
    """Return a row for each version: what was measured of it, and the bytes of a device so far.

    lines: what the aggregator has measured; where it could not be asked, what was heard stands for it.
    """
    sent = {version.round: version for version in history}
    found = []
    for line in lines:
        row = row_of_version(line)
        if (version := sent.get(int(line.version.rpartition(".")[2]))) is not None:
            row |= {
                "bytes_up": round(version.bytes_up / n_devices),
                "bytes_down": round(version.bytes_down / n_devices),
            }
            row |= {"seconds": version.seconds}
        found.append(row)
    return found or [
        {"version": f"1.{one.round}", "accuracy": one.accuracy, "loss": one.loss, **one.measures} for one in history
    ]


def sum_up(display: Display, out: Path, summary: Summary, rows: Path | None) -> None:
    """Show what came of it. rows: some to ask the model about."""
    say: Callable[[str], None] = display.line
    say("")
    if summary.refused:
        owner, why = next(iter(summary.refused.items()))
        say(f"{len(summary.refused)} of {summary.devices + len(summary.refused)} devices were refused: {owner}: {why}")
    say(f"ended after {summary.rounds} rounds: {summary.reason}")
    if summary.threshold is not None:
        say(f"threshold  {summary.threshold:.6g}: a row that scores above it is an anomaly")
    said, in_one_place = _said(summary.value), _said(summary.central_value)
    if summary.value is not None or summary.threshold is None:  # rows without labels have no such measure
        say(f"{summary.measure:<10} {said}; the same net trained in one place has {in_one_place}")
    if summary.measure != "accuracy" and summary.accuracy is not None:
        in_one_place, in_onnx = _said(summary.central_accuracy), _said(summary.onnx_accuracy)
        say(f"accuracy   {summary.accuracy:.4f}; trained in one place {in_one_place}, in onnxruntime {in_onnx}")
    for way, n, wire, float32 in (
        (
            "up",
            summary.bytes_up_per_device,
            summary.wire_bytes_up_per_device,
            summary.float32_bytes_up_per_device,
        ),
        (
            "down",
            summary.bytes_down_per_device,
            summary.wire_bytes_down_per_device,
            summary.float32_bytes_down_per_device,
        ),
    ):
        times = f"the same rounds in float32 would be {n_bytes(float32)}, {float32 / n:.1f} times as much"
        say(f"bytes {way:<4} {n_bytes(n)} of payload a device ({n_bytes(wire)} with MQTT's own); {times}")
    worth = "" if summary.onnx_value is None else f": {summary.onnx_value:.4f} in onnxruntime"
    say(f"model      {summary.onnx}, taken from a device{worth}")
    say(f"pictures   {'  '.join(summary.plots) or NO_PICTURES}")
    say(f"figures    {out / 'summary.json'}  {summary.metrics}")
    config = out / "fleet" / "device-00" / "agent.toml"
    if rows is not None:
        say(f"ask it     fedge agent predict --config {config} --input {rows}")


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
