"""How a job has gone, in lines."""

from __future__ import annotations

from fleet.console.joblines import curves, described, waits
from fleet.console.metrics import DeviceLine as Brought
from fleet.console.metrics import VersionLine
from fleet.console.operator import DeviceLine, JobDetails, JobLine
from fleet.console.plotting import curves as drawn

VERSIONS = [
    VersionLine("1.0", "", {"accuracy": 0.5, "loss": 2.0, "recall:x": 1.0, "buckets": 64.0}),
    VersionLine("1.1", "", {"accuracy": 0.9, "loss": 1.0, "participants": 3.0}),
    VersionLine("1.2", "", {"accuracy": 0.8, "loss": 1.5, "participants": 2.0}),
]
JOB = JobLine("j", "j-1", "running", "1.2", waits_for="all", ends="time", notes=["odd"])


def test_a_curve_says_where_it_began_where_it_is_and_what_was_best() -> None:
    accuracy, loss, participants = curves(VERSIONS, blocks=True)
    assert accuracy.split() == ["accuracy", "▁█▆", "0.5", "to", "0.8,", "best", "0.9", "at", "1.1"]
    assert "best 1 at 1.1" in loss
    assert participants.split() == ["participants", "█▁", "3", "to", "2"]
    assert all(line.isascii() for line in curves(VERSIONS, blocks=False))
    assert curves([], blocks=True) == []


def test_a_job_is_described_with_what_it_waits_for_and_its_devices() -> None:
    details = JobDetails(JOB, [DeviceLine("d1", "offline", since_s=125.0, trouble="disk")])
    lines = described(details, VERSIONS)
    assert waits(JOB) == ["    waits for: all", "    ended by: time", "    note: odd"]
    assert lines[2:5] == waits(JOB)
    assert lines[-1].split(maxsplit=3) == ["d1", "offline", "-", "for 2 min 05 s; disk"]


def test_every_measure_is_drawn_and_the_bytes_of_all_devices_together() -> None:
    brought = [
        Brought(0, "a", body_bytes=5),
        Brought(0, "b", body_bytes=6),
        Brought(1, "a"),
        Brought(2, "a", body_bytes=7),
    ]
    assert drawn(VERSIONS, brought) == [
        ("accuracy", [0, 1, 2], [0.5, 0.9, 0.8]),
        ("loss", [0, 1, 2], [2.0, 1.0, 1.5]),
        ("participants", [1, 2], [3.0, 2.0]),
        ("update bytes", [1], [11.0]),
    ], "what came for the version that is yet to be made is left out"
    assert drawn([], []) == []
