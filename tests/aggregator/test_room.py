from __future__ import annotations

import itertools
import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from aggregator.room import (
    FIRST_PACE,
    GUEST_S,
    IDLE_S,
    LEAST_PACE,
    MOST_GUESTS,
    MOST_IN_LINE,
    MOST_PACE,
    SHARES,
    SPENT,
    TURN_S,
    Room,
)
from broker.messages import Offer, Version

PIECE = 1000
HONEST_PIECE_S = 0.004
"""Seconds for a piece of those who send at a normal pace: 250 kB/s."""


def offer(device: str, n_bytes: int = 10 * PIECE, job: str = "j", piece_bytes: int = PIECE) -> Offer:
    return Offer(job, device, Version(1, 0), 1, "f" * 16, n_bytes, piece_bytes)


def devices(gone: list[tuple[str, str]]) -> list[str]:
    return [device for _, device in gone]


def test_one_device_has_no_more_than_its_share_beside_its_first_update() -> None:
    room = Room(SHARES * 10 * PIECE)
    assert room.begin(offer("a", 20 * PIECE), 0.0)[0], "the first one may be as large as it is"
    assert not room.begin(offer("a", job="k"), 0.0)[0]
    assert room.begin(offer("b", 5 * PIECE), 0.0)[0]
    assert room.begin(offer("b", 5 * PIECE, job="k"), 0.0)[0]
    assert not room.begin(offer("b", 1, job="l"), 0.0)[0]


def test_who_keeps_the_wanted_pace_keeps_the_room_however_long_it_takes() -> None:
    room = Room(100 * PIECE)
    room.begin(offer("a", 100 * PIECE), 0.0)
    assert not room.begin(offer("b"), 0.0)[0]
    now = 0.0
    for _ in range(100):
        now += PIECE / FIRST_PACE
        room.move(("j", "a"), PIECE, now)
        assert room.tick(now) == []


def test_who_needs_most_of_the_room_is_not_passed_by_for_ever() -> None:
    room, inside, large_in = Room(100), list[tuple[str, str]](), False
    for k in range(10):
        room.begin(offer(f"d{k}", 10), 0.0)
        inside.append(("j", f"d{k}"))
    assert not room.begin(offer("large", 60, "k"), 0.0)[0]
    for k in range(10, 40):
        now = 0.1 * k
        if inside:
            room.end(inside.pop(0), whole_at=now)
        if room.begin(offer(f"d{k}", 10), now)[0]:
            inside.append(("j", f"d{k}"))
        for one in room.call(now):
            assert room.begin(one, now)[0], "who is called passes by nobody"
            inside.append((one.job, one.device))
            large_in |= one.device == "large"
    assert large_in


def test_who_is_kept_waiting_by_its_quota_keeps_nobody_else_waiting() -> None:
    room = Room(100)
    for k in range(8):
        room.begin(offer(f"d{k}", 10), 0.0)
    room.begin(offer("a", 20), 0.0)
    assert not room.begin(offer("a", 90, "k"), 0.0)[0], "first in line, and not to begin before its first has ended"
    assert not room.begin(offer("late", 10), 0.0)[0]
    room.end(("j", "d0"), whole_at=1.0)
    assert [one.device for one in room.call(1.0)] == ["late"]


def test_of_a_slow_fleet_that_comes_back_at_once_only_a_few_give_way() -> None:
    n_bytes, takes_s, n = 50_000, 20.0, 100  # at 20 kbit/s, in one piece
    room, begun, gone, done = Room(n * n_bytes), dict[str, float](), list[str](), set[str]()
    for k in range(2 * n):
        if room.begin(offer(f"d{k}", n_bytes, piece_bytes=n_bytes), 0.0)[0]:
            begun[f"d{k}"] = 0.0
    while len(done) + len(gone) < 2 * n:
        now = min(room.deadline, min(begun.values()) + takes_s)
        for device in devices(room.tick(now)):
            del begun[device]
            gone.append(device)
        for device in [device for device, at in begun.items() if now >= at + takes_s]:
            room.end(("j", device), whole_at=now)
            del begun[device]
            done.add(device)
        for one in room.call(now):
            assert room.begin(one, now)[0]
            begun[one.device] = now
    assert len(gone) <= 8, "until the wanted pace has fallen to what all of them keep"


def test_what_has_come_in_beside_one_that_stays_is_not_remembered() -> None:
    room = Room(100 * PIECE)
    room.begin(offer("stays"), 0.0)
    for n in range(10 * SPENT):
        room.begin(offer(f"d{n}"), float(n))
        room.end(("j", f"d{n}"), whole_at=float(n))
    assert len(room._dues) <= 2 + SPENT
    begins, gone = room.begin(offer("large", 95 * PIECE), 10.0 * SPENT)
    assert begins
    assert devices(gone) == ["stays"], "that it is overdue is still known"


