from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import statistic
from models.contract import ContractSpec, WindowSpec
from models.job import JobSpec, ModelSpec
from models.statistic import (
    FEWEST,
    NOTHING,
    Bounds,
    Moments,
    Statistic,
    StatisticError,
    from_bytes,
    max_bytes,
    of_rows,
    squares,
    to_bytes,
)

N_COLUMNS = 3


def job(normalise: str = "standard", *, inputs: int = N_COLUMNS, **contract: Any) -> JobSpec:
    made = ContractSpec(normalise=normalise, **contract)  # type: ignore[arg-type]  # the test's own words
    return JobSpec(name="toy", model=ModelSpec(inputs=inputs, outputs=2), contract=made)


def rows(n: int = 50, scale: float = 1.0, seed: int = 0) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal((n, N_COLUMNS)) * scale).astype(np.float32)


def labels(n: int = 50) -> np.ndarray[Any, Any]:
    return np.arange(n, dtype=np.int64) % 2


def found(spec: JobSpec, X: np.ndarray[Any, Any]) -> Statistic:
    """What a device says, once it has travelled."""
    said = of_rows(spec, X, labels(len(X)))
    body = to_bytes(said)
    assert len(body) <= max_bytes(spec)
    return from_bytes(body, spec)


def test_sums_are_those_of_exact_arithmetic() -> None:
    X = rows(70) * np.array([1, 1e5, 1e-3], np.float32) + np.array([0, 1e9, 5], np.float32)
    moments = found(job(), X).columns
    assert isinstance(moments, Moments)
    for column, (exponent, total, square) in enumerate(
        zip(moments.exponents.tolist(), moments.sums.tolist(), squares(moments), strict=True)
    ):
        grid = Fraction(2) ** (exponent - statistic.BITS)
        on_grid = [round(Fraction(float(x)) / grid) for x in X[:, column]]
        assert (total, square) == (sum(on_grid), sum(q * q for q in on_grid))
        largest = float(np.abs(X[:, column]).max())
        assert 2.0 ** (exponent - 1) <= largest <= 2.0**exponent


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    X = rows(333, 1e4)
    whole = found(job(), X)
    monkeypatch.setattr(statistic, "ROWS_AT_ONCE", 7)
    assert to_bytes(found(job(), X)) == to_bytes(whole)


def test_the_lowest_value_that_is_told_is_no_rows_value() -> None:
    X = rows(40, 1e5, seed=3)
    bounds = found(job("minmax"), X).columns
    assert isinstance(bounds, Bounds)
    low, high = X.min(axis=0), X.max(axis=0)
    for exponent, lowest, highest, a, b in zip(*(c.tolist() for c in bounds), low.tolist(), high.tolist(), strict=True):
        grid = 2.0**exponent
        assert grid >= (b - a) / 16  # so many bits are lost
        assert lowest * grid <= a < (lowest + 1) * grid
        assert (highest - 1) * grid < b <= highest * grid


@pytest.mark.parametrize("normalise", ["standard", "minmax"])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e9, 3e38, 1e-45])
def test_a_column_of_one_value_can_be_said(normalise: str, value: float) -> None:
    assert found(job(normalise), np.full((30, N_COLUMNS), value, np.float32)).n == 30


def test_a_device_of_few_examples_says_nothing_of_them() -> None:
    few = found(job(class_weight="balanced"), rows(FEWEST - 1))
    assert (few.n, few.columns, few.counts) == (0, None, None)
    assert len(to_bytes(few)) == 9
    assert found(job(), rows(FEWEST)).n == FEWEST


def test_masks_and_times_are_not_asked_for() -> None:
    spec = job(features=("a",), missing="mask", time_features=("hour",), inputs=4)
    moments = of_rows(spec, np.ones((30, 4), np.float32), labels(30)).columns
    assert moments is not None
    assert len(moments.exponents) == 1


def test_the_rows_of_windows_are_counted_each() -> None:
    spec = job(inputs=6, window=WindowSpec(length=2))
    X = rows(60).reshape(30, 6)
    said = found(spec, X)
    assert (said.n, said.rows) == (30, 60)
    flat = found(job(), X.reshape(60, N_COLUMNS))
    assert said.columns is not None
    assert flat.columns is not None
    assert all(map(np.array_equal, said.columns, flat.columns))


