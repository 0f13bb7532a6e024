from __future__ import annotations

from runtime.tally import Tally


def test_the_first_ten_and_then_every_power_of_ten_deserve_a_line() -> None:
    tally = Tally()
    assert [n for n in range(1, 20_001) if tally.count("garbage")] == [*range(1, 11), 100, 1000, 10_000]
    assert tally.counts == {"garbage": 20_000}


def test_kinds_are_counted_apart() -> None:
    tally = Tally()
    tally.count("garbage")
    tally.count("clone")
    assert tally.counts == {"garbage": 1, "clone": 1}
    assert Tally().counts == {}, "one that has counted nothing shares its mapping with others alone that have not"
