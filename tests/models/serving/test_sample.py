from __future__ import annotations

import numpy as np

from models.data.dataset import Dataset
from models.serving.sample import CALIBRATION_ROWS, FEWEST, TEST_ROWS, sample_of


def rows(n: int, *, at: int = 0) -> Dataset:
    """Return rows that are all different, each with its number as its label."""
    numbers = np.arange(at, at + n)
    return Dataset(np.repeat(numbers[:, None], 3, axis=1).astype(np.float32), numbers)


def test_rows_that_are_calibrated_on_are_not_measured_with() -> None:
    found = sample_of(rows(5000), "d1")
    assert found is not None
    assert (len(found.calibration), len(found.X)) == (CALIBRATION_ROWS, TEST_ROWS)
    assert not set(found.calibration[:, 0]) & set(found.X[:, 0])
    np.testing.assert_array_equal(found.X[:, 0], found.y)


def test_what_is_held_back_is_what_is_measured_with() -> None:
    found = sample_of(rows(100)._replace(held_out=rows(40, at=1000)), "d1")
    assert found is not None
    assert (len(found.calibration), sorted(found.y)) == (100, list(range(1000, 1040)))


def test_a_device_takes_the_same_rows_every_time_and_another_one_others() -> None:
    one, again, other = (sample_of(rows(5000), name) for name in ("d1", "d1", "d2"))
    assert one is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(one.X, again.X)
    assert not np.array_equal(one.X, other.X)


def test_few_rows_are_no_sample() -> None:
    assert sample_of(rows(2 * FEWEST - 1), "d1") is None
    assert sample_of(rows(2 * FEWEST), "d1") is not None


def test_images_are_flat_rows() -> None:
    images = Dataset(np.zeros((100, 4, 4, 2), np.float32), np.zeros(100, np.int64))
    found = sample_of(images, "d1")
    assert found is not None
    assert found.calibration.shape[1:] == found.X.shape[1:] == (32,)
