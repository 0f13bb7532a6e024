"""Words that came over the wire, made fit for a terminal, a log and a page.

A device says why it refuses, an operator names a job: anybody may have put anything there. An escape sequence moves the
cursor of whoever reads it, a line break forges a line of the log, a change of direction turns a refusal around, two
hundred accents on one letter cover the lines above. So:

    line breaks, tabs and their kind             one space a run
    other control, format, surrogate, private    one "�" a run, an escape sequence with all of its letters
    and unassigned characters; blank letters
    marks beyond MOST_MARKS on one letter, or    one "�" a run
    with no letter before them
    what is longer than `most`                   cut, with "…" at the end

Format characters (category Cf) are what changes direction (U+202A to U+202E, U+2066 to U+2069, U+200E, U+200F, U+061C)
and what has no width (U+200B and its kind). The joiner of Persian and of composed emoji is one of them and goes too:
what is read here is a reason or a state, and must look like what it is.
"""

from __future__ import annotations

import re
import unicodedata

REPLACEMENT = "�"
MOST_MARKS = 8
"""Marks on one letter: Vietnamese has two, Hebrew three, Tibetan rarely six."""

_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
"""A control sequence (ECMA-48, section 5.4): colours, the cursor, clearing the screen."""
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")
"""Letters, a pattern and marks that show nothing."""


def clean(text: str, most: int = 500) -> str:
    """Return the text with nothing in it that acts on its reader's screen, and at most `most` characters long.

    Pure and total; cleaning twice is cleaning once; takes time in proportion to the text. What is returned can be
    encoded in UTF-8. Plain text that is short enough comes back as it is.
    """
    if text.isascii() and text.isprintable():
        return _cut(text, most)
    kept: list[str] = []
    marks, run = MOST_MARKS, ""  # a mark with nothing before it would sit on whatever is printed before
    for char in _SEQUENCE.sub("\x1b", text):
        is_mark = unicodedata.category(char) in _MARKS and char not in _BLANK
        if (is_mark and marks < MOST_MARKS) or not (is_mark or _is_bad(char)):
            kept += (run, char)
            marks, run = marks + 1 if is_mark else 0, ""
        else:
            run = " " if run in ("", " ") and char.isspace() else REPLACEMENT
            marks = marks if is_mark else 0
        if len(kept) > 2 * most:
            break
    return _cut("".join((*kept, run)), most)


_MARKS = ("Mn", "Me", "Mc")


def _is_bad(char: str) -> bool:
    """Return whether a character that is no mark must not be shown. Unassigned: as this Python's Unicode knows them."""
    return char in _BLANK or not (char.isprintable() or unicodedata.category(char) == "Zs")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"[: max(0, most)]
