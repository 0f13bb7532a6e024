from __future__ import annotations

import pytest

from aggregator.config import ServerLimits
from aggregator.quotas import (
    AGAIN_S,
    BEHAVED,
    COPIES,
    HELD_PART,
    HELD_S,
    KEPT_PART,
    LAST_HELD_S,
    MINUTE_S,
    NAMED,
    WEIGHT_BYTES,
    Quotas,
)
from broker.messages import Version

LIMITS = ServerLimits()


def quotas(offers: int = 5, words: int = 10, flood: int = 50) -> Quotas:
    return Quotas(offers, words, flood, 0.0)


def default() -> Quotas:
    return Quotas(LIMITS.offers_a_minute, LIMITS.words_a_minute, LIMITS.flood_a_minute, 0.0)


def said(quotas_: Quotas, n: int, kind: str = "offer", n_bytes: int = 10, now: float = 0.0) -> list[str]:
    return [quotas_.hear("d", kind, n_bytes, now) for _ in range(n)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "limit"), [("offer", 5), ("presence", 10), ("chunk", 10)])
def test_what_is_over_the_limit_is_dropped(kind: str, limit: int) -> None:
    assert said(quotas(), limit + 3, kind) == limit * ["take"] + 3 * ["drop"]


def test_each_device_has_its_own_limit_and_each_minute_begins_anew() -> None:
    some = quotas()
    assert said(some, 6)[-1] == "drop"
    assert some.hear("e", "offer", 10, 0.0) == "take"
    some.turn(MINUTE_S)
    assert said(some, 1, now=MINUTE_S) == ["take"]


def test_rounds_and_jobs_give_room_for_offers() -> None:
    some = quotas()
    some.n_jobs = 2
    for number in range(100):
        some.note_round("j", Version(1, number), 1)
        some.note_round("j", Version(1, number), 1)  # a heartbeat is no other round
    assert said(some, 211) == 210 * ["take"] + ["drop"]


def test_a_device_that_offers_in_every_round_of_a_fast_job_is_never_limited() -> None:
    some = default()
    for number in range(20_000):
        now = number * 0.01
        if now >= some.minute_ends:
            some.turn(now)
        some.note_round("j", Version(1, number), 1)
        assert some.hear("d", "offer", 2000, now) == "take"


def test_chunks_that_were_asked_for_are_not_counted_and_the_others_are() -> None:
    some = quotas()
    some.note_want("d", "f", 1000)
    assert {some.hear("d", "chunk", 10**6, 0.0, "f") for _ in range(COPIES * 1000)} == {"take"}
    assert [some.hear("d", "chunk", 10, 0.0, "f") for _ in range(11)] == 10 * ["take"] + ["drop"]
    some.note_want("d", "f", 1)
    assert some.hear("d", "chunk", 10, 0.0, "f") == "take"
    assert some.hear("d", "chunk", 10, 0.0, "other") == "drop"
    assert some.hear("e", "chunk", 10, 0.0, "f") == "take", "a want is for one device"


def test_who_floods_is_thrown_off_and_held_off_for_longer_each_time() -> None:
    some = quotas()
    assert said(some, 56) == 5 * ["take"] + 50 * ["drop"] + ["throw off"]
    held = some.held("d", 0.0)
    assert held is not None
    assert (held.until, held.times) == (HELD_S, 1)
    lengths = []
    for _ in range(12):
        now = held.until
        some.turn(now)
        assert said(some, 56, now=now)[-1] == "throw off"
        held = some.held("d", now)
        assert held is not None
        lengths.append(held.for_s)
    assert lengths[:3] == [2 * HELD_S, 4 * HELD_S, 8 * HELD_S]
    assert held.for_s == LAST_HELD_S


