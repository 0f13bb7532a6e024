from __future__ import annotations

from aggregator.pace import BASES_KEPT, FIRST_S, SHORTEST_S, SLACK, Pace
from broker.messages import Version

V0, V1 = Version(1, 0), Version(1, 1)


def test_the_first_round_has_all_the_time_there_is() -> None:
    assert Pace().deadline_s(["a"]) == FIRST_S


def test_the_slowest_device_known_sets_the_deadline() -> None:
    pace = Pace()
    pace.open(V0, 100.0)
    pace.hear("fast", V0, 110.0)
    pace.hear("slow", V0, 160.0)
    assert pace.deadline_s(["fast", "slow", "unknown"]) == SLACK * 60.0
    assert pace.deadline_s(["fast"]) == SLACK * 10.0


def test_no_deadline_is_shorter_than_the_shortest() -> None:
    pace = Pace()
    pace.open(V0, 0.0)
    pace.hear("a", V0, 0.1)
    assert pace.deadline_s(["a"]) == SHORTEST_S


def test_what_a_device_offers_again_says_nothing() -> None:
    pace = Pace()
    pace.open(V0, 0.0)
    pace.hear("a", V0, 20.0)
    pace.hear("a", V0, 500.0)
    assert pace.deadline_s(["a"]) == SLACK * 20.0


def test_a_late_offer_is_heard() -> None:
    pace = Pace()
    pace.open(V0, 0.0)
    pace.open(V1, 60.0)
    pace.hear("a", V0, 90.0)
    assert pace.deadline_s(["a"]) == SLACK * 90.0


def test_a_further_attempt_on_a_base_does_not_reset_its_opening() -> None:
    pace = Pace()
    pace.open(V0, 0.0)
    pace.open(V0, 60.0)
    pace.hear("a", V0, 70.0)
    assert pace.deadline_s(["a"]) == SLACK * 70.0


def test_an_old_base_is_forgotten() -> None:
    pace = Pace()
    for number in range(BASES_KEPT + 1):
        pace.open(Version(1, number), 0.0)
    pace.hear("a", V0, 50.0)
    assert pace.deadline_s(["a"]) == FIRST_S
