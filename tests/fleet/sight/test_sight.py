"""The fleet as it looks from outside: by examples, and whatever comes in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from broker.messages import (
    Beacon,
    Cleared,
    Failure,
    Head,
    Job,
    Offer,
    Presence,
    Round,
    Status,
    Verdict,
    Version,
    Vitals,
)
from fleet.sight.facts import Facts, JobFacts, OpenAttempt
from fleet.sight.sight import Sight
from fleet.sight.view import DeviceView, JobView, View
from models import draw

JOB = "j-00000001"
V0, V1 = Version(1, 0), Version(1, 1)
SPEC: dict[str, Any] = {"name": "j", "seed": 7}


@pytest.fixture
def sight() -> Sight:
    sight = Sight("f")
    sight.connect(connected=True, now=0.0)
    return sight


def there(device: str, *, boot: int = 1, nonce: str = "n1", card: str = "c", rows: int = 10) -> Presence:
    return Presence(device, boot, online=True, ready={JOB: rows}, incarnation=card, nonce=nonce)


def gone(device: str, *, boot: int = 1, nonce: str = "n1", card: str = "c") -> Presence:
    return Presence(device, boot, online=False, incarnation=card, nonce=nonce)


def offer(device: str, base: Version = V0) -> Offer:
    return Offer(JOB, device, base, 10, "ab" * 8, 4, body=b"1234")


def verdict(device: str, refused: str = "", base: Version = V0) -> Verdict:
    return Verdict(device, JOB, base, "ab" * 4, refused)


def device(sight: Sight, name: str = "d1", now: float = 5.0) -> DeviceView:
    return sight.view(now).devices[name]


def job(sight: Sight, now: float = 5.0) -> JobView:
    return sight.view(now).jobs[JOB]


# Devices.


@pytest.mark.parametrize("retained", [True, False])
def test_who_was_away_before_anybody_looked_on_is_offline(sight: Sight, retained: bool) -> None:
    sight.hear(gone("d1"), 1.0, retained=retained)
    assert (device(sight).state, device(sight).since) == ("offline", 1.0)
    sight.hear(there("d1"), 2.0)
    assert device(sight).state == "online"


def test_a_retained_word_is_silent_until_a_live_one_comes(sight: Sight) -> None:
    sight.hear(there("d1"), 1.0, retained=True)
    assert device(sight).state == "silent"
    assert device(sight).heard_at is None
    sight.hear(there("d1"), 2.0)
    assert (device(sight).state, device(sight).since, device(sight).heard_at) == ("online", 2.0, 2.0)


def test_what_a_device_says_live_of_how_it_is_says_that_it_is_there(sight: Sight) -> None:
    sight.hear(there("d1"), 1.0, retained=True)
    sight.hear(Vitals("d1", 1, clock=110.0), 3.0)
    assert (device(sight).state, device(sight).clock_offset_s) == ("online", 107.0)
    sight.hear(Vitals("d1", 1, clock=110.0), 4.0, retained=True)
    assert device(sight).vitals_at == 3.0, "what lay at the broker says nothing of when"


def test_a_last_will_takes_a_device_off_a_moment_later(sight: Sight) -> None:
    sight.hear(there("d1"), 1.0)
    sight.hear(gone("d1"), 2.0)
    assert device(sight, now=2.5).state == "online"
    assert (device(sight, now=3.0).state, device(sight, now=3.0).since) == ("offline", 2.0)


def test_a_question_whether_it_is_there_that_is_denied_changes_nothing(sight: Sight) -> None:
    sight.hear(there("d1"), 1.0)
    sight.hear(gone("d1"), 2.0)
    sight.hear(there("d1"), 2.1)
    assert (device(sight, now=9.0).state, device(sight, now=9.0).since) == ("online", 1.0)


def test_the_will_of_an_earlier_life_says_nothing(sight: Sight) -> None:
    sight.hear(there("d1"), 1.0)
    sight.hear(there("d1", boot=2, nonce="n2"), 2.0)
    sight.hear(gone("d1"), 3.0)
    assert device(sight, now=9.0).state == "online"


def test_two_from_one_card_raise_an_alarm_and_a_start_does_not(sight: Sight) -> None:
    sight.hear(there("d1"), 1.0)
    sight.hear(there("d1", boot=2, nonce="n2"), 2.0)
    assert device(sight).alarm == ""
    sight.hear(there("d1", boot=2, nonce="n3"), 3.0)
    assert "one card" in device(sight).alarm
    sight.hear(there("d1", boot=2, nonce="n2"), 4.0)
    assert "in turn" in device(sight).alarm


def test_who_is_out_says_why_and_whose_training_failed_too(sight: Sight) -> None:
    sight.hear(Presence("d1", 1, online=True, unready={JOB: "no data"}), 1.0)
    assert (device(sight).why, device(sight).parts[JOB].examples) == ("no data", None)
    sight.hear(Presence("d1", 1, online=True, ready={JOB: 3}, failed={JOB: Failure(V0, "disk")}), 1.0)
    assert device(sight).parts[JOB].why == "its training failed: disk"


def test_words_are_cleaned_and_cut(sight: Sight) -> None:
    sight.hear(Presence("d1", 1, online=True, unready={JOB: "\x1b[31mred" + "x" * 900}, software="a\nb"), 1.0)
    assert device(sight).software == "a b"
    assert "\x1b" not in device(sight).why
    assert len(device(sight).why) <= 200


def test_a_device_that_was_cleared_is_forgotten_but_for_one_with_rows(sight: Sight) -> None:
    for name in ("d1", "d2"):
        sight.hear(there(name), 1.0)
    sight.view(1.0)
    sight.read(Facts(devices=frozenset({"d2", "d3"})), 1.0)
    for name in ("d1", "d2"):
        sight.hear(Cleared(f"fedge/1/f/device/{name}"), 2.0)
    assert {name: one.state for name, one in sight.view(3.0).devices.items()} == {"d2": "unknown", "d3": "unknown"}


def test_a_device_in_quarantine_is_shown_as_that_until_it_is_released(sight: Sight) -> None:
    sight.hear(there("d1"), 1.0)
    sight.read(Facts(quarantined={"d1": "odd", "d9": "gone"}), 2.0)
    assert (device(sight).state, device(sight).quarantine) == ("quarantined", "odd")
    assert device(sight, "d9").state == "quarantined"
    sight.read(Facts(), 3.0)
    assert device(sight).state == "online"
    assert "d9" not in sight.view(4.0).devices


def test_over_a_new_connection_who_is_not_there_any_more_falls_silent(sight: Sight) -> None:
    for name in ("d1", "d2"):
        sight.hear(there(name), 1.0)
    sight.connect(connected=False, now=20.0)
    assert not sight.view(20.0).connected
    sight.connect(connected=True, now=21.0)
    sight.hear(there("d1"), 21.1, retained=True)
    seen = sight.view(40.0).devices
    assert (seen["d1"].state, seen["d2"].state) == ("online", "silent")


def test_the_aggregator_confirms_who_is_there(sight: Sight) -> None:
    for name in ("d1", "d2", "d3"):
        sight.hear(there(name), 1.0, retained=True)
    sight.confirm({"d1": True, "d2": False, "d7": True}, 2.0)
    assert [one.state for one in sight.view(3.0).devices.values()] == ["online", "offline", "silent"]
    assert sight.has_silent
    sight.hear(there("d3"), 4.0)
    assert not sight.has_silent


# Jobs and rounds.


def opened(sight: Sight, *names: str, **more: Any) -> None:
    sight.hear(Job(JOB, 1, SPEC), 1.0, retained=True)
    for name in names:
        sight.hear(there(name), 1.0)
    sight.hear(Round(JOB, 1, V0, 30.0, **more), 2.0)


def test_a_round_goes_from_drawn_to_offered_to_counted_and_refused(sight: Sight) -> None:
    opened(sight, "d1", "d2", "d3", "d4")
    round_ = job(sight).round
    assert round_ is not None
    assert (round_.drawn, round_.seen_at, round_.ends_at) == ({"d1", "d2", "d3", "d4"}, 2.0, 32.0)
    for name in ("d1", "d2", "d3"):
        sight.hear(offer(name), 3.0)
    sight.hear(verdict("d2"), 4.0)
    sight.hear(verdict("d3", "too large"), 4.0)
    round_ = job(sight).round
    assert round_ is not None
    assert (round_.offered, round_.counted, round_.refused) == ({"d1", "d2"}, {"d2"}, {"d3": "too large"})
    assert [one.doing for one in sight.view(5.0).devices.values()] == ["offering", "counted", "refused", "drawn"]


def test_the_lottery_draws_where_there_is_no_store(sight: Sight) -> None:
    names = [f"d{n}" for n in range(40)]
    salt = draw.salt(7, 0)
    threshold = draw.threshold(salt, names, 9)
    opened(sight, *names, threshold=threshold)
    wanted = {name for name in names if draw.ticket(salt, name) <= threshold}
    assert job(sight).round.drawn == wanted  # type: ignore[union-attr]
    assert len(wanted) == 9


def test_a_job_whose_specification_comes_last_is_drawn_for_all_the_same(sight: Sight) -> None:
    sight.hear(there("d1"), 1.0)
    sight.hear(Round(JOB, 1, V0, 30.0), 2.0)
    assert JOB not in sight.view(2.0).jobs
    sight.hear(Job(JOB, 1, SPEC), 3.0)
    assert job(sight).round.drawn == {"d1"}  # type: ignore[union-attr]
    assert device(sight).doing == "drawn"


def test_the_store_knows_the_cohort_and_what_counts(sight: Sight) -> None:
    opened(sight, "d1", "d2", "d3", threshold=draw.MAX_TICKET - 1)
    attempt = OpenAttempt(V0, 1, frozenset({"d1", "d9"}), target=2)
    facts = JobFacts(JOB, "j", V0, attempt=attempt, counted=frozenset({"d1"}), refused={"d9": "norm"})
    sight.read(Facts(jobs={JOB: facts}), 3.0)
    round_ = job(sight).round
    assert round_ is not None
    assert (round_.drawn, round_.counted, round_.refused, round_.target) == ({"d1", "d9"}, {"d1"}, {"d9": "norm"}, 2)
    assert round_.offered == {"d1"}, "nobody heard it offer"
    assert [one.doing for one in sight.view(5.0).devices.values()] == ["counted", "idle", "idle"]


def test_what_counts_stays_in_a_further_attempt_and_ends_with_a_version(sight: Sight) -> None:
    opened(sight, "d1", "d2")
    sight.hear(offer("d1"), 3.0)
    sight.hear(verdict("d1"), 3.0)
    sight.hear(Round(JOB, 1, V0, 30.0, attempt=2), 4.0)
    round_ = job(sight).round
    assert round_ is not None
    assert (round_.attempt, round_.counted) == (2, {"d1"})
    sight.hear(Status(JOB, V1, "running", metrics={"accuracy": 0.5}), 6.0)
    seen = job(sight, 7.0)
    assert (seen.round, seen.version, seen.metrics, seen.at) == (None, V1, {"accuracy": 0.5}, 6.0)
    assert device(sight, now=7.0).doing == "idle"
    sight.hear(Round(JOB, 1, V0, 30.0, attempt=3), 8.0)
    assert job(sight, 8.0).round is None, "its base was left"


def test_a_heartbeat_moves_the_end_of_a_round_and_nothing_else(sight: Sight) -> None:
    opened(sight, "d1")
    before = sight.view(3.0)
    sight.hear(Round(JOB, 1, V0, 40.0), 4.0)
    after = sight.view(5.0)
    assert after.devices is before.devices
    assert (after.jobs[JOB].round.seen_at, after.jobs[JOB].round.ends_at) == (2.0, 44.0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("status", "facts", "state"),
    [
        (Status(JOB, V0, "waiting"), None, "waiting"),
        (Status(JOB, V0, "resting", "broken"), None, "resting"),
        (Status(JOB, V0, "finished", "done"), None, "finished"),
        (Status(JOB, V0, "waiting"), JobFacts(JOB, "j", V0, paused="paused by x"), "paused"),
        (Status(JOB, V0, "running"), JobFacts(JOB, "j", V0, ended="stopped"), "stopped"),
    ],
)
def test_a_job_is_in_one_state(sight: Sight, status: Status, facts: JobFacts | None, state: str) -> None:
    sight.hear(Job(JOB, 1, SPEC), 1.0)
    sight.hear(status, 1.0)
    if facts is not None:
        sight.read(Facts(jobs={JOB: facts}), 1.0)
    assert job(sight).state == state


def test_how_many_are_ready_follows_the_devices(sight: Sight) -> None:
    opened(sight, "d1", "d2")
    assert job(sight).ready == 2
    sight.hear(gone("d1"), 6.0)
    sight.hear(Presence("d2", 1, online=True, unready={JOB: "full"}, incarnation="c", nonce="n1"), 6.0)
    assert job(sight, 8.0).ready == 0


def test_a_job_goes_with_its_tombstone_unless_the_store_has_it(sight: Sight) -> None:
    opened(sight, "d1")
    sight.read(Facts(jobs={JOB: JobFacts(JOB, "j", V0)}), 2.0)
    sight.hear(Job(JOB, 1), 3.0)
    assert JOB in sight.view(4.0).jobs
    sight.read(Facts(), 5.0)
    assert sight.view(6.0).jobs == {}


def test_what_a_device_says_itself_counts_unless_the_round_knows_better(sight: Sight) -> None:
    opened(sight, "d1")
    sight.hear(Vitals("d1", 1, doing="training", job=JOB, progress=0.4), 3.0)
    assert (device(sight).doing, device(sight).progress) == ("training", 0.4)
    sight.hear(Round(JOB, 1, V0, 30.0, attempt=2), 3.5)
    assert device(sight).doing == "training", "a further attempt changes nothing of that"
    sight.hear(offer("d1"), 4.0)
    assert device(sight).doing == "offering"
    sight.hear(Status(JOB, V1, "running"), 5.0)
    sight.hear(Round(JOB, 1, V1, 30.0), 5.0)
    assert device(sight).doing == "drawn", "what it said of the round before is over"


# The aggregator, and the view.


def test_the_will_of_another_aggregator_changes_nothing(sight: Sight) -> None:
    sight.hear(Beacon(2, "b", online=True), 1.0)
    sight.hear(Beacon(1, "a", online=False), 2.0)
    seen = sight.view(3.0).aggregator
    assert (seen.online, seen.term, seen.nonce, seen.since) == (True, 2, "b", 1.0)
    sight.hear(Beacon(2, "b", online=False), 4.0)
    assert not sight.view(5.0).aggregator.online


def test_what_has_not_changed_is_the_same_object(sight: Sight) -> None:
    opened(sight, "d1", "d2")
    before = sight.view(3.0)
    assert sight.view(4.0) is before
    sight.hear(Vitals("d2", 1), 4.0)
    after = sight.view(5.0)
    assert after.n == before.n + 1
    assert after.devices["d1"] is before.devices["d1"]
    assert after.jobs is before.jobs
    sight.complain("locked")
    assert sight.view(6.0).trouble == "locked"


def test_no_more_devices_are_remembered_than_there_is_room_for() -> None:
    sight = Sight("f", most_devices=3)
    for n in range(9):
        sight.hear(there(f"d{n}"), 1.0)
        sight.hear(Vitals(f"v{n}", 1), 1.0)
    assert len(sight.view(2.0).devices) <= 3


def test_one_device_that_says_other_labels_each_time_leaves_nothing_behind(sight: Sight) -> None:
    for n in range(500):
        sight.hear(structs.replace(there("d1"), labels={"a": f"x{n}"}), 1.0)
    assert len(sight._labels) < 20
    assert device(sight).labels == {"a": "x499"}


def test_an_aggregator_that_a_new_broker_does_not_know_is_not_there(sight: Sight) -> None:
    sight.hear(Beacon(2, "b", online=True), 1.0)
    sight.connect(connected=True, now=20.0)
    assert sight.view(21.0).aggregator.online
    assert not sight.view(40.0).aggregator.online
    sight.hear(Beacon(2, "b", online=True), 50.0)
    assert sight.view(70.0).aggregator.online


# Whatever comes.

NAMES = st.sampled_from(["d1", "d2", "d3"])
JOBS = st.sampled_from([JOB] * 6 + ["j-00000002", "odd"])  # near what is live: odd ones are soon passed over
VERSIONS = st.sampled_from([V0] * 8 + [V1, Version(1, 2), Version(2, 0)])
WORDS = st.sampled_from(["", "plain", "\x1b[2J", "a\nb", "‮"])
NONCES = st.sampled_from(["", "n1", "n2"])
ODD = st.one_of(st.none(), st.integers(), st.text(max_size=4), st.lists(st.integers(), max_size=1), st.just(0.5))
SPECS = st.dictionaries(
    st.sampled_from(["name", "seed", "rounds"]),
    st.one_of(ODD, st.dictionaries(st.sampled_from(["target", "fraction", "wait"]), ODD)),
)
PRESENCES = st.builds(
    Presence,
    NAMES,
    st.integers(0, 2),
    online=st.booleans(),
    ready=st.dictionaries(JOBS, st.integers(0, 9), max_size=2),
    unready=st.dictionaries(JOBS, WORDS, max_size=2),
    trouble=st.dictionaries(JOBS, WORDS, max_size=1),
    failed=st.dictionaries(JOBS, st.builds(Failure, VERSIONS, WORDS), max_size=1),
    software=WORDS,
    incarnation=NONCES,
    nonce=NONCES,
)
OFFERS = st.builds(Offer, JOBS, NAMES, VERSIONS, st.just(1), st.just("ab" * 8), st.just(1))
VERDICTS = st.builds(Verdict, NAMES, JOBS, VERSIONS, st.just("ab" * 4), WORDS)
MESSAGES = st.one_of(
    PRESENCES,
    OFFERS,
    VERDICTS,
    st.builds(
        Vitals,
        NAMES,
        st.just(1),
        doing=st.sampled_from(["idle", "training", "waiting"]),
        job=st.one_of(st.just(""), JOBS),
        why=WORDS,
    ),
    st.builds(
        Round,
        JOBS,
        st.just(1),
        VERSIONS,
        st.floats(0, 60),
        attempt=st.integers(1, 2),
        threshold=st.sampled_from([0, 2**47, draw.MAX_TICKET]),
        aliases=st.one_of(st.just(()), st.tuples(VERSIONS)),
    ),
    st.builds(Head, JOBS, st.just(1), VERSIONS, st.just("ab" * 8)),  # which it passes over
    st.builds(Status, JOBS, VERSIONS, st.sampled_from(["waiting", "running", "resting", "finished", "stopped"]), WORDS),
    st.builds(Job, JOBS, st.just(1), st.one_of(st.none(), SPECS)),
    st.builds(Beacon, st.integers(0, 2), NONCES, online=st.booleans()),
    st.builds(
        Cleared,
        st.one_of(
            st.builds("fedge/1/f/{}/{}".format, st.sampled_from(["device", "vitals", "round", "job", "body"]), NAMES),
            st.builds("fedge/1/f/{}/{}".format, st.sampled_from(["round", "job"]), JOBS),
            st.sampled_from(["", "/", "fedge/1/f", "$SYS/x"]),
        ),
    ),
)
FATES = st.dictionaries(NAMES, WORDS, max_size=2)
JOB_FACTS = st.builds(
    JobFacts,
    JOBS,
    WORDS,
    VERSIONS,
    ended=st.sampled_from(["", "", "finished"]),
    paused=WORDS,
    attempt=st.one_of(st.none(), st.builds(OpenAttempt, VERSIONS, st.integers(1, 2), st.frozensets(NAMES))),
    counted=st.frozensets(NAMES),
    refused=FATES,
)
FACTS = st.builds(
    lambda jobs, quarantined, devices: Facts({one.job: one for one in jobs}, quarantined, devices),
    st.lists(JOB_FACTS, max_size=2),
    FATES,
    st.frozensets(NAMES),
)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "o": OFFERS,
    "v": VERDICTS,
    "m": MESSAGES,
    "f": FACTS,
    "c": st.booleans(),
    "t": st.dictionaries(NAMES, st.booleans()),
    "l": st.none(),
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from("ooovvvmmmmmmffctlll").flatmap(KINDS.__getitem__),
        st.booleans(),
        st.sampled_from([-5.0, 0.0, 0.1, 2.0, 30.0]),
    ),
    min_size=10,
    max_size=40,
)
"""Mostly what moves a round that is open."""


def holds(view: View) -> None:
    """Hold a view against what is always so."""
    assert list(view.devices) == sorted(view.devices)
    assert list(view.jobs) == sorted(view.jobs)
    for name, one in view.devices.items():
        assert one.device == name
        assert (one.state == "quarantined") == (one.quarantine != "" or one.state == "quarantined")
        assert one.doing == "idle" or one.job or one.doing in ("waiting", "reading", "training")
        assert "\x1b" not in one.why + one.software + "".join(part.why + part.trouble for part in one.parts.values())
    for name, course in view.jobs.items():
        assert course.job == name
        able = [
            one
            for one in view.devices.values()
            if name in one.parts and one.parts[name].examples is not None and one.state in ("online", "silent")
        ]
        assert len(able) <= course.ready <= len(able) + sum(d.state == "quarantined" for d in view.devices.values())
        if (round_ := course.round) is not None:
            assert round_.counted <= round_.offered
            assert not round_.offered & round_.refused.keys()
            assert round_.base >= course.version or course.version in (round_.base, course.version)
            assert course.state not in ("finished", "stopped", "resting")


@settings(max_examples=60)
@given(STEPS)
def test_whatever_comes_in_whatever_order_nothing_is_raised_and_the_view_makes_sense(
    steps: list[tuple[Any, bool, float]],
) -> None:
    sight, now = Sight("f"), 100.0
    for message in (Job(JOB, 1, SPEC), there("d1"), there("d2"), Round(JOB, 1, V0, 60.0)):
        sight.hear(message, now)
    for what, retained, later in steps:
        now += later
        match what:
            case bool():
                sight.connect(connected=what, now=now)
            case Facts():
                sight.read(what, now)
            case dict():
                sight.confirm(what, now)
            case None:
                holds(sight.view(now))
            case _:
                sight.hear(what, now, retained=retained)
    view = sight.view(now)
    holds(view)
    assert sight.view(now) is view
