from __future__ import annotations

import math

import pytest

from aggregator.gates import MIN_PEERS, Admitted, RefusedError, limit_of_norm, weighed


@pytest.mark.parametrize(("norm", "limit"), [(0.05, 1.0), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (5.0, math.inf)])
def test_an_update_within_the_limit_weighs_what_it_weighs(norm: float, limit: float) -> None:
    assert weighed(norm, 10, limit) == Admitted(norm, 10)


def test_an_update_over_the_limit_moves_the_sum_by_no_more_than_one_at_the_limit() -> None:
    found = weighed(0.05, 10_000, 0.001, most=1.0)
    assert found == Admitted(0.05, 200)
    assert found.weight * found.norm <= 10_000 * 0.001
    assert weighed(0.07, 10_000, 0.001, most=1.0).weight == 142
    assert weighed(0.05, 1, 1e-9, most=1.0).weight == 1


@pytest.mark.parametrize(
    ("norm", "limit", "most"),
    [
        (1.01, 1.0, 0.5),
        (0.05, 0.001, 0.002),
        (0.05, 0.001, 0.0),
        (0.05, math.nan, 1.0),
        (0.05, math.nan, 0.0),
        (math.nan, 1.0, 1.0),
        (math.inf, 1.0, 1.0),
    ],
)
def test_an_update_that_is_over_both_is_refused(norm: float, limit: float, most: float) -> None:
    with pytest.raises(RefusedError, match="far from its peers'"):
        weighed(norm, 10, limit, most)


def test_the_norm_is_held_against_the_median_of_the_peers() -> None:
    assert limit_of_norm([1.0, 2.0, 900.0], 50.0, 10.0) == 20.0


def test_too_few_peers_say_nothing_and_the_model_speaks() -> None:
    assert limit_of_norm([1.0] * (MIN_PEERS - 1), 50.0, 10.0) == 500.0


def test_peers_that_do_not_move_say_nothing() -> None:
    assert limit_of_norm([0.0] * 9 + [1.0], 50.0, 10.0) == 500.0


def test_of_nothing_at_all_anything_is_usual() -> None:
    assert limit_of_norm([], 0.0, 10.0) == math.inf