def test_who_dribbles_gives_way_after_a_turn_and_is_a_guest_from_then_on() -> None:
    room = Room(10 * PIECE)
    room.begin(offer("a"), 0.0)
    room.begin(offer("b"), 0.0)
    room.move(("j", "a"), PIECE, 2.0)
    assert devices(room.tick(TURN_S + PIECE / FIRST_PACE)) == ["a"]
    assert devices([(one.job, one.device) for one in room.call(4.0)]) == ["b"]
    room.begin(offer("b"), 4.0)
    assert not room.begin(offer("a"), 4.0)[0]
    room.begin(offer("c"), 4.0)
    room.end(("j", "b"), whole_at=4.1)
    assert [one.device for one in room.call(4.1)] == ["c", "a"][:1], "a stands behind c, who came later"


def test_a_guest_makes_room_at_once() -> None:
    room = Room(10 * PIECE)
    room.make_guest("a", 0.0)
    assert room.begin(offer("a"), 0.0)[0]
    begins, gone = room.begin(offer("b"), 0.1)
    assert (begins, devices(gone)) == (True, ["a"])


def test_a_guest_does_not_pass_those_who_wait() -> None:
    room = Room(10 * PIECE)
    room.begin(offer("a", 5 * PIECE), 0.0)
    room.begin(offer("b"), 0.0)
    room.make_guest("c", 0.0)
    assert not room.begin(offer("c", 1), 0.0)[0], "b waits"


def test_a_guest_is_one_for_a_while_and_the_next_time_for_longer() -> None:
    room = Room(1)
    room.make_guest("a", 0.0)
    assert room.is_guest("a", GUEST_S - 1)
    assert not room.is_guest("a", GUEST_S)
    room.make_guest("a", GUEST_S)
    assert room.is_guest("a", 2.9 * GUEST_S)


def test_between_guests_the_idle_one_gives_way() -> None:
    room = Room(10 * PIECE)
    for device in "ab":
        room.make_guest(device, 0.0)
    room.begin(offer("a"), 0.0)
    assert not room.begin(offer("b"), IDLE_S - 1)[0]
    assert room.begin(offer("b"), IDLE_S) == (True, [("j", "a")])


def test_the_guests_that_are_remembered_are_so_many() -> None:
    room = Room(1)
    for number in range(MOST_GUESTS + 1):
        room.make_guest(f"d{number}", 0.0)
    assert not room.is_guest("d0", 1.0)
    assert room.is_guest("d1", 1.0)


def test_the_line_has_an_end() -> None:
    room = Room(1)
    room.begin(offer("a", 1), 0.0)
    for number in range(MOST_IN_LINE + 1):
        room.begin(offer(f"d{number}", 1), 0.0)
    room.end(("j", "a"))
    assert [one.device for one in room.call(0.0)] == ["d1"]


def test_where_every_link_is_slow_slow_is_good_enough() -> None:
    room, pace = Room(10 * PIECE), 2500.0
    now = 0.0
    for number in range(3):
        room.begin(offer(f"d{number}"), now)
        now += 10 * PIECE / pace
        room.end(("j", f"d{number}"), whole_at=now)
    assert room.wanted_pace == pace / 4
    room.begin(offer("a"), now)
    room.begin(offer("b"), now)
    for _ in range(9):
        now += PIECE / pace
        room.move(("j", "a"), PIECE, now)
        assert room.tick(now) == []


def test_where_nobody_keeps_the_pace_it_falls_until_somebody_can() -> None:
    room, now = Room(10 * PIECE), 0.0
    paces = []
    for number in range(20):
        room.begin(offer(f"d{number}"), now)
        room.begin(offer(f"d{number + 1}"), now)
        paces.append(room.wanted_pace)
        room.tick(now := now + 1000.0)
    assert paces[0] == FIRST_PACE
    assert paces[-1] == LEAST_PACE


def test_the_fastest_links_do_not_make_others_slow() -> None:
    room = Room(10**9)
    room.begin(offer("a", 10**8), 0.0)
    room.end(("j", "a"), whole_at=0.1)
    assert room.wanted_pace == MOST_PACE


def test_nothing_is_due_while_nobody_waits() -> None:
    room = Room(10 * PIECE)
    room.begin(offer("a"), 0.0)
    assert room.deadline == math.inf
    room.begin(offer("b"), 0.0)
    assert room.deadline == TURN_S


