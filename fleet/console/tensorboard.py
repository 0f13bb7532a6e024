"""Curves for TensorBoard: one file of events for a job, or one for each of its devices.

    DIR/JOB/events.out.tfevents.fedge                      a step a version
    DIR/JOB/devices/DEVICE/events.out.tfevents.fedge       the same of what one device says

A file is written anew each time, under the same name, so that whoever asks twice sees each curve once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from runtime.settings import SettingsError

try:
    from tensorboardX.proto import event_pb2, summary_pb2
    from tensorboardX.record_writer import RecordWriter
except ImportError as error:
    raise SettingsError("--tensorboard wants its extra: pip install fedge[tensorboard]") from error

FILE = "events.out.tfevents.fedge"
FORMAT = "brain.Event:2"
"""What a file of events begins with."""


Row = tuple[int, str, Mapping[str, object]]
"""The number of a version; when it was made, as the store says it, or ""; and cells, of which the numbers are drawn."""


def write(folder: Path, rows: Iterable[Row]) -> int:
    """Write a curve for each column of numbers, and return how many values there are. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    n_values, writer = 0, RecordWriter(str(folder / FILE))
    try:
        writer.write(event_pb2.Event(wall_time=0.0, file_version=FORMAT).SerializeToString())
        for number, at, row in rows:
            values = [
                summary_pb2.Summary.Value(tag=name, simple_value=float(value))
                for name, value in row.items()
                if name != "version"
                and isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
            ]
            event = event_pb2.Event(wall_time=_seconds(at), step=number, summary=summary_pb2.Summary(value=values))
            writer.write(event.SerializeToString())
            n_values += len(values)
    finally:
        writer.close()
    return n_values


def _seconds(at: str) -> float:
    """Return a time of the store, in UTC, as seconds since 1970; 0 where it is none."""
    try:
        return datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
