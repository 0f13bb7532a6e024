"""Mappings that have nothing in them most of the time: they are one empty object, until something comes to stand there.

A device keeps half a dozen of them for what seldom happens, and a fleet in one process has thousands of devices. None
is changed where it is: another takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

NOTHING: Mapping[str, Any] = {}
"""What all of them are that are empty."""


def put(known: Mapping[str, T], key: str, value: T) -> Mapping[str, T]:
    """Return the mapping with a value at this key."""
    return {**known, key: value}


def without(known: Mapping[str, T], key: str) -> Mapping[str, T]:
    """Return the mapping without this key: itself where it has none such."""
    if key not in known:
        return known
    return {other: value for other, value in known.items() if other != key} or NOTHING
