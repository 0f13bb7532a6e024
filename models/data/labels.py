"""Labels by name: what a table calls a class, and the number that a net knows it by.

A label is a class if it is written like its name, or is the same number ("1", "1.0" and 1), or the same truth value
("True", "true" and 1; "False", "false" and 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NONE = -1
"""The number of what is no class."""
_TRUTH = {"true": 1.0, "false": 0.0}
_MOST_KNOWN = 10_000
"""Ways to write a label that are kept."""


class Classes:
    """The classes of a job, in the order of the model's outputs."""

    def __init__(self, names: Sequence[str]) -> None:
        self._texts: dict[str, int] = {}
        self._numbers: dict[float, int] = {}
        for index, name in enumerate(names):
            self._texts.setdefault(name.strip(), index)
            if (number := _number(name)) is not None:
                self._numbers.setdefault(number, index)
        self._known: dict[str, int] = {}

    @property
    def are_numbers(self) -> bool:
        """Whether one of them is a number or a truth value."""
        return bool(self._numbers)

    def indices(self, labels: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return (n,) the number of each label's class; NONE for what is no class."""
        return np.fromiter((self._index(label) for label in labels), np.int64, len(labels))

    def of_numbers(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return (n,) the same of labels that are numbers."""
        found = np.full(len(labels), NONE, np.int64)
        for number, index in self._numbers.items():
            found[labels == number] = index
        return found

    def _index(self, label: str) -> int:
        found = self._known.get(label)
        if found is None:
            found = self._texts.get(label, NONE)
            if found == NONE and self._numbers and (number := _number(label)) is not None:
                found = self._numbers.get(number, NONE)
            if len(self._known) < _MOST_KNOWN:
                self._known[label] = found
        return found


def _number(text: str) -> float | None:
    """Return what number or truth value a text is; None for none."""
    text = text.strip()
    if (truth := _TRUTH.get(text.casefold())) is not None:
        return truth
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None
