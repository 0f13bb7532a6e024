"""A table of states says which event may come when, and what may follow; what may not raises one error."""

from __future__ import annotations

from enum import Flag, auto

import pytest

from runtime.states import IllegalEventError, StateTable


class Door(Flag):
    OPEN = auto()
    SHUT = auto()


class Pull:
    pass


class Push:
    pass


NOTHING = Door(0)


def door() -> StateTable[Door]:
    return StateTable(
        Door,
        {Pull: (Door.OPEN, Door.OPEN), Push: (Door.SHUT, NOTHING)},
        words=("the door is open", "the door is shut"),
        needs={Push: "it is shut already"},
    )


def test_a_cell_says_which_states_may_follow() -> None:
    assert door().follow(Door.SHUT, Pull) is Door.OPEN
    assert door().follow(Door.OPEN, Push) is Door.SHUT


def test_an_event_without_a_cell_says_what_it_is_in_which_state_and_why() -> None:
    with pytest.raises(IllegalEventError, match=r"^Push came while the door is shut: it is shut already; this is a"):
        door().follow(Door.SHUT, Push)


def test_what_is_no_event_at_all_is_illegal_too() -> None:
    with pytest.raises(IllegalEventError, match=r"^int came while the door is open: it is no event of this machine"):
        door().follow(Door.OPEN, int)


def test_another_cell_makes_another_table() -> None:
    before = door()
    after = before.but(Push, Door.SHUT, Door.SHUT)
    assert after.follow(Door.SHUT, Push) is Door.SHUT
    with pytest.raises(IllegalEventError):
        before.follow(Door.SHUT, Push)


@pytest.mark.parametrize(
    ("rows", "words"),
    [({Pull: (Door.OPEN,)}, ("open", "shut")), ({Pull: (Door.OPEN, Door.OPEN)}, ("open",))],
    ids=["a column is missing", "a word is missing"],
)
def test_a_table_with_a_hole_is_none(rows: dict[type, tuple[Door, ...]], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="zip"):
        StateTable(Door, rows, words=words, needs={})
