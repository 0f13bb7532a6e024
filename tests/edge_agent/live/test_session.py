"""A site's broker played by hand: events at made-up times, and the rows that come of them."""

from __future__ import annotations

import json

import pytest

from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver
from broker.wire import Wire
from edge_agent.live import health
from edge_agent.live.joining import Row
from edge_agent.live.refusal import proofs
from edge_agent.live.session import MOST_ON_TRIAL, PROOF_S, Session
from edge_agent.live.settings import DeviceSource, TopicSettings, live_sources

WALL = 1_764_244_800.0
PROOFS = proofs(Wire("home"), "d")


class Played:
    def __init__(self, **mqtt: object) -> None:
        settings = TopicSettings(**{"topics": {"t": "hall/t"}, **mqtt})  # type: ignore[arg-type]
        (source,) = live_sources({"s": DeviceSource(path="s.ring", mqtt=settings)})
        self.kept: list[Row] = []
        self.now = 0.0
        self.session = Session(source, PROOFS, self.kept.append, 0.0, WALL)

    def online(self) -> Played:
        self.session.receive(Online(None), self.now, WALL + self.now)
        return self

    def trusted(self) -> Played:
        self.online()
        return self.later(PROOF_S)

    def later(self, seconds: float) -> Played:
        self.now += seconds
        self.session.tick(self.now, WALL + self.now)
        return self

    def hear(self, topic: str, payload: bytes, *, retain: bool = False) -> Played:
        self.session.receive(Packet(topic, payload, retain), self.now, WALL + self.now)
        return self

    @property
    def said(self) -> str:
        return self.session.said(self.now)


def test_a_reading_of_a_trusted_connection_is_a_row() -> None:
    played = Played().trusted().hear("hall/t", b"21.5")
    assert played.kept == [Row(WALL + PROOF_S, "", {"t": 21.5})]
    assert played.said == ""


def test_rows_of_a_new_connection_wait_until_it_is_known_not_to_be_the_fleets() -> None:
    played = Played().online().hear("hall/t", b"1")
    assert played.kept == []
    played.later(PROOF_S)
    assert played.kept == [Row(WALL, "", {"t": 1.0})]


def test_a_broker_with_the_fleets_beacon_or_this_devices_own_presence_is_refused_and_nothing_of_it_is_kept() -> None:
    assert PROOFS == ("fedge/1/home/aggregator", "fedge/1/home/device/d")
    for topic in PROOFS:
        played = Played().online().hear("hall/t", b"1").hear(topic, b"anything", retain=True).hear("hall/t", b"2")
        played.later(100.0)
        assert played.kept == []
        assert f"has {topic}, so it is the broker of the fleet itself" in played.session.refused
        assert played.said == played.session.refused


def test_the_proofs_are_listened_to_and_a_broker_that_hides_them_is_not_complained_of() -> None:
    played = Played().trusted()
    assert set(PROOFS) <= set(played.session.filters)
    played.session.receive(Denied(PROOFS[0], "not authorised"), 1.0, WALL)
    assert played.said == ""
    played.session.receive(Denied("hall/t", "the broker refused to subscribe"), 1.0, WALL)
    assert "refuses topic hall/t" in played.said


def test_what_is_retained_is_no_reading_but_a_retained_label_is_one() -> None:
    played = Played(label_topic="mode").trusted().hear("hall/t", b"1", retain=True)
    assert played.kept == []
    played.hear("mode", b"run", retain=True).hear("hall/t", b"2")
    assert [row.values for row in played.kept] == [{"t": 2.0, "y": "run"}]


def test_an_outage_makes_the_label_unknown_and_is_told_with_the_reason() -> None:
    played = Played(label_topic="mode").trusted().hear("mode", b"run")
    played.session.receive(Offline("the connection was lost"), played.now, WALL + played.now)
    assert "since 2025-11-27 12:00 UTC: the connection was lost" in played.said
    played.trusted().hear("hall/t", b"2")
    assert [row.values for row in played.kept] == [{"t": 2.0}]


