from __future__ import annotations

import pytest

from broker import payloads
from broker.errors import WireError
from broker.messages import Beacon, Failure, Int8, Message, Offer, Presence, Reply, Round, Status, Verdict, Version
from tests.broker.golden import BODY, BODY_DIGEST, D, V


def test_what_follows_from_the_bytes_along_or_stands_in_the_topic_is_not_written() -> None:
    offer = Offer("j", "d", V, 120, BODY_DIGEST, 3, body=BODY)
    written = payloads.write(offer, "offer")
    assert written.endswith(BODY)
    assert len(written) < len(BODY) + 8
    assert payloads.read(written, "offer", {"job": "j", "device": "d", "n_examples": 120}) == offer


def test_an_error_names_the_word_and_the_rule() -> None:
    with pytest.raises(WireError, match="verdict: Object missing required field `base`"):
        payloads.read(b"{}", "verdict", {"job": "j", "device": "d"})
    with pytest.raises(WireError, match="verdict: device stands in the topic and must not stand in the JSON"):
        payloads.read(b'{"device":"e"}', "verdict", {"job": "j", "device": "d"})


def test_a_former_name_has_the_same_number_and_is_another() -> None:
    payloads.check(Round("j", 1, V, 9.0, aliases=(Version(0, 3),)))
    for alias in (V, Version(0, 4)):
        with pytest.raises(WireError, match=r"no former name of 1\.3"):
            payloads.check(Round("j", 1, V, 9.0, aliases=(alias,)))


def test_what_is_clean_comes_back_as_it_is() -> None:
    presence = Presence("d", 1, online=True, unready={"j": "no data"}, failed={"j": Failure(V, "no")})
    assert payloads.cleaned(presence) == presence
    status = Status("j", V, "resting", "no data")
    assert payloads.cleaned(status) is status


def test_what_is_empty_in_presences_is_one_object_and_stays_empty() -> None:
    """Whoever leads a fleet holds a presence of each device, with eight mappings in it."""
    full = payloads.write(Presence("d", 1, True, ready={"j": 3}, trouble={"j": "hot"}, done={"j": V}), "device")
    one, other = (payloads.read(payload, "device", {"device": "d"}) for payload in (full, b'{"boot":1,"online":true}'))
    assert isinstance(one, Presence)
    assert isinstance(other, Presence)
    empty = [one.labels, one.unready, one.failed, one.ahead, one.int8, other.ready, other.trouble, other.done]
    assert all(mapping is empty[0] for mapping in empty)
    assert empty[0] == {}
    assert (one.ready, one.trouble, one.done) == ({"j": 3}, {"j": "hot"}, {"j": V})


SCREEN = "a\x1b[2Jb\u202ec\n" + "x" * 600
CLEAN = "a�b�c " + "x" * 493 + "…"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (Verdict("d", "j", V, D[:8], SCREEN), Verdict("d", "j", V, D[:8], CLEAN)),
        (Status("j", V, "resting", SCREEN), Status("j", V, "resting", CLEAN)),
        (Reply("cli", "r", ok=True, text=SCREEN), Reply("cli", "r", ok=True, text=CLEAN)),
        (
            Presence("d", 1, True, unready={"j": SCREEN}, trouble={"j": SCREEN}, software=SCREEN),
            Presence("d", 1, True, unready={"j": CLEAN}, trouble={"j": CLEAN}, software=CLEAN),
        ),
        (
            Presence("d", 1, True, failed={"j": Failure(V, SCREEN)}),
            Presence("d", 1, True, failed={"j": Failure(V, CLEAN)}),
        ),
        (
            Presence("d", 1, True, int8={"j": Int8(V, 0.0, 0.0, SCREEN)}),
            Presence("d", 1, True, int8={"j": Int8(V, 0.0, 0.0, CLEAN)}),
        ),
        (Presence("d", 1, True, nonce="a\nb"), Presence("d", 1, True, nonce="a b")),
        (Presence("d", 1, True, incarnation="a\nb"), Presence("d", 1, True, incarnation="a b")),
        (Beacon(1, "n", True, store="a\nb"), Beacon(1, "n", True, store="a b")),
        (Beacon(1, "a\x1b[2Jb", True), Beacon(1, "a�b", True)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_words_for_people_are_cleaned(said: Message, kept: Message) -> None:
    assert payloads.cleaned(said) == kept
