import hashlib

import numpy as np

from models.codec.rans import TOTAL
from models.codec.tables import COUNTS, DITHERED_COUNTS, ESCAPE, FIRST_DITHERED, LARGEST, QUARTERS, TABLES, TOP

SHA256 = "275e6aa33f710a5c020adec14b8312fd4c1be07259a914df09edbdba88e4a3f0"
DITHERED_SHA256 = "56532bad281cce1e3803283153861e45ee52388e949e8f31e2435bbbd3be5856"


def test_the_literals_are_the_formats_own() -> None:
    assert hashlib.sha256(np.array(COUNTS, "<u2").tobytes()).hexdigest() == SHA256
    assert hashlib.sha256(np.array(DITHERED_COUNTS, "<u2").tobytes()).hexdigest() == DITHERED_SHA256


def test_every_class_gives_every_symbol_a_slice_and_sums_to_the_total() -> None:
    assert TABLES.frequency.shape == (TOP + 1 + QUARTERS * (TOP + 1 - FIRST_DITHERED), ESCAPE + 1)
    assert TABLES.frequency.min() >= 1
    assert (TABLES.frequency.sum(axis=1) == TOTAL).all()
    assert TABLES.frequency.shape[1] == ESCAPE + 1


def test_both_signs_are_as_likely() -> None:
    plain = TABLES.frequency[: TOP + 1]
    assert (plain[:, 1:ESCAPE:2] == plain[:, 2:ESCAPE:2]).all()


def test_a_low_number_makes_a_symbol_below_the_value() -> None:
    dithered = TABLES.frequency[TOP + 1 :]
    assert (dithered[:, 2] > dithered[:, 1]).all()
    first, last = dithered[::QUARTERS], dithered[QUARTERS - 1 :: QUARTERS]
    assert (first[:, 2] - first[:, 1] > last[:, 2] - last[:, 1]).all()


def test_every_slot_has_its_owner() -> None:
    for row in range(len(TABLES.frequency)):
        counts = np.bincount(TABLES.owner[row], minlength=ESCAPE + 1)
        assert (counts == TABLES.frequency[row]).all()


def test_a_class_that_expects_more_sees_fewer_zeros() -> None:
    magnitudes = np.array([0, *np.repeat(np.arange(1, LARGEST + 1), 2), LARGEST + 1])
    means = TABLES.frequency[: TOP + 1] @ magnitudes
    assert (np.diff(means) > 0).all()