def test_who_is_held_off_is_not_heard_but_for_its_presence_and_thrown_off_again_sooner() -> None:
    some = quotas()
    said(some, 56)
    some.turn(1.0)
    assert said(some, 1, now=1.0) == ["drop"]
    assert said(some, 1, "presence", now=1.0) == ["take"]
    some.note_want("d", "f", 5)
    assert some.hear("d", "chunk", 1, 1.0, "f") == "drop"
    assert "throw off" in said(some, 50 // HELD_PART + 1, now=1.0)


def test_what_was_on_its_way_throws_nobody_off_a_second_time() -> None:
    some = quotas()
    said(some, 56)
    assert set(said(some, 1000, now=AGAIN_S - 0.1)) == {"drop"}
    assert said(some, 1, now=AGAIN_S + 0.1) == ["throw off"]


def test_who_has_behaved_begins_anew() -> None:
    some = quotas()
    said(some, 56)
    now = HELD_S + BEHAVED * HELD_S + 1
    some.turn(now)
    assert some.held("d", now) is None
    assert said(some, 56, now=now)[-1] == "throw off"
    held = some.held("d", now)
    assert held is not None
    assert (held.for_s, held.times) == (HELD_S, 1)


def test_large_words_weigh_more() -> None:
    some = quotas()
    assert said(some, 10, n_bytes=10 * WEIGHT_BYTES)[-1] == "throw off"


def test_a_hundred_retained_words_throw_off_and_none_is_ever_taken() -> None:
    some = default()
    some.note_want("d", "f", 1000)
    answers = [some.hear("d", "chunk", 10, 0.0, "f", is_kept=True) for _ in range(KEPT_PART + 1)]
    assert answers == KEPT_PART * ["drop"] + ["throw off"]
    assert some.hear("e", "offer", 10, 0.0, is_kept=True) == "drop"


def test_nobody_is_thrown_off_where_that_is_turned_off() -> None:
    assert "throw off" not in said(quotas(flood=0), 1000)


def test_an_honest_device_after_a_long_outage_is_never_thrown_off_nor_dropped() -> None:
    """It has 20 jobs, connects anew every second on a bad link, and each time says and offers all that it has."""
    some = default()
    some.n_jobs = 20
    for second in range(int(MINUTE_S) - 1):
        words = [some.hear("d", "presence", 500, float(second)) for _ in range(3)]  # its will, itself, the roll call
        offers = [some.hear("d", "offer", 2048, float(second)) for _ in range(20)]
        assert {*words, *offers} == {"take"}


def test_what_a_former_aggregator_had_asked_for_throws_nobody_off() -> None:
    some = default()
    assert "throw off" not in said(some, 4096, "chunk", 100_000)


def test_a_fleet_that_comes_back_at_once_is_never_thrown_off_nor_dropped() -> None:
    some = default()
    for number in range(20_000):
        name = f"d{number}"
        answers = {some.hear(name, "presence", 300, 0.0) for _ in range(4)}
        assert answers | {some.hear(name, "offer", 2048, 0.0)} == {"take"}
    assert some.dropped == 0


def test_the_worst_are_told_for_two_minutes_and_not_too_many() -> None:
    some = quotas()
    for number in range(NAMED + 3):
        for _ in range(6 + number):
            some.hear(f"d{number}", "offer", 10, 1.0)
    assert some.has_dropped
    told = some.turn(MINUTE_S)
    assert told[0] == f"device d{NAMED + 2} says too much: {NAMED + 3} of its messages were dropped unread"
    assert told[-1] == "and 3 more devices"
    assert some.has_dropped
    assert len(told) == NAMED + 1
    assert some.turn(2 * MINUTE_S) == []
    assert not some.has_dropped


def test_it_is_told_who_is_held_off() -> None:
    some = quotas()
    said(some, 56)
    assert some.told(4.0) == [
        "device d says too much: 51 of its messages were dropped unread; thrown off 1 times, held off for 56 s"
    ]


def test_a_job_that_is_over_is_forgotten() -> None:
    some = quotas()
    some.note_round("j", Version(1, 1), 1)
    some.forget_jobs({"k"})
    some.note_round("j", Version(1, 1), 1)
    assert said(some, 10)[-1] == "drop"
    assert said(quotas(), 5)[-1] == "take"
