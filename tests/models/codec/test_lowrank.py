import numpy as np
import pytest

from models.codec.dither import Dither
from models.codec.lowrank import TAU, Factors, Pairs, choose, dithered, factors, lost, quantise, rounded

RNG = np.random.default_rng


def matrix(m: int, n: int, rank: int, noise: float = 0.01) -> np.ndarray:
    rng = RNG(3)
    head = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    return (head + noise * rng.standard_normal((m, n))).astype(np.float32)


def product(pairs: Pairs, step: float) -> np.ndarray:
    a, b = pairs.a * 2.0**-pairs.unit, pairs.b * 2.0**-pairs.unit
    return np.asarray(step * ((a * 2.0 ** -pairs.k[:, None]).T @ b))


def coded(X: np.ndarray, kept: Factors, step: float, noise: np.random.Generator | None) -> Pairs:
    return quantise(X, kept, step) if noise is None else dithered(kept, step, noise, Dither(5, 0))


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_factors_are_the_singular_triplets(shape: tuple[int, int]) -> None:
    X = matrix(*shape, rank=5)
    U, S, V = factors(X, RNG(0))
    assert np.allclose(S, np.linalg.svd(X, compute_uv=False)[: len(S)], rtol=1e-4, atol=1e-3)
    assert np.allclose((U.T * S) @ V, X, atol=1e-3)


def test_a_large_matrix_is_sketched() -> None:
    X = matrix(450, 500, rank=5)
    found = factors(X, RNG(0))
    assert len(found.S) == 64
    assert np.allclose(found.S[:5], np.linalg.svd(X, compute_uv=False)[:5], rtol=1e-3)


@pytest.mark.parametrize("seed", [None, 1])
def test_the_loss_is_that_of_the_product(seed: int | None) -> None:
    X, step = matrix(40, 60, rank=4, noise=0.3), 1.5
    found, noise = factors(X, RNG(0)), None if seed is None else RNG(seed)
    pairs = coded(X, choose(found, step, noise), step, noise)
    true = float(np.square((X - product(pairs, step)) / step).sum())
    assert lost(found, pairs, step, float(np.square(X / step).sum())) == pytest.approx(true, rel=1e-3)


def test_refining_lowers_the_error_of_rounding() -> None:
    X, step = matrix(60, 80, rank=4), 2.0
    found = factors(X, RNG(0))
    kept = choose(found, step, None)
    gain = np.sqrt(kept.S * np.exp2(np.rint(np.log2(kept.S / step))) / step)[:, None]
    plain = [rounded(part * gain, None, 0.55) for part in (kept.U, kept.V)]
    pairs = quantise(X, kept, step)
    before = X - product(pairs._replace(a=plain[0], b=plain[1]), step)
    assert np.square(X - product(pairs, step)).sum() < 0.97 * np.square(before).sum()


def test_stochastic_choice_keeps_each_triplet_as_often_as_it_is_worth() -> None:
    X, step = matrix(40, 50, rank=3, noise=0.5), 3.0
    found = factors(X, RNG(0))
    tau = TAU * step * np.sqrt(90)
    counts = np.zeros(len(found.S))
    for seed in range(2000):
        kept = choose(found, step, RNG(seed))
        counts[np.isin(found.U[:, 0], kept.U[:, 0])] += 1
        assert kept.S.min() >= 0.999 * tau
    assert np.allclose(counts / 2000, np.minimum(found.S / tau, 1), atol=0.05)


def test_stochastic_rounding_keeps_the_mean() -> None:
    values = np.full(20_000, 0.3)
    assert rounded(values, RNG(0), 0.5).mean() == pytest.approx(0.3, abs=0.02)
    assert not rounded(values, None, 0.5).any()


def test_nothing_is_worth_sending_at_a_huge_step() -> None:
    found = factors(matrix(20, 30, rank=2), RNG(0))
    assert len(choose(found, 1e6, None).S) == 0
