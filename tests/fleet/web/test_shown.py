"""Numbers, times and words as pages show them."""

from __future__ import annotations

import math

import pytest

from fleet.web import shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (12.9, "12 s ago"),
        (61, "1 min ago"),
        (7300, "2 h ago"),
        (90_000, "1 day ago"),
        (-30, "in 30 s"),
    ],
)
def test_what_is_past_is_said_in_one_unit(seconds: float, said: str) -> None:
    assert shown.ago(seconds) == said


def test_a_moment_has_its_absolute_time_beside_it() -> None:
    assert shown.moment(1_800_000_000.0, 1_800_000_065.0) == (
        '<time datetime="2027-01-15T08:00:00Z" title="2027-01-15 08:00:00 UTC">1 min ago</time>'
    )
    assert "in 40 s" in shown.left(100.0, 60.0)
    assert "any moment" in shown.left(100.0, 101.0)


@pytest.mark.parametrize("at", [None, -1.0, 1e300, math.nan, math.inf])
def test_a_time_that_is_none_is_a_dash(at: float | None) -> None:
    assert shown.moment(at, 0.0) == shown.NONE


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0.12345678, "0.1235"), (12000.0, "12\u202f000"), (1e300, "1e+300"), (math.nan, "nan")],
)
def test_a_figure_has_four_digits(value: float | None, said: str) -> None:
    assert shown.figure(value) == said


def test_a_fate_has_a_kind_a_sign_and_a_reason() -> None:
    assert shown.fate_of("counted late: its update was to version 3") == ("counted", "✓", "its update was to version 3")
    assert shown.fate_of("not counted: it could not take part: no data") == (
        *("not counted", "–"),
        "it could not take part: no data",
    )
    assert shown.fate_of("something new") == ("something new", "·", "")


def test_every_state_has_a_shape_and_a_word() -> None:
    assert all(shape and word for shape, word in shown.STATES.values())
    assert (shown.shape("new"), shown.word("new")) == ("·", "new")
