"""Numbers as a row of small bars, for a terminal: blocks where it can show them, else plain characters. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TextIO

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-~=+*#"
"""For whom there is nothing but ASCII: from low to high."""


def can_show(text: str, stream: TextIO | None = None) -> bool:
    """Return whether a stream's encoding has these characters; standard output where none is named."""
    try:
        text.encode(getattr(stream or sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sparkline(values: Sequence[float], width: int, *, blocks: bool = True) -> str:
    """Return at most `width` bars, the last value's last: each the mean of as many values as fall to it.

    What is no finite number is passed over. Values that are all the same are bars of middle height.

    >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8)
    '▁▂▃▄▅▆▇█'
    """
    known = [float(value) for value in values if math.isfinite(value)]
    if not known or width < 1:
        return ""
    n = min(width, len(known))
    means = [_mean(known[at * len(known) // n : (at + 1) * len(known) // n]) for at in range(n)]
    low, high = min(means), max(means)
    signs = BLOCKS if blocks else PLAIN
    if high <= low:
        return signs[len(signs) // 2 - 1] * n
    scale = (len(signs) - 1) / (high / 2 - low / 2)  # halves: the difference of two large numbers is finite
    return "".join(signs[round((mean / 2 - low / 2) * scale)] for mean in means)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(value / len(values) for value in values)