def test_where_only_guests_wait_the_clock_is_not_asked_again_and_again() -> None:
    room = Room(10 * PIECE)
    room.begin(offer("a"), 0.0)
    room.make_guest("b", 0.0)
    room.begin(offer("b"), 0.0)
    assert room.tick(room.deadline) == []
    assert room.deadline >= 2 * TURN_S


class Honest:
    """A device that sends its update at a normal pace as soon as it may."""

    def __init__(self, name: str, n_pieces: int) -> None:
        self.name, self.n_pieces = name, n_pieces
        self.sent = -1
        """Pieces that have come; -1 where it has no room."""
        self.next_at = 0.0
        self.done_at: float | None = None

    def offer(self) -> Offer:
        return offer(self.name, self.n_pieces * PIECE)


ACTS = st.tuples(
    st.sampled_from(["move", "move", "move", "complete", "replace", "lie"]),
    st.sampled_from(["j", "k", "l"]),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.002, 0.05, 0.5, 2.0, 5.0]),
)


@example([("move", "j", 1, 2.0)], [10], 40)
@example([("move", "j", 20, 0.0), ("complete", "j", 1, 0.0), ("move", "k", 9, 2.0)], [1], 40)
@settings(max_examples=100, deadline=None)
@given(
    st.lists(ACTS, min_size=1, max_size=6),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.sampled_from([40, 60, 160]),
)
def test_whatever_one_device_does_the_others_updates_come_in_within_a_bound(
    acts: list[tuple[str, str, int, float]], sizes: list[int], room_pieces: int
) -> None:
    """It does the same again and again, and offers whenever it has no room.

    The bound: one turn, an update in each of its jobs at the least wanted pace, which it may have brought about by
    updates of its own that came in whole while nobody else's had, and what the others take.
    """
    room, now = Room(room_pieces * PIECE), 0.0
    others = [Honest(f"d{number}", size) for number, size in enumerate(sizes)]
    bound_s = TURN_S + 3 * 40 * PIECE / LEAST_ATTACKED + sum(sizes) * HONEST_PIECE_S + 1.0
    script = itertools.cycle(acts)
    next_act = 0.0
    came: dict[str, int] = {}
    lost = 0

    def drop(gone: list[tuple[str, str]]) -> None:
        for job, device in gone:
            if device == "evil":
                came.pop(job, None)
            else:
                nonlocal lost
                lost += 1
                next(other for other in others if other.name == device).sent = -1

    def attack() -> float:
        act, job, n, pause = next(script)
        key = (job, "evil")
        match act:
            case "move" if job in came and came[job] < 39:
                n = min(n, 39 - came[job])
                room.move(key, n * PIECE, now)
                came[job] += n
            case "complete" | "lie" if came.get(job, 0) >= 39:  # as the inbox does it: whole, or not what was offered
                room.end(key, whole_at=now if act == "complete" else None)
                if act == "lie":
                    room.make_guest("evil", now)
                del came[job]
            case "replace" if job in came:
                room.end(key)
                if room.is_wanted:
                    room.make_guest("evil", now)
                begins, gone = room.begin(offer("evil", n * PIECE, job), now)
                drop(gone)
                came.pop(job)
                if begins:
                    came[job] = 0
        return now + pause

    while any(other.done_at is None for other in others):
        assert now <= bound_s, f"{[other.name for other in others if other.done_at is None]} after {now:.1f} s"
        for job in sorted({"j", "k", "l"} - came.keys()):
            begins, gone = room.begin(offer("evil", 40 * PIECE, job), now)
            drop(gone)
            if begins:
                came[job] = 0
        if next_act <= now:
            next_act = attack()
        if now >= room.deadline:
            drop(room.tick(now))
        for one in room.call(now):
            if one.device == "evil":
                begins, gone = room.begin(one, now)
                drop(gone)
                if begins:
                    came[one.job] = 0
        for other in others:
            if other.done_at is not None:
                continue
            if other.sent < 0:
                begins, gone = room.begin(other.offer(), now)
                drop(gone)
                if begins:
                    other.sent, other.next_at = 0, now + HONEST_PIECE_S
            elif other.next_at <= now:
                other.sent, other.next_at = other.sent + 1, now + HONEST_PIECE_S
                room.move(("j", other.name), PIECE, now)
                if other.sent == other.n_pieces:
                    room.end(("j", other.name), whole_at=now)
                    other.done_at = now
        now += HONEST_PIECE_S
    assert not lost, "who sends at a normal pace keeps its room"


LEAST_ATTACKED = LEAST_PACE * 2
"""The wanted pace does not fall below this by one device's doing: an update of its own that comes in whole makes it a
quarter of that one's pace, and before a third is in, somebody else's is; each time it gives way it is a guest for
longer."""