def test_topics_are_joined_and_a_stalled_one_is_missing_and_named() -> None:
    played = Played(topics={"t": "hall/t", "v": "hall/v"}, period_s=1.0, tolerance_s=2.0, stall_s=60.0).trusted()
    played.hear("hall/v", b"5")
    for i in range(90):
        played.hear("hall/t", str(i).encode()).later(1.0)
    assert [row.values.get("v") for row in played.kept] == [5.0] * 3 + [None] * 87
    assert played.said == "no reading from topic hall/v since 2025-11-27 12:00 UTC"


def test_rubbish_is_counted_by_topic_and_its_content_is_nowhere() -> None:
    played = Played().trusted()
    for i in range(10):
        played.hear("hall/t", b"secret value").hear("hall/t", str(i).encode()).later(1.0)
    assert played.said == "about 50 % of the messages of topic hall/t are no number, and are passed over"
    assert len(played.kept) == 10


def test_without_a_label_an_operator_is_told() -> None:
    played = Played(label_topic="mode", stall_s=60.0).trusted()
    for _ in range(70):
        played.hear("hall/t", b"1").later(1.0)
    assert played.said == "no label is known: nothing came on label_topic mode"
    assert played.hear("mode", b"off").said == ""


def test_a_flood_is_thinned_and_does_not_silence_another_topic() -> None:
    played = Played(topics={"t": "hall/t", "v": "hall/v"}, period_s=1.0, max_per_s=10.0).trusted()
    for _ in range(10_000):
        played.hear("hall/t", b"1")
    played.hear("hall/v", b"2").later(1.0)
    assert played.kept[-1].values == {"t": 1.0, "v": 2.0}
    assert played.session.floods
    assert "nearly all of them are passed over" in played.said


@pytest.mark.parametrize(("topic", "retain"), [("hall/t", True), ("attic/x", False)])
def test_a_flood_of_what_nobody_asked_for_is_a_flood(topic: str, retain: bool) -> None:
    played = Played().trusted()
    for _ in range(health.STRAYS):
        played.hear(topic, b"1", retain=retain)
    assert not played.session.floods
    played.hear(topic, b"1", retain=retain)
    assert played.session.floods
    assert "that are retained or that nobody asked for" in played.said
    assert played.kept == []
    played.later(health.STRAY_S).hear(topic, b"1", retain=retain)
    assert not played.session.floods


def test_rows_of_a_connection_on_trial_are_bounded() -> None:
    played = Played(max_per_s=10_000.0).online()
    for _ in range(3):
        for _ in range(10_000):
            played.hear("hall/t", b"1")
        played.now += 0.9
    played.later(PROOF_S)
    assert len(played.kept) == MOST_ON_TRIAL


def test_long_texts_on_trial_are_bounded_and_rows_of_a_trusted_connection_are_not() -> None:
    names = tuple(f"c{n}" for n in range(256))
    said = json.dumps(dict.fromkeys(names, "x" * 200)).encode()
    played = Played(topics=["hall/t"], fields=names, max_per_s=10_000.0).online()
    for _ in range(100):
        played.hear("hall/t", said)
    played.later(PROOF_S)
    assert len(played.kept) == 21
    for _ in range(100):
        played.hear("hall/t", said)
    assert len(played.kept) == 121


def test_who_takes_our_name_at_the_site_is_told_of() -> None:
    played = Played().trusted()
    played.session.receive(SessionTakenOver(), 5.0, WALL)
    assert played.session.taken_over
    assert "under the same client_id: give this one its own" in played.said


def test_a_wildcard_is_a_column_of_the_row() -> None:
    played = Played(topics=("hall/+/state",), fields=("t",)).trusted().hear("hall/3/state", b'{"t": 1}')
    assert [row.values for row in played.kept] == [{"group": "3", "t": 1.0}]
