"""Factoring a matrix into few coded vectors.

A matrix X (m, n) with singular values S_1 >= S_2 ... is sent as factors of integers and a power of two for
each pair,

    X ~ step * sum_j A[j] B[j]^T 2**-k[j],   A[j] = round(U_j sqrt(S_j 2**k[j] / step)),   B[j] likewise from
    V_j

with k[j] = round(log2(S_j / step)), so both factors carry the same step. Which pairs are sent depends on what
is wanted of the rounding:

nearest     all S_j above THRESHOLD step sqrt(m + n): there a pair costs less than it removes from the error.
stochastic  all S_j above tau = TAU step sqrt(m + n), and a smaller one with probability S_j / tau, as if it
were tau
            (Wang et al. 2018, ATOMO). With factors rounded up or down at random, the expectation of what is
            decoded is X.

The second loses more energy but no direction: what every device has in common, each below its threshold,
arrives in the mean at once. Its factors are rounded with a dither that the decoder takes back (dither.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.codec.dither import UNIT, Dither
from models.codec.symbols import POINT
from models.codec.vectors import dither_vectors

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

THRESHOLD = 0.38
TAU = 0.5
MAX_RANK = 255
DEAD_ZONE = 0.58
"""Where an entry of a factor rounds away from zero, if to nearest."""
_REFINED = 1 << 20
"""Up to this size, factors are fitted to each other again after rounding."""
_PASSES = 6
"""How often: the first pass saves 3 to 5 % of the bits at the same error, the others 2 more."""
_EXACT = 400
"""Up to this short side the whole spectrum is computed; beyond, a random sketch of its head."""
_SKETCH = 64
_POWER_ITERATIONS = 1


class Factors(NamedTuple):
    """Singular triplets, largest first: U (r, m), S (r,), V (r, n), float64."""

    U: Float64
    S: Float64
    V: Float64


class Pairs(NamedTuple):
    """Coded triplets: symbols A (r, m) and B (r, n), powers k (r,), falling, and what the symbols stand for.

    That is levels a (r, m) and b (r, n), integers times 2**-unit: the symbols themselves if they are not dithered.
    """

    A: Int64
    B: Int64
    k: Int64
    a: Int64
    b: Int64
    unit: int = 0


def factors(X: Float32, rng: np.random.Generator) -> Factors:
    """Factor a matrix: exactly where its short side is small, else by a randomised range finder (Halko et al.
    2011).
    """
    if X.shape[0] > X.shape[1]:
        U, S, V = factors(X.T, rng)
        return Factors(V, S, U)
    if X.shape[0] <= _EXACT:
        return _from_gram(X.astype(np.float64))
    test = rng.standard_normal((X.shape[1], _SKETCH), np.float32)
    for _ in range(_POWER_ITERATIONS):
        test = X.T @ np.linalg.qr(X @ test)[0]
    basis = np.linalg.qr(X @ test)[0]
    U, S, V = _from_gram((basis.T @ X).astype(np.float64))
    return Factors(U @ basis.T.astype(np.float64), S, V)


def choose(found: Factors, step: float, rng: np.random.Generator | None) -> Factors:
    """Choose the triplets worth sending: by threshold, or at random and without bias where `rng` is given."""
    unit = step * np.sqrt(found.U.shape[1] + found.V.shape[1])
    if rng is None:
        kept = found.S / unit > THRESHOLD
        return Factors(*(part[kept][:MAX_RANK] for part in found))
    tau = TAU * unit
    start = rng.random()
    steps = np.floor(start + np.cumsum(np.minimum(found.S / tau, 1)))  # systematic sampling: one draw for all
    kept = np.diff(steps, prepend=0.0) > 0
    return Factors(*(part[kept][:MAX_RANK] for part in found._replace(S=np.maximum(found.S, tau))))


def quantise(X: Float32, kept: Factors, step: float) -> Pairs:
    """Round triplets of X to the nearest integers."""
    k, U, V = _scaled(kept, step)
    A, B = rounded(U, None, DEAD_ZONE), rounded(V, None, DEAD_ZONE)
    if X.size <= _REFINED:
        A, B = _refined(X.astype(np.float64) / step, A, k)
    used = A.any(axis=1) & B.any(axis=1)
    A, B = A[used], B[used]
    return Pairs(A, B, k[used], A, B)


def dithered(kept: Factors, step: float, rng: np.random.Generator, dither: Dither) -> Pairs:
    """Round triplets without bias, the A and then the B with numbers of `dither`."""
    k, U, V = _scaled(kept, step)
    A, a = dither_vectors(U, scales(k, U.shape[1]), dither, rng)
    B, b = dither_vectors(V, scales(k, V.shape[1]), dither, rng)
    return Pairs(A, B, k, a, b, UNIT)


def _scaled(kept: Factors, step: float) -> tuple[Int64, Float64, Float64]:
    """Return the powers, and both sides of each triplet with half of its weight."""
    k = np.clip(np.rint(np.log2(kept.S / step)), 0, 63).astype(np.int64)
    gain = np.sqrt(kept.S * np.exp2(k) / step)[:, None]
    return k, kept.U * gain, kept.V * gain


def scales(k: Int64, n: int) -> Int64:
    """Expected mean magnitude in a unit vector of n entries times 2**k: 3/4 of its rms, fixed point, integers
    only.
    """
    found = [max(1, math.isqrt((3 << POINT - 2) ** 2 * 4**power // n)) for power in k.tolist()]
    return np.array(found, np.int64)


def lost(found: Factors, pairs: Pairs, step: float, energy: float) -> float:
    """Return |X - decoded|^2 in squared steps, from factors of X and its energy, without forming a product.

    |X|^2 - 2 <X, C> + |C|^2, where both inner products are sums over pairs of vectors.
    """
    weights = np.exp2(-pairs.k.astype(np.float64) - 2 * pairs.unit)
    A, B = weights[:, None] * pairs.a, pairs.b.astype(np.float64)
    inner = found.S / step @ ((found.U @ A.T) * (found.V @ B.T)).sum(axis=1)
    return max(0.0, energy - 2 * float(inner) + float(((A @ A.T) * (B @ B.T)).sum()))


def rounded(values: Float64, rng: np.random.Generator | None, dead_zone: float) -> Int64:
    """Round to nearest, away from zero only beyond `dead_zone`; or, with `rng`, up or down so that the mean
    is kept.
    """
    if rng is not None:
        return np.floor(values + rng.random(values.shape)).astype(np.int64)
    return (np.sign(values) * np.floor(np.abs(values) + (1 - dead_zone))).astype(np.int64)


def _refined(X: Float64, A: Int64, k: Int64) -> tuple[Int64, Int64]:
    """Let either factor make good what rounding the other one lost."""
    weights: Float64 = np.exp2(-k.astype(np.float64))[:, None]
    B = A
    for _ in range(_PASSES):
        B = rounded(_fitted(X, weights * A), None, DEAD_ZONE)
        A = rounded(_fitted(X.T, weights * B), None, DEAD_ZONE)
    return A, B


def _fitted(X: Float64, given: Float64) -> Float64:
    """Solve min |X - given^T F| for F; a little ridge keeps factors that rounding made alike apart."""
    gram = given @ given.T
    ridge = 1e-6 * np.trace(gram) * np.eye(len(gram)) + 1e-30 * np.eye(len(gram))
    fitted: Float64 = np.linalg.solve(gram + ridge, given @ X)
    return fitted


def _from_gram(X: Float64) -> Factors:
    """Factor a wide matrix by way of X X^T; singular values below 1e-5 of the largest are rounding noise."""
    energy, U = np.linalg.eigh(X @ X.T)
    U, S = U[:, ::-1].T, np.sqrt(np.maximum(energy[::-1], 0))
    found = S / max(S.max(initial=0), 1e-300) > 1e-5
    return Factors(U[found], S[found], (U[found] @ X) / S[found, None])
