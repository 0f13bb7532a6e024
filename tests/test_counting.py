"""What grows with forty times as much is seen, whether Python does it or C."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import pytest

from tests.counting import Name, Number, Work, work_of


class Kept:
    """So many names in everything that names are kept in; each of them is another object than one that is equal."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.names = [Name(f"d{number}") for number in range(n)]
        self.numbers = list(range(n))
        self.set = set(self.names)
        self.dict = dict.fromkeys(self.names, 1.0)
        self.ordered = OrderedDict(self.dict)

    def grow(self, number: int) -> None:
        """Let all of it grow by one."""
        self.names.append(name := Name(f"new{number}"))
        self.set.add(name)
        self.dict[name] = self.ordered[name] = 1.0


def work(n: int, act: Callable[[Kept, int], object], n_acts: int = 20) -> Work:
    kept = Kept(n)
    return work_of(partial(act, kept, number) for number in range(n_acts))


SCANS: dict[str, Callable[[Kept, int], object]] = {
    "a loop": lambda kept, _: [None for one in kept.names if one is None],
    "a loop in one line": lambda kept, _: any(value < 0 for value in kept.dict.values()),
    "a loop in every other act": lambda kept, number: number % 2 and all(value for value in kept.dict.values()),
    "in a list": lambda kept, _: Name("nobody") in kept.names,
    "in a list, from behind": lambda kept, number: Name(f"d{kept.n - 1 - number}") in kept.names,
    "the place of a plain name": lambda kept, _: kept.names.count("nobody"),
    "the place of a number": lambda kept, _: kept.numbers.index(Number(kept.n - 1)),
    "removed from a list": lambda kept, number: kept.names.remove(Name(f"d{kept.n - 1 - number}")),
    "a set of a list": lambda kept, _: set(kept.names),
    "the first by name": lambda kept, _: min(kept.names),
    "the last by name": lambda kept, _: max(kept.names),
    "sorted": lambda kept, _: sorted(kept.names),
    "a copy of a list": lambda kept, _: list(kept.names),
    "a list of a dict": lambda kept, _: len(list(kept.dict)),
    "a copy of a dict": lambda kept, _: dict(kept.dict),
    "both sets together": lambda kept, _: len(kept.set | {"another"}),
    "what another set has not": lambda kept, _: bool(kept.set - {"another"}),
    "sorted numbers": lambda kept, _: sorted(kept.numbers)[:3],
}


@pytest.mark.parametrize("scan", SCANS)
def test_a_scan_is_seen(scan: str) -> None:
    small, large = (work(n, SCANS[scan], 10) for n in (50, 2000))
    assert not large.is_about(small), f"{small} of 50, {large} of 2,000"


STEPS: dict[str, Callable[[Kept, int], object]] = {
    "nothing": lambda *_: None,
    "in a set": lambda kept, _: (Name("nobody") in kept.set, Name("d7") in kept.dict),
    "all of it grows": Kept.grow,
    "taken from the front": lambda kept, _: kept.ordered.popitem(last=False),
    "a few are looked at": lambda kept, _: sorted(kept.names[:30]),
    "how many": lambda kept, _: len(kept.set) + len(kept.names),
}


@pytest.mark.parametrize("step", STEPS)
def test_what_costs_the_same_among_many_counts_the_same(step: str) -> None:
    small, large = (work(n, STEPS[step]) for n in (500, 20_000))
    assert large.is_about(small), f"{small} of 500, {large} of 20,000"


def test_the_same_acts_take_the_same_number_of_steps_each_time() -> None:
    def look(kept: Kept, _: int) -> object:
        return Name("nobody") in kept.names, kept.numbers.index(Number(50))

    work(100, look)  # Python 3.13 counts a few steps otherwise where it has not traced before
    (found,) = {work(100, look).steps for _ in range(3)}
    assert found > 20 * 50


def test_tables_that_grow_among_the_acts_are_left_out() -> None:
    sizes = (*range(19_644, 19_660, 5), 21_830)  # where a set and a dict get another table
    small = work(500, Kept.grow)
    assert all(work(n, Kept.grow).is_about(small) for n in sizes)


def test_an_act_that_fails_leaves_no_trace() -> None:
    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError):
        work_of([lambda: 1 / 0])
    assert sys.gettrace() is before
