"""Numbers as a row of small bars."""

from __future__ import annotations

import io
import math

from hypothesis import given
from hypothesis import strategies as st

from fleet.console.sparks import BLOCKS, PLAIN, can_show, sparkline


def test_a_rise_is_a_stair_in_blocks_and_in_plain_characters() -> None:
    assert sparkline(range(8), 8) == BLOCKS
    assert sparkline(range(8), 8, blocks=False) == PLAIN


def test_more_values_than_bars_share_them_by_their_mean() -> None:
    assert sparkline([0, 0, 7, 7], 2) == "▁█"


def test_what_never_changes_is_of_middle_height_and_what_is_no_number_is_passed_over() -> None:
    assert sparkline([3, math.nan, 3, math.inf], 9) == "▄▄"
    assert sparkline([math.nan], 9) == ""


@given(st.lists(st.floats()), st.integers(0, 12))
def test_there_are_never_more_bars_than_room_nor_than_values(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    known = [value for value in values if math.isfinite(value)]
    assert len(line) == (min(width, len(known)) if width > 0 else 0)
    assert set(line) <= set(BLOCKS)


def test_an_ascii_stream_cannot_show_blocks() -> None:
    assert not can_show(BLOCKS, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert can_show(BLOCKS, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
