"""What the services of a made-up world pass on their way (`runtime.failpoints.reach`), and who hears of it.

`Trail` kills whoever is to die there, refuses writes of full disks, and tells the laws what has become durable.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from aggregator import generations
from aggregator.effects import Attempt, Open
from broker.messages import Verdict, Version
from edge_agent import workspace
from edge_agent.effects import Settle
from fleet.world.nodes import FEWEST, Device, Server
from fleet.world.patches import patching
from fleet.world.process import Process
from models import statistic
from runtime import failpoints


class Listener(Protocol):
    """Who is told what the services have made durable, and where they are."""

    def passes(self, process: Process, point: str) -> None:
        """Note that a process has come to a point; it may die there."""

    def writes(self, server: Server, what: Verdict | str) -> None:
        """Note that a verdict, or a version of this job, is about to become durable."""

    def has_written(self, server: Server, verdict: Verdict) -> None:
        """Note that a verdict is durable."""

    def makes(self, server: Server) -> None:
        """Note that a version is about to be made."""

    def has_made(self, server: Server, job: str, version: Version, sha256: str) -> None:
        """Note that a version is durable."""

    def bars(self, server: Server, device: str) -> None:
        """Note that a device's quarantine, or its end, is about to become durable."""

    def has_barred(self, server: Server, device: str, why: str) -> None:
        """Note that a device's quarantine is durable; why: "" where it is its end."""

    def draws(self, server: Server, attempt: Attempt) -> None:
        """Note that an attempt is about to become durable."""

    def begins(self, device: Device, job: str, base: Version) -> None:
        """Note that a device begins to train, or goes on where it stood."""

    def has_finished(self, device: Device, job: str, base: Version) -> None:
        """Note that an update is durable."""

    def has_trained(self, device: Device, job: str, base: Version, epoch: int) -> None:
        """Note that an epoch is durable."""

    def settles(self, device: Device, settle: Settle) -> None:
        """Note that a device is about to forget an update, and why."""


class Trail:
    """Stands in the place of `runtime.failpoints.Points`. current: gives who acts now."""

    def __init__(self, listener: Listener, current: Callable[[], Process | None]) -> None:
        self._listener = listener
        self._current = current

    def reach(self, point: str, what: object) -> None:
        """Pass a point: say so, be refused a write, or die."""
        process = self._current()
        if process is None or process.dying:
            return
        if process.disk.full:
            _refuse(point)
        self._tell(process, point, what)
        self._listener.passes(process, point)
        if process.dies_in is not None:
            process.dies_in -= 1
            if process.dies_in < 0:
                raise process.die_here()

    def place(self) -> str:
        """Return where the disk of who acts now lies."""
        process = self._current()
        return str(process.disk.place) if process is not None else ""

    def _tell(self, process: Process, point: str, what: object) -> None:
        listener = self._listener
        match process, point, what:
            case Server(), "store.add_verdict.within", Verdict() as verdict:
                listener.writes(process, verdict)
            case Server(), "store.add_verdict.after", Verdict() as verdict:
                listener.has_written(process, verdict)
            case Server(), "aggregator.Commit.before", _:
                listener.makes(process)
            case Server(), "store.commit.within", str() as job:
                listener.writes(process, job)
            case Server(), "store.commit.after", (str() as job, Version() as version, str() as sha256):
                listener.has_made(process, job, version, sha256)
            case Server(), "store.quarantine.within", (str() as device, str()):
                listener.bars(process, device)
            case Server(), "store.quarantine.after", (str() as device, str() as why):
                listener.has_barred(process, device, why)
            case Server(), "aggregator.Open.before", Open(attempt):
                listener.draws(process, attempt)
            case Device(), "outbox.put.between", (str() as job, Version() as base):
                listener.has_finished(process, job, base)
            case Device(), "training.begin", (str() as job, Version() as base, *_):
                listener.begins(process, job, base)
            case Device(), "training.epoch", (str() as job, Version() as base, int() as epoch):
                listener.has_trained(process, job, base, epoch)
            case Device(), "agent.Settle.before", Settle() as settle:
                listener.settles(process, settle)
            case _:
                pass


def _refuse(point: str) -> None:
    """Refuse a write of a process whose disk is full."""
    if point in ("store.statement.before", "files.replace.before"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def installed(trail: Trail, device_chunk_bytes: int) -> Iterator[None]:
    """Lead all services of this process past this trail, without syncing, for the length of a block."""
    with patching() as patches:
        patches.set(failpoints, "_points", trail)
        patches.set(os, "fsync", lambda _fd: None)
        patches.set(workspace, "CHUNK_BYTES", device_chunk_bytes)
        patches.set(statistic, "FEWEST", FEWEST)
        patches.set(generations, "place", lambda _file: trail.place())
        yield
