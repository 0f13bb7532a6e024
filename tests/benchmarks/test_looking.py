"""The measure of looking on: what stands for many devices and many who look, tables, goals; and all of it, with few."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from aggregator.looking_on import WebSettings
from benchmarks.looking import __main__ as command
from benchmarks.looking import asked, crowd, paint, pairs
from benchmarks.looking.__main__ import GOAL_MS, Size, main, pairs_told, sizes_judged, sizes_told
from benchmarks.looking.asked import Took, Weight
from benchmarks.looking.crowd import CONNECTIONS, Crowd
from benchmarks.looking.pairs import Half, Pair
from benchmarks.looking.told import SilentError, Told
from benchmarks.shown_fleet import until
from broker.memory import MemoryBroker
from broker.wire import Wire
from fleet.console.observer import Observer
from fleet.local.stage import FLEET
from fleet.sight.lookout import WORDS
from fleet.sight.sight import Sight
from fleet.web.app import app
from fleet.web.server import WebServer
from tests.fleet.web.made import JOB, MadeLookout, view

N_DEVICES = 100


@pytest.fixture
def served() -> Iterator[str]:
    """The address of a page of so many devices."""
    made = app(MadeLookout(view(N_DEVICES)), WebSettings())
    failures: list[str] = []
    server = WebServer(made, "127.0.0.1:0", lambda: failures.append("ended"), made.state.hub.close)
    server.start()
    until(lambda: server.port is not None, "a page")
    yield f"http://127.0.0.1:{server.port}/"
    server.stop()
    assert not failures


def size(n: int, ms: float, mb: float) -> Size:
    took = Took(ms / 2, ms, 2 * ms, 43_000, ms / 3)
    names = (command.FIRST, "search by name", "sorted by heat", "/metrics")
    return Size(n, {"nobody looks": 0.5}, mb, n, n, dict.fromkeys(names, took), {"Fleet": Weight(4, 60_000, 9_000)})


# What stands for many.


def test_a_crowd_is_seen_as_so_many_devices_that_can_take_part() -> None:
    broker = MemoryBroker()
    wire, sight = Wire(FLEET), Sight(FLEET)
    ear = Observer(broker.transport("ear"), wire, "ear")
    voices = [Observer(broker.transport(f"voice-{n}"), wire, f"voice-{n}") for n in range(CONNECTIONS)]
    for observer in (ear, *voices):
        observer.__enter__()
    ear.listen(*WORDS)
    many = Crowd(voices, N_DEVICES, JOB)
    many.come()

    def hear(now: float) -> int:
        heard = [said.message for said in iter(ear.take, None) if hasattr(said, "message")]
        for message in heard:
            sight.hear(message, now)
        return len(heard)

    sight.connect(connected=True, now=0.0)
    assert hear(1.0) == 2 * N_DEVICES
    devices = sight.view(2.0).devices
    assert list(devices) == crowd.names(N_DEVICES)
    assert {one.state for one in devices.values()} == {"online"}
    assert all(one.parts[JOB].examples for one in devices.values())
    many.speak()
    assert hear(3.0) == 1, "a four-hundredth of them, and one at least"


def test_viewers_open_streams_read_them_and_say_what_came_of_them(served: str, tmp_path: Path) -> None:
    address = served.removeprefix("http://").rstrip("/")
    with Told("benchmarks.looking.viewers", (address, 3, 1, "/live/", "/live/events"), tmp_path / "log") as viewers:
        assert viewers.tell("open") == {"open": 4, "refused": 0}
        assert json.loads(asked.asked(served, "/api/looking")[2]) == {"streams": 4}
        told = viewers.tell("close")
    assert (told["open"], told["cuts"], told["refused"]) == (4, 0, 0)
    assert told["seconds"] > 0 <= told["cpu_s"]


def test_a_child_that_ends_is_said_with_its_last_words(tmp_path: Path) -> None:
    with (
        Told("benchmarks.looking.crowd", ("not a port", "auto", 1, JOB), tmp_path / "log") as broken,
        pytest.raises(SilentError, match="not a port"),
    ):
        broken.tell("come")


# What is asked.


def test_every_address_is_asked_and_answers(served: str) -> None:
    known = dict(asked.paths_of(JOB, 40, "device-00001"))
    assert {name.removeprefix("sorted by ") for name in known} >= set(asked.SORTS)
    for name, path in known.items():
        if name != "/metrics":  # which stands on an aggregator's state
            found = asked.took(served, os.getpid(), path, 1)
            assert found.n_bytes > 0 < found.first_ms <= found.whole_ms == found.worst_ms, name


def test_the_first_load_counts_the_page_and_all_that_it_names_once(served: str) -> None:
    found = asked.weight(served, "/")
    _, _, html = asked.asked(served, "/")
    assert found.requests == 4, "the page, its icon, its style and its script"
    assert found.sent > len(html) + 10_000
    assert found.zipped < found.sent / 2
    assert asked.weight(served, f"/jobs/{JOB}").requests > found.requests, "it draws curves"


def test_an_answer_that_is_no_page_is_an_error(served: str) -> None:
    with pytest.raises(ValueError, match="404"):
        asked.asked(served, "/devices/nobody")


# What is told.


def test_sizes_stand_beside_each_other_and_are_held_against_their_goals() -> None:
    sizes = [size(10, 5.0, 90.0), size(20_000, GOAL_MS + 1, 151.0)]
    printed = "\n".join(sizes_told(sizes))
    assert "20,000 devices" in printed
    assert "60 kB in 4, gzip 9" in printed
    assert sizes_judged(sizes) == [
        "over its goal: 151 MB at 20,000 devices, where 150 are allowed",
        *(
            f"over its goal: {name} at 20,000 devices takes 301 ms of 300"
            for name in (command.FIRST, "search by name", "sorted by heat")
        ),
    ]


def test_pairs_come_to_the_median_of_their_ratios() -> None:
    without = Half(40.0, 500, 0.05, 0.5)
    found = [Pair(without, structs.replace(without, round_ms=ms)) for ms in (40.0, 44.0, 90.0)]
    assert pairs.ratio(found) == pytest.approx(1.1)
    assert pairs_told(found, 100.0)[-1] == "over its goal: a round takes 1.100 times as long, where 1.05 are allowed"
    assert "over its goal" not in "\n".join(pairs_told(found[:1], 100.0))


def test_paints_and_the_demo_are_told_by_what_was_seen() -> None:
    printed = "\n".join(paint.told([(10, {"first-paint": 61.2}), (20_000, {"first-paint": 75.6})]))
    assert "first-paint" in printed
    assert printed.splitlines()[-1].split() == ["20,000", "76"]
    assert paint.demo_told({"the page answers": 4.21})[-1].split() == ["the", "page", "answers", "4.2"]


def test_without_a_browser_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["--demo"]) == 1
    assert "deploy/need.sh chromium" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--devices", "1"], ["--tries", "0"], ["--pairs", "0"], ["--json", "no/x.json"]])
def test_bad_input_is_a_code_of_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err


# All of it.


@pytest.mark.long
def test_a_small_fleet_is_measured_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    assert main(["--devices", "2", "12", "--seconds", "1", "--tries", "1", "--deadline", "5", "--json", str(file)]) == 0
    few, more = json.loads(file.read_text(encoding="utf-8"))["sizes"]
    assert (few["devices"], more["devices"]) == (2, 12)
    assert all(50 < one["peak_mb"] < 200 for one in (few, more))
    assert more["took"][command.FIRST]["n_bytes"] > few["took"][command.FIRST]["n_bytes"]
    assert "10 streams" in capsys.readouterr().out


@pytest.mark.long
def test_rounds_are_measured_beside_streams_and_without(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    words = ["--streams", "5", "--slow", "1", "--agents", "2", "--pairs", "1", "--seconds", "2", "--json", str(file)]
    assert main(words) == 0
    [pair] = json.loads(file.read_text(encoding="utf-8"))["pairs"]
    assert min(pair["without"]["rounds"], pair["beside"]["rounds"]) > 2
    assert (pair["without"]["open"], pair["beside"]["open"]) == (0, 6)
    assert "the median of the ratios" in capsys.readouterr().out
