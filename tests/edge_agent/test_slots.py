"""Slots in an executor of the test's own; the last tests use the thread and the child that an agent has."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

import edge_agent.slot as slot_module
from broker.messages import Int8, Version
from edge_agent import files, slots
from edge_agent.card import Release, SlotError
from edge_agent.quantising import Quantised, Wish
from edge_agent.slot import Slot, open_slot
from edge_agent.slots import Install, InstallOutcome, Slots, slot_path
from models.job import ModelSpec
from models.nets.table import build
from models.serving import session
from models.serving.session import Session

MODEL = ModelSpec(inputs=3, hidden=(5,), outputs=4)
NET = build(MODEL)
X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)


class Later(Executor):
    """What is submitted waits until `run`, in the caller's thread."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.waiting: list[Callable[[], object]] = []
        self.is_down = False

    def submit(self, act: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self.waiting.append(lambda: act(*arguments, **named))
        if self.at_once:
            self.run()
        return Future()

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.is_down = wait and cancel_futures


def install(number: int = 1, name: str = "digits") -> Install:
    generator = np.random.default_rng(number)
    params = {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in NET.spec}
    return Install(name, Release(f"{name}-1", 1, number, f"{number:064x}"), MODEL, params)


@pytest.fixture(autouse=True)
def numpy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "probe", lambda: "no onnxruntime in this test")
    monkeypatch.setattr(slot_module, "export", lambda *_, **__: "no ONNX in this test")


def at_once(folder: Path, **more: Any) -> Slots:
    return Slots(folder, (), executor=Later(at_once=True), **more)


def number_in(folder: Path, name: str = "digits") -> int | None:
    version = Slots(folder, (), executor=Later()).deployed(f"{name}-1", name)
    return None if version is None else version.number


# What comes of an install.


def test_an_install_that_is_served_has_an_outcome_without_a_reason(tmp_path: Path) -> None:
    woken: list[str] = []
    all_slots = at_once(tmp_path, wake=lambda: woken.append("wake"))
    assert all_slots.finished() == []
    one = install()
    all_slots.put(one)
    assert woken == ["wake"]
    assert all_slots.finished() == [InstallOutcome("digits", one.release, "")]
    assert all_slots.finished() == []
    assert all_slots.deployed("digits-1", "digits") == Version(1, 1)
    assert all_slots.deployed("digits-2", "digits") is None
    assert all_slots.deployed("other-1", "other") is None


def test_an_install_on_a_full_disk_has_an_outcome_with_the_reason_and_can_be_put_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    all_slots, one = at_once(tmp_path), install()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        all_slots.put(one)
    assert all_slots.finished() == [
        InstallOutcome("digits", one.release, "OSError: [Errno 28] No space left on device")
    ]
    assert all_slots.deployed("digits-1", "digits") is None
    all_slots.put(one)
    assert all_slots.finished() == [InstallOutcome("digits", one.release, "")]
    assert all_slots.deployed("digits-1", "digits") == Version(1, 1)


def test_what_has_come_of_int8_is_known_after_an_install_and_after_a_start_and_goes_with_the_slot(
    tmp_path: Path,
) -> None:
    all_slots = at_once(tmp_path, keep=0)
    all_slots.put(structs.replace(install(4), wish=Wish(0.01, None, "its rows cannot be read")))
    told = {"digits-1": Int8(Version(1, 4), 0.0, 0.0, "there is no model.onnx here")}
    assert all_slots.int8() == told
    later = at_once(tmp_path, keep=0)
    assert later.int8() == {}
    assert later.deployed("digits-1", "digits") == Version(1, 4)
    assert later.int8() == told
    later.sweep([])
    assert later.int8() == {}
    all_slots.put(install(5))
    assert all_slots.int8() == {}, "a job that wants none says nothing"


def test_what_is_told_of_int8_is_bounded() -> None:
    worst = Quantised("x" * 500, "r2", 40, float32=1.0, int8=-1e12, speedup=2.0)
    assert worst.told(Version(1, 1)) == Int8(Version(1, 1), 1e9, 2.0, "x" * 200)


THROWN = [
    RuntimeError("anything"),
    MemoryError(),
    KeyError("a"),
    ZeroDivisionError(),
    OSError(),
    RecursionError(),
    AssertionError(),
]


@pytest.mark.parametrize("error", THROWN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["_slot", "_is_usable", "install", "_write", "_try", "_tidy"])
def test_whatever_an_install_throws_is_an_outcome_and_the_next_one_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    all_slots = at_once(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Slots if where in ("_slot", "_is_usable") else Slot, where, fail)
        all_slots.put(install(1))
    (outcome,) = all_slots.finished()
    assert outcome.why.startswith(type(error).__name__)
    all_slots.put(install(2))
    assert all_slots.finished() == [InstallOutcome("digits", install(2).release, "")]
    assert number_in(tmp_path) == 2


