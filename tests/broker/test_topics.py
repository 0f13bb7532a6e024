from __future__ import annotations

from typing import get_args

import pytest

from broker import topics
from broker.errors import WireError
from broker.messages import Chunk, Offer, Query, Stop
from broker.topics import ROUTES
from tests.broker.golden import GOLDEN, SPELT, D, V


def test_every_word_of_the_table_has_golden_bytes() -> None:
    assert {packet.topic.split("/")[3] for _, packet in [*GOLDEN, *SPELT]} == set(ROUTES)


def test_no_topic_has_more_than_seven_slashes() -> None:
    assert max(packet.topic.count("/") for _, packet in GOLDEN) <= 7


def test_the_fields_of_a_topic_are_read_as_they_were_written() -> None:
    offer, chunk = Offer("j-1", "d1", V, 120, D, 3), Chunk("j-1", "d1", D, 7, b"x")
    assert topics.topic_of(offer, "offer", "f") == "fedge/1/f/offer/j-1/d1/120"
    assert topics.split("fedge/1/f/offer/j-1/d1/120", "f") == (
        "offer",
        {"job": "j-1", "device": "d1", "n_examples": 120},
    )
    assert topics.split("fedge/1/f/body/j-1/1-2-1/0", "f")[1]["index"] == 0
    word, fields = topics.split(topics.topic_of(chunk, "chunk", "f"), "f")
    assert (word, fields) == ("chunk", {"job": "j-1", "device": "d1", "digest": D, "index": 7})


def test_every_command_has_the_same_word() -> None:
    assert {topics.WORDS[kind] for kind in (Stop, *get_args(Query))} == {"command"}
    assert set(topics.WORDS.values()) == set(ROUTES)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "fedge/1/f",
        "fedge/1/g/aggregator",
        "fedge/2/f/aggregator",
        "fedge/1/f/secrets/d1",
        "fedge/1/f/want/j-1",
        "fedge/1/f/want/j-1/d1/d2",
        "fedge/1/f/offer/j-1/d1/0_5",
        f"fedge/1/f/chunk/j-1/d1/{D}/1000000000",
        "fedge/1/f/body/j-1/1-2-1/00",  # beside 0, where nobody would write over it
        "fedge/1/f/body/j-1/1-2-1/07",
        "fedge/1/f/body/j-1/1-2-1/",
    ],
)
def test_a_topic_that_is_not_in_the_table_is_refused(topic: str) -> None:
    with pytest.raises(WireError):
        topics.split(topic, "f")


def test_a_topic_that_was_asked_for_lately_is_the_same_string() -> None:
    assert topics.join("f", "head", "j-1") is topics.join("f", "head", "j-1")
