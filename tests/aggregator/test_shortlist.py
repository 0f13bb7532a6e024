from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aggregator.shortlist import Shortlist

names = st.sampled_from("abcdefgh")


@given(st.sets(names), st.lists(st.tuples(names, st.booleans(), st.integers(0, 9))))
def test_the_first_names_are_those_of_a_sorted_set(begun: set[str], steps: list[tuple[str, bool, int]]) -> None:
    held, shortlist = set(begun), Shortlist(begun)
    for name, wanted, k in steps:
        shortlist.hold(name, wanted=wanted)
        (held.add if wanted else held.discard)(name)
        assert shortlist.first(k) == sorted(held)[:k]
        assert len(shortlist) == len(held)


def test_a_name_that_comes_and_goes_is_kept_once() -> None:
    shortlist = Shortlist()
    for _ in range(100):
        shortlist.hold("a", wanted=True)
        shortlist.hold("a", wanted=False)
    assert len(shortlist._heap) == 1
    assert shortlist.first(3) == []
    assert shortlist._heap == []
