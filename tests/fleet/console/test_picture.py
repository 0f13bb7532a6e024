"""A whole fleet on one screen."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from broker.messages import Version
from fleet.console.ink import Ink, width_of
from fleet.console.picture import picture, progress_of
from fleet.sight.view import AggregatorView, DeviceView, Happened, JobView, Part, RoundView, View

NOW = 1000.0
ROUND = RoundView(
    *(Version(1, 4), 1, 990.0, 1030.0, frozenset({"d1", "d2", "d3", "d4"})),
    offered=frozenset({"d1", "d2"}),
    counted=frozenset({"d1"}),
    refused={"d3": "too large"},
)
JOB = JobView("j-1", "digits", "running", Version(1, 4), metrics={"accuracy": 0.91234, "loss": 0.3}, round=ROUND)
DEVICES = {
    "d1": DeviceView("d1", "online", 900.0, heard_at=997.0, doing="counted", job="j-1"),
    "d2": DeviceView("d2", "online", 900.0, heard_at=400.0, doing="training", job="j-1", progress=0.4),
    "d3": DeviceView("d3", "online", 900.0, why="no data", parts={"j-1": Part(trouble="disk \x1b[2J full")}),
    "d4": DeviceView("d4", "offline", 100.0),
}
VIEW = View(
    "home", NOW, connected=True, aggregator=AggregatorView(online=True, term=3), devices=DEVICES, jobs={"j-1": JOB}
)
EVENTS = [Happened(n, 900.0 + n, "device.gone", f"d{n} went") for n in range(9)]


def shown(view: View = VIEW, columns: int = 80, rows: int = 24, **more: Any) -> list[str]:
    return picture(view, more.pop("happened", ()), columns, rows, NOW, Ink(**more))


def test_a_fleet_is_told_of_in_words() -> None:
    text = "\n".join(shown(columns=120))
    for words in (
        "home",
        "term 3",
        "4 devices: 3 online, 1 offline",
        "digits",
        "running",
        "1/4 30 s",
        "accuracy 0.9123",
    ):
        assert words in text
    assert re.search(r"d2 +online +training 40% digits +10 min", text)
    assert re.search(r"d4 +offline +- +-", text)


def test_where_there_is_no_room_for_all_those_come_first_that_need_a_look() -> None:
    many = {f"e{n:03d}": DeviceView(f"e{n:03d}", "online", 1.0) for n in range(50)}
    lines = shown(structs.replace(VIEW, devices=many | DEVICES), rows=12)
    assert len(lines) <= 12
    assert [line[:2] for line in lines[4:6]] == ["d4", "d3"]
    assert "devices more" in lines[-1]


def test_what_is_missing_is_said_first() -> None:
    assert "no connection" in shown(structs.replace(VIEW, connected=False))[1]
    assert "locked" in shown(structs.replace(VIEW, trouble="the store is locked"))[1]
    assert "no aggregator" in shown(structs.replace(VIEW, aggregator=AggregatorView()))[1]


def test_words_of_devices_are_cleaned_and_a_plain_terminal_gets_plain_characters() -> None:
    assert not any("\x1b" in line for line in shown(columns=200))
    assert all(line.isascii() for line in shown(blocks=False, happened=EVENTS))


def test_events_stand_below_the_latest_last() -> None:
    lines = shown(happened=EVENTS)
    assert "d8 went" in lines[-1]
    assert "d7 went" in lines[-2]


def test_progress_is_of_those_that_are_wanted() -> None:
    assert progress_of(ROUND) == (1, 4)
    assert progress_of(structs.replace(ROUND, target=2)) == (1, 2)


@given(st.integers(0, 140), st.integers(0, 40), st.booleans(), st.integers(0, 60))
def test_no_line_is_wider_nor_are_there_more_than_the_screen_has(
    columns: int, rows: int, coloured: bool, n: int
) -> None:
    devices = {f"界{i}": DeviceView(f"界{i}", "online", 1.0, why="界" * i) for i in range(n)}
    jobs = {f"j{i}": structs.replace(JOB, job=f"j{i}", reason="長い" * i) for i in range(n // 2)}
    view = structs.replace(VIEW, devices=devices | DEVICES, jobs=jobs, trouble="x" * n)
    lines = shown(view, columns, rows, coloured=coloured, happened=EVENTS[: n // 5])
    assert len(lines) <= rows
    for line in lines:
        assert width_of(re.sub(r"\x1b\[\d*m", "", line)) <= max(40, columns)
