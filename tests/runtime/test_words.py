from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.words import MOST_MARKS, clean

ALL = [chr(code) for code in range(sys.maxunicode + 1)]
ACTS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of what acts on a screen, or shows nothing anybody can read."""


def test_no_character_of_unicode_that_acts_is_left_wherever_it_stands() -> None:
    for around in ("a{}b", "{}b", "a{}"):
        text = "".join(around.format(char) for char in ALL)
        kept = clean(text, len(text))
        assert not {char for char in set(kept) if unicodedata.category(char) in ACTS}
        kept.encode("utf-8")


def test_every_character_that_a_person_reads_stays() -> None:
    marks = ("Mn", "Me", "Mc")
    plain = [c for c in ALL if unicodedata.category(c) not in (*ACTS, *marks)]
    lost = {c for c in plain if clean(f"a{c}b") != f"a{c}b"}
    assert {f"U+{ord(c):04X}" for c in lost} == {"U+115F", "U+1160", "U+3164", "U+FFA0", "U+2800"}
    assert all(
        clean(f"a{c}b") == f"a{c}b" for c in ALL if unicodedata.category(c) in marks and c not in "\u034f\u17b4\u17b5"
    )


CLEANED = {
    "plain": ("disk full", "disk full"),
    "letters of anybody": ("кухня 厨房 küche ☂ \u0e19\u0e49\u0e33", "кухня 厨房 küche ☂ \u0e19\u0e49\u0e33"),
    "a colour": ("\x1b[31mred\x1b[0m", "�red�"),
    "a colour in one byte": ("\x9b31mred", "�red"),
    "a cleared screen": ("\x1b[2J\x1b[Hgone", "�gone"),
    "a title": ("\x1b]0;root\x07#", "�]0;root�#"),
    "a forged line of the log": ("full\n2023-11-14T22:13:20Z I x: good", "full 2023-11-14T22:13:20Z I x: good"),
    "a line sent back to its beginning": ("bad\r\nok", "bad ok"),
    "a line separator": ("a\u2028b\u2029c", "a b c"),
    "a word turned around": ("\u202edetnuoc\u202c", "�detnuoc�"),
    "isolates": ("\u2066a\u2069\u061cb\u200e\u200f", "�a�b�"),
    "nothing between letters": ("gate\u200b\ufeffway", "gate�way"),
    "half of a pair": ("a\ud800b", "a�b"),
    "a letter of nobody": ("a\ue000\U000f0000b", "a�b"),
    "a character that is none": ("a\uffff\U0010ffffb", "a�b"),
    "a blank that is a letter": ("a\u3164b", "a�b"),
    "tags that hide words": ("a\U000e0041\U000e0042", "a�"),
    "many accents": ("z" + "\u0301" * 100 + "!", "z" + "\u0301" * MOST_MARKS + "�!"),
    "an accent on what was said before": ("\u0301a", "�a"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("said", "read"), CLEANED.values(), ids=CLEANED)
def test_words_from_the_wire_are_made_fit_to_read(said: str, read: str) -> None:
    assert clean(said) == read


def test_what_is_too_long_is_cut_where_it_shows() -> None:
    assert clean("x" * 500) == "x" * 500
    assert clean("x" * 501) == "x" * 499 + "…"
    assert clean("ü\n" * 501, 5) == "ü ü …"
    assert [clean("äbc", most) for most in (3, 2, 1, 0, -1)] == ["äbc", "ä…", "…", "", ""]
    assert [clean("abc", most) for most in (3, 2, 1, 0, -1)] == ["abc", "a…", "…", "", ""]


nasty = st.sampled_from("\x1b[31m\x9b;\n\r\t \u0301\u0302\u200b\u202e\ud800\ue000a�…\u034f\U000e0041")


@settings(max_examples=400, deadline=None)
@given(st.text(nasty, max_size=60) | st.text(st.characters(), max_size=60), st.integers(-1, 30) | st.just(500))
def test_cleaning_twice_is_cleaning_once(text: str, most: int) -> None:
    once = clean(text, most)
    assert clean(once, most) == once
    assert len(once) <= max(0, most)
    assert not {char for char in once if unicodedata.category(char) in ACTS}


def test_each_character_is_looked_at_twice_at_most_whatever_stands_around_it() -> None:
    """Counted in characters looked at, not by a clock."""
    looked: list[str] = []
    category = unicodedata.category

    class Counting:
        @staticmethod
        def category(char: str) -> str:
            looked.append(char)
            return category(char)

    import runtime.words

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime.words, "unicodedata", Counting)
        for worst in ("\x1b[0;" * 50_000, "\x1b" * 200_000, "a" + "\u0301" * 200_000, "\u202e\n" * 100_000):
            looked.clear()
            assert len(clean(worst)) <= 500
            assert len(looked) <= 2 * len(worst)
