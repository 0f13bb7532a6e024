from __future__ import annotations

import math

from aggregator.strays import CLEARS_S, ECHOES, EVERY_S, MOST_BYTES, READ_AGAIN_S, Strays


def test_a_stray_is_cleared_once_and_looked_for_again_after_that() -> None:
    strays = Strays()
    assert strays.deadline == math.inf
    strays.add("a", 0.0)
    strays.add("a", 0.0)
    assert strays.deadline <= 0.0
    assert strays.take(0.0) == ["a"]
    assert strays.take(1.0) == []
    assert strays.deadline == strays.read_at == READ_AGAIN_S


def test_so_many_are_cleared_in_a_second() -> None:
    strays = Strays()
    for number in range(3 * CLEARS_S):
        strays.add(str(number), 0.0)
    now, cleared = 0.0, 0
    while now < 1.0 - EVERY_S / 2:
        cleared += len(strays.take(now))
        now = max(now, strays.deadline)
    assert cleared == strays.cleared == CLEARS_S


def test_long_topics_take_no_more_memory_than_is_allowed() -> None:
    strays = Strays()
    for number in range(1000):
        strays.add(f"{number:060000}", 0.0)
    assert sum(map(len, strays._waiting)) <= MOST_BYTES
    assert strays.read_at == READ_AGAIN_S, "the others are found by reading again"


def test_what_is_cleared_comes_back_and_is_no_word_of_the_device() -> None:
    strays = Strays()
    strays.add("a", 0.0)
    strays.take(0.0)
    assert [strays.is_echo("a") for _ in range(ECHOES + 1)] == ECHOES * [True] + [False]
    assert not strays.is_echo("b")


def test_the_echoes_that_are_waited_for_are_so_many() -> None:
    strays, now = Strays(), 0.0
    for number in range(500):
        strays.add(f"{number:060000}", now)
        strays.take(now)
        now += EVERY_S
    assert sum(map(len, strays._echoes)) <= MOST_BYTES + 60_000


def test_over_a_new_connection_what_was_found_is_cleared_and_no_echo_is_waited_for() -> None:
    strays = Strays()
    strays.add("a", 0.0)
    strays.take(0.0)
    strays.add("b", 0.0)
    strays.doubt()
    assert not strays.is_echo("a")
    assert strays.waits
    assert strays.take(1.0) == ["b"]
    assert not strays.waits
