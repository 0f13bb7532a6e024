"""Schedules of the whole world: clean ones, the same one twice, and one that a fault was planted in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.world.plants import PLANTS, Plant, planted
from fleet.world.weather import PROFILES
from fleet.world.world import run

ROOT = Path(__file__).resolve().parents[3]

SEEDS = {name: range(2, 3) for name in PROFILES} | {
    "offline-day": range(7, 8),
    "drills": range(1, 20),
    "keys": range(46, 47),
}
"""A schedule of each weather, and more of the short ones; `make long` has more, and `make world` thousands."""


@pytest.mark.parametrize("profile", PROFILES)
def test_the_fleet_keeps_its_laws_in(profile: str) -> None:
    reports = [run(seed, profile) for seed in SEEDS[profile]]
    assert [violation for report in reports for violation in report.violations] == []
    assert sum(report.versions for report in reports) > 0


def test_a_schedule_is_a_pure_function_of_its_seed() -> None:
    assert [run(seed, "drills") for seed in range(5)] == [run(seed, "drills") for seed in range(5)]
    assert run(46, "keys") == run(46, "keys")


def test_the_order_of_sets_does_not_matter() -> None:
    code = "from fleet.world.world import run; print(run(1, 'operators').sha256)"
    said = []
    for hashes in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hashes, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        said.append(done.stdout)
    assert said[0] == said[1]
    assert len(said[0]) > 60


def test_devices_that_say_how_they_are_leave_the_laws_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = run(3, "drills")
    monkeypatch.setattr("fleet.world.nodes.VITALS_S", 20.0)
    told = [run(seed, "drills") for seed in (3, 3, 4, 5, 6)]
    assert told[0] == told[1]
    assert told[0].sha256 != silent.sha256, "they did speak"
    assert [violation for report in told for violation in report.violations] == []


def test_the_fleet_keeps_its_laws_where_devices_are_put_in_quarantine_and_released() -> None:
    lines: list[str] = []
    reports = [run(seed, "drills", lines.append, quarantine=True) for seed in range(1, 6)]
    assert [violation for report in reports for violation in report.violations] == []
    for said in ("is in quarantine", "is released from quarantine", "nothing has been heard of such", "vitals/"):
        assert any(said in line for line in lines), said
    assert run(1, "drills", quarantine=True) == reports[0] != run(1, "drills")


@pytest.mark.parametrize(
    ("seed", "quarantine"), [pytest.param(831, False, marks=pytest.mark.long), (1512, False), (320, True)]
)
def test_a_schedule_that_has_broken_a_law_breaks_none(seed: int, quarantine: bool) -> None:
    assert run(seed, quarantine=quarantine).violations == ()


def test_another_seed_is_another_world() -> None:
    assert run(2, "calm").sha256 != run(3, "calm").sha256


def test_a_world_in_which_somebody_spins_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.world.world.MOST_EVENTS", 300)
    monkeypatch.setattr("fleet.world.world.MOST_A_SECOND", 0)
    report = run(2, "calm")
    assert [(violation.law, violation.kind) for violation in report.violations][:1] == [(7, "somebody spins")]


def test_the_trace_tells_who_did_what_and_when() -> None:
    lines: list[str] = []
    run(2, "calm", lines.append)
    assert any("d0 -> offer/job1-" in line for line in lines)
    assert any("aggregator1: starts, life 1" in line for line in lines)
    assert not any("/dev/shm" in line or "/tmp" in line for line in lines)


FIRST = {
    "deleted-rows-kept": 2,
    "first-job-first": 2,
    "marks-wiped-out": 3,
    "no-marks": 3,
    "leading-at-once": 4,
    "deadline-doubles": 4,
    "devices-not-believed": 2,
    "no-boundary": 4,
    "state-directory-shared": 4,
    "generation-kept": 173,
    "litter-forgotten": 7,
    "checkpoint-forgotten": 51,
    "settled-by-any-verdict": 231,
    "let-go-once-sent": 6,
    "let-go-at-an-alias": 28,
    "unknown-job-refused": 23,
    "listening-for-ever": 90,
    "queued-while-offline": 23,
    "offered-once": 8,
    "nobody-dropped": 23,
    "failure-lasts": 24,
    "halt-frees-nobody": 676,
    "stale-base-counted": 104,
    "asked-once": 376,
    "clone-unseen": 74,
    "new-card-ignored": 8,
    "resumed-by-one-name": 119,
    "presence-believed": 50347,
    "names-forgotten": 106,
    "unknown-base-refused": 10,
    "collected-while-making": 195,
    "ended-while-judging": 220,
    "hint-for-ever": 6,
    "deleted-jobs-kept": 7,
    "late-will-unanswered": 24,
    "release-untold": 11,
}
"""The first schedules that find a plant, where it is not one of the first five: a test has no time to look for them."""


LONG = {
    *("collected-while-making", "hint-for-ever", "queued-while-offline"),
    *("devices-not-believed", "no-boundary", "first-job-first", "presence-believed", "deleted-rows-kept"),
    *("failure-lasts", "hello-said-once", "resumed-by-one-name", "deadline-doubles", "let-go-at-an-alias"),
    *("state-directory-shared", "litter-forgotten", "late-will-unanswered", "deleted-jobs-kept"),
}
"""Plants that show in long worlds: `make long` looks for them."""


@pytest.mark.parametrize(
    "plant",
    [pytest.param(plant, id=name, marks=[pytest.mark.long] * (name in LONG)) for name, plant in PLANTS.items()],
)
def test_a_planted_fault_is_found(plant: Plant) -> None:
    first = FIRST.get(plant.name, 1)
    for seed in range(first, first + 5):
        with planted(plant):
            report = run(seed, plant.profile, quarantine=plant.quarantine)
        if any(plant.is_found_by(violation) for violation in report.violations):
            assert run(seed, plant.profile, quarantine=plant.quarantine).violations == (), (
                "it is there without the plant"
            )
            return
    pytest.fail(f"{plant.name} was not found: look for it with `python -m fleet.world --plant {plant.name}`")


@pytest.mark.long
@pytest.mark.parametrize("profile", PROFILES)
def test_the_fleet_keeps_its_laws_in_more_schedules_of(profile: str) -> None:
    first = 44 if profile == "keys" else 3
    violations = [found for seed in range(first, first + 4) for found in run(seed, profile).violations]
    assert violations == []


@pytest.mark.long
@pytest.mark.parametrize("profile", PROFILES)
def test_the_fleet_keeps_its_laws_with_devices_in_quarantine_in(profile: str) -> None:
    first = 44 if profile == "keys" else 3
    reports = [run(seed, profile, quarantine=True) for seed in range(first, first + 3)]
    assert [violation for report in reports for violation in report.violations] == []


@pytest.mark.long
def test_the_fleet_keeps_its_laws_with_jobs_that_ask_for_all_there_is() -> None:
    reports = [run(seed, rich=True) for seed in range(1, 40)]
    assert [violation for report in reports for violation in report.violations] == []
    assert any(report != run(report.seed) for report in reports[:1])
    assert sum(report.versions for report in reports) > 100


def test_some_schedules_of_jobs_that_ask_for_all_there_is_keep_its_laws() -> None:
    assert [violation for seed in range(1, 4) for violation in run(seed, rich=True).violations] == []