def test_classes_are_counted() -> None:
    said = found(job("none", class_weight="balanced"), rows(51))
    assert said.columns is None
    assert said.counts is not None
    assert said.counts.tolist() == [26, 25]


def test_a_job_that_wants_nothing_has_no_room_for_it() -> None:
    assert max_bytes(job("none")) == max_bytes(job("pixels")) == 0
    stated = job("minmax", features=("a", "b", "c"), ranges=dict.fromkeys("abc", (0.0, 1.0)))
    assert max_bytes(stated) == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.sampled_from(["standard", "minmax"]))
def test_any_bytes_are_a_statistic_or_one_error(body: bytes, normalise: str) -> None:
    spec = job(normalise, class_weight="balanced")
    try:
        said = from_bytes(body, spec)
    except StatisticError:
        return
    assert to_bytes(said) == body


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_was_said_and_changed_is_one_that_rows_may_have_or_refused(data: st.DataObject) -> None:
    spec = job(data.draw(st.sampled_from(["standard", "minmax"])), class_weight="balanced")
    body = bytearray(to_bytes(of_rows(spec, rows(30), labels(30))))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        said = from_bytes(bytes(body), spec)
    except StatisticError:
        return
    if isinstance(said.columns, Moments):
        for total, square in zip(said.columns.sums.tolist(), squares(said.columns), strict=True):
            assert total * total <= said.rows * square <= said.rows**2 << 2 * statistic.BITS


def hostile(exponent: int, total: int, square: int, n: int = 30) -> bytes:
    """A statistic of three columns alike."""
    return b"".join(
        (
            struct.pack("<BQ", 1, n),
            struct.pack("<3h", *[exponent] * 3),
            struct.pack("<3q", *[total] * 3),
            struct.pack("<3q", *[square >> 32] * 3),
            struct.pack("<3I", *[square & 2**32 - 1] * 3),
        )
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (hostile(1, 0, 30), None),
        (hostile(1, 60, 30), "its rows cannot have"),  # a mean of 2 with a mean square of 1
        (hostile(1, 2**62, 30), "its rows cannot have"),
        (hostile(1, 0, 31 << 48), "its rows cannot have"),
        (hostile(1, -(2**63), 30), "its rows cannot have"),
        (hostile(129, 0, 30), "no float32 has"),
        (hostile(NOTHING, 0, 30), "its rows cannot have"),
        (hostile(NOTHING - 1, 0, 0), "no float32 has"),
        (hostile(1, 0, 30, n=FEWEST - 1), "of 19 examples"),
        (hostile(1, 0, 30, n=2**60), "examples"),
        (hostile(1, 0, 30)[:-1], "bytes"),
        (b"", "0 bytes"),
        (b"\x02" + bytes(8), "format 2"),
    ],
)
def test_sums_that_no_rows_have_are_refused(body: bytes, why: str | None) -> None:
    if why is None:
        assert from_bytes(body, job()).n == 30
        return
    with pytest.raises(StatisticError, match=why):
        from_bytes(body, job())


GOLDEN = {
    "standard": "01 1400000000000000 050000006aff 0000900600000000 000000f6ffffffff 0000000000000000 "
    "80cd020000000000 0000050000000000 0000000000000000 00000000 00000000 00000000 0a00000000000000 0a00000000000000",
    "minmax": "01 1400000000000000 0100fcff52ff 00000000 f8ffffff 00000000 0a000000 f8ffffff 00000000 "
    "0a00000000000000 0a00000000000000",
}
"""Twenty examples of three columns, 1 to 20, -1/2 and 0; ten of each class. What a decoder reads never changes."""


@pytest.mark.parametrize("normalise", GOLDEN)
def test_the_bytes_are_these(normalise: str) -> None:
    spec = job(normalise, class_weight="balanced")
    X = np.array([[1 + k, -0.5, 0] for k in range(20)], np.float32)
    assert to_bytes(of_rows(spec, X, labels(20))) == bytes.fromhex(GOLDEN[normalise])
