"""When a device says how it is, by a made-up clock."""

from __future__ import annotations

import itertools
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from broker.messages import Version, Vitals
from edge_agent.vitals import DAILY_BYTES, DAY_S, LOOK_S, Pace, Today

EVERY_S = 900.0
N_BYTES = 170
STILL = Vitals("d", 1, disk_free=10**10, heat=45.0, load=0.2, clock=1e9)


class Told:
    """One device's day: what it would say is looked at when its pace has it."""

    def __init__(self, every_s: float = EVERY_S, n_bytes: int = N_BYTES) -> None:
        self.pace = Pace(every_s)
        self.n_bytes = n_bytes
        self.now = 1000.0
        self.vitals = STILL
        self.said: list[tuple[float, Vitals]] = []

    def connect(self, wait_s: float = 0.0) -> None:
        self.pace.forget(self.now, wait_s)

    def be(self, **changes: Any) -> None:
        self.vitals = structs.replace(self.vitals, **changes)

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.pace.look_at <= until:
            self.now = max(self.now, self.pace.look_at)
            self.pace.look(self.now)
            if self.pace.is_due(self.vitals, self.now):
                self.pace.say(self.vitals, self.n_bytes, self.now)
                self.said.append((self.now, self.vitals))
        self.now = until


def connected(**changes: Any) -> Told:
    """Return a device that has said how it is, some time ago."""
    told = Told(**changes)
    told.connect()
    told.pass_time(DAY_S / 2)
    assert len(told.said) == 1
    return told


def test_before_it_is_connected_nothing_is_looked_at() -> None:
    told = Told()
    told.pass_time(2 * DAY_S)
    assert (told.said, told.pace.look_at) == ([], math.inf)


def test_the_first_word_waits_as_long_as_it_is_told_to() -> None:
    told = Told()
    told.connect(12.0)
    told.pass_time(100.0)
    assert told.said == [(1012.0, STILL)]


def test_what_does_not_change_is_said_once_a_day() -> None:
    told = Told()
    told.connect()
    told.pass_time(3.5 * DAY_S)
    assert [round((at - 1000.0) / DAY_S, 2) for at, _ in told.said] == [0.0, 1.0, 2.0, 3.0]


def test_what_it_does_waits_for_serves_is_said_within_a_minute() -> None:
    for change in (
        {"doing": "training", "job": "j-1"},
        {"why": "a round"},
        {"serves": {"j-1": Version(1, 3)}},
        {"boot": 2},
    ):
        told = connected()
        told.be(**change)
        told.pass_time(LOOK_S)
        assert told.said[1:] == [(told.said[1][0], told.vitals)], change


def test_readings_are_said_where_they_move_by_as_much_as_they_have_to() -> None:
    for still, moved in (
        ({"heat": 49.9}, {"heat": 50.0}),
        ({"heat": 40.1}, {"heat": 39.0}),
        ({"disk_free": 9_100_000_000}, {"disk_free": 9_000_000_000}),
        ({"disk_free": 10_900_000_000}, {"disk_free": 11_000_000_000}),
        ({"load": 1.1}, {"load": 1.3}),
        ({"heat": 45.0}, {"heat": None}),
        ({}, {"disk_free": 0}),
    ):
        told = connected()
        told.be(**still)
        told.pass_time(EVERY_S)
        assert len(told.said) == 1, still
        told.be(**moved)
        told.pass_time(LOOK_S)
        assert len(told.said) == 2, moved


def test_a_full_disk_is_said_once() -> None:
    told = connected()
    told.be(disk_free=0)
    told.pass_time(DAY_S / 3)
    assert len(told.said) == 2


def test_what_only_goes_along_is_no_change() -> None:
    told = connected()
    told.be(progress=0.5, bytes_today=10**9, clock=2e9, uptime_s=1e6)
    told.pass_time(DAY_S / 3)
    assert len(told.said) == 1


def test_a_thermometer_that_swings_all_day_spends_no_more_than_it_may() -> None:
    for n_bytes in (80, N_BYTES, 4000):
        told = Told(n_bytes=n_bytes)
        told.connect()
        for minute in range(24 * 60):
            told.be(heat=40.0 + 20.0 * (minute % 2))
            told.pass_time(60.0)
        assert len(told.said) <= min(DAILY_BYTES / n_bytes, DAY_S / EVERY_S) + 1
        assert len(told.said) >= min(DAILY_BYTES / n_bytes, DAY_S / EVERY_S) * 0.9


MOVES = st.one_of(
    st.sampled_from(["connect", "roll"]).map(lambda _: {"connect": True}),
    st.sampled_from(["idle", "training", "waiting"]).map(lambda doing: {"doing": doing}),
    st.floats(20.0, 90.0).map(lambda heat: {"heat": heat}),
    st.integers(0, 10**10).map(lambda free: {"disk_free": free}),
)


@settings(max_examples=150, deadline=None)
@given(
    every_s=st.sampled_from([1.0, 30.0, EVERY_S]),
    wait_s=st.floats(0.0, 60.0),
    moves=st.lists(st.tuples(st.floats(0.0, 3000.0), MOVES), max_size=30),
)
def test_never_two_words_within_the_pause_and_never_silent_for_long_once_something_has_changed(
    every_s: float, wait_s: float, moves: list[tuple[float, dict[str, Any]]]
) -> None:
    told = Told(every_s)
    told.connect(wait_s)
    unsaid_since = told.now
    longest_s = 0.0
    patience_s = max(every_s, N_BYTES * DAY_S / DAILY_BYTES) + LOOK_S + wait_s
    for seconds, move in moves:
        before = len(told.said)
        told.pass_time(seconds)
        is_said = bool(told.said) and told.said[-1][1] == told.vitals
        if not is_said and _is_news(told):
            longest_s = max(longest_s, told.now - unsaid_since)
        else:
            unsaid_since = told.now
        if len(told.said) > before:
            unsaid_since = max(unsaid_since, told.said[-1][0])
        if "connect" in move:
            told.connect(wait_s)
            unsaid_since = told.now  # each asks for another wait
        else:
            told.be(**move)
    times = [at for at, _ in told.said]
    assert all(later - earlier >= every_s - 1e-6 for earlier, later in itertools.pairwise(times))
    assert longest_s <= patience_s


def _is_news(told: Told) -> bool:
    """Return whether what there is to say has changed, as a person would see it."""
    if not told.said:
        return True
    last = told.said[-1][1]
    disk = abs(told.vitals.disk_free - last.disk_free) > 0.1 * last.disk_free  # type: ignore[operator]  # it is known
    heat = abs(told.vitals.heat - last.heat) > 5.0  # type: ignore[operator]
    return told.vitals.doing != last.doing or disk or heat


def test_bytes_of_today_begin_anew_at_midnight() -> None:
    today, noon = Today(), 12 * 3600.0
    assert today.count(500, noon) == 500, "since its start"
    assert today.count(900, noon + 3600) == 900
    assert today.count(1000, noon + DAY_S) == 100
    assert today.count(1000, noon + DAY_S + 1) == 100
    assert today.count(1200, noon + 3 * DAY_S) == 200


def test_a_clock_that_jumps_begins_a_day_and_counts_nothing_twice() -> None:
    today = Today()
    assert today.count(100, 0.0) == 100
    assert today.count(150, 1.7e9) == 50, "it was 1970, until the time came over the network"
    assert today.count(160, 0.0) == 10
