"""The model slots of a device, one a job, filled on a thread that only waits for the child process that does the work.

The child exports ONNX and runs it, so that neither onnx nor onnxruntime is ever loaded where training happens, and so
that onnxruntime may die of an illegal instruction without taking the agent along: it is tried before it is trusted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from broker.messages import Version
from edge_agent.slot import Release, Slot, SlotError, open_slot
from models import session
from models.job import ModelSpec
from models.params import Params
from models.session import Session

log = logging.getLogger(__name__)


class Install(Struct, frozen=True):
    """Put this version into the slot of the job of this name."""

    name: str
    release: Release
    model: ModelSpec
    params: Params


def slot_path(state_dir: Path, name: str) -> Path:
    """Give the folder of a job's model slot: what applications on the device open."""
    return state_dir / "models" / name


class Slots:
    """All slots under one state directory."""

    def __init__(self, state_dir: Path, allow: Sequence[str]) -> None:
        self._state_dir = state_dir
        self._allow = allow
        self._slots: dict[str, Slot] = {}
        self._usable: bool | None = None
        self._newest: dict[str, Install] = {}
        self._thread = ThreadPoolExecutor(1, "model-slots")

    def deployed(self, job: str, name: str) -> Version | None:
        """Give the version of this job that its slot holds; None for another job's, or none."""
        try:
            card = open_slot(slot_path(self._state_dir, name)).card
        except SlotError:
            return None
        if card is None or card.release.job != job:
            return None
        return Version(card.release.generation, card.release.number)

    def put(self, install: Install) -> None:
        """Install this version soon; one that still waits is passed over for a newer one."""
        self._newest[install.name] = install
        self._thread.submit(self._put, install)

    def close(self) -> None:
        """Finish what is being installed, and end the children."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        for slot in self._slots.values():
            slot.close()

    def _put(self, install: Install) -> None:
        if self._newest[install.name] is not install:
            return
        self._slot(install.name).install(install.release, install.model, install.params)

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
