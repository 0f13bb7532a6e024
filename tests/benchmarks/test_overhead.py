"""The measure of a round's overhead: real rounds of a small net, medians and ratios, and what is said of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec import structs

from benchmarks.overhead import __main__ as command
from benchmarks.overhead import flower, meters, ours, rounds
from benchmarks.overhead.found import Found
from benchmarks.overhead.meters import Cost, Costs
from broker.embedded import find_mosquitto
from fleet.local.processes import ChildDiedError, Children
from models.job import ModelSpec
from models.nets.mlp import spec_of_mlp
from models.params import n_parameters

SMALL = ModelSpec(inputs=784, hidden=(50,), outputs=10)
ROUNDS = 20
"""Few, but more than a busy machine sleeps through."""
WITHOUT_SITE_PACKAGES = f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n'


def found(name: str = "off", **figures: float) -> Found:
    """A system of ten agents, whose server needs 10 ms of CPU a round and every agent 2 ms, but for these figures."""
    return structs.replace(Found(name, 10, 0.2, 0.01, 0.005, 0.002, 50.0, 30.0, 1.0), **figures)


@pytest.fixture
def without_flower(tmp_path: Path) -> Path:
    """A Python that has nothing but its standard library."""
    path = tmp_path / "python"
    path.write_text(WITHOUT_SITE_PACKAGES)
    path.chmod(0o755)
    return path


# Real rounds.


@pytest.mark.slow
def test_real_rounds_are_measured_beside_a_floor_of_as_many_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_mosquitto() is not None, "it is on every machine where the tests run"
    monkeypatch.setattr(command, "MODEL", SMALL)
    file = tmp_path / "found.json"
    command.main(["--agents", "2", "--codecs", "off", "--rounds", str(ROUNDS), "--repeats", "1", "--json", str(file)])
    told = json.loads(file.read_text())
    assert told["rounds"] == ROUNDS
    mine, floor = told["found"]
    assert [(one["name"], one["agents"]) for one in (mine, floor)] == [("off", 2), ("floor, off", 2)]
    for one in (mine, floor):
        assert set(one) == set(Found.__struct_fields__)
        assert min(one["wall_s"], one["start_s"]) > 0
        assert min(one["server_cpu_s"], one["broker_cpu_s"], one["agent_cpu_s"]) >= 0, "a tick may be too long for it"
        assert all(5 < one[peak] < 1000 for peak in ("server_peak_mb", "agent_peak_mb"))
    assert mine["lag_s"] > 0
    plain = 4 * n_parameters(spec_of_mlp(SMALL))
    for way in ("up_bytes", "down_bytes"):
        # What is on its way when the first and the last round are looked at belongs to one of them or to the next.
        assert plain / 2 < mine[way] < 1.05 * plain * (1 + (ours.WARM + 1) / ROUNDS)
        assert floor[way] == round(mine[way])
    printed = capsys.readouterr().out
    assert f"{plain // 4:,} parameters, {ROUNDS} rounds after {ours.WARM}" in printed
    assert "off, 2 agents: " in printed
    assert "x the time of floor, off" in printed


# Arithmetic.


def test_figures_are_medians_each_of_its_own() -> None:
    runs = [found(wall_s=wall, server_peak_mb=peak) for wall, peak in ((0.3, 70.0), (0.1, 90.0), (0.2, 80.0))]
    middle = command._median(runs)
    assert middle == found(wall_s=0.2, server_peak_mb=80.0)
    assert command._median(runs[:2]).wall_s == pytest.approx(0.2)


def test_all_cpu_is_that_of_the_server_the_broker_and_every_agent() -> None:
    assert found().cpu_s == pytest.approx(0.01 + 0.005 + 10 * 0.002)


def test_a_coding_is_held_against_flower_and_against_the_floor_of_its_own_bytes_and_agents() -> None:
    mine = found()
    others = [
        found("flower", wall_s=0.4, server_cpu_s=0.045),
        found("floor, off", wall_s=0.1, server_cpu_s=0.0),
        found("floor, strong", wall_s=0.01),
        structs.replace(found("flower", wall_s=0.01), agents=50),
    ]
    assert command._judged(mine, [mine, *others]) == [
        "off, 10 agents: 0.50x the time of flower, 0.50x its CPU",
        "off, 10 agents: 2.00x the time of floor, off, 1.40x its CPU",
    ]
    assert [line for other in others for line in command._judged(other, [mine, *others])] == []


def test_a_missed_goal_is_said() -> None:
    slow = found(wall_s=0.5, server_cpu_s=0.05, broker_cpu_s=0.0, agent_cpu_s=0.013)
    assert command._judged(slow, [slow, found("flower")]) == [
        "off, 10 agents: 2.50x the time of flower, 5.14x its CPU: more than the 1.2x that we want",
        "off, 10 agents: 5.00 ms an update, where we want 4",
        "off, 10 agents: 13.0 ms an agent, where we want 12",
    ]
    assert command._judged(found("light", wall_s=9.0, server_cpu_s=9.0), [found("flower")]) == [
        "light, 10 agents: 45.00x the time of flower, 257.86x its CPU"
    ], "only off and strong have goals for the round and the server"


def test_a_floor_of_less_than_a_tick_is_not_divided_by() -> None:
    idle = found("floor, off", server_cpu_s=0.0, broker_cpu_s=0.0, agent_cpu_s=0.0)
    assert command._judged(found(), [idle]) == [
        "off, 10 agents: 1.00x the time of floor, off, its CPU is less than a tick"
    ]


def test_cpu_is_told_by_role_from_the_first_look_to_the_last_and_memory_of_the_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = {1: [1.0, 1.5, 4.0], 2: [0.0, 0.1, 0.25], 3: [2.0, 2.0, 2.5]}
    monkeypatch.setattr(meters, "cost_of", lambda pid: Cost(looks[pid].pop(0), 10.0 * pid))
    costs = Costs({"server": [1], "agent": [2, 3]})
    for _ in range(3):
        costs.note()
    assert costs.between() == {"server": 3.0, "agent": 0.75}
    assert (costs.peak_mb("server"), costs.peak_mb("agent")) == (10.0, 30.0)


def test_a_process_is_charged_for_its_cpu_and_its_peak() -> None:
    two_ticks = 2 / os.sysconf("SC_CLK_TCK")
    outer = time.process_time()
    before = meters.cost_of(os.getpid())
    inner = time.process_time()
    held = bytearray(1_000_000)
    while time.process_time() - inner < 0.1:
        held.reverse()
    inner = time.process_time() - inner
    after = meters.cost_of(os.getpid())
    outer = time.process_time() - outer
    assert inner - two_ticks <= after.cpu_s - before.cpu_s <= outer + two_ticks  # however long it took
    assert after.peak_mb >= before.peak_mb > 10


def test_a_process_that_has_ended_has_no_cost() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError, match=f"process {child.pid} has ended"):
            meters.cost_of(child.pid)
    with pytest.raises(OSError):
        meters.cost_of(child.pid)


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--rounds", "0"], "without a round, a repeat and an agent"),
        (["--repeats", "0"], "without a round, a repeat and an agent"),
        (["--agents", "2", "0"], "without a round, a repeat and an agent"),
        (["--codecs", "nonsense"], "invalid choice: 'nonsense'"),
        (["--flower", "nowhere/python"], "--flower nowhere/python: there is no such file"),
        (["--flower", __file__], f"--flower {__file__}: this is no Python of an environment with flwr"),
        (["--json", "nowhere/found.json"], "--json nowhere/found.json: there is no such folder"),
    ],
)
def test_bad_input_is_a_code_of_two_before_anything_runs(
    arguments: Sequence[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert why in told.err
    assert told.out == ""


def test_a_python_without_flower_is_refused_before_anything_runs(
    without_flower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--flower", str(without_flower)])
    assert ended.value.code == 2
    assert f"--flower {without_flower}: this is no Python of an environment with flwr" in capsys.readouterr().err


def test_a_flower_that_dies_is_told_with_its_last_words(without_flower: Path) -> None:
    with pytest.raises(ChildDiedError, match=r"(?s)server ended with exit code 1.*No module named 'flwr'"):
        flower.measure(without_flower, spec_of_mlp(SMALL), 2, 1, say=lambda _: None)


def test_rounds_are_numbered_as_the_report_has_them_also_several_at_once(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.write_text("1 2 0\n2 2 0\n")
    with Children() as children:
        numbers = rounds.in_report(report, children, 3)
        assert [next(numbers), next(numbers)] == [1, 2]
        report.write_text("1 2 0\n2 2 0\n3 2 0\n")
        assert list(numbers) == [3]
