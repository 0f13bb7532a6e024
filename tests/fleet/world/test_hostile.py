"""Whatever one role says, with whatever numbers: when it is gone, the fleet goes on by itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from aggregator.leadership import Leadership
from broker.messages import Beacon
from edge_agent.announced import Announced
from fleet.world.__main__ import main
from fleet.world.hostile import MOST_MESSAGES, ROLES, HostileReport, attack


@pytest.mark.parametrize("seeds", [range(1, 15), pytest.param(range(15, 41), marks=pytest.mark.long)], ids=str)
def test_the_fleet_goes_on_when_somebody_who_has_said_anything_is_gone(seeds: range) -> None:
    reports = [attack(seed) for seed in seeds]
    assert [(report.seed, report.role, report.why) for report in reports if report.why] == []
    said = Counter[str]()
    for report in reports:
        said[report.role] += report.messages
        assert report.messages <= MOST_MESSAGES
    assert said.keys() == set(ROLES)
    assert min(said.values()) > 50


def test_a_schedule_is_a_pure_function_of_its_seed() -> None:
    assert [attack(seed) for seed in (1, 2)] == [attack(seed) for seed in (1, 2)]


def stuck(seeds: range) -> HostileReport | None:
    """Return the first schedule that the fleet does not go on from."""
    return next((report for seed in seeds if (report := attack(seed)).why), None)


def test_a_leader_that_stands_down_for_every_beacon_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_answer(_self: Leadership, beacon: Beacon, live: bool) -> bool:
        return live and beacon.online

    monkeypatch.setattr(Leadership, "_is_answer", is_answer)
    assert stuck(range(1, 41)) is not None


def test_a_device_that_goes_by_the_highest_term_for_good_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    hear = Announced.hear

    def deaf(self: Announced, event: Any, now: float) -> bool:
        self.led = 0
        return hear(self, event, now)

    monkeypatch.setattr(Announced, "hear", deaf)
    assert stuck(range(1, 41)) is not None


def test_the_command_runs_them_and_says_how_long_the_longest_took(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert main(["--hostile", "--schedules", "3", "--seed", "5", "--jobs", "2"]) == 0
    assert "schedules=3 stuck=0 longest_s=" in caplog.text


def test_the_command_ends_with_1_where_the_fleet_is_stuck(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.world.hostile.PATIENCE", 0)
    with caplog.at_level("ERROR"):
        assert main(["--hostile", "--schedules", "1", "--seed", "5", "--verbose"]) == 1
    assert "no version in 0 s" in caplog.text
