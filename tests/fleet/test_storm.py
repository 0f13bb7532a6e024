from __future__ import annotations

import logging

import pytest

from broker.messages import Version
from edge_agent.participant import Participant
from fleet import storm


def test_the_fleet_weathers_every_storm() -> None:
    reports = [storm.run(seed) for seed in range(400)]
    assert [report for report in reports if report.violations] == []
    assert sum(report.versions for report in reports) > 400


def test_a_schedule_is_a_pure_function_of_its_seed() -> None:
    assert [storm.run(seed) for seed in range(20)] == [storm.run(seed) for seed in range(20)]


def test_a_fleet_that_forgets_what_it_trained_is_found_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forget(self: Participant, base: Version) -> None:
        self._training = None

    monkeypatch.setattr(Participant, "_finish_training", forget)
    with caplog.at_level(logging.ERROR):
        assert storm.main(["--schedules", "20", "--seed", "1"]) == 1
    assert "second training" in caplog.text


def test_a_quiet_night_is_reported_with_its_rate(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert storm.main(["--schedules", "3", "--seed", "7"]) == 0
    assert "schedules=3" in caplog.text
    assert "violations=0" in caplog.text
