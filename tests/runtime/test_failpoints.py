from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import Struct

from runtime import failpoints

PROGRAM = """
from runtime.failpoints import reach
for i in range(3):
    reach("here.before", {"i": i})
    print(i, flush=True)
reach("there")
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that passes `here.before` three times and `there` once."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def points(trace: Path) -> list[list[object]]:
    return [json.loads(line)[2:] for line in trace.read_text().splitlines()]


def test_without_the_variables_nothing_happens() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n")


def test_a_process_dies_as_by_kill_9_when_it_reaches_its_point() -> None:
    done = run(FEDGE_FAILPOINT="here.before")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_a_count_says_how_many_times_the_point_is_reached_before() -> None:
    assert run(FEDGE_FAILPOINT="here.before:3").stdout == "0\n1\n"


def test_of_several_points_the_first_one_reached_is_the_end() -> None:
    assert run(FEDGE_FAILPOINT="there,here.before:2").stdout == "0\n"


def test_a_point_that_is_reached_too_seldom_does_no_harm() -> None:
    assert run(FEDGE_FAILPOINT="here.before:4,nowhere").returncode == 0


def test_the_diary_has_every_point_in_order_and_the_deadly_one_last(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    run(FEDGE_FAILPOINT="here.before:2", FEDGE_TRACE=str(trace))
    run(FEDGE_TRACE=str(trace))
    first, second, *rest = points(trace)
    assert [first, second] == [["here.before", {"i": 0}], ["here.before", {"i": 1}]]
    assert [point for point, _ in rest] == ["here.before"] * 3 + ["there"]
    assert len({json.loads(line)[1] for line in trace.read_text().splitlines()}) == 2


def test_an_effect_stands_in_the_diary_with_its_fields(tmp_path: Path) -> None:
    class Effect(Struct):
        base: tuple[int, int]
        body: bytes

    trail = failpoints.points_of({failpoints.TRACE: str(tmp_path / "trace")})
    assert trail is not None
    trail.reach("agent.Effect.after", Effect((1, 2), b"abc"))
    assert points(tmp_path / "trace") == [["agent.Effect.after", {"base": [1, 2], "body": "YWJj"}]]


@pytest.mark.parametrize("text", [":1", "here:0", "here:-1", "here:x", "here:1:2"])
def test_nonsense_in_the_variable_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="FEDGE_FAILPOINT"):
        failpoints.points_of({failpoints.FAILPOINT: text})


def test_nothing_asked_is_no_trail() -> None:
    assert failpoints.points_of({}) is None
    assert failpoints.parse("") == {}