def test_a_reason_has_at_most_500_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise slot_module.ModelError("x" * 9999)

    monkeypatch.setattr(Slot, "_try", fail)
    all_slots = at_once(tmp_path)
    all_slots.put(install())
    (outcome,) = all_slots.finished()
    assert 300 < len(outcome.why) <= 500


def test_an_error_without_a_text_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SlotError

    monkeypatch.setattr(Slot, "_try", fail)
    all_slots = at_once(tmp_path)
    all_slots.put(install())
    assert [outcome.why for outcome in all_slots.finished()] == ["SlotError"]


def test_what_is_no_exception_passes_through_and_is_an_outcome_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    all_slots = at_once(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Slot, "install", fail)
        with pytest.raises(KeyboardInterrupt):
            all_slots.put(install(1))
    assert [outcome.why for outcome in all_slots.finished()] == ["the install was broken off"]
    all_slots.put(install(2))
    assert [outcome.why for outcome in all_slots.finished()] == [""]


def test_after_an_exception_the_child_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError  # an answer half read would be taken for the next one

    made: list[Quiet] = []

    class Quiet(Session):
        def __init__(self) -> None:
            self.closed = False
            made.append(self)

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(session, "probe", lambda: None)
    monkeypatch.setattr(slots, "Session", Quiet)
    monkeypatch.setattr(Slot, "install", fail)
    all_slots = at_once(tmp_path)
    all_slots.put(install(1))
    all_slots.put(install(2))
    assert [child.closed for child in made] == [True, True]


# Which installs are done.


def test_an_install_that_waits_is_passed_over_for_a_newer_one_and_has_no_outcome(tmp_path: Path) -> None:
    later = Later()
    all_slots = Slots(tmp_path, (), executor=later)
    for number in range(1, 4):
        all_slots.put(install(number))
    all_slots.put(install(1, "other"))
    later.run()
    assert all_slots.finished() == [
        InstallOutcome("digits", install(3).release, ""),
        InstallOutcome("other", install(1, "other").release, ""),
    ]
    assert number_in(tmp_path) == 3


def test_one_that_comes_while_another_is_under_way_is_done_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = Later()
    all_slots = Slots(tmp_path, (), executor=later)
    once = iter([2])

    def put_another(*_: object) -> None:
        for number in once:
            all_slots.put(install(number))

    monkeypatch.setattr(slot_module, "reach", put_another)
    all_slots.put(install(1))
    later.run()
    assert [(outcome.release.number, outcome.why) for outcome in all_slots.finished()] == [(1, ""), (2, "")]
    assert number_in(tmp_path) == 2


def test_the_same_install_can_be_put_again(tmp_path: Path) -> None:
    all_slots, one = at_once(tmp_path), install()
    all_slots.put(one)
    all_slots.put(one)
    assert len(all_slots.finished()) == 2


def test_params_are_not_held_once_they_are_installed(tmp_path: Path) -> None:
    all_slots = at_once(tmp_path)
    all_slots.put(install())
    assert all_slots._newest == {}


def test_closing_waits_for_the_executor_and_drops_what_waits(tmp_path: Path) -> None:
    later = Later()
    Slots(tmp_path, (), executor=later).close()
    assert later.is_down


@pytest.mark.parametrize("card", [b"\xff", b'{"release":{"job":"\xff"}}', b"[" * 100_000])
def test_a_slot_that_cannot_be_read_holds_nothing(tmp_path: Path, card: bytes) -> None:
    all_slots = at_once(tmp_path)
    all_slots.put(install())
    (slot_path(tmp_path, "digits") / "model.json").write_bytes(card)
    assert all_slots.deployed("digits-1", "digits") is None


# Sweeping.


def filled(folder: Path, *names: str, **more: Any) -> Slots:
    all_slots = at_once(folder, **more)
    for name in names:
        all_slots.put(install(1, name))
    assert [outcome.why for outcome in all_slots.finished()] == [""] * len(names)
    return all_slots


def left(folder: Path) -> list[str]:
    models = folder / "models"
    return sorted(path.name for path in models.iterdir()) if models.exists() else []


def test_all_slots_are_kept_when_nothing_is_said(tmp_path: Path) -> None:
    filled(tmp_path, "a", "b", "c").sweep([])
    assert left(tmp_path) == ["a", "b", "c"]


