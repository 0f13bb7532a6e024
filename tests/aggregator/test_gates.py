from __future__ import annotations

import math

import pytest

from aggregator.gates import ABSURD, MIN_PEERS, Admitted, Limit, RefusedError, limit_of_norm, weighed
from aggregator.refusals import told


def limit(most: float) -> Limit:
    return Limit(most, most)


@pytest.mark.parametrize(("norm", "most"), [(0.05, 1.0), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (5.0, math.inf)])
@pytest.mark.parametrize("gate", ["clip", "refuse"])
def test_an_update_within_the_limit_weighs_what_it_weighs(norm: float, most: float, gate: str) -> None:
    assert weighed(norm, 10, limit(most), gate=gate) == Admitted(norm, 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("gate", ["clip", "refuse"])
def test_an_update_over_the_limit_moves_the_sum_by_no_more_than_one_at_the_limit(gate: str) -> None:
    how = {"model_norm": 1.0, "gate": gate}
    found = weighed(0.05, 10_000, limit(0.001), **how)  # type: ignore[arg-type]
    assert found == Admitted(0.05, 200)
    assert found.weight * found.norm <= 10_000 * 0.001
    assert weighed(0.07, 10_000, limit(0.001), **how).weight == 142  # type: ignore[arg-type]
    assert weighed(0.05, 1, limit(1e-9), **how).weight == 1  # type: ignore[arg-type]


OVER_BOTH = [
    (1.01, 1.0, 0.5),
    (0.05, 0.001, 0.002),
    (0.05, 0.001, 0.0),
    (0.05, math.nan, 1.0),
    (0.05, math.nan, 0.0),
    (math.nan, 1.0, 1.0),
    (math.inf, 1.0, 1.0),
]


@pytest.mark.parametrize(("norm", "most", "model_norm"), OVER_BOTH)
def test_an_update_that_is_over_both_is_refused_where_the_gate_refuses(
    norm: float, most: float, model_norm: float
) -> None:
    with pytest.raises(RefusedError, match="far from its peers'"):
        weighed(norm, 10, limit(most), model_norm)


@pytest.mark.parametrize(("norm", "most", "model_norm"), OVER_BOTH[:3])
def test_an_update_that_is_over_both_is_scaled_down_to_the_limit_where_the_gate_clips_and_weighs_what_it_weighs(
    norm: float, most: float, model_norm: float
) -> None:
    found = weighed(norm, 10, limit(most), model_norm, "clip")
    assert (found.norm, found.weight) == (norm, 10)
    assert found.factor is not None
    assert 0.99 * most < norm * found.factor.value <= most


@pytest.mark.parametrize(("norm", "most", "model_norm"), [*OVER_BOTH[3:], (1.01 * ABSURD, 1.0, 0.5)])
def test_what_no_training_comes_to_is_refused_by_either_gate(norm: float, most: float, model_norm: float) -> None:
    with pytest.raises(RefusedError, match="far from its peers'"):
        weighed(norm, 10, limit(most), model_norm, "clip")


def test_what_is_far_beyond_the_usual_and_not_beyond_the_model_in_the_same_measure_is_scaled_down() -> None:
    found = weighed(50.0, 10, limit(1e-9), 5.0, "clip")
    assert found.factor is not None
    assert 0.99e-9 < 50.0 * found.factor.value <= 1e-9
    assert weighed(50.0, 10, limit(1e-300), 5.0, "clip").factor is not None
    with pytest.raises(RefusedError, match="far from its peers'"):
        weighed(5.1 * ABSURD, 10, limit(1e-9), 5.0, "clip")


def test_where_nobody_can_be_compared_an_update_is_scaled_down_to_the_size_of_the_model() -> None:
    found = weighed(50.0, 10, limit_of_norm([], 2.0, 10.0), 2.0, "clip")
    assert found.factor is not None
    assert 1.98 < 50.0 * found.factor.value <= 2.0


def test_a_device_is_told_no_number_of_its_refusal_and_its_operator_both() -> None:
    with pytest.raises(RefusedError) as refused:
        weighed(93.5, 10, limit(2.25))
    assert "93.5 where 2.25 is let in" in str(refused.value)
    assert told(str(refused.value)) == "its norm is far from its peers'"
    assert refused.value.norm == 93.5


def test_that_one_is_far_is_told_apart_from_that_most_are() -> None:
    with pytest.raises(RefusedError, match="those of most are now"):
        weighed(50.0, 10, limit(1.0), with_most=True)


def test_the_norm_is_held_against_the_median_of_the_peers() -> None:
    assert limit_of_norm([1.0, 2.0, 900.0], 50.0, 10.0) == Limit(20.0, 20.0)


def test_too_few_peers_say_nothing_and_the_model_speaks() -> None:
    assert limit_of_norm([1.0] * (MIN_PEERS - 1), 50.0, 10.0) == Limit(500.0, 50.0, is_of_model=True)


def test_peers_that_do_not_move_say_nothing() -> None:
    assert limit_of_norm([0.0] * 9 + [1.0], 50.0, 10.0) == Limit(500.0, 50.0, is_of_model=True)


def test_of_nothing_at_all_anything_is_usual() -> None:
    assert limit_of_norm([], 0.0, 10.0) == Limit(math.inf, math.inf, is_of_model=True)
