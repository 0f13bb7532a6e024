from __future__ import annotations

import logging
import re
import signal
import threading
import time
from pathlib import Path
from typing import get_args

import pytest

from runtime.faults import MOST_DEATHS, Fault, Marks, Place, contain, describe, limited


def test_what_an_act_returns_comes_through() -> None:
    assert contain(lambda: 7) == 7
    assert contain(lambda: None) is None


def test_what_an_act_throws_is_a_fault_with_its_type_text_and_place() -> None:
    fault = contain(lambda: {}["weights"])
    assert isinstance(fault, Fault)
    assert re.fullmatch(r"KeyError: 'weights' \(test_faults.py, line \d+\)", fault.why)


def test_what_is_expected_passes_through() -> None:
    with pytest.raises(KeyError):
        contain(lambda: {}["weights"], OSError, KeyError)
    assert isinstance(contain(lambda: {}["weights"], OSError), Fault)


def test_a_module_that_would_end_the_process_is_at_fault() -> None:
    def act() -> None:
        raise SystemExit("a factory's module")

    fault = contain(act)
    assert isinstance(fault, Fault)
    assert fault.why.startswith("SystemExit: a factory's module (")


def test_the_trace_stands_in_the_log_at_debug_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    contain(lambda: 1 / 0)
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_passes_through(kind: type[BaseException]) -> None:
    def act() -> None:
        raise kind

    with pytest.raises(kind):
        contain(act)


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


