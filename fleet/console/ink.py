"""Text on a terminal: how wide it is, cut to a width, and in colour where that is wanted. Pure."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from runtime.words import clean

Colour = Literal["", "good", "busy", "warn", "bad", "faint", "strong"]
_CODES: dict[Colour, str] = {
    "good": "32",
    "busy": "36",
    "warn": "33",
    "bad": "31",
    "faint": "2",
    "strong": "1",
}


class Ink(Struct, frozen=True):
    """How a terminal is written on. Every colour stands beside a word that says the same."""

    coloured: bool = False
    blocks: bool = True
    """Whether it can show more than ASCII."""

    def paint(self, text: str, colour: Colour) -> str:
        """Return a text in a colour, where there are any."""
        if not (self.coloured and colour and text):
            return text
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"

    def plain(self, text: str) -> str:
        """Return a text as this terminal can show it, no wider: what it cannot is a question mark."""
        return text if self.blocks else text.replace("…", "~").encode("ascii", "replace").decode()


def ink_for(*, is_terminal: bool, blocks: bool, environment: Mapping[str, str] = os.environ) -> Ink:
    """Return the ink of a stream. NO_COLOR, if it is not empty, and TERM=dumb leave colours out (no-color.org)."""
    has_colours = environment.get("TERM", "dumb") != "dumb" and not environment.get("NO_COLOR")
    return Ink(is_terminal and has_colours, blocks)


def width_of(text: str) -> int:
    """Return how many columns a text takes: ideographs take two, marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in ("W", "F")) for sign in text
    )


def cell(text: str, columns: int, *, pad: bool = True) -> str:
    """Return a text, cleaned, in exactly so many columns: cut with "~", or filled up. pad: False leaves it shorter."""
    shown = text if text.isascii() and text.isprintable() else clean(text, 2000)
    if width_of(shown) > columns:
        kept, left = "", max(0, columns - 1)
        for sign in shown:
            left -= width_of(sign)
            if left < 0:
                break
            kept += sign
        shown = kept + "~" * (columns > 0)
    return shown + " " * (columns - width_of(shown)) if pad else shown
