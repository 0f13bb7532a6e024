"""The command: python -m fleet.world."""

from __future__ import annotations

import pytest

from fleet.world.__main__ import main
from fleet.world.plants import PLANTS


def test_clean_schedules_end_with_0_and_say_how_long_they_took(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert main(["--schedules", "2", "--seed", "3", "--profile", "drills"]) == 0
    assert "schedules=2 violated=0" in caplog.text


def test_a_plant_that_is_found_ends_with_0_and_names_the_seed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert main(["--schedules", "9", "--plant", "beyond-max-rounds"]) == 0
    assert "plant=beyond-max-rounds found at seed=" in caplog.text


def test_a_plant_that_is_not_found_ends_with_1(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("ERROR"):
        assert main(["--schedules", "1", "--plant", "outbox-in-memory", "--profile", "calm", "--seed", "4"]) == 1
    assert "was not found" in caplog.text


def test_a_broken_law_ends_with_1_in_any_number_of_processes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.world import laws

    monkeypatch.setattr(laws, "MOST_QUEUED", {"online": -1, "offline": -1})
    for jobs in ("1", "2"):
        with caplog.at_level("ERROR"):
            assert main(["--schedules", "2", "--seed", "3", "--profile", "drills", "--jobs", jobs]) == 1
        assert "law=7 times=2 packets pile up" in caplog.text
        caplog.clear()


def test_one_schedule_is_told_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        main(["--schedules", "1", "--seed", "3", "--profile", "drills", "--verbose"])
    assert "weather: drills" in caplog.text
    assert "d0 -> offer/job1-" in caplog.text


def test_every_plant_names_a_law_and_a_weather() -> None:
    for plant in PLANTS.values():
        assert 1 <= plant.law <= 10
    assert len(PLANTS) >= 8
