import hashlib

import numpy as np

from models.codec.rans import TOTAL
from models.codec.tables import COUNTS, ESCAPE, LARGEST, TABLES, TOP

SHA256 = "275e6aa33f710a5c020adec14b8312fd4c1be07259a914df09edbdba88e4a3f0"


def test_the_literals_are_the_formats_own() -> None:
    assert hashlib.sha256(np.array(COUNTS, "<u2").tobytes()).hexdigest() == SHA256


def test_every_class_gives_every_symbol_a_slice_and_sums_to_the_total() -> None:
    assert TABLES.frequency.shape == (TOP + 1, ESCAPE + 1)
    assert TABLES.frequency.min() >= 1
    assert (TABLES.frequency.sum(axis=1) == TOTAL).all()
    assert TABLES.frequency.shape[1] == ESCAPE + 1


def test_both_signs_are_as_likely() -> None:
    assert (TABLES.frequency[:, 1:ESCAPE:2] == TABLES.frequency[:, 2:ESCAPE:2]).all()


def test_every_slot_has_its_owner() -> None:
    for row in range(TOP + 1):
        counts = np.bincount(TABLES.owner[row], minlength=ESCAPE + 1)
        assert (counts == TABLES.frequency[row]).all()


def test_a_class_that_expects_more_sees_fewer_zeros() -> None:
    magnitudes = np.array([0, *np.repeat(np.arange(1, LARGEST + 1), 2), LARGEST + 1])
    means = TABLES.frequency @ magnitudes
    assert (np.diff(means) > 0).all()
