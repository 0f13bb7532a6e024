from __future__ import annotations

from aggregator import streaks
from aggregator.streaks import MANY, MOST


def test_a_device_is_named_once_it_was_refused_so_many_times_in_a_row_and_until_it_is_counted() -> None:
    found: dict[str, int] = {}
    for n in range(1, MANY + 3):
        found = streaks.now(found, {"bad"}, {"good"})
        assert ("bad" in streaks.named(found)) == (n >= MANY)
    assert streaks.named(found) == {"bad": MANY + 2}
    assert streaks.now(found, set(), {"bad"}) == {}


def test_who_was_not_heard_keeps_what_he_has() -> None:
    assert streaks.now({"bad": 3}, set(), {"good"}) == {"bad": 3}


def test_who_was_counted_on_the_base_was_not_refused_by_a_late_update_to_another() -> None:
    assert streaks.now({"a": 4}, {"a"}, {"a"}) == {}


def test_those_who_were_refused_most_often_are_remembered() -> None:
    many = {f"d{k:04d}" for k in range(2 * MOST)}
    found = streaks.now({"d0511": 7}, many, set())
    assert len(found) == MOST
    assert next(iter(found.items())) == ("d0511", 8)
    assert "d0000" in found
