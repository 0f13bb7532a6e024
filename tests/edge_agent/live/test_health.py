from __future__ import annotations

from edge_agent.live.decoding import NO_JSON, NO_NUMBER
from edge_agent.live.health import FLOOD, FLOOD_S, SPAN_S, TopicHealth

WALL = 1_764_244_800.0


def test_a_topic_that_stalls_is_named_with_the_time_of_its_last_reading_and_the_words_stay_the_same() -> None:
    health = TopicHealth(50.0, 0.0, WALL)
    health.note(60.0, WALL + 60)
    assert health.said("hall/t", 659.0, 600.0) == []
    said = health.said("hall/t", 660.0, 600.0)
    assert said == ["no reading from topic hall/t since 2025-11-27 12:01 UTC"]
    assert health.said("hall/t", 5000.0, 600.0) == said


def test_a_topic_that_never_spoke_is_said_to_be_so() -> None:
    assert TopicHealth(50.0, 0.0, WALL).said("hall/t", 600.0, 600.0) == [
        "no reading from topic hall/t since 2025-11-27 12:00 UTC, or ever"
    ]


def test_rubbish_is_told_as_a_share_and_by_its_commonest_kind() -> None:
    health = TopicHealth(50.0, 0.0, WALL)
    for i in range(100):
        assert health.allows(float(i))
        if i % 5 < 2:
            health.rubbish(NO_JSON if i % 10 else NO_NUMBER)
        else:
            health.note(float(i), WALL + i)
    assert health.said("hall/t", 100.0, 600.0) == [
        "about 40 % of the messages of topic hall/t are no JSON object, and are passed over"
    ]


def test_rubbish_of_former_times_is_told_no_more() -> None:
    health = TopicHealth(50.0, 0.0, WALL)
    for i in range(10):
        health.allows(float(i))
        health.rubbish(NO_JSON)
    assert "all of the messages" in health.said("t", 10.0, 1e9)[0]
    health.allows(SPAN_S + 1)
    assert health.said("t", SPAN_S + 1, 1e9) != []
    assert health.said("t", 3 * SPAN_S, 1e9) == []


def test_what_is_beyond_the_rate_is_passed_over_and_told_and_a_flood_is_more_than_that() -> None:
    health = TopicHealth(10.0, 0.0, WALL)
    taken = sum(health.allows(i / 100) for i in range(1000))
    assert 100 <= taken <= 111
    assert not health.floods
    assert health.said("t", 10.0, 1e9) == [
        "topic t says more than max_per_s = 10 messages a second: about 90 % of them are passed over"
    ]
    n = int(FLOOD * FLOOD_S * 10) + 1
    for i in range(n):
        health.allows(10.0 + i * FLOOD_S / (n + 1))
    assert health.floods


def test_a_topic_cannot_put_anything_into_the_words_of_an_operator() -> None:
    said = TopicHealth(1.0, 0.0, WALL).said("a\x1b[2J\nb" + "x" * 500, 1e6, 1.0)[0]
    assert said.isprintable()
    assert len(said) < 200