def test_of_the_slots_of_jobs_that_are_over_the_last_installed_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    all_slots = filled(tmp_path, "d", "a", "c", "b", "e", keep=2)
    all_slots.sweep({"a", "nobody"})
    assert left(tmp_path) == ["a", "b", "e"]
    removed = [r.getMessage() for r in caplog.records if "model=removed" in r.getMessage()]
    assert [message.split("slot=")[1].split(":")[0] for message in removed] == [
        str(slot_path(tmp_path, name)) for name in ("c", "d")
    ]
    all_slots.sweep(["a"])
    assert left(tmp_path) == ["a", "b", "e"]


def test_an_install_renews_its_slot(tmp_path: Path) -> None:
    all_slots = filled(tmp_path, "a", "b", "c", keep=1)
    all_slots.put(install(2, "a"))
    all_slots.sweep([])
    assert left(tmp_path) == ["a"]


def test_a_device_that_woke_up_in_1970_keeps_what_it_installed_last(tmp_path: Path) -> None:
    filled(tmp_path, "a", "b")
    for name, year in (("a", 2030), ("b", 2060)):
        at = (year - 1970) * 31_556_952
        os.utime(slot_path(tmp_path, name) / "current", (at, at), follow_symlinks=False)
    filled(tmp_path, "c", "d", keep=2).sweep([])  # as if long before the other two
    assert left(tmp_path) == ["c", "d"]


def test_a_slot_that_is_swept_can_be_installed_again(tmp_path: Path) -> None:
    all_slots = filled(tmp_path, "a", "b", keep=1)
    all_slots.sweep([])
    assert all_slots.deployed("a-1", "a") is None
    all_slots.put(install(2, "a"))
    assert [outcome.why for outcome in all_slots.finished()] == [""]
    assert number_in(tmp_path, "a") == 2
    all_slots.sweep([])
    assert left(tmp_path) == ["a"]


def test_a_slot_with_an_install_that_waits_or_is_under_way_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, "a", "b", "c")
    later = Later()
    all_slots = Slots(tmp_path, (), keep=1, executor=later)
    all_slots.put(install(2, "a"))
    all_slots.sweep([])
    assert left(tmp_path) == ["a", "c"]
    seen: list[list[str]] = []

    def sweep(*_: object) -> None:
        all_slots.sweep([])
        seen.append(left(tmp_path))

    monkeypatch.setattr(slot_module, "reach", sweep)
    later.run()
    assert seen == [["a", "c"]] * 2
    assert [outcome.why for outcome in all_slots.finished()] == [""]
    assert number_in(tmp_path, "a") == 2


def test_what_is_no_slot_is_left_alone(tmp_path: Path) -> None:
    filled(tmp_path, "a", "b")
    models = tmp_path / "models"
    (models / "notes.txt").write_text("mine")
    (models / "mine").mkdir()
    (models / "mine" / "model.onnx").write_bytes(b"mine")
    (models / "also-mine").mkdir()
    (models / "also-mine" / "current").symlink_to("elsewhere/7")
    (models / "begun" / "versions" / "1-1-x").mkdir(parents=True)
    (models / ".hidden").mkdir()
    (models / "elsewhere").symlink_to(models / "a")
    before = set(left(tmp_path))
    at_once(tmp_path, keep=1).sweep([])
    assert set(left(tmp_path)) == before - {"a"}
    assert (models / "mine" / "model.onnx").read_bytes() == b"mine"


def test_a_reader_keeps_what_it_has_open_and_finds_a_model_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_slots = filled(tmp_path, "a", "b", keep=1)
    slot = slot_path(tmp_path, "a")
    content = (slot / "model.npz").read_bytes()
    found: list[bytes | None] = []

    def look(*_: object) -> None:
        found.append((slot / "model.npz").read_bytes() if (slot / "model.npz").exists() else None)

    sync_folder, rmtree = files.sync_folder, slots.shutil.rmtree
    monkeypatch.setattr(files, "sync_folder", lambda folder: [look(), sync_folder(folder), look()])
    monkeypatch.setattr(slots.shutil, "rmtree", lambda *a, **k: [look(), rmtree(*a, **k), look()])
    with (slot / "model.npz").open("rb") as reader:
        all_slots.sweep([])
        assert reader.read() == content
    assert set(found) <= {content, None}
    assert found[-1] is None
    with pytest.raises(SlotError, match="no model is installed"):
        open_slot(slot)


class CutError(BaseException):
    """The power is cut."""


@pytest.mark.parametrize("act", ["rename", "fsync", "unlink", "rmdir"])
def test_a_cut_in_the_middle_leaves_a_whole_slot_or_none_and_the_next_sweep_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    all_slots = filled(tmp_path, "a", "b", keep=1)

    def cut(*_: object, **__: object) -> None:
        raise CutError

    with monkeypatch.context() as patch:
        patch.setattr(os, act, cut)
        with pytest.raises(CutError):
            all_slots.sweep([])
    assert number_in(tmp_path, "a") == (1 if act == "rename" else None)
    assert (slot_path(tmp_path, "a")).exists() == (act == "rename")
    filled(tmp_path, keep=1).sweep([])
    assert left(tmp_path) == ["b"]


