from __future__ import annotations

import random

import pytest

from broker.messages import Offer, Version
from edge_agent.resend import ALWAYS_INLINE_BYTES, FIRST_RESEND_S, LAST_RESEND_S, PATIENCE, WAITS, Resend, up_to

V0 = Version(1, 0)


class Middle:
    """No jitter: the middle of every range."""

    def random(self) -> float:
        return 0.5


def offer(n_bytes: int = 9) -> Offer:
    return Offer("j-1", "d", V0, 10, "ab" * 16, n_bytes, body=b"x" * n_bytes)


def offering(folds: bool = False, online: bool = True, now: float = 0.0) -> Resend:
    one = Resend(Middle(), 0.0, folds=folds)
    one.hold(V0, now, online=online)
    return one


def pauses(one: Resend, n: int, left_s: float) -> list[float]:
    found = []
    for _ in range(n):
        at = one.at
        one.send(offer(), at, left_s)
        found.append(one.at - at)
    return found


def test_the_first_offer_is_repeated_after_half_of_the_round_and_then_ever_less_often() -> None:
    assert pauses(offering(), 4, 60.0) == [30.0, 60.0, LAST_RESEND_S, LAST_RESEND_S]
    assert pauses(offering(), 1, 0.0) == [FIRST_RESEND_S]
    assert pauses(offering(), 1, 1e6) == [LAST_RESEND_S]


def test_where_every_offer_is_answered_it_is_repeated_soon() -> None:
    assert pauses(offering(folds=True), 3, 600.0) == [FIRST_RESEND_S, 2 * FIRST_RESEND_S, 4 * FIRST_RESEND_S]


def test_it_waits_for_longer_than_the_longest_of_the_last_waits() -> None:
    one = offering()
    for number, wait_s in enumerate([100.0] + [20.0] * (WAITS - 1)):
        now = 1000.0 * number
        one.hold(V0, now, online=True)
        one.end_wait(now + wait_s)
    one.hold(V0, 1e5, online=True)
    assert pauses(one, 1, 400.0) == [PATIENCE * 100.0]
    one.end_wait(1e5 + 20.0)
    one.hold(V0, 2e5, online=True)
    assert pauses(one, 1, 400.0) == [PATIENCE * 20.0], "what was usual long ago is forgotten"


def test_a_wait_through_an_outage_is_not_measured() -> None:
    one = offering()
    assert one.awaits == V0
    one.disconnected()
    assert one.awaits is None
    one.end_wait(9000.0)
    assert offering(online=False).awaits is None
    one.hold(V0, 9000.0, online=True)
    assert pauses(one, 1, 60.0) == [30.0]


@pytest.mark.parametrize(
    ("n_bytes", "along"), [(ALWAYS_INLINE_BYTES, [True, True]), (ALWAYS_INLINE_BYTES + 1, [True, False])]
)
def test_a_large_body_goes_along_once(n_bytes: int, along: list[bool]) -> None:
    one = offering()
    assert [one.send(offer(n_bytes), 0.0, 60.0) for _ in range(2)] == along
    one.rename(1.0)
    assert one.send(offer(n_bytes), 1.0, 60.0), "under another name it is another offer"


def test_a_new_connection_repeats_it_within_its_window_and_begins_the_pauses_anew() -> None:
    one = offering()
    pauses(one, 3, 60.0)
    one.connected(8.0, 1000.0)
    assert one.at == 1004.0
    assert pauses(one, 1, 60.0) == [30.0]


def test_a_further_attempt_repeats_it_soon_if_it_was_offered() -> None:
    one = offering()
    one.at = 50.0
    one.be_drawn_again(10.0)
    assert one.at == 50.0, "it has not been offered yet"
    one.send(offer(), 50.0, 600.0)
    one.be_drawn_again(60.0)
    assert one.at == 60.0 + FIRST_RESEND_S / 2


def test_who_is_asked_for_the_body_has_been_heard() -> None:
    one = offering()
    one.be_asked(10.0, 60.0)
    assert one.at == 40.0


@pytest.mark.parametrize(("spread_s", "window_s"), [(0.0, FIRST_RESEND_S), (60.0, 60.0)])
def test_devices_that_are_drawn_again_spread_their_offers_as_after_a_new_connection(
    spread_s: float, window_s: float
) -> None:
    one = offering()
    one.connected(spread_s, 0.0)
    one.send(offer(), 0.0, 1000.0)
    one.be_drawn_again(10.0)
    assert one.at == 10.0 + window_s / 2


class Skipping(Middle):
    """Passes numbers over more cheaply than it draws them."""

    skipped = 0

    def skip(self) -> None:
        self.skipped += 1


def test_a_number_that_nothing_depends_on_is_drawn_or_passed_over_all_the_same() -> None:
    one, same, cheap = random.Random(3), random.Random(3), Skipping()  # noqa: S311 -- jitter
    same.random()
    assert up_to(one, 0.0) == 0.0
    assert up_to(one, 2.0) == 2.0 * same.random()
    assert (up_to(cheap, 0.0), cheap.skipped) == (0.0, 1)
    assert (up_to(cheap, 8.0), cheap.skipped) == (4.0, 1)
