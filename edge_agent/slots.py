"""The model slots of a device, one a job, filled on a thread that only waits for the child process that does the work.

The child exports ONNX and runs it, so that neither onnx nor onnxruntime is ever loaded where training happens, and so
that onnxruntime may die of an illegal instruction without taking the agent along: it is tried before it is trusted.

Its law:
1. Of the installs of one slot that wait only the newest is done; one that is passed over leaves no outcome.
2. Every other install ends as an outcome, whatever becomes of it; it says why where the model before it stays.
3. A slot with an install or a threshold that waits or is under way is not swept.
4. A threshold is put into what is served when the installs before it are done, or nowhere; it has no outcome.
5. A slot that is swept is renamed away first, durably, and its link goes next: who looks sees a model or none.

    MODELS/digits/           a slot
    MODELS/.digits.swept     what a cut of the power left of one that was to go; the next sweep finishes it
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from broker.messages import Int8, Version
from edge_agent import files
from edge_agent.card import Card, Release, SlotError
from edge_agent.quantising import Wish
from edge_agent.slot import Slot, open_slot
from models.agreement import Agreed
from models.contract import NO_CONTRACT, ContractSpec
from models.job import ModelSpec
from models.params import Params
from models.serving import session
from models.serving.session import Session
from runtime.faults import Fault, contain

log = logging.getLogger(__name__)


class Install(Struct, frozen=True):
    """Put this version into the slot of the job of this name."""

    name: str
    release: Release
    model: ModelSpec
    params: Params
    contract: ContractSpec = NO_CONTRACT
    """What the rows are that it takes."""
    agreed: Agreed | None = None
    """What its fleet has agreed on."""
    threshold: float | None = None
    """The score above which a row is an anomaly, as far as it is known."""
    wish: Wish | None = None
    """That it be served in int8."""


class Calibrate(Struct, frozen=True):
    """Serve this version with this threshold from the slot of the job of this name, if it still serves it then."""

    name: str
    job: str
    version: Version
    threshold: float
    wish: Wish | None = None
    """That it be served in int8, as the version was."""


class InstallOutcome(Struct, frozen=True):
    """What has come of an install: `why` is empty when the release is served now, else says why it is not."""

    name: str
    release: Release
    why: str = ""


def slot_path(state_dir: Path, name: str) -> Path:
    """Return the folder of a job's model slot: what applications on the device open."""
    return state_dir / "models" / name


