from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aggregator.kept import KeptState
from aggregator.restoring import Keeping
from models.job import RoundsSpec
from tests.counting import work_of


def state(number: int, n_bytes: int) -> KeptState:
    return KeptState(number, "0" * 64, {}, bytes(n_bytes))


def left_over(sizes: Mapping[int, int], best: int | None, rounds: RoundsSpec) -> dict[int, int]:
    """What stays, found by looking at all: the best one, and the latest of the others that are wanted and fit."""
    stays, n_bytes = dict[int, int](), 0
    for number, size in sorted(sizes.items(), reverse=True):
        is_wanted = rounds.keep_every is not None and number > 0 and number % rounds.keep_every == 0
        if number == best:
            stays[number] = size
        elif is_wanted and n_bytes + size <= rounds.keep_bytes:
            stays[number] = size
            n_bytes += size
    return stays


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.generate])  # a seed has nothing to shrink
def test_what_is_kept_is_what_looking_at_all_states_says(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- made-up sizes, no secret
    every = rng.choice([None, 1, 1, 2, 3])
    rounds = RoundsSpec() if every is None else RoundsSpec(keep_every=every, keep_bytes=rng.choice([0, 25, 60, 1000]))
    first = rng.randint(0, 12)
    kept = {number: rng.randint(1, 20) for number in range(first) if rng.random() < 0.3}
    keeping, best = Keeping(rounds, kept), rng.choice([None, *range(first + 1)])
    for left in range(first, first + 40):
        best = rng.choice([best, best, best, left, left + 1, rng.randint(0, left), None])
        made = state(left, rng.randint(1, 20))
        is_kept = left > 0 and (left == best or (every is not None and left % every == 0))
        wanted = left_over({**kept, left: len(made.body)} if is_kept else kept, best, rounds)
        change = keeping.next(left, best, lambda made=made: made)
        if rng.random() < 0.1:  # it was not durable
            change = keeping.next(left, best, lambda made=made: made)
        assert set(change.drop) == kept.keys() - wanted.keys()
        assert [one.number for one in change.add] == [left] * (left in wanted)
        keeping.take(change)
        kept = wanted


def test_what_is_kept_costs_the_same_with_sixteen_times_the_states_also_where_they_no_longer_fit() -> None:
    def after(n: int, keep_bytes: int) -> int:
        keeping = Keeping(RoundsSpec(keep_every=1, keep_bytes=keep_bytes), dict.fromkeys(range(1, n), 10))

        def goes_on(left: int) -> None:
            change = keeping.next(left, 7, partial(state, left, 10))
            assert len(change.drop) == (keep_bytes < 10**6)
            keeping.take(change)

        return work_of([partial(goes_on, left) for left in range(n, n + 20)]).steps

    for room in (0, 10**6):
        few, many = (after(n, room or 10 * (n - 2)) for n in (500, 8000))
        assert many <= 1.2 * few
