"""Answers that could be long, cut into pages: the smallest broker known takes 64 kB. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

PAGE_BYTES = 32_768


def page(
    lines: Iterable[dict[str, Any]], after: str, key: Callable[[dict[str, Any]], str], left: int = PAGE_BYTES
) -> tuple[list[Any], str]:
    """Return the lines behind a key, by key, as far as they fit a page; and the last key if there are more."""
    found: list[dict[str, Any]] = []
    for line in lines:
        if key(line) <= after:
            continue
        left -= len(msgspec.json.encode(line)) + 1
        if left < 0 and found:
            return found, key(found[-1])
        found.append(line)
    return found, ""
