"""`fedge job metrics` and what `fedge job show` says of a version by its devices."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from fleet.cli import main
from fleet.console import by_devices, metrics, tensorboard
from fleet.console.by_devices import ByDevices, Label
from fleet.console.metrics import DeviceLine, VersionLine

TOLD = ByDevices(
    3,
    60,
    4,
    {"accuracy": 0.9, "macro_f1": 0.8},
    {"accuracy": 0.05, "macro_f1": 0.1},
    {"accuracy": (0.85, 0.9, 0.95), "macro_f1": (0.7, 0.8, 0.9)},
    {"accuracy": ("d2", 0.84), "macro_f1": ("d0", 0.66)},
    {"fault": Label(7, 0.4, ("d2", 0.0)), "ok": Label(53, 0.97, ("d1", 0.9))},
)
LINES = [
    VersionLine("1.0", "2026-01-01 00:00:00", {"accuracy": 0.5}),
    VersionLine("1.1", "2026-01-01 00:00:30", {"accuracy": 0.9, "buckets": 64.0}, TOLD),
]


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def events(file: Path) -> Iterator[Any]:
    """The events of a file as TensorBoard frames them: length, its checksum, event, its checksum."""
    content = file.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield event_pb2.Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_a_version_is_a_row_and_a_measure_a_column() -> None:
    rows = parsed(metrics.as_csv([metrics.row_of_version(line) for line in LINES]))
    assert [row["version"] for row in rows] == ["1.0", "1.1"]
    assert [row["accuracy"] for row in rows] == ["0.5", "0.9"]
    assert [row["buckets"] for row in rows] == ["", "64.0"]
    assert rows[1]["federated_accuracy_spread"] == "0.05"
    assert rows[1]["federated_macro_f1_worst"] == "0.66"
    assert list(rows[0])[:2] == ["version", "at"]


def test_a_device_of_a_version_is_a_row_with_what_it_brought_and_says() -> None:
    lines = [
        DeviceLine(1, "d0", "counted", True, 20, 20, 0.5, 0.1, 97, 2.5, {"accuracy": 0.7, "n": 5.0}),
        DeviceLine(1, "d1", "silent"),
    ]
    rows = parsed(metrics.as_csv([metrics.row_of_device(line) for line in lines]))
    assert rows[0] == {
        "version": "1", "device": "d0", "fate": "counted", "counted": "1", "n_examples": "20", "weight": "20",
        "norm": "0.5", "loss": "0.1", "body_bytes": "97", "seconds": "2.5", "accuracy": "0.7", "n": "5.0",
    }  # fmt: skip
    assert (rows[1]["fate"], rows[1]["counted"], rows[1]["weight"]) == ("silent", "0", "")


@pytest.mark.parametrize("formula", ["=HYPERLINK(1)", "+1", "-1", "@x"])
def test_a_text_is_none_that_a_spreadsheet_would_compute(formula: str) -> None:
    (row,) = parsed(metrics.as_csv([metrics.row_of_device(DeviceLine(1, "d0", f"{formula}, it says"))]))
    assert row["fate"] == f"'{formula}, it says"


def test_a_person_is_shown_mean_spread_worst_and_labels() -> None:
    said = by_devices.lines(TOLD)
    assert said[0] == "version 4 by 3 devices, on 60 rows that they hold back:"
    assert said[1].split() == [
        *("accuracy", "mean", "0.9000", "spread", "0.0500", "quartiles", "0.8500", "0.9000", "0.9500"),
        *("worst", "0.8400", "(d2)"),
    ]
    assert said[3].split() == ["fault", "found", "0.4000", "of", "7", "rows", "worst", "0.0000", "(d2)"]
    assert by_devices.lines(None) == []


def test_the_columns_for_a_person_are_those_that_say_most_and_not_those_that_come_first_by_name() -> None:
    known = ("accuracy", "balanced_accuracy", "brier", "buckets", "device_loss", "f1", "federated_rows", "log_loss")
    rest = ("loss", "macro_f1", "macro_precision", "participants", "recall:fault")
    lines = [VersionLine("1.0", "", {}), VersionLine("1.1", "", dict.fromkeys((*known, *rest), 0.5))]
    assert metrics.shortlist(lines) == [
        *("accuracy", "balanced_accuracy", "macro_f1", "f1", "log_loss", "loss", "participants", "brier"),
    ]


def test_curves_have_a_step_a_version_and_are_written_anew(tmp_path: Path) -> None:
    rows = [(n, line.at, metrics.row_of_version(line)) for n, line in enumerate(LINES)]
    for _ in range(2):
        assert tensorboard.write(tmp_path / "j", rows) == 7
    (file,) = (tmp_path / "j").iterdir()
    first, *others = events(file)
    assert first.file_version == "brain.Event:2"
    found = {(event.step, value.tag): value.simple_value for event in others for value in event.summary.value}
    assert found[0, "accuracy"] == pytest.approx(0.5)
    assert found[1, "federated_accuracy_spread"] == pytest.approx(0.05)
    assert len(found) == 7
    assert [event.wall_time for event in others] == [1767225600.0, 1767225630.0]


@pytest.mark.slow
def test_a_job_of_real_processes_is_told_of_as_table_csv_json_and_curves(
    two_devices: Any, until: Callable[[Callable[[], bool]], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def ask(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    config = ("--config", two_devices.config)
    ask("job", "submit", two_devices.job(max_rounds=3), *config)
    until(lambda: "finished" in ask("job", "list", *config))

    rows = parsed(ask("job", "metrics", "blobs", "--csv", *config))
    assert [row["version"] for row in rows] == ["1.0", "1.1", "1.2", "1.3"]
    assert all(0 < float(row["accuracy"]) <= 1 for row in rows)
    told = json.loads(ask("job", "metrics", "blobs", "--json", *config))["versions"]
    assert [line["metrics"]["accuracy"] for line in told] == [float(row["accuracy"]) for row in rows]
    head, *lines = ask("job", "metrics", "blobs", *config).splitlines()
    assert head.split()[:2] == ["VERSION", "ACCURACY"]
    assert len(lines) == 4

    devices = parsed(ask("job", "metrics", "blobs", "--devices", "--csv", *config))
    names = [role.name for role in two_devices.stage.devices]
    assert [(row["version"], row["device"]) for row in devices] == [(str(n), name) for n in range(3) for name in names]
    assert all(row["fate"] == "counted" and row["counted"] == "1" for row in devices)
    assert all(int(row["weight"]) == 60 and int(row["body_bytes"]) > 8 and float(row["norm"]) > 0 for row in devices)
    assert all(float(row["seconds"]) >= 0 and float(row["loss"]) > 0 for row in devices)
    assert (
        json.loads(ask("job", "metrics", "blobs", "--devices", "--json", *config))["devices"][0]["device"] == names[0]
    )

    ask("job", "metrics", "blobs", "--tensorboard", tmp_path / "tb", *config)
    ask("job", "metrics", "blobs", "--tensorboard", tmp_path / "tb", "--devices", *config)
    found = sorted(str(path.relative_to(tmp_path / "tb")) for path in (tmp_path / "tb").rglob("events*"))
    assert found == sorted(
        [f"blobs/{tensorboard.FILE}", *(f"blobs/devices/{name}/{tensorboard.FILE}" for name in names)]
    )
    capsys.readouterr()
    assert main(["job", "metrics", "blobs", "--csv", "--json", "--config", str(two_devices.config)]) != 0
    assert "choose one of them" in capsys.readouterr().err
    assert main(["job", "metrics", "blops", "--config", str(two_devices.config)]) != 0
    assert "no job at work has the name blops" in capsys.readouterr().err
