from __future__ import annotations

import math

import numpy as np
import pytest

from models.data.cells import CellError, Cells, is_number, missing_of


@pytest.mark.parametrize(
    ("cells", "cell", "value"),
    [
        (Cells(), " -4e1 ", -40.0),
        (Cells(), "1.", 1.0),
        (Cells(), "true", 1.0),
        (Cells(), "FALSE", 0.0),
        (Cells(","), "1,5", 1.5),
        (Cells(","), "-1,5e-3", -0.0015),
        (Cells(".", ","), "1,234,567.5", 1234567.5),
        (Cells(".", ","), "12,34,567", 1234567.0),
        (Cells(",", "."), "1.234,5", 1234.5),
        (Cells(",", " "), "1\u00a0234,5", 1234.5),
        (Cells(".", "'"), "1'234", 1234.0),
        (Cells(), "3.4028235e38", 3.4028235e38),
    ],
)
def test_a_cell_is_the_number_that_it_is_meant_as(cells: Cells, cell: str, value: float) -> None:
    assert cells.number(cell) == value
    values, whys = cells.numbers([cell, "NA"])
    assert (values[0], math.isnan(values[1]), list(whys)) == (value, True, [])


@pytest.mark.parametrize(
    ("cells", "cell", "why"),
    [
        (Cells(), "warm", "is no number"),
        (Cells(), "1_000", "is no number: no underscores"),
        (Cells(), "0x1F", "is no number"),
        (Cells(), "5%", "is no number"),
        (Cells(), "1e300", "is beyond what a float32 holds"),
        (Cells(), "Infinity", "is beyond what a float32 holds"),
        (Cells(), "1,5", 'is no number: say decimal = ",", if it is meant as one'),
        (Cells(), "1,234", 'is no number: say decimal = "," or thousands = ",", if it is meant as one'),
        (Cells(), "1.234,5", 'is no number: say decimal = "," and thousands = ".", if it is meant as one'),
        (Cells(","), "1.5", 'is no number: say decimal = ".", if it is meant as one'),
        (Cells(".", ","), "1,2,3", "is no number"),
        (Cells(".", ","), "1,23", 'is no number: say decimal = ",", if it is meant as one'),
    ],
)
def test_a_cell_that_is_none_says_why_and_never_shows_itself(cells: Cells, cell: str, why: str) -> None:
    values, whys = cells.numbers(["1", cell])
    assert (values[0], math.isnan(values[1]), list(whys)) == (1.0, True, [(1, why)])
    with pytest.raises(CellError, match="is "):
        cells.number(cell)


def test_what_stands_for_nothing_may_be_a_number() -> None:
    cells = Cells(missing=missing_of(["-999", "Out"]))
    values, whys = cells.numbers(["-999.00", "1"])
    assert np.isnan(values[0])
    values, whys = cells.numbers(["-999", "OUT", "", "1"])
    assert np.isnan(values).tolist() == [True, True, True, False]
    assert list(whys) == []
    assert list(cells.numbers(["NA"])[1]) == [(0, "is no number")], "only what is said"


def test_texts_are_stripped_and_empty_where_they_stand_for_nothing() -> None:
    assert Cells().texts([" ok ", "NA", "", "n/a", "-"]) == ["ok", "", "", "", ""]
    assert Cells(missing=frozenset()).texts(["None"]) == ["None"]


@pytest.mark.parametrize(
    ("cell", "is_one"), [("1,5", True), ("1.5e3", True), ("nan", False), ("ok", False), ("", False)]
)
def test_a_number_is_known_in_any_notation(cell: str, is_one: bool) -> None:
    assert is_number(cell) == is_one
