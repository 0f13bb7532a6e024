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

from fleet.console.metrics import DeviceLine, VersionLine, row_of_device, row_of_version
from runtime.settings import SettingsError

try:
    from tensorboardX.proto import event_pb2, summary_pb2
    from tensorboardX.record_writer import RecordWriter
except ImportError as error:
    raise SettingsError("--tensorboard wants its extra: pip install fedge[tensorboard]") from error

FILE = "events.out.tfevents.fedge"
FORMAT = "brain.Event:2"
"""What a file of events begins with."""


class Folder:
    """Where the curves of one job go. folder: DIR/JOB. n_values: how many have been written."""

    def __init__(self, folder: Path, job: str) -> None:
        self.folder = folder / job
        self.n_values = 0

    def write_versions(self, lines: Iterable[VersionLine]) -> None:
        """Write how good each version is. Raises OSError."""
        rows = ((int(line.version.rpartition(".")[2]), _seconds(line.at), row_of_version(line)) for line in lines)
        self._write(self.folder, rows)

    def write_devices(self, lines: Iterable[DeviceLine]) -> None:
        """Write what each device brought to each version. Raises OSError."""
        of: dict[str, list[DeviceLine]] = {}
        for line in lines:
            of.setdefault(line.device, []).append(line)
        for device, own in of.items():
            rows = ((line.version, 0.0, row_of_device(line)) for line in own)
            self._write(self.folder / "devices" / device, rows)

    def _write(self, folder: Path, rows: Iterable[tuple[int, float, Mapping[str, object]]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        writer = RecordWriter(str(folder / FILE))
        try:
            writer.write(event_pb2.Event(wall_time=0.0, file_version=FORMAT).SerializeToString())
            for number, at, row in rows:
                values = [
                    summary_pb2.Summary.Value(tag=name, simple_value=float(value))
                    for name, value in row.items()
                    if isinstance(value, int | float)
                    and not isinstance(value, bool)
                    and math.isfinite(value)
                    and name != "version"
                ]
                summary = summary_pb2.Summary(value=values)
                writer.write(event_pb2.Event(wall_time=at, step=number, summary=summary).SerializeToString())
                self.n_values += len(values)
        finally:
            writer.close()


def _seconds(at: str) -> float:
    """Return a time of the store, in UTC, as seconds since 1970; 0 where it is none."""
    try:
        return datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
