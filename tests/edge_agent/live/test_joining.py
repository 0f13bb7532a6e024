from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.live.joining import MOST_GROUPS, Join, Reading, Row


def reading(group: str = "", **values: float | str) -> Reading:
    return Reading(group, values)


def test_without_a_period_a_message_is_a_row_with_the_label_that_holds() -> None:
    join = Join(label="y")
    assert join.take(reading(t=1.0), 10.0) == [Row(10.0, "", {"t": 1.0})]
    join.label("run")
    assert join.take(reading(t=2.0), 11.0) == [Row(11.0, "", {"t": 2.0, "y": "run"})]
    assert join.due_at == math.inf
    assert join.tick(1e9) == []


def test_with_a_period_a_row_has_the_last_value_of_each_topic_in_its_slot_and_is_given_when_the_slot_is_over() -> None:
    join = Join(period_s=1.0)
    assert join.take(reading(t=1.0), 10.1) == []
    assert join.take(reading(v=5.0), 10.4) == []
    assert join.take(reading(t=2.0), 10.9) == []
    assert join.due_at == 11.0
    assert join.tick(10.99) == []
    assert join.tick(11.0) == [Row(11.0, "", {"t": 2.0, "v": 5.0})]
    assert join.tick(12.0) == []


def test_a_reading_of_the_next_slot_gives_the_row_of_the_one_before() -> None:
    join = Join(period_s=1.0)
    join.take(reading(t=1.0), 10.1)
    assert join.take(reading(t=2.0), 11.0) == [Row(11.0, "", {"t": 1.0})]


def test_a_slow_topic_stands_for_as_long_as_the_tolerance_says_and_is_missing_then() -> None:
    join = Join(period_s=1.0, tolerance_s=2.0)
    join.take(reading(slow=7.0, t=0.0), 10.5)
    rows = [row for at in (11, 12, 13, 14) for row in (join.take(reading(t=float(at)), at + 0.5) or [])]
    assert [row.values.get("slow") for row in [*rows, *join.tick(20.0)]] == [7.0, 7.0, 7.0, None, None]


def test_where_nothing_comes_there_are_no_rows() -> None:
    join = Join(period_s=1.0, tolerance_s=100.0)
    join.take(reading(t=1.0), 10.5)
    assert len(join.tick(50.0)) == 1
    assert join.tick(51.0) == []
    assert join.take(reading(t=2.0), 60.5) == []


def test_after_a_loss_of_the_connection_neither_value_nor_label_is_believed() -> None:
    join = Join(period_s=1.0, tolerance_s=100.0, label="y")
    join.label("run")
    join.take(reading(slow=7.0), 10.5)
    join.forget()
    assert not join.has_label
    join.take(reading(t=1.0), 12.5)
    assert join.tick(13.0) == [Row(13.0, "", {"t": 1.0})]


def test_a_message_that_comes_twice_changes_nothing_with_a_period() -> None:
    once, twice = Join(period_s=1.0), Join(period_s=1.0)
    once.take(reading(t=1.0), 10.1)
    for _ in range(2):
        twice.take(reading(t=1.0), 10.1)
    assert once.tick(11.0) == twice.tick(11.0)


def test_where_the_clock_is_put_back_the_slot_is_over_and_values_from_the_future_are_not_used() -> None:
    join = Join(period_s=1.0, tolerance_s=1e6)
    join.take(reading(slow=7.0), 1000.5)
    assert join.take(reading(t=1.0), 10.5) == [Row(1001.0, "", {"slow": 7.0})]
    assert join.tick(11.0) == [Row(11.0, "", {"t": 1.0})]


def test_groups_have_rows_of_their_own_and_what_is_of_no_group_is_in_all_of_them() -> None:
    join = Join(period_s=1.0, is_grouped=True)
    join.take(reading(room=20.0), 10.1)
    join.take(reading("a", v=1.0), 10.2)
    join.take(reading("b", v=2.0), 10.3)
    assert join.tick(11.0) == [Row(11.0, "a", {"room": 20.0, "v": 1.0}), Row(11.0, "b", {"room": 20.0, "v": 2.0})]
    join.take(reading(room=21.0), 11.1)
    assert join.tick(12.0) == []


def test_there_are_only_so_many_groups() -> None:
    join = Join(period_s=1.0, is_grouped=True)
    for i in range(MOST_GROUPS):
        assert join.take(reading(f"g{i}", v=1.0), 10.5) == []
    assert join.take(reading("one more", v=1.0), 10.5) is None
    assert len(join.tick(11.0)) == MOST_GROUPS


@given(
    st.lists(st.tuples(st.floats(0, 30), st.sampled_from("abc"), st.integers(0, 9)), max_size=40),
    st.floats(0.1, 5),
    st.floats(0, 5),
)
def test_every_value_of_a_row_was_the_last_word_of_its_topic_within_the_tolerance(
    said: list[tuple[float, str, int]], period_s: float, tolerance_s: float
) -> None:
    """Held against a join by hand, over the whole history at once."""
    said = sorted(said, key=lambda one: one[0])
    join, rows = Join(period_s=period_s, tolerance_s=tolerance_s), []
    for at, name, value in said:
        rows += join.take(Reading("", {name: float(value)}), at) or []
    rows += join.tick(1e6)
    slots = sorted({math.floor(at / period_s) for at, _, _ in said})
    wanted = []
    for slot in slots:
        begin, end = slot * period_s, (slot + 1) * period_s
        values = {
            name: float(value)
            for at, name, value in said
            if math.floor(at / period_s) <= slot and at >= begin - tolerance_s and at < end
        }
        wanted.append((end, values))
    assert [(row.at, row.values) for row in rows] == wanted
