"""Quantiser steps that every machine agrees on: a short mantissa times a power of two, in one 16-bit word.

    word = (exponent + BIAS) << 7 | fraction,   step = (128 + fraction) * 2**exponent,   word 0: all is zero

A step is so within 0.8 % of any wanted one, from below the smallest float32 to above the largest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from models.codec.decoded import CodecError

STEP_BYTES = 2
BIAS = 201
LOWEST = -200
HIGHEST = 130


@functools.lru_cache(maxsize=1024)
def read_step(word: int) -> tuple[int, int]:
    """Return (mantissa, exponent) of a word. Raises CodecError for a word no encoder writes."""
    exponent = (word >> 7) - BIAS
    if not LOWEST <= exponent <= HIGHEST:
        raise CodecError(f"step word {word} is out of range")
    return 128 + (word & 127), exponent


def step_value(word: int) -> float:
    """Return the step of a word as a float, exactly."""
    mantissa, exponent = read_step(word)
    return math.ldexp(mantissa, exponent)


def step_at_least(wanted: float) -> int:
    """Return the word of the smallest step that is not below `wanted`, a finite number above 0."""
    return _word(wanted, math.ceil)


def step_near(wanted: float) -> int:
    """Return the word of the step nearest to `wanted`, a finite number above 0."""
    return _word(wanted, round)


def _word(wanted: float, whole: Callable[[float], int]) -> int:
    fraction, exponent = math.frexp(wanted)
    word = (exponent - 8 + BIAS) * 128 + whole(fraction * 256) - 128
    return min(max(word, (LOWEST + BIAS) * 128), (HIGHEST + BIAS) * 128 + 127)
