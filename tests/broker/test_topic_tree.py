from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker import topic_tree
from broker.topic_tree import Level, filters_matching, find, prune, reach, retained_at
from broker.transport import Packet

words = st.sampled_from(["a", "b", "$c"])
topics = st.lists(words, min_size=1, max_size=4).map("/".join)
filters = st.tuples(st.lists(st.sampled_from(["a", "b", "$c", "+"]), max_size=3), st.booleans()).filter(any)
filters_ = filters.map(lambda f: "/".join([*f[0], *(["#"] if f[1] else [])]))


def matches(name: str, topic: str) -> bool:
    """MQTT 5, section 4.7, as it stands there: an oracle that knows no tree."""
    ours, theirs = name.split("/"), topic.split("/")
    if topic.startswith("$") and ours[0] in ("+", "#"):
        return False
    if ours[-1] == "#":
        return len(theirs) >= len(ours) - 1 and all(a in ("+", b) for a, b in zip(ours[:-1], theirs, strict=False))
    return len(ours) == len(theirs) and all(a in ("+", b) for a, b in zip(ours, theirs, strict=True))


@given(st.sets(filters_, max_size=8), topics)
def test_a_topic_reaches_the_filters_that_match_it_and_no_other(names: set[str], topic: str) -> None:
    root: Level[str] = Level()
    for name in names:
        reach(root, name).add(name)
    reached = [name for level in filters_matching(root, topic) for name in level.subscribers]
    assert sorted(reached) == sorted(name for name in names if matches(name, topic))


@given(st.sets(topics, max_size=8), filters_)
def test_a_filter_finds_the_retained_topics_that_it_matches_and_no_other(kept: set[str], name: str) -> None:
    root: Level[str] = Level()
    for topic in kept:
        reach(root, topic).retained = Packet(topic, b"x")
    found = [level.retained.topic for level in retained_at(root, name) if level.retained is not None]
    assert sorted(found) == sorted(topic for topic in kept if matches(name, topic))


@given(st.lists(topics, max_size=8))
def test_a_tree_from_which_all_is_gone_is_empty(names: list[str]) -> None:
    root: Level[str] = Level()
    for name in names:
        reach(root, name).add(name)
    for name in names:
        if (level := find(root, name)) is not None:
            level.discard(name)
            prune(root, name)
    assert root.bare


@given(filters_, topics)
def test_one_filter_and_one_topic_match_as_the_standard_says(name: str, topic: str) -> None:
    assert topic_tree.matches(name, topic) == matches(name, topic)
