from __future__ import annotations

import math

import numpy as np
import pytest

from aggregator.gates import FEWEST_PEERS, RefusedError, admit, limit_of_norm
from models import codec
from models.fold import Fold, exponents_for
from models.job import CompressionSpec
from models.lattice import initial
from models.params import TensorSpec

SPEC = (TensorSpec("w", (4, 3)), TensorSpec("b", (4,)))
OTHER = (TensorSpec("w", (4, 2)), TensorSpec("b", (4,)))


def body(scale: float = 0.01, spec: tuple[TensorSpec, ...] = SPEC) -> bytes:
    rng = np.random.default_rng(0)
    delta = {tensor.name: (scale * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in spec}
    coding = CompressionSpec(codec="float32")
    return codec.encode(delta, spec, coding, rng=rng).body


@pytest.fixture
def fold() -> Fold:
    return Fold(SPEC, exponents_for(initial(SPEC, 0)))


def test_an_update_is_added_and_its_norm_given(fold: Fold) -> None:
    norm, weight = admit(body(), 10, SPEC, fold, 1.0)
    assert 0.01 < norm < 0.1
    assert (fold.count, fold.weight, weight) == (1, 10, 10)


def test_an_update_over_the_limit_moves_the_sum_by_no_more_than_one_at_the_limit(fold: Fold) -> None:
    norm, weight = admit(body(), 10_000, SPEC, fold, 0.001, most=1.0)
    assert weight == fold.weight == int(10_000 * 0.001 / norm)
    moved = math.sqrt(sum(float(np.square(mean).sum()) for mean in fold.mean())) * fold.weight
    assert moved <= 0.001 * 10_000
    _, least = admit(body(), 1, SPEC, fold, 1e-9, most=1.0)
    assert least == 1


@pytest.mark.parametrize(("limit", "most"), [(1.0, 0.5), (0.001, 0.002), (0.001, 0.0), (math.nan, 1.0)])
def test_an_update_that_is_over_both_is_refused(fold: Fold, limit: float, most: float) -> None:
    with pytest.raises(RefusedError, match="far from its peers'"):
        admit(body(100.0 if limit == 1.0 else 1.0), 10, SPEC, fold, limit, most)
    assert fold.count == 0


@pytest.mark.parametrize(
    ("data", "limit", "weight", "why"),
    [
        (body(100.0), 1.0, 10, "far from its peers'"),
        (body(spec=OTHER), 1.0, 10, "does not decode"),
        (b"", 1.0, 10, "does not decode"),
        (body()[:-1], 1.0, 10, "does not decode"),
        (body() + b"x", 1.0, 10, "does not decode"),
        (body(1e30), math.inf, 10, "does not fit the sum"),
        (body(), 1.0, 2**20 + 1, "does not fit the sum"),
        (body(), math.nan, 10, "far from its peers'"),
    ],
)
def test_what_is_refused_leaves_the_sum_alone(fold: Fold, data: bytes, limit: float, weight: int, why: str) -> None:
    before = fold.to_bytes()
    with pytest.raises(RefusedError, match=why):
        admit(data, weight, SPEC, fold, limit)
    assert fold.to_bytes() == before


def test_the_norm_is_held_against_the_median_of_the_peers() -> None:
    assert limit_of_norm([1.0, 2.0, 900.0], 50.0, 10.0) == 20.0


def test_too_few_peers_say_nothing_and_the_model_speaks() -> None:
    assert limit_of_norm([1.0] * (FEWEST_PEERS - 1), 50.0, 10.0) == 500.0


def test_peers_that_do_not_move_say_nothing() -> None:
    assert limit_of_norm([0.0] * 9 + [1.0], 50.0, 10.0) == 500.0


def test_of_nothing_at_all_anything_is_usual() -> None:
    assert limit_of_norm([], 0.0, 10.0) == math.inf
