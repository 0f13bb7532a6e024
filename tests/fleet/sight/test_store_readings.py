"""The store beside an aggregator, as readings for people and as facts for a lookout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.database import StoreError
from aggregator.effects import Attempt
from aggregator.store import FILE, Store
from broker.messages import Version
from fleet.sight import store_readings
from fleet.sight.readings import Spread
from fleet.sight.source import Found
from fleet.sight.store_readings import DEVICES_S, StoreSource, measure_of, spread_of
from tests.aggregator.test_reader import JOB, SHA, SPEC, judge, make
from tests.clocks import Clock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with_job = Store(tmp_path / "state", synced=False)
    with_job.add_job(JOB, SPEC, SHA, b"state 0", {"loss": 2.5})
    yield with_job
    with_job.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(store: Store, clock: Clock) -> Iterator[StoreSource]:
    opened = StoreSource(store.folder, clock=clock)
    yield opened
    opened.close()


def polled(source: StoreSource) -> Found:
    found = source.poll()
    assert found is not None
    return found


def test_a_poll_tells_of_what_has_changed_and_of_nothing_else(store: Store, source: StoreSource) -> None:
    first = polled(source).facts.jobs[JOB]
    assert (first.version, first.name, first.ended, first.attempt) == (Version(1, 0), "digits", "", None)
    assert source.poll() is None
    store.set_note("something", "else")
    assert polled(source).facts.jobs[JOB] is first, "what is the same is the same object"
    make(store, 0)
    assert polled(source).facts.jobs[JOB].version == Version(1, 1)


def test_of_an_open_round_the_cohort_and_what_came_of_it_is_told(store: Store, source: StoreSource) -> None:
    make(store, 0)
    store.open_attempt(JOB, Attempt(Version(1, 1), 1, "salt", 7, 2, ("a", "b", "c")))
    judge(store, "a", 1)
    judge(store, "b", 1, "it is far")
    facts = polled(source).facts.jobs[JOB]
    assert facts.attempt is not None
    assert (facts.attempt.cohort, facts.attempt.target) == ({"a", "b", "c"}, 2)
    assert (facts.counted, facts.refused) == ({"a"}, {"b": "it is far"})
    (point,) = source.readings.round(JOB, 2)
    assert point.outcome == "open"
    assert point.fates == {"a": "counted", "b": "refused: it is far", "c": "awaited: nothing has arrived yet"}


def test_the_best_version_is_found_as_versions_come(store: Store, source: StoreSource) -> None:
    assert polled(source).facts.jobs[JOB].best == 0
    for number in range(3):
        make(store, number)  # with a loss that falls
        assert polled(source).facts.jobs[JOB].best == number + 1


def test_events_come_once_and_none_of_before(store: Store, source: StoreSource) -> None:
    store.events.note("job.submitted", "before", job=JOB)
    store.set_note("a", "1")
    assert polled(source).happened == []
    store.events.note("job.resting", "it is broken", job=JOB, device="d")
    store.set_note("a", "2")
    (event,) = polled(source).happened
    assert (event.kind, event.text, event.job, event.device) == ("job.resting", "it is broken", JOB, "d")
    store.set_note("a", "3")
    assert polled(source).happened == []
    assert [each.text for each in source.readings.events(most=2)] == ["it is broken", "before"]
    assert [each.text for each in source.readings.events(since=event.n - 1)] == ["it is broken"]
    assert source.readings.events(kind="job", before=event.n)[0].text == "before"


def test_events_of_another_store_in_the_same_place_come_too(store: Store, source: StoreSource) -> None:
    for n in range(3):
        store.events.note("job.resting", f"of the first {n}", job=JOB)
        store.set_note("a", str(n))
    polled(source)
    store.close()
    for file in store.folder.glob(f"{FILE}*"):
        file.unlink()
    with_less = Store(store.folder, synced=False)
    with_less.events.note("job.resting", "of the second", job=JOB)
    with_less.set_note("a", "1")
    assert [event.text for event in polled(source).happened] == ["of the second"]
    with_less.close()


def test_more_events_than_are_read_at_once_come_with_the_next_polls(
    store: Store, source: StoreSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_readings, "MOST_EVENTS", 2)
    polled(source)
    for n in range(5):
        store.events.note("job.resting", str(n), job=JOB)
    store.set_note("a", "1")
    assert [event.text for _ in range(3) for event in polled(source).happened] == list("01234")
    assert source.poll() is None


def test_who_has_rows_is_asked_for_now_and_then(store: Store, source: StoreSource, clock: Clock) -> None:
    assert polled(source).facts.devices == frozenset()
    make(store, 0)
    assert polled(source).facts.devices == frozenset()
    clock.now = DEVICES_S
    store.set_note("a", "1")
    assert polled(source).facts.devices == {"a", "b"}


def test_a_curve_and_a_past(store: Store, source: StoreSource) -> None:
    make(store, 0)
    curve = source.readings.curve(JOB)
    assert [(point.number, point.participants, point.bytes_up, point.federated) for point in curve] == [
        (0, 0, None, None),
        (1, 1, 8, None),
    ]
    assert [(one.fate, one.number) for one in source.readings.history("b")] == [("refused: it is far", 1)]
    assert source.readings.spec(JOB)["name"] == "digits"


def test_a_store_that_is_not_there_yet_is_read_once_it_is(tmp_path: Path) -> None:
    source = StoreSource(tmp_path / "state")
    with pytest.raises(StoreError, match="no aggregator run here yet"):
        source.poll()
    Store(tmp_path / "state", synced=False).close()
    assert polled(source).facts.jobs == {}
    source.close()


def test_devices_score_by_the_measure_of_the_job() -> None:
    told: dict[str, Any] = {
        "devices": 3,
        "mean": {"accuracy": 0.9, "loss": 0.3},
        "spread": {"accuracy": 0.1},
        "worst": {"accuracy": ["d3", 0.7]},
    }
    assert spread_of(told, "accuracy") == Spread(0.9, 0.1, 0.7, "d3", "accuracy", 3)
    assert spread_of(told, "rmse") == Spread(0.9, 0.1, 0.7, "d3", "accuracy", 3)
    assert spread_of(told, "loss") == Spread(0.3, None, None, "", "loss", 3)
    assert spread_of({}, "loss") is None
    assert measure_of({"rounds": {"stop": {"metric": "recall:fault"}}}) == "recall:fault"
    assert measure_of({"rounds": {"stop": {"metric": "nonsense"}}}) == "accuracy"


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["mean", "worst", "spread", "rounds", "stop", "metric", "accuracy"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["mean", "worst", "spread", "devices", "rounds"]), ODD))
def test_whatever_lies_there_makes_no_call_fail(odd: dict[str, Any]) -> None:
    spread_of(odd, measure_of(odd))