class Slots:
    """All slots under one state directory.

    wake: called on the slots' thread when there is an outcome to fetch, or a threshold was put into what is served.
    keep: how many slots of jobs that are over `sweep` leaves; None for all. executor: where installs are done, one
    after the other; a thread when not given. It is shut down by `close`.
    """

    def __init__(
        self,
        state_dir: Path,
        allow: Sequence[str],
        *,
        wake: Callable[[], None] = lambda: None,
        keep: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._allow = allow
        self._wake = wake
        self._keep = keep
        self._executor = ThreadPoolExecutor(1, "model-slots") if executor is None else executor
        self._slots: dict[str, Slot] = {}
        self._usable: bool | None = None
        self._lock = threading.Lock()
        self._newest: dict[str, Install] = {}
        """The install of each slot that waits or is under way; while it stands here its slot is the executor's."""
        self._calibrating: dict[str, Calibrate] = {}
        """The same of thresholds."""
        self._outcomes: deque[InstallOutcome] = deque()
        self._int8: dict[str, tuple[str, Int8]] = {}
        """Of each slot whose card says it: its job, and what has come of int8."""

    def deployed(self, job: str, name: str) -> Version | None:
        """Return the version of this job that its slot holds; None for another job's, or none that can be read."""
        try:
            card = open_slot(slot_path(self._state_dir, name)).card
        except SlotError:
            return None
        if card is None or card.release.job != job:
            return None
        self._note(name, card)
        return Version(card.release.generation, card.release.number)

    def int8(self) -> dict[str, Int8]:
        """Return job id to what has come of int8, of the slots that were asked for or filled and whose cards say it."""
        with self._lock:
            return dict(self._int8.values())

    def put(self, install: Install) -> None:
        """Install this version soon; one that still waits is passed over for a newer one."""
        with self._lock:
            self._newest[install.name] = install
        self._executor.submit(self._do, install)

    def calibrate(self, asked: Calibrate) -> None:
        """Put a threshold into what a slot serves soon; one that still waits is passed over for a newer one."""
        with self._lock:
            self._calibrating[asked.name] = asked
        self._executor.submit(self._put_threshold, asked)

    def finished(self) -> list[InstallOutcome]:
        """Return what has come of installs since the last call."""
        return [self._outcomes.popleft() for _ in range(len(self._outcomes))]

    def sweep(self, at_work: Collection[str]) -> None:
        """End the children of jobs that are not at work, and remove their slots, but the `keep` installed last.

        at_work: the names of the jobs that go on. What is no slot is left alone; so are readers, who keep what they
        have open. Logs what it removes, and what it could not.
        """
        with self._lock:
            left_alone = {*at_work, *self._newest, *self._calibrating}
        for name in list(self._slots):
            if name not in left_alone:
                self._close(name)
        models = self._state_dir / "models"
        for remains in models.glob(f".*{_SWEPT}"):
            shutil.rmtree(remains, ignore_errors=True)
        try:
            for slot in self._overdue(models, left_alone):
                _remove(slot)
                self._note(slot.name, None)
                log.info("model=removed slot=%s: its job is not at work here, and [models] keep = %s", slot, self._keep)
        except OSError as error:
            log.warning("model=not removed, looking again at the next sweep: %s", error)

    def close(self) -> None:
        """Finish what is being installed, and end the children."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        for name in list(self._slots):
            self._close(name)

    def _overdue(self, models: Path, left_alone: Collection[str]) -> list[Path]:
        """Return the slots to remove. Raises OSError."""
        if self._keep is None or not models.is_dir():
            return []
        over = [slot for slot in _slots(models) if slot.name not in left_alone]
        return sorted(over, key=_installed_at, reverse=True)[self._keep :]

    # On the executor.

    def _do(self, install: Install) -> None:
        with self._lock:
            if self._newest.get(install.name) is not install:
                return
        why = "the install was broken off"
        try:
            done = contain(lambda: self._install(install))
            why = done.why if isinstance(done, Fault) else done
        finally:  # whatever ends this thread's work, its outcome is told
            with self._lock:
                if self._newest.get(install.name) is install:
                    del self._newest[install.name]
            self._outcomes.append(InstallOutcome(install.name, install.release, why))
            self._wake()

    def _put_threshold(self, asked: Calibrate) -> None:
        with self._lock:
            if self._calibrating.get(asked.name) is not asked:
                return
        version = asked.version
        try:
            slot = self._slot(asked.name)
            about = asked.job, version.generation, version.number, asked.threshold, asked.wish
            done = contain(lambda: slot.calibrate(*about) or "")
            if isinstance(done, Fault):
                log.warning("model=kept job=%s threshold=%g reason=%s", asked.job, asked.threshold, done.why)
                self._close(asked.name)  # as where an install fails
            else:
                self._note(asked.name, slot.card)
        finally:
            with self._lock:
                if self._calibrating.get(asked.name) is asked:
                    del self._calibrating[asked.name]
            self._wake()

    def _install(self, install: Install) -> str:
        """Return why the model before it stays; empty when this one is served."""
        whole = False
        try:
            slot = self._slot(install.name)
            about = install.contract, install.agreed, install.threshold, install.wish
            why = slot.install(install.release, install.model, install.params, *about)
            whole = True
            self._note(install.name, slot.card)
            if why is None:
                _date(slot_path(self._state_dir, install.name))
        finally:
            if not whole:  # its child may be in the middle of an answer: the next install starts from the disk
                self._close(install.name)
        return why or ""

    def _note(self, name: str, card: Card | None) -> None:
        """Keep what has come of int8 in a slot, as its card says it."""
        with self._lock:
            self._int8.pop(name, None)
            if card is not None and card.quantised is not None:
                version = Version(card.release.generation, card.release.number)
                self._int8[name] = card.release.job, card.quantised.told(version)

    def _slot(self, name: str) -> Slot:
        if name not in self._slots:
            child = Session() if self._is_usable() else None
            self._slots[name] = Slot(slot_path(self._state_dir, name), session=child, allow=self._allow)
        return self._slots[name]

    def _is_usable(self) -> bool:
        if self._usable is None:
            why = session.probe()
            self._usable = why is None
            if why:
                log.warning("onnxruntime cannot be used here, our own nets answer instead: %s", why)
        return self._usable

    def _close(self, name: str) -> None:
        slot = self._slots.pop(name, None)
        if slot is not None:
            slot.close()


_SWEPT = ".swept"
"""What a slot's folder is called from when it is to go until it is gone. No job's name has a dot."""


def _slots(models: Path) -> list[Path]:
    """Return the slots in a folder: what a `Slot` has installed into, and nothing else. Raises OSError."""
    return [path for path in models.iterdir() if _is_slot(path)]


def _is_slot(path: Path) -> bool:
    link = path / "current"
    if path.is_symlink() or path.name.startswith(".") or not link.is_symlink():
        return False
    return link.readlink().parent == Path("versions")


def _installed_at(slot: Path) -> int:
    """Return when the link last moved, in ns."""
    return (slot / "current").lstat().st_mtime_ns


def _date(slot: Path) -> None:
    """Date a slot's link after every other's, if it can be: a device without a clock may wake up in 1970."""
    with contextlib.suppress(OSError):
        newest = max((_installed_at(other) for other in _slots(slot.parent) if other != slot), default=0)
        if _installed_at(slot) <= newest:
            after = newest + 10**9  # a second, which every file system can tell
            os.utime(slot / "current", ns=(after, after), follow_symlinks=False)


def _remove(slot: Path) -> None:
    """Remove a slot so that a cut of the power leaves it whole, or out of sight. Raises OSError."""
    swept = slot.with_name(f".{slot.name}{_SWEPT}")
    shutil.rmtree(swept, ignore_errors=True)
    slot.rename(swept)
    files.sync_folder(slot.parent)
    (swept / "current").unlink()
    shutil.rmtree(swept)
