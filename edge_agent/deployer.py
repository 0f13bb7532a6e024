"""How a version comes into this device's model slot: with rows to calibrate on, where its job wants it in int8."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from msgspec import structs

from broker.messages import Version
from edge_agent.card import Release
from edge_agent.fetcher import Fetcher
from edge_agent.quantising import Wish
from edge_agent.rows import RowReader
from edge_agent.slots import Calibrate, Install
from edge_agent.workspace import Out, Rows, Waiting
from models.data.dataset import DatasetError
from models.job import MAX_LOSS
from models.nets.finetune import served
from models.serving.sample import sample_of
from models.trail import Trail

log = logging.getLogger("edge_agent.work")  # a job at work speaks under one name


class Deployer(Fetcher, RowReader):
    """A job that puts versions into service."""

    __slots__ = ()

    def _deploy(self, version: Version, trail: Trail) -> Iterator[Out]:
        """Yield the install of a version, once there are rows if it needs any. Raises DatasetError or OSError."""
        install = self._deployed(version, trail)
        if self.spec.quantise == "none":
            yield install
            return
        yield from self._once_there_are_rows(install)

    def _calibrate(self) -> list[Out]:
        """Return the threshold that the head names for what is in the slot, where that is news; with rows of this
        device, once there are any, where the job wants int8.
        """
        if self.spec.quantise != "none" and self._waiting is not None and isinstance(self._waiting.install, Install):
            return []  # another version is about to come, and has the threshold by then
        head, deployed = self.participant.announced.head, self.participant.deployment.deployed
        if head is None or head.threshold is None or head.version != deployed or not self.participant.calibrates:
            return []
        asked = Calibrate(self.spec.name, self.job, head.version, head.threshold)
        if asked == self._calibrated:
            return []
        self._calibrated = asked
        return [asked] if self.spec.quantise == "none" else list(self._once_there_are_rows(asked))

    def _deployed(self, version: Version, trail: Trail) -> Install:
        """Return what is put into the slot: the mean of the last versions if they are here, else the version itself."""
        found = trail.served(self.spec.averaged_from(version.number))
        if found.why:
            log.warning("version deployed by itself, not averaged job=%s version=%s: %s", self.job, version, found.why)
        release = Release(self.job, version.generation, version.number, found.model.sha256(), found.since)
        params = served(self.net, found.params(self.net.spec))
        head = self.participant.announced.head
        threshold = None if head is None else head.threshold  # it may be of an earlier version: see `_calibrate`
        if head is not None and threshold is not None and head.version == version:
            self._calibrated = Calibrate(self.spec.name, self.job, version, threshold)
        about = self.spec.contract, trail.now.agreed, threshold
        return Install(self.spec.name, release, self.spec.model, params, *about)

    def _once_there_are_rows(self, install: Install | Calibrate) -> Iterator[Out]:
        rows = self._kept()
        if rows is not None:
            yield self._with_rows(install, rows)
            return
        before = self._waiting  # its rows will do: else who is slower to read than versions come would never end
        self._waiting = Waiting(install, self._readings.ask(self.job, self._read) if before is None else before.reading)
        yield from self._deploy_waiting()

    def _deploy_waiting(self) -> Iterator[Out]:
        """Yield what waits for rows, if they are there by now, or cannot be had."""
        waiting = self._waiting
        if waiting is None or not waiting.reading.done():
            return
        self._waiting = None
        error = waiting.reading.exception()
        if error is None:
            yield self._with_rows(waiting.install, waiting.reading.result())
            return
        log.warning("version not in int8 job=%s: its rows cannot be read: %s", self.job, error)
        why = str(error) if isinstance(error, DatasetError) else type(error).__name__
        wish = Wish(self._max_loss, None, f"its rows cannot be read: {why}"[:500])
        yield structs.replace(waiting.install, wish=wish)

    def _ask_again(self) -> None:
        """Ask for the rows that a version waits for once more: what was asked for this job has been forgotten."""
        if (waiting := self._waiting) is not None:
            self._waiting = Waiting(waiting.install, self._readings.ask(self.job, self._read))

    def _with_rows(self, install: Install | Calibrate, rows: Rows) -> Install | Calibrate:
        return structs.replace(install, wish=Wish(self._max_loss, sample_of(rows.data, self._device)))

    @property
    def _max_loss(self) -> float:
        return MAX_LOSS if self.spec.quantise_max_loss is None else self.spec.quantise_max_loss
