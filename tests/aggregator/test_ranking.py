from __future__ import annotations

import random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aggregator.convergence import RESTORED, best_of
from aggregator.ranking import Ranking
from models.job import RoundsSpec
from tests.aggregator.histories import Metrics, grow, rules, version
from tests.counting import work_of


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.generate])  # a seed has nothing to shrink
def test_the_best_version_is_the_one_that_reading_all_finds(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- made-up versions, no secret
    rounds, history = rules(rng), list[Metrics]()
    ranking = Ranking(history, rounds)
    assert ranking.best() is None
    for _ in grow(rng, history, rng.randint(1, 40)):
        if rng.random() < 0.9:  # else several have come since
            assert ranking.best() == best_of(history, rounds)
        if rng.random() < 0.3:  # of which something comes or nothing
            left, made = (version(rng, number, grows=False) for number in (len(history) - 1, len(history)))
            assert ranking.best_after(left, made) == best_of([*history[:-1], left, made], rounds)
            if rng.random() < 0.5:
                history[-1:] = [left, made]
    assert Ranking(history, rounds).best() == best_of(history, rounds)


def test_the_best_version_costs_the_same_after_sixteen_times_the_versions() -> None:
    def steps(n: int) -> int:
        rng = random.Random(n)  # noqa: S311 -- made-up versions, no secret
        history = [{"accuracy": rng.random(), "federated_rows": 1.0 + number} for number in range(n)]
        ranking = Ranking(history, RoundsSpec())
        ranking.best()

        def goes_on() -> None:
            made = {"accuracy": rng.random()}
            ranking.best_after(scored := {**history[-1], "federated_rows": 1.0 + len(history)}, made)
            history[-1:] = [scored, made]
            assert ranking.best()

        return work_of([goes_on] * 40).steps

    assert steps(8000) <= 1.5 * steps(500)


def test_what_is_restored_puts_out_what_came_after_it_once_it_is_left_too() -> None:
    history = [{"accuracy": value} for value in (0.1, 0.5, 0.9, 0.8)]
    ranking = Ranking(history, RoundsSpec())
    assert ranking.best() == 2
    history.append({"accuracy": 0.5, RESTORED: 1.0})
    assert ranking.best() == 1
    history.append({"accuracy": 0.4})
    assert ranking.best() == 1
