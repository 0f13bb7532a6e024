from __future__ import annotations

import pytest

from broker.envelope import Envelope
from broker.session import Session
from identity.keys import ExchangeKey

DEVICE, SERVER = ExchangeKey(bytes((1,)) * 32), ExchangeKey(bytes((2,)) * 32)


def pair(fleet: str = "f", device: str = "d1") -> tuple[Session, Session]:
    return (
        Session(DEVICE, SERVER.public, fleet, device, of_device=True),
        Session(SERVER, DEVICE.public, fleet, device, of_device=False),
    )


def test_two_with_these_keys_have_this_very_mac() -> None:
    mine, theirs = pair()
    assert mine.close(b"said").proof.hex() == "081b69306eb974c7bddaeb50f7563199"
    assert theirs.close(b"said").proof.hex() == "91fec0e54c150ae4e2c24694b0d55be1"


def test_what_one_says_the_other_opens_and_takes_once() -> None:
    mine, theirs = pair()
    first, second = mine.close(b"one"), mine.close(b"two")
    assert (first.count, second.count) == (1, 2)
    assert theirs.opens(b"two", second)
    assert theirs.opens(b"one", first)
    assert [theirs.is_new(one) for one in (second, first, second)] == [True, True, False]


@pytest.mark.parametrize("changed", ["said", "count", "proof"])
def test_what_was_changed_on_its_way_does_not_open(changed: str) -> None:
    mine, theirs = pair()
    closed = mine.close(b"said")
    other = {
        "said": (b"else", closed),
        "count": (b"said", Envelope(2, closed.proof)),
        "proof": (b"said", Envelope(1, bytes(16))),
    }[changed]
    assert not theirs.opens(*other)


def test_nobody_opens_his_own_words_or_those_of_another_fleet_device_or_life() -> None:
    mine, theirs = pair()
    closed = mine.close(b"said")
    others = [
        mine,
        pair("g")[1],
        pair("f", "d2")[1],
        Session(ExchangeKey(bytes((3,)) * 32), DEVICE.public, "f", "d1", of_device=False),
        Session(SERVER, ExchangeKey(bytes((3,)) * 32).public, "f", "d1", of_device=False),
    ]
    assert theirs.opens(b"said", closed)
    assert not any(one.opens(b"said", closed) for one in others)


def test_a_key_that_agrees_with_everybody_is_refused() -> None:
    with pytest.raises(ValueError, match="no key"):
        Session(SERVER, bytes(32), "f", "d1", of_device=False)
