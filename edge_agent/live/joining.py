"""Readings that come one by one, joined into rows by the time at which they came.

   message ──decoding──▶ Reading(group, values) ──take(at)──▶ Join ──▶ Row(time, group, values)
                                                      tick(at) ──▲

1. Time is when this device received a message. Nothing else is known of when it was measured; brokers hand on what they
   have in the order in which they got it.
2. Without a period a message is a row: its values, and the label that holds.
3. With a period, time is cut into slots of that length, from 1970 on. A slot in which a reading came becomes a row when
   it is over; its time is the end of the slot. Of each column it has the last value that came in the slot; where none
   did, the last one before, if that came no longer than `tolerance_s` before the slot began; else the column is
   missing. So a fast topic is thinned to its last value, and a slow one stands for `tolerance_s`.
4. A topic that stalls is missing from then on; rows go on for the others. Where nothing comes, there are no rows.
5. Who comes twice changes nothing with a period; without one it is two rows, since two equal readings are nothing
   unusual. A connection begins clean, so that the broker itself repeats nothing over it.
6. What is retained is of an unknown age, and no reading; but of the label topic it is: a label holds until another
   comes, or the connection is lost. After an outage nothing that was heard before it is believed (`forget`): the gap is
   a gap, and rows have no label until it is told again.
7. Where the clock was put back, the slot is over at once, and no value from the future is used. Rows' times go back
   then.
8. Groups (what a wildcard stood for) have rows of their own; a column that no topic with a wildcard gives is
   everybody's. There are at most MOST_GROUPS; a reading of one more is not taken.
"""

from __future__ import annotations

import math
from typing import NamedTuple

Value = float | str | bool
SHARED = ""
"""The group of what belongs to no group."""
MOST_GROUPS = 256


class Reading(NamedTuple):
    """What a message said. values: column to value; none of them is missing."""

    group: str
    values: dict[str, Value]


class Row(NamedTuple):
    """What was known at one time. Columns that are missing are not in `values`."""

    at: float
    group: str
    values: dict[str, Value]


class Join:
    """The values that hold now.

    period_s: of a slot; None for a row a message. label: its column, where a topic of its own says it. is_grouped:
    whether rows are of groups alone.
    """

    def __init__(
        self, *, period_s: float | None = None, tolerance_s: float = 0.0, label: str = "", is_grouped: bool = False
    ) -> None:
        self._period_s, self._tolerance_s = period_s, tolerance_s
        self._label_column, self._is_grouped = label, is_grouped
        self._label: Value | None = None
        self._slot: int | None = None
        """Number of the slot in which something has come."""
        self._told: dict[str, None] = {}
        """Groups with a reading in it, in the order in which they came."""
        self._last: dict[str, dict[str, tuple[Value, float]]] = {}

    @property
    def due_at(self) -> float:
        """Return when `tick` has a row to give; inf for never."""
        return math.inf if self._slot is None or self._period_s is None else (self._slot + 1) * self._period_s

    @property
    def has_label(self) -> bool:
        """Return whether a label holds now."""
        return self._label is not None

    def label(self, value: Value) -> None:
        """Note the label that holds from now on."""
        self._label = value

    def forget(self) -> None:
        """Believe nothing that was heard so far: the connection is another one."""
        self._label = self._slot = None
        self._told.clear()
        self._last.clear()

    def take(self, reading: Reading, at: float) -> list[Row] | None:
        """Return the rows that are complete now that this has come; None where it is of one group too many."""
        if self._period_s is None:
            return [Row(at, reading.group, {**reading.values, **self._labelled()})]
        if reading.group not in self._last and len(self._last) >= MOST_GROUPS:
            return None
        rows = self.tick(at)
        self._slot = math.floor(at / self._period_s)
        self._last.setdefault(reading.group, {}).update({name: (value, at) for name, value in reading.values.items()})
        self._told[reading.group] = None
        return rows

    def tick(self, at: float) -> list[Row]:
        """Return the rows of the slot that is over."""
        if self._slot is None or self._period_s is None or math.floor(at / self._period_s) == self._slot:
            return []
        slot, self._slot = self._slot, None
        groups, self._told = list(self._told), {}
        begin, end = slot * self._period_s, (slot + 1) * self._period_s
        return [self._row(group, begin, end) for group in groups if not self._is_grouped or group != SHARED]

    def _row(self, group: str, begin: float, end: float) -> Row:
        known = {**self._last.get(SHARED, {}), **self._last.get(group, {})}
        values = {name: value for name, (value, at) in known.items() if begin - self._tolerance_s <= at < end}
        return Row(end, group, {**values, **self._labelled()})

    def _labelled(self) -> dict[str, Value]:
        return {} if self._label is None or not self._label_column else {self._label_column: self._label}
