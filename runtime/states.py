"""The states of a machine as a table: which event may come in which state, and in which states the machine may be then.

The table stands at the top of the machine's file, a row for each event and a column for each state:

    TABLE = StateTable(State, {Opened: (RUNNING, ILLEGAL), Closed: (ILLEGAL, IDLE)}, ...)

Local misuse and remote misbehaviour are different things. An event that its state has no place for is a fault of the
program around the machine: it raises `IllegalEventError` before anything has changed. What a network, a disk or a late
callback can bring has a place in every state, and never raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Flag
from typing import Generic, TypeVar

S = TypeVar("S", bound=Flag)


class IllegalEventError(RuntimeError):
    """A machine was told of an event that cannot happen in its state; nothing has changed."""


class StateTable(Generic[S]):
    """Which events are legal in a state, and which states may follow.

    states: one bit for each state. rows: type of event to the states that may follow, a cell for each state in the
    order of their definition; a cell without any is that of an illegal event. words: each state, as it is told after
    "while". needs: for each event that is illegal somewhere, what is missing there.
    """

    def __init__(
        self,
        states: type[S],
        rows: Mapping[type, tuple[S, ...]],
        words: Sequence[str],
        needs: Mapping[type, str],
    ) -> None:
        self._states = states
        self.rows = {event: dict(zip(states, row, strict=True)) for event, row in rows.items()}
        self._legal = {
            (event, state.value): cell for event, row in self.rows.items() for state, cell in row.items() if cell
        }
        """By the number of the state, which is found several times as fast as the state."""
        self._words = dict(zip(states, words, strict=True))
        self._needs = dict(needs)

    def follow(self, state: S, event: type) -> S:
        """Return the states that may follow. Raises IllegalEventError for an event that is illegal in this state."""
        found = self._legal.get((event, state._value_))
        if found is not None:
            return found
        raise self.illegal(state, event, self._needs[event] if event in self.rows else "it is no event of this machine")

    def illegal(self, state: S, event: type, why: str) -> IllegalEventError:
        """Return the error for an event that is illegal in this state, and why it is."""
        return IllegalEventError(
            f"{event.__name__} came while {self._words[state]}: {why}; this is a fault in fedge and nothing has "
            "changed: report it, with the log"
        )

    def but(self, event: type, state: S, cell: S) -> StateTable[S]:
        """Return this table with another cell."""
        rows = self.rows | {event: self.rows[event] | {state: cell}}
        cells = {event: tuple(row.values()) for event, row in rows.items()}
        return StateTable(self._states, cells, list(self._words.values()), self._needs)
