"""Text on a terminal: its width, its colours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.console.ink import Ink, cell, ink_for, width_of


@given(st.text(), st.integers(0, 30))
def test_a_cell_is_as_wide_as_it_should_be_and_acts_on_no_terminal(text: str, columns: int) -> None:
    shown = cell(text, columns)
    assert width_of(shown) == columns
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert width_of(cell(text, columns, pad=False)) <= columns


def test_what_is_too_long_is_cut_visibly_and_ideographs_take_two_columns() -> None:
    assert cell("abcdef", 4) == "abc~"
    assert cell("界界界", 4) == "界~ "


@pytest.mark.parametrize(
    ("environment", "is_terminal", "coloured"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    environment: dict[str, str], is_terminal: bool, coloured: bool
) -> None:
    assert ink_for(is_terminal=is_terminal, blocks=True, environment=environment).coloured is coloured


def test_paint_is_taken_off_again() -> None:
    assert Ink(coloured=True).paint("bad", "bad") == "\x1b[31mbad\x1b[0m"
    assert Ink().paint("bad", "bad") == "bad"