def test_a_slot_is_out_of_sight_on_disk_before_a_file_of_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_slots = filled(tmp_path, "a", "b", keep=1)
    acts: list[str] = []
    for name in ("rename", "fsync", "unlink", "rmdir"):
        original = getattr(os, name)

        def note(*arguments: Any, _name: str = name, _original: Any = original, **more: Any) -> None:
            acts.append(_name)
            _original(*arguments, **more)

        monkeypatch.setattr(os, name, note)
    all_slots.sweep([])
    assert acts[:3] == ["rename", "fsync", "unlink"]


def test_a_sweep_that_the_disk_refuses_is_a_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    all_slots = filled(tmp_path, "a", "b", keep=1)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        all_slots.sweep([])
    assert "model=not removed" in caplog.text
    assert "Read-only file system" in caplog.text
    assert left(tmp_path) == ["a", "b"]
    all_slots.sweep([])
    assert left(tmp_path) == ["b"]


def test_a_sweep_where_nothing_was_ever_installed_does_nothing(tmp_path: Path) -> None:
    at_once(tmp_path, keep=1).sweep(["a"])
    assert list(tmp_path.iterdir()) == []


def test_the_children_of_jobs_that_are_over_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Path] = []
    monkeypatch.setattr(Slot, "close", lambda slot: closed.append(slot._path))
    filled(tmp_path, "a", "b", "c").sweep(["b"])
    assert closed == [slot_path(tmp_path, "a"), slot_path(tmp_path, "c")]
    assert left(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_installed_and_swept_the_rule_holds(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- a made-up life, no secret
    keep = rng.randint(1, 3)
    all_slots = at_once(tmp_path, keep=keep)
    names, order = list("abcdef"), list[str]()
    for number in range(1, 15):
        if rng.random() < 0.7:
            name = rng.choice(names)
            all_slots.put(install(number, name))
            order = [*(other for other in order if other != name), name]
        else:
            at_work = set(rng.sample(names, rng.randint(0, 3)))
            all_slots.sweep(at_work)
            over = [name for name in order if name not in at_work]
            order = [name for name in order if name in at_work or name in over[-keep:]]
            assert left(tmp_path) == sorted(order)
    assert all(outcome.why == "" for outcome in all_slots.finished())


# The thread and the children that an agent has.


@pytest.fixture
def threaded(tmp_path: Path) -> Iterator[Callable[..., list[InstallOutcome]]]:
    """Put installs one by one into slots with a thread of their own; each waits for its outcome."""
    woken = threading.Event()
    all_slots = Slots(tmp_path, (), wake=woken.set)

    def put(*installs: Install) -> list[InstallOutcome]:
        outcomes = []
        for one in installs:
            all_slots.put(one)
            assert woken.wait(60.0)
            woken.clear()
            outcomes += all_slots.finished()
        return outcomes

    yield put
    all_slots.close()


def test_the_thread_wakes_whoever_waits_and_lives_on_after_an_exception(
    threaded: Callable[..., list[InstallOutcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def fail(*_: object) -> None:
        threads.append(threading.current_thread().name)
        raise RuntimeError("anything unexpected")

    with monkeypatch.context() as patch:
        patch.setattr(Slot, "install", fail)
        outcomes = threaded(install(1), install(2))
    assert [outcome.why.partition(" (")[0] for outcome in outcomes] == ["RuntimeError: anything unexpected"] * 2
    assert threads == ["model-slots_0"] * 2
    assert [outcome.why for outcome in threaded(install(3))] == [""]


ILLEGAL = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
HANGS = "import sys; sys.stdin.buffer.read()"


@pytest.mark.parametrize("code", [ILLEGAL, KILLED, HANGS], ids=["illegal", "killed", "hangs"])
def test_a_child_that_dies_or_hangs_leaves_the_model_to_numpy(
    threaded: Callable[..., list[InstallOutcome]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(session, "probe", lambda: None)
    monkeypatch.setattr(slots, "Session", lambda: Session((sys.executable, "-c", code), timeout_s=0.3))
    assert [outcome.why for outcome in threaded(install(1), install(2))] == ["", ""]
    right = NET.predict(install(2).params, X)
    np.testing.assert_array_equal(open_slot(slot_path(tmp_path, "digits")).predict(X), right)


def test_a_child_that_cannot_be_started_leaves_the_model_to_numpy(
    threaded: Callable[..., list[InstallOutcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(session, "probe", lambda: None)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert [outcome.why for outcome in threaded(install(1))] == [""]
