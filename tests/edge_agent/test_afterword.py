"""What a device says of the last version of a job: once, until it has a word on it."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import pairwise
from typing import Any

from broker.messages import Offer, Verdict, Version
from edge_agent.afterword import FIRST_PAUSE_S, LONGEST_PAUSE_S, Afterword

LAST = Version(1, 7)
OFFER = Offer("j-1f", "d1", LAST, 20, "0" * 16, 3, body=b"abc")


def held(*, online: bool = True) -> Afterword:
    reading: Future[Any] = Future()
    said = Afterword("d1", LAST, reading, online=online)
    said.hold(OFFER, 100.0)
    return said


def test_it_is_offered_within_the_window_in_which_all_devices_speak() -> None:
    said = held()
    assert said.deadline is not None
    assert 100.0 <= said.deadline <= 100.0 + FIRST_PAUSE_S
    assert said.take_due(said.deadline - 0.01) is None
    assert said.take_due(said.deadline) is OFFER


def test_pauses_grow_up_to_a_bound() -> None:
    said, at = held(), []
    for _ in range(16):
        assert said.deadline is not None
        at.append(said.deadline)
        assert said.take_due(at[-1]) is OFFER
    pauses = [b - a for a, b in pairwise(at)]
    assert all(b >= a for a, b in pairwise(pauses))
    assert pauses[-1] <= 1.25 * LONGEST_PAUSE_S


def test_a_verdict_on_it_is_the_last_word_whatever_it_is() -> None:
    for refused in ("", "the job has ended"):
        said = held()
        assert not said.settle(Verdict("d1", "j-1f", Version(1, 6), "0" * 8))
        assert not said.settle(Verdict("d1", "j-1f", LAST, "f" * 8))
        assert said.settle(Verdict("d1", "j-1f", LAST, "0" * 8, refused=refused))
        assert said.is_over
        assert said.deadline is None


def test_offline_nothing_is_offered_and_a_new_connection_offers_again() -> None:
    said = held(online=False)
    assert said.deadline is None
    assert said.take_due(10_000.0) is None
    said.connected(2.0, 200.0)
    assert said.deadline is not None
    assert 200.0 <= said.deadline <= 202.0
    said.disconnected()
    assert said.deadline is None
