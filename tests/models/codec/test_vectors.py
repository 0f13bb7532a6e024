import numpy as np
import pytest

from models.codec.symbols import POINT, Reader, Writer
from models.codec.vectors import (
    SCALES,
    read_scale_codes,
    read_vectors,
    scale_codes,
    write_scale_codes,
    write_vectors,
)


def laplace(r: int, n: int, profile: float) -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.rint(rng.laplace(0, 1, (r, n)) * rng.lognormal(0, profile, n)).astype(np.int64)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("r", "n"), [(1, 1), (1, 40), (7, 30), (30, 200)])
def test_vectors_and_their_scales_survive(r: int, n: int, shared: bool) -> None:
    vectors = laplace(r, n, 1.0)
    vectors[r // 2] = 0
    codes, writer = scale_codes(vectors, shared=shared), Writer()
    write_scale_codes(writer, codes, shared=shared)
    write_vectors(writer, vectors, SCALES[codes])
    lanes, stream = writer.stream()
    reader = Reader(lanes, memoryview(stream))
    found = read_scale_codes(reader, r)
    assert found.tolist() == codes.tolist()
    assert (read_vectors(reader, n, SCALES[found]) == vectors).all()
    reader.close()


def test_a_shared_profile_makes_later_vectors_cheaper() -> None:
    vectors = laplace(40, 300, 2.0)
    scales = SCALES[scale_codes(vectors, shared=False)]
    together, apart = Writer(), Writer()
    write_vectors(together, vectors, scales)
    for vector, scale in zip(vectors, scales, strict=True):
        write_vectors(apart, vector[None], scale[None])
    assert together.bits < 0.75 * apart.bits


def test_a_scale_code_is_within_a_quarter_octave() -> None:
    for size in (1, 3, 10, 1000, 2**20):
        vectors = np.full((1, 50), size, np.int64)
        scale = SCALES[scale_codes(vectors, shared=False)[0]] / 2**POINT
        assert abs(np.log2(scale / size)) < 0.26


def test_a_vector_of_zeros_costs_nothing() -> None:
    vectors = np.zeros((1, 1000), np.int64)
    writer = Writer()
    write_vectors(writer, vectors, SCALES[scale_codes(vectors, shared=False)])
    assert writer.bits == 0
