from __future__ import annotations

import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec import structs

from aggregator.convergence import reason_to_end
from aggregator.progress import Progress
from models.job import RoundsSpec, StopSpec
from tests.aggregator.histories import Metrics, grow, rules
from tests.counting import work_of


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None, phases=[Phase.explicit, Phase.generate])  # a seed has nothing to shrink
def test_a_job_ends_where_and_for_what_reading_all_versions_says(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- made-up versions, no secret
    rounds, history = rules(rng), list[Metrics]()
    classes = rng.choice([(), ("ok", "fault")])
    progress = Progress(history, rounds, classes)
    assert progress.reason_to_end() is None
    for _ in grow(rng, history, rng.randint(1, 40)):
        if rng.random() < 0.9:  # else several have come since
            assert progress.reason_to_end() == reason_to_end(history, rounds, classes)
    assert Progress(history, rounds, classes).reason_to_end() == reason_to_end(history, rounds, classes)


@pytest.mark.parametrize("min_delta", [0.0, 0.05])
def test_the_rule_to_stop_costs_the_same_after_sixteen_times_the_versions(min_delta: float) -> None:
    """Also where the devices have ever more rows, so that in every round an earlier score turns out to be on few."""

    def steps(n: int) -> int:
        rng = random.Random(n)  # noqa: S311 -- made-up versions, no secret
        stop = StopSpec(target=1.0, patience=10**6, min_delta=min_delta)
        history = [{"accuracy": rng.random(), "federated_rows": 100.0 + number} for number in range(n)]
        progress = Progress(history, structs.replace(RoundsSpec(max_rounds=10**6), stop=stop))
        progress.reason_to_end()

        def goes_on() -> None:
            history[-1] = {"accuracy": rng.random(), "federated_rows": 100.0 + len(history)}
            history.append({"unscored": 1.0})
            assert progress.reason_to_end() is None

        return sum(work_of([goes_on]).steps for _ in range(300))  # with the dearest ones: they are to be few

    assert steps(8000) <= 1.5 * steps(500)


def test_a_start_reads_each_version_a_few_times_however_often_the_most_rows_have_risen() -> None:
    def steps(n: int) -> int:
        rules = RoundsSpec(max_rounds=10**6, stop=StopSpec(patience=10**6, min_delta=0.05))
        history = [{"accuracy": number / n, "federated_rows": 100.0 + number} for number in range(n)]
        return work_of([Progress(history, rules).reason_to_end]).steps

    assert steps(2000) <= 5 * steps(500)
