"""Asking which devices are there: page after page, and never two questions at once."""

from __future__ import annotations

from typing import Any

from broker.messages import Devices, Reply
from fleet.sight.asking import AGAIN_S, FIRST_S, SILENT_S, Asking, there_of

ROWS: list[Any] = [{"device": "d1", "state": "online"}, {"device": "d2", "state": "offline"}, {"device": "d3"}, 7]


def test_pages_follow_each_other_and_it_is_asked_again_much_later() -> None:
    asking = Asking()
    assert asking.next("me", 1e9) is None, "before there is a connection"
    asking.begin(0.0)
    assert asking.next("me", FIRST_S - 0.1) is None
    asked = asking.next("me", FIRST_S)
    assert isinstance(asked, Devices)
    assert asking.next("me", FIRST_S + 1) is None
    there, further = asking.take(Reply("me", asked.request, ok=True, data={"devices": ROWS}, more="d2"), 5.0)
    assert there == {"d1": True, "d2": False}
    assert further is not None
    assert (further.after, further.request != asked.request) == ("d2", True)
    assert asking.take(Reply("me", asked.request, ok=True, data={"devices": ROWS}), 5.0) == ({}, None), "said twice"
    assert asking.take(Reply("me", further.request, ok=True), 6.0) == ({}, None)
    assert asking.next("me", 6.0 + AGAIN_S - 1) is None
    assert asking.next("me", 6.0 + AGAIN_S) is not None


def test_who_is_not_answered_asks_again() -> None:
    asking = Asking()
    asking.begin(0.0)
    first = asking.next("me", FIRST_S)
    second = asking.next("me", FIRST_S + SILENT_S)
    assert first is not None
    assert second is not None
    assert first.request != second.request


def test_an_answer_that_makes_no_sense_says_nothing() -> None:
    assert there_of({}) == there_of({"devices": {}}) == there_of({"devices": [{"device": 3, "state": "online"}]}) == {}
