from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from models.training.order import BLOCK_ROWS, MOST_SHUFFLED, WINDOW, order_of, rows_of
from models.training.train import seed_for

SEED = seed_for(0, 3, "pi-1")
LARGE = MOST_SHUFFLED + 12_345


def whole(n: int, epoch: int = 0, step: int = 7_001) -> np.ndarray:
    order = rows_of(SEED, epoch, n)
    return np.concatenate([order(at, at + step) for at in range(0, n, step)])


@pytest.mark.parametrize("n", [1, 23, MOST_SHUFFLED])
def test_few_examples_are_in_the_order_that_they_have_always_been_in(n: int) -> None:
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(_words(SEED + bytes(8))))).permutation(n)
    assert np.array_equal(order_of(SEED, 0, n), expected)
    assert np.array_equal(whole(n), expected)


def _words(key: bytes) -> list[int]:
    import hashlib

    return [int(word) for word in np.frombuffer(hashlib.sha256(key).digest(), "<u4")]


@pytest.mark.parametrize("n", [MOST_SHUFFLED + 1, LARGE, MOST_SHUFFLED + BLOCK_ROWS, 3 * MOST_SHUFFLED - 1])
def test_an_order_by_blocks_has_every_example_once(n: int) -> None:
    assert np.array_equal(np.sort(whole(n)), np.arange(n))


def test_an_order_by_blocks_is_the_same_wherever_it_is_begun_and_however_it_is_cut() -> None:
    expected = whole(LARGE)
    order = rows_of(SEED, 0, LARGE)
    for start in (200_000, 65_500, 0, LARGE - 3, 65_530):
        assert np.array_equal(order(start, start + 100), expected[start : start + 100])
    assert order(LARGE, LARGE + 5).size == 0
    assert np.array_equal(whole(LARGE, step=LARGE), expected)


def test_an_order_by_blocks_is_another_in_every_epoch_and_cuts_elsewhere() -> None:
    first, second = whole(LARGE, 0), whole(LARGE, 1)
    assert not np.array_equal(first, second)
    place = np.empty((2, LARGE), np.int64)
    for at, order in enumerate((first, second)):
        place[at, order] = np.arange(LARGE)
    apart = np.abs(np.diff(place, axis=1)) > 75_000  # of each row and the next: they are in two windows
    assert 0 < apart[0].sum() < LARGE / BLOCK_ROWS + 2
    assert (apart[0] & apart[1]).sum() < 0.1 * apart[0].sum()


def test_batches_of_a_sorted_table_are_mixed_about_as_well_as_by_a_shuffle_of_everything() -> None:
    batch, n = 32, 4 * MOST_SHUFFLED
    kinds = (np.arange(n) >= n // 2).astype(np.float64)  # one half after the other: the worst case
    by_blocks = kinds[whole(n)].reshape(-1, batch).mean(axis=1)
    variance = 0.25 * (1 / batch + 1 / WINDOW)
    assert by_blocks.var() < 1.1 * variance
    assert by_blocks.var() > 0.9 * 0.25 / batch
    windows = kinds[whole(n)].reshape(-1, WINDOW * BLOCK_ROWS).mean(axis=1)
    assert windows.std() < 3 * 0.5 / np.sqrt(WINDOW)


def test_a_batch_comes_from_few_places_of_the_table() -> None:
    order = rows_of(SEED, 0, 10_000_000)
    touched = np.unique(order(5_000_000, 5_065_536) // BLOCK_ROWS)
    assert len(touched) <= 4 * WINDOW + 2  # two windows, whose blocks lie across two of the table's each


def test_the_order_of_ten_million_examples_takes_three_megabytes() -> None:
    tracemalloc.start()
    try:
        order = rows_of(SEED, 0, 10_000_000)
        for start in (0, 9_000_000, 5_000_000):
            order(start, start + 64)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
        rows_of(SEED, 0, 2**32)(2**31, 2**31 + 64)
        assert tracemalloc.get_traced_memory()[1] < 300_000_000
    finally:
        tracemalloc.stop()