class NumberError(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class NotedError(Exception):
    __notes__ = 7


@pytest.mark.parametrize(
    "error", [MuteError(), NumberError(), NotedError(), ValueError(), ValueError("\n\t "), OSError()]
)
def test_an_exception_without_a_usable_text_is_still_a_reason(error: Exception) -> None:
    assert describe(error).startswith(type(error).__name__)


def test_a_reason_is_one_printable_line_of_at_most_500_characters() -> None:
    error = ValueError("one\ntwo\r\x1b[31m red \u202e back \ud800 " + "x" * 1000)
    why = describe(error)
    assert why.startswith("ValueError: one two� red � back � x")
    assert why.isprintable()
    assert 300 < len(why) <= 500
    assert why.encode()


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (SyntaxError("invalid syntax"), "SyntaxError: invalid syntax"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_reason_reads_as_in_a_trace(error: Exception, why: str) -> None:
    assert describe(error) == why


# Marks.


def test_a_job_that_comes_to_its_end_leaves_no_mark(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "entered")
    with marks.entered("j-1", "begin", "it was begun"):
        assert (tmp_path / "entered" / "j-1.begin").exists()
    assert list((tmp_path / "entered").iterdir()) == []


def test_what_is_thrown_leaves_no_mark(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    with pytest.raises(RuntimeError), marks.entered("j-1", "begin", "it was begun"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def die(folder: Path, what: str, **more: str) -> Marks:
    """Start a process, and let it die under a mark unless there is a reason not to enter."""
    marks = Marks(folder, kernel=more.pop("kernel", "boot-1"), **more)
    if not marks.reason("j-1"):
        marks.enter("j-1", "train", what)
    return marks


def test_three_deaths_under_one_mark_put_a_job_at_rest(tmp_path: Path) -> None:
    reasons = [die(tmp_path, "training on version 1.0").reason("j-1") for _ in range(MOST_DEATHS + 3)]
    assert [bool(reason) for reason in reasons] == [False] * MOST_DEATHS + [True] * 3
    assert "have died while training on version 1.0" in reasons[-1]
    assert Marks(tmp_path, kernel="boot-1").reason("j-2") == ""


def test_it_is_the_same_mark_whatever_version_is_trained_on(tmp_path: Path) -> None:
    reasons = [die(tmp_path, f"training on version 1.{n}").reason("j-1") for n in range(MOST_DEATHS + 1)]
    assert reasons[-1]


def test_what_was_gained_between_deaths_begins_anew(tmp_path: Path) -> None:
    for n in range(10):
        marks = die(tmp_path, "training on version 1.0")
        assert not marks.reason("j-1")
        assert marks.has_deaths("j-1", "train") == (n > 0)
        marks.gain("j-1", "train")
        assert not marks.has_deaths("j-1", "train")


def test_what_goes_well_in_one_place_says_nothing_of_the_deaths_in_another(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS):
        marks = die(tmp_path, "training on version 1.0")
        with marks.entered("j-1", "begin", "it was begun"):
            pass
    assert Marks(tmp_path, kernel="boot-1").reason("j-1")
    marks.leave("j-1", "begin")
    assert (tmp_path / "j-1.train").exists()
    marks.leave("j-1")
    assert list(tmp_path.iterdir()) == []


def test_who_is_tried_again_after_a_rest_has_one_death_and_rests_ever_longer(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS):
        die(tmp_path, "training")
    for rests in range(4):
        marks = Marks(tmp_path, kernel="boot-1")
        assert marks.reason("j-1")
        assert marks.forgive("j-1") == rests
        assert not marks.reason("j-1")
        marks.enter("j-1", "train", "training")
    marks = Marks(tmp_path, kernel="boot-1")
    assert marks.forgive("j-2") == 0
    marks.forgive("j-1")
    marks.gain("j-1", "train")
    for _ in range(MOST_DEATHS - 1):
        assert not die(tmp_path, "training").reason("j-1")


def test_what_does_not_come_to_an_end_is_thrown_out_and_is_a_fault(tmp_path: Path) -> None:
    marks = Marks(tmp_path)

    def hang() -> None:
        with marks.entered("j-1", "begin", "it was begun", most_s=0.05):
            time.sleep(1000)

    fault = contain(hang, OSError)
    assert isinstance(fault, Fault)
    assert fault.why.startswith("EndlessError: it did not come to an end within 0.05 s")
    assert list(tmp_path.iterdir()) == []
    with limited(1000.0):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_another_thread_is_not_interrupted() -> None:
    found = []

    def work() -> None:
        with limited(0.001):
            found.append(signal.getitimer(signal.ITIMER_REAL)[0])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0.0]


def test_who_steps_out_is_not_to_blame_for_what_ends_the_process(tmp_path: Path) -> None:
    for _ in range(10):
        marks = die(tmp_path, "training on version 1.0")
        marks.step_out("j-1", "train")
        marks.step_out("j-1", "train")
        assert list(tmp_path.iterdir()) == [], "it had not died before either"
    assert not marks.reason("j-1")
    marks.enter("j-1", "train", "training on version 1.0")
    assert (tmp_path / "j-1.train").exists(), "it has its turn again"


def test_who_steps_out_keeps_the_deaths_before(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS):
        die(tmp_path, "training")
        die(tmp_path, "training").step_out("j-1", "train")
        Marks(tmp_path, kernel="boot-1")  # a process that ends where nobody is inside
    assert Marks(tmp_path, kernel="boot-1").reason("j-1").startswith(f"{MOST_DEATHS} processes")


def test_who_steps_out_after_a_death_is_not_to_blame_for_the_next_ones(tmp_path: Path) -> None:
    die(tmp_path, "training")
    for _ in range(10):
        die(tmp_path, "training").step_out("j-1", "train")
    assert not Marks(tmp_path, kernel="boot-1").reason("j-1")
    die(tmp_path, "training")
    assert not Marks(tmp_path, kernel="boot-1").reason("j-1")
    die(tmp_path, "training")
    assert Marks(tmp_path, kernel="boot-1").reason("j-1").startswith("3 processes")


def test_there_is_nothing_to_forgive_before_three_deaths(tmp_path: Path) -> None:
    assert die(tmp_path, "training").forgive("j-1") == 0
    for _ in range(MOST_DEATHS - 1):
        marks = die(tmp_path, "training")
        assert not marks.reason("j-1")
        assert marks.forgive("j-1") == 0
    assert Marks(tmp_path, kernel="boot-1").reason("j-1").startswith(f"{MOST_DEATHS} processes")


def test_what_was_forgiven_is_known_to_the_next_process(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS):
        die(tmp_path, "training")
    Marks(tmp_path, kernel="boot-1").forgive("j-1")
    assert not Marks(tmp_path, kernel="boot-1").reason("j-1")


def test_what_was_gained_after_a_rest_takes_three_deaths_again(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS):
        marks = die(tmp_path, "training")
    marks = Marks(tmp_path, kernel="boot-1")
    marks.forgive("j-1")
    marks.enter("j-1", "train", "training")
    marks.gain("j-1", "train")
    marks.step_out("j-1", "train")
    reasons = [bool(die(tmp_path, "training").reason("j-1")) for _ in range(MOST_DEATHS + 1)]
    assert reasons == [False] * MOST_DEATHS + [True]


def test_a_job_that_is_forgotten_leaves_no_mark_in_any_place(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    for place in get_args(Place):
        marks.enter("j-1", place, "it was tried")
    marks.enter("j-2", "train", "it was tried")
    marks.leave("j-1")
    assert [mark.name for mark in tmp_path.iterdir()] == ["j-2.train"]


def test_a_death_counts_once_however_often_the_process_is_started_after_it(tmp_path: Path) -> None:
    die(tmp_path, "training")
    for _ in range(10):
        assert not Marks(tmp_path, kernel="boot-1").reason("j-1")


def test_a_reason_says_how_to_have_it_tried_again(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS + 1):
        marks = die(tmp_path, "training")
    assert str(tmp_path / "j-1.train") in marks.reason("j-1")
    (tmp_path / "j-1.train").unlink()
    assert not Marks(tmp_path, kernel="boot-1").reason("j-1")


def test_a_power_cut_is_nobodys_fault(tmp_path: Path) -> None:
    for boot in range(10):
        assert not die(tmp_path, "training", kernel=f"boot-{boot}").reason("j-1")


def test_another_version_of_the_software_gets_a_new_chance(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS + 1):
        die(tmp_path, "training", software="1")
    assert Marks(tmp_path, "1", "boot-1").reason("j-1")
    assert not Marks(tmp_path, "2", "boot-1").reason("j-1")


def test_a_mark_that_has_rotted_is_no_mark(tmp_path: Path) -> None:
    for content in (b"", b"\xff", b"[]", b'{"what": 1}'):
        (tmp_path / "j-1.train").write_bytes(content)
        assert Marks(tmp_path).reason("j-1") == ""
        assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_mark_keeps_nobody_from_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Marks(tmp_path / "file").entered("j-1", "begin", "it was begun"):
        pass
