from __future__ import annotations

import pytest

from aggregator.pace import BASES_KEPT, SHORTEST_S, SLACK, Pace
from broker.messages import Version

V0, V1 = Version(1, 0), Version(1, 1)


def test_the_first_round_has_all_the_time_there_is() -> None:
    assert Pace(500.0).deadline_s(["a"]) == 500.0


def test_of_a_few_devices_the_slowest_known_sets_the_deadline() -> None:
    pace = Pace()
    pace.draw(V0, ["fast", "slow"], 100.0)
    pace.hear("fast", V0, 110.0)
    pace.hear("slow", V0, 160.0)
    assert pace.deadline_s(["fast", "slow", "unknown"]) == SLACK * 60.0
    assert pace.deadline_s(["fast"]) == SLACK * 10.0


def test_of_many_devices_the_slowest_tenth_may_be_cut() -> None:
    pace = Pace()
    names = [f"d{n}" for n in range(20)]
    pace.draw(V0, names, 0.0)
    for n, name in enumerate(names):
        pace.hear(name, V0, 20.0 + n if n < 18 else 900.0)
    assert pace.deadline_s(names) == SLACK * 37.0


def test_no_deadline_is_shorter_than_the_shortest_or_longer_than_the_ceiling() -> None:
    pace = Pace(ceiling_s=300.0)
    pace.draw(V0, ["a", "b"], 0.0)
    pace.hear("a", V0, 0.1)
    pace.hear("b", V0, 299.0)
    assert pace.deadline_s(["a"]) == SHORTEST_S
    assert pace.deadline_s(["a", "b"]) == 300.0


def test_what_a_device_offers_again_says_nothing() -> None:
    pace = Pace()
    pace.draw(V0, ["a"], 0.0)
    pace.hear("a", V0, 20.0)
    pace.hear("a", V0, 500.0)
    assert pace.deadline_s(["a"]) == SLACK * 20.0


def test_a_late_offer_is_heard() -> None:
    pace = Pace()
    pace.draw(V0, ["a"], 0.0)
    pace.draw(V1, ["a"], 60.0)
    pace.hear("a", V0, 90.0)
    assert pace.deadline_s(["a"]) == SLACK * 90.0


def test_a_further_attempt_does_not_reset_when_a_device_could_begin() -> None:
    pace = Pace()
    pace.draw(V0, ["a"], 0.0)
    pace.draw(V0, ["a"], 60.0)
    pace.hear("a", V0, 70.0)
    assert pace.deadline_s(["a"]) == SLACK * 70.0


def test_a_device_that_only_a_later_attempt_draws_is_measured_from_there() -> None:
    """A dead device that is drawn first must not double the deadline with every base."""
    pace, now, deadlines = Pace(), 0.0, []
    for number in range(8):
        base = Version(1, number)
        pace.draw(base, ["dead"], now)
        now += pace.deadline_s(["dead", "d2"])
        pace.draw(base, ["dead", "d2"], now)
        now += 10.0
        pace.hear("d2", base, now)
        deadlines.append(pace.deadline_s(["dead", "d2"]))
    assert deadlines == [pytest.approx(SLACK * 10.0)] * 8


def test_an_old_base_is_forgotten() -> None:
    pace = Pace()
    for number in range(BASES_KEPT + 1):
        pace.draw(Version(1, number), ["a"], 0.0)
    pace.hear("a", V0, 50.0)
    assert pace.deadline_s(["a"]) == pace.ceiling_s
