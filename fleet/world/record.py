"""What a disk is known to hold: the memory of the laws, which is copied, restored and lost together with the disk.

A line of history (a *lineage*) is what one disk has been through. Who restores a backup goes on from the copy's
history, and what came after the copy belongs to a lineage that is over.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import NamedTuple

from broker.messages import Verdict, Version
from models.job import JobSpec

Moment = tuple[str, int, int]
"""One step of an aggregator: its name, its life, and which step of it."""
SHORT_DIGEST = 8
"""Digits of a digest that every verdict echoes."""


class Update(NamedTuple):
    """One update: who trained it, the number of its base, and the beginning of its digest.

    Of the base it is the number that counts: within a lineage a number is one model, whatever its generation.
    """

    device: str
    number: int
    digest: str

    def __str__(self) -> str:
        return f"{self.device}'s update {self.digest} to version {self.number}"


def update_of(verdict: Verdict) -> Update:
    """Return the update that a verdict speaks of."""
    return Update(verdict.device, verdict.base.number, verdict.digest[:SHORT_DIGEST])


class Judged(NamedTuple):
    """A verdict that was written down."""

    update: Update
    counted: bool
    generation: int = 1
    """Of its base, as it was written."""


class JobRecord:
    """One job in one aggregator's store."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.version = Version(1, 0)
        self.sum: list[Update] = []
        """Counted, and in no version yet."""
        self.members: dict[int, list[Update]] = {}
        """Number of a version to the updates that made it."""
        self.judged: dict[tuple[str, int], Judged] = {}
        """By device and number of the base."""
        self.last: dict[str, Judged] = {}
        """The newest verdict on each device's updates."""

    def judge(self, judged: Judged) -> None:
        """Remember a verdict."""
        update = judged.update
        self.judged[update.device, update.number] = judged
        last = self.last.get(update.device)
        if last is None or last.update.number <= update.number:
            self.last[update.device] = judged


class ServerRecord:
    """An aggregator's store."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobRecord] = {}
        self.deleted: set[str] = set()
        self.replaced = False
        """Whether another one with jobs leads in its place."""
        self.unsure: list[Verdict | str] = []
        """A verdict, or the job of a version, that was being written when the process died."""
        self.barred: dict[str, str] = {}
        """The devices in quarantine, and why."""
        self.barring: set[tuple[str, str]] = set()
        """Device and why ("" for its release) of all that was written of quarantines."""
        self.barred_at: dict[str, Moment] = {}
        """When a device's quarantine, or its end, was written."""
        self.scored: dict[str, set[tuple[str, Version]]] = {}
        """Device in quarantine to the versions of which it had said how good they are before."""
        self.unsure_barred: set[str] = set()
        """Devices of which it was being written that they are in quarantine, or are not any more."""

    def bar(self, device: str, why: str) -> None:
        """Remember that a device is in quarantine; "" where it is not any more."""
        self.barring.add((device, why))
        self.unsure_barred.discard(device)
        if why:
            self.barred[device] = why
        else:
            self.barred.pop(device, None)

    def surely_barred(self) -> set[str]:
        """Return the devices that are in quarantine for certain."""
        return self.barred.keys() - self.unsure_barred


class Begun:
    """A training that has not come to its end."""

    def __init__(self, names: set[Version]) -> None:
        self.names = names
        """All names of its base."""
        self.epochs: dict[int, Version] = {}
        """Those that are done, and under which name."""


class DeviceRecord:
    """A device's state directory."""

    def __init__(self) -> None:
        self.begun: dict[str, Begun] = {}
        """Job to the training of which the disk holds the place."""
        self.away: dict[tuple[str, Version], int] = {}
        """(job, base) to the term in which another history has led this device away from it."""
        self.epochs: Counter[tuple[str, Version, int]] = Counter()
        self.owner = ""
        """The device that first finished a training here."""
        self.finished: Counter[tuple[str, Version]] = Counter()


Record = ServerRecord | DeviceRecord


def copied(record: Record) -> Record:
    """Return a record that can go its own way."""
    return deepcopy(record)
