from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import reading
from edge_agent.reading import Readings, Start, inline, threads
from runtime.faults import EndlessError, Marks


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path)


def until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 120.0
    while not holds():
        assert time.monotonic() < give_up_at, "it does not come true"
        time.sleep(0.001)


STARTS: dict[str, Start] = {"inline": inline, "threads": threads(lambda: None)}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_what_is_read_and_what_is_thrown_comes_in_the_future(start: Start, marks: Marks, tmp_path: Path) -> None:
    def fail() -> int:
        raise KeyError("a")

    def end() -> int:
        raise SystemExit(3)

    readings = Readings(start, marks)
    futures = [readings.ask("j", act) for act in (lambda: 7, fail, end)]
    until(lambda: not readings.ended() and not readings.busy)
    assert futures[0].result() == 7
    assert isinstance(futures[1].exception(), KeyError)
    assert isinstance(futures[2].exception(), SystemExit)
    assert list(tmp_path.iterdir()) == []


def test_in_line_it_is_done_when_it_is_asked_for(marks: Marks) -> None:
    readings = Readings(inline, marks)
    assert readings.ask("j", threading.get_ident).result(0.0) == threading.get_ident()
    assert (readings.busy, readings.ended()) == (False, [])


def test_on_threads_one_thing_is_read_at_a_time_in_order_each_under_its_jobs_mark(marks: Marks, tmp_path: Path) -> None:
    at_work: list[str] = []
    most: list[int] = []
    found: list[list[str]] = []
    woken = threading.Event()

    def read(job: str) -> Callable[[], str]:
        def act() -> str:
            at_work.append(job)
            most.append(len(at_work))
            found.append([path.name for path in tmp_path.iterdir()])
            time.sleep(0.01)
            at_work.remove(job)
            return job

        return act

    readings = Readings(threads(woken.set), marks)
    for job in "abc":
        readings.ask(job, read(job))
    ended: list[str] = []
    while len(ended) < 3:
        assert readings.busy
        assert woken.wait(120.0)
        woken.clear()
        ended += readings.ended()
    assert (ended, most) == (["a", "b", "c"], [1, 1, 1])
    assert found == [["a.read"], ["b.read"], ["c.read"]]
    assert not readings.busy


def test_what_is_forgotten_before_its_turn_is_not_read(marks: Marks) -> None:
    go_on, read = threading.Event(), []
    readings = Readings(threads(lambda: None), marks)
    first = readings.ask("a", lambda: go_on.wait(120.0))
    readings.ask("b", lambda: read.append("b"))
    readings.ask("c", lambda: read.append("c"))
    readings.forget("b")
    go_on.set()
    assert first.result(30.0)
    until(lambda: readings.ended() == ["c"] or not readings.busy)
    assert read == ["c"]


def test_a_loop_of_python_that_does_not_end_is_stopped_and_the_next_is_read(
    marks: Marks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun, stopped = threading.Event(), threading.Event()

    def turn() -> None:
        begun.set()
        try:
            while True:
                pass
        finally:
            stopped.set()

    readings = Readings(threads(lambda: None), marks)
    hanging, after = readings.ask("a", turn), readings.ask("b", lambda: 7)
    assert begun.wait(120.0)
    assert readings.ended() == []
    monkeypatch.setattr(reading, "READ_S", 0.0)
    assert readings.ended()[0] == "a"
    monkeypatch.setattr(reading, "READ_S", 600.0)
    with pytest.raises(EndlessError, match="its data were not read within 0 s"):
        hanging.result(0.0)
    assert stopped.wait(120.0)
    until(lambda: after.done())
    until(lambda: not readings.busy or bool(readings.ended()))
    assert list(tmp_path.iterdir()) == []


def test_in_line_too_what_does_not_come_to_an_end_is_stopped(marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_S", 0.05)
    hanging = Readings(inline, marks).ask("a", lambda: time.sleep(30.0))
    with pytest.raises(EndlessError, match=r"within 0\.05 s"):
        hanging.result(0.0)


def test_what_comes_to_its_end_when_it_is_about_to_be_given_up_counts(
    marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = Readings(threads(lambda: None), marks)
    future = readings.ask("a", lambda: 7)
    assert future.result(30.0) == 7
    monkeypatch.setattr(reading, "READ_S", 0.0)
    assert readings.ended() == ["a"]
    assert future.result() == 7


def thread_of(readings: Readings) -> threading.Thread:
    """Return the thread that something is read on now."""
    assert readings._current is not None
    assert readings._current.thread is not None
    return readings._current.thread


def test_a_reading_that_hangs_keeps_no_process_from_ending(marks: Marks) -> None:
    go_on = threading.Event()
    readings = Readings(threads(lambda: None), marks)
    readings.ask("a", lambda: go_on.wait(120.0))
    thread = thread_of(readings)
    assert thread.daemon
    readings.close()
    go_on.set()


def test_one_thread_does_one_reading_after_the_other_and_ends_with_who_asks(marks: Marks) -> None:
    readings = Readings(threads(lambda: None), marks)
    found = set()
    for number in range(5):
        future = readings.ask("a", lambda number=number: number)
        found.add(thread_of(readings))
        assert future.result(30.0) == number
        assert readings.ended() == ["a"]
    (thread,) = found
    del readings
    gc.collect()
    thread.join(120.0)
    assert not thread.is_alive()


def test_a_thread_that_was_given_up_is_not_asked_again(marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    readings = Readings(threads(lambda: None), marks)
    readings.ask("a", lambda: go_on.wait(120.0))
    first = thread_of(readings)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "READ_S", 0.0)
        assert readings.ended() == ["a"]
    future = readings.ask("b", lambda: 7)
    assert thread_of(readings) is not first
    assert future.result(30.0) == 7
    go_on.set()
    first.join(120.0)
    assert not first.is_alive()


def test_where_no_thread_can_be_made_nothing_waits_for_it(marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    readings = Readings(threads(lambda: None), marks)
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        readings.ask("j", lambda: 7).result(0.0)
    assert not readings.busy
