"""The measure of scale finds what grows and what does not, and says where a goal is missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from aggregator.attendance import Attendance
from benchmarks import connections, events, memory, scale
from benchmarks.connections import Load
from benchmarks.events import Cost
from broker.embedded import find_mosquitto

SMALL = ["--known", "40", "80", "--drawn", "20", "60", "--chunks", "10", "40", "--devices", "10", "20"]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS", 15)
    monkeypatch.setattr(events, "TRIES", 1)


def test_everything_that_needs_no_broker_is_measured_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scale.main([*SMALL, "--json", str(tmp_path / "scale.json")]) == 0
    found = json.loads((tmp_path / "scale.json").read_text())
    sizes = {(cost["known"], cost["drawn"]) for cost in found["coordinator"]}
    assert sizes == {(40, 20), (80, 20), (80, 60), (40, 0), (80, 0)}
    assert {cost["known"] for cost in found["chunks"]} == {10, 40}
    assert [run["devices"] for run in found["simulator"]] == [10, 20]
    assert all(run["cpu_s"] > 0 and run["peak_mb"] > 10 for run in found["simulator"])
    printed = capsys.readouterr().out
    for kind in ("presence, waiting", "offer, wait = all", "joins the round", "a chunk, device", "2.0x the devices"):
        assert kind in printed


def test_what_grows_with_the_devices_is_over_its_goal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(events, "coordinator", lambda known, drawn: [Cost("offer", known, drawn, known / 10)])
    monkeypatch.setattr(events, "aggregator", lambda known: Cost("whole", known, 0, 7.0))
    assert scale.main(["coordinator", "--known", "100", "1000", "--drawn", "50"]) == 0
    printed = capsys.readouterr().out
    assert "over its goal: offer: 10.0x as much" in printed
    assert "over its goal: offer: 100 us an event, where 50 are allowed" in printed
    assert "over its goal: whole" not in printed


def test_a_scan_of_everybody_is_seen_in_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def scans(self: Attendance) -> int:
        nonlocal now
        n = len(self._ledger.counted | self.able)
        now += 1e-6 * n  # to look at one takes a microsecond
        return n

    monkeypatch.setattr(events, "time", SimpleNamespace(process_time=lambda: now))
    monkeypatch.setattr(Attendance, "n_contributing", property(scans))
    few, many = (
        next(found.us for found in events.coordinator(known, 50) if found.kind == "presence, waiting")
        for known in (100, 5000)
    )
    assert many > 40 * few > 0


def test_loads_are_held_against_their_goals(capsys: pytest.CaptureFixture[str]) -> None:
    flat = Load(10, 1.0, 0.1, 0.1, 12.0, 0.1, 50.0, 60.0)
    assert scale._print_loads([flat]) == []
    grown = Load(1000, 1.0, 0.1, 0.1, 36.0, 0.1, 90.0, 60.0)
    assert scale._print_loads([flat, grown]) == [
        "the aggregator of 1,000 devices, peak MB: 90.0 where 80 is the goal, 1.1x",
        "a round among 1,000 devices: 3.0x the CPU as among 10",
        "the aggregator of 1,000 devices: 1.80x the memory, where 1 is flat",
    ]
    assert "100x the devices: 3.00x the CPU a round, 1.80x the memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--known", "1"], ["nonsense"], ["--json", "nowhere/x.json"], ["--connections", "x"]]
)
def test_bad_input_is_a_code_of_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        scale.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_real_devices_connect_and_do_rounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_mosquitto() is not None, "it is on every machine where the tests run"
    monkeypatch.setattr(connections, "ROUNDS", 3)
    monkeypatch.setattr(connections, "EACH", 3)
    assert scale.main(["--connections", "4"]) == 0
    assert "round s" in capsys.readouterr().out


def test_cpu_and_memory_are_those_of_the_process() -> None:
    script = """
import time
b = bytearray(50_000_000)
while time.process_time() < 0.3: pass
print(time.process_time(), flush=True)
input()
print(time.process_time())
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
    ) as child:
        assert child.stdout is not None
        before = float(child.stdout.readline())
        found = memory.cpu_s(child.pid)
        assert 50 < memory.peak_mb(child.pid) < 100
        after = float(child.communicate(b"\n")[0])
    two_ticks = 2 / os.sysconf("SC_CLK_TCK")
    assert before - two_ticks <= found <= after + two_ticks  # by its own clock, however long it took
