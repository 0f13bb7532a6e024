from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import rows
from broker.errors import WireError

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = numbers | st.none() | st.booleans() | st.text(max_size=8)
trees = st.lists(values | st.tuples(values, values), max_size=8)


def listed(value: object) -> object:
    return [listed(one) for one in value] if isinstance(value, tuple | list) else value


@given(trees, st.binary(max_size=20))
def test_a_row_comes_back_with_what_is_behind_it(tree: list[object], behind: bytes) -> None:
    written = rows.write(tree)
    if written is not None:
        row, rest = rows.split(written + behind)
        assert rest == behind
        found = rows.read(row)
        assert found == listed(tree)
        assert [type(one) for one in found] == [type(one) for one in listed(tree)]  # type: ignore[attr-defined]


@settings(max_examples=500)
@given(st.integers(-999, 999), st.integers(-24, 7))
def test_a_number_of_three_digits_is_four_bytes(digits: int, exponent: int) -> None:
    value = float(f"{digits}e{exponent}")
    written = rows.write([value])
    assert written is not None
    if abs(digits) >= 100 or 1e-22 < abs(value) < 1e7:
        assert len(written) == 6
    assert rows.read(written[1:]) == [value]


@pytest.mark.parametrize("value", [0.1234, 1 / 3, 1e10, 1e-300, 5e-324, 1.7e308, -1e15])
def test_any_other_number_is_said_in_full(value: float) -> None:
    written = rows.write([value])
    assert written is not None
    assert len(written) == 11
    assert rows.read(written[1:]) == [value]


def test_nought_is_short_and_keeps_no_sign() -> None:
    written = rows.write([0.0])
    assert written is not None
    assert len(written) == 6
    assert rows.read(written[1:]) == [0.0]


def test_what_is_longer_than_a_length_below_a_brace_is_no_row() -> None:
    assert ord("{") == rows.END
    assert rows.write(["x" * 119]) == b"\x7a\x91\xd9\x77" + b"x" * 119
    assert rows.write(["x" * 120]) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    written = rows.write([1, (2.0, value)])
    assert written is not None
    with pytest.raises(WireError, match="not finite"):
        rows.read(written[1:])


@settings(max_examples=500)
@given(st.binary(max_size=122))
def test_noise_is_a_row_or_refused(row: bytes) -> None:
    try:
        found = rows.read(row)
    except WireError:
        return
    assert isinstance(found, list)
