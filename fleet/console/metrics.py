"""`fedge job metrics`: how good each version of a job is, or what each device brought to it, as CSV, JSON or curves.

A row a version and a column a measure; with --devices a row for each version and device that was drawn to leave it.
What is not known stands empty. The columns that every job has come first, the others by name.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from broker.messages import Curve
from fleet.console import operator
from fleet.console.by_devices import SHOWN, ByDevices
from runtime.settings import SettingsError, convert

Cell = str | int | float | bool | None


class VersionLine(Struct, frozen=True):
    """A version and how good it is."""

    version: str
    at: str
    """When it was made, in UTC."""
    metrics: dict[str, float] = {}
    federated: ByDevices | None = None


class Versions(Struct, frozen=True):
    """Every version of a job."""

    versions: list[VersionLine]


class DeviceLine(Struct, frozen=True, omit_defaults=True):
    """What a device brought to the version that followed the one of this number, and how it scores that one."""

    version: int
    device: str
    fate: str = ""
    counted: bool = False
    n_examples: int | None = None
    weight: int | None = None
    norm: float | None = None
    loss: float | None = None
    body_bytes: int | None = None
    seconds: float | None = None
    scores: dict[str, float] = {}


class Devices(Struct, frozen=True):
    """Every device of every version."""

    devices: list[DeviceLine]


def versions(config: operator.OperatorConfig, name: str) -> list[VersionLine]:
    """Return every version of a job. Raises OperatorError."""
    with operator.Console(config) as fleet:
        pages = fleet.pages(Curve(fleet.client, "", name))
        return [line for page in pages for line in convert(page, Versions, "the aggregator's answer").versions]


def devices(config: operator.OperatorConfig, name: str) -> list[DeviceLine]:
    """Return what each device brought to each version of a job. Raises OperatorError."""
    with operator.Console(config) as fleet:
        pages = fleet.pages(Curve(fleet.client, "", name, devices=True))
        return [line for page in pages for line in convert(page, Devices, "the aggregator's answer").devices]


def row_of_version(line: VersionLine) -> dict[str, Cell]:
    """Return the cells of a version by column: its measures, and of each by devices also the spread and the worst."""
    found: dict[str, Cell] = {"version": line.version, "at": line.at}
    found |= line.metrics
    if line.federated is not None:
        found |= {f"federated_{name}_spread": value for name, value in line.federated.spread.items()}
        found |= {f"federated_{name}_worst": value for name, (_, value) in line.federated.worst.items()}
    return found


def row_of_device(line: DeviceLine) -> dict[str, Cell]:
    """Return the cells of a device and version by column: what it brought, and each measure of that version."""
    found: dict[str, Cell] = {name: getattr(line, name) for name in DeviceLine.__struct_fields__ if name != "scores"}
    return found | line.scores


def as_csv(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Return rows as CSV with a header: the columns of the first row's beginning first, those of any by name."""
    leading = [name for name in _LEADING if any(name in row for row in rows)]
    others = sorted({name for row in rows for name in row} - set(leading))
    out = io.StringIO()
    writer = csv.DictWriter(out, [*leading, *others], restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


_LEADING = (
    "version",
    "device",
    "at",
    "fate",
    "counted",
    "n_examples",
    "weight",
    "norm",
    "loss",
    "body_bytes",
    "seconds",
)


def _cell(value: Cell) -> Cell:
    """Return what stands in a cell. A text that a spreadsheet would compute is marked as a text."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t"):
        return f"'{value}"
    return value


def table(lines: Iterable[VersionLine], columns: Sequence[str]) -> str:
    """Set versions in columns for a person."""
    rows = [("VERSION", *(name.upper() for name in columns))]
    rows += [(line.version, *(_shown(line.metrics.get(name)) for name in columns)) for line in lines]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def metrics(arguments: argparse.Namespace) -> int:
    """Carry `fedge job metrics` out."""
    if sum((arguments.csv, arguments.json, arguments.tensorboard is not None)) > 1:
        raise SettingsError("--csv, --json and --tensorboard: choose one of them")
    config = operator.load_config(arguments.config)
    if arguments.tensorboard is not None:
        return _draw(config, arguments)
    if arguments.devices:
        found = devices(config, arguments.name)
        _say(_json(Devices(found)) if arguments.json else as_csv([row_of_device(line) for line in found]).rstrip("\n"))
        return 0
    lines = versions(config, arguments.name)
    if arguments.json:
        _say(_json(Versions(lines)))
    elif arguments.csv:
        _say(as_csv([row_of_version(line) for line in lines]).rstrip("\n"))
    else:
        _say(table(lines, shortlist(lines)))
    return 0


def _draw(config: operator.OperatorConfig, arguments: argparse.Namespace) -> int:
    """Write curves for TensorBoard: of the job, or of each of its devices."""
    from fleet.console import tensorboard  # first: who has not installed it should not wait

    folder, n_values = arguments.tensorboard / arguments.name, 0
    if arguments.devices:
        of: dict[str, list[tensorboard.Row]] = {}
        for line in devices(config, arguments.name):
            of.setdefault(line.device, []).append((line.version, "", row_of_device(line)))
        for device, rows in of.items():
            n_values += tensorboard.write(folder / "devices" / device, rows)
    else:
        lines = versions(config, arguments.name)
        n_values = tensorboard.write(
            folder, [(int(line.version.rpartition(".")[2]), line.at, row_of_version(line)) for line in lines]
        )
    _say(f"{folder}: {n_values} values; look at them with: tensorboard --logdir {arguments.tensorboard}")
    return 0


MOST_COLUMNS = 8
"""Of a table for a person; CSV and JSON have all."""


def shortlist(lines: Sequence[VersionLine]) -> list[str]:
    """Return the measures that a person is shown: those that say most, then what is known of most versions, without
    what says how it was made.
    """
    passed = ("buckets", "bits", "noise", "examples", "unscored")
    counts: dict[str, int] = {}
    for line in lines:
        for name in line.metrics:
            counts[name] = counts.get(name, 0) + (name not in passed and ":" not in name and "[" not in name)
    first = {name: at for at, name in enumerate((*SHOWN, "loss", "participants"))}
    known = sorted(
        (name for name, n in counts.items() if n), key=lambda name: (first.get(name, len(first)), -counts[name], name)
    )
    return known[:MOST_COLUMNS]


def _json(answer: Struct) -> str:
    return msgspec.json.format(msgspec.json.encode(answer)).decode()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
