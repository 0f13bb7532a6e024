"""What a device must not forget of one job: the update that it offers, and which base it is done with.

   update.bin, update2.bin   the last two encoded updates, in turn, each from before its first byte is sent
   settled.bin               the last base that this device is done with, where no later update says it
   checkpoint.bin            where training stands

1. `put` returns when the update is on disk; only then may it be offered. It is written over the update before the last
   one, which nobody needs any more: that costs one write, and a torn one leaves the last one as it was.
2. That a base is settled is durable with the next update, or by `flush`. Whoever dies in between offers the update once
   more, to an aggregator that has left its base or has a verdict on it, and settles it again. It is not trained again.
3. A file that has rotted, or that holds what no agent of this job would write, is named in the log and treated as
   absent: the base is then trained again. That cannot make an update count twice: the aggregator's ledger has the last
   word.
4. Of a base the former names are kept beside it. Where another aggregator goes on from the same version under a name of
   its own, training goes on where it stood, and the update is one to that version.
5. An older agent kept what its updates had lost in residual.bin, beside the base that was settled. Of that the base is
   read, so that a device which is brought up to date trains none again that it is done with. Its update.bin is in a
   code that nobody reads any more (format 0), and treated as absent.
6. Each file says its format; none is 1, as everything was written before there were numbers. Where one is of a newer
   fedge, the outbox is not opened, and nothing in it is changed: the job waits until this agent is upgraded too, or an
   operator removes the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from broker.messages import Offer, Version
from edge_agent import files
from edge_agent.disk import Disk, below
from models import sections
from models.codec import CodecError, Coding, Terms
from models.job import TrainSpec
from models.params import Float32, Spec
from models.training.checkpoint import NEWEST as TRAINING_FORMAT
from models.training.checkpoint import CheckpointError, TrainingState
from models.training.checkpoint import format_of as training_format_of
from models.training.checkpoint import from_bytes as training_from_bytes
from models.training.checkpoint import to_bytes as training_to_bytes
from runtime import formats
from runtime.failpoints import reach
from runtime.faults import describe

log = logging.getLogger(__name__)

T = TypeVar("T")

LARGEST = 2.0**100
"""No parameter, velocity or loss of a training that converges comes near; float32 sums below it cannot overflow."""
SLOTS = ("update.bin", "update2.bin")
FORMAT = 1
"""Of each file."""
_JOB = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""What may be a job's id, and so the name of its folder."""


class Probed(Struct, frozen=True, array_like=True):
    """The version that was reported on last, and the loss that it had on this device's rows."""

    version: Version
    loss: float


class _Update(Struct, frozen=True):
    offer: Offer
    body: bytes
    terms: tuple[int, int]
    """How the body is coded. (An older agent wrote none, in a code that nobody reads any more.)"""
    probed: Probed | None = None
    names: tuple[Version, ...] = ()
    """Former names of the base."""
    settled: Version | None = None
    """The last base that was settled when this was put."""
    serial: int = 0
    """Of the two updates on disk the one with the higher number was put last."""
    format: int = FORMAT


class _Settled(Struct, frozen=True):
    """Of residual.bin too, which has another field beside."""

    settled: Version
    probed: Probed | None = None
    format: int = FORMAT


class _Checkpoint(Struct, frozen=True):
    base: Version
    data: int
    """CRC-32 of the rows that were trained on: other rows, another run."""
    training: bytes
    loss: float | None = None
    names: tuple[Version, ...] = ()
    """Former names of the base."""
    format: int = FORMAT


class OutboxFullError(RuntimeError):
    """An update larger than this device's outbox may be."""


class Outbox:
    """The folder of one job on one device. Beside OutboxFullError, its methods raise OSError or nothing.

    job, device: whose updates it may hold; any when not given. disk: what the folder is on.
    """

    __slots__ = (
        "_body",
        "_device",
        "_disk",
        "_has_checkpoint",
        "_is_flushed",
        "_job",
        "_serial",
        "_slot",
        "_spec",
        "folder",
        "most_bytes",
        "names",
        "offer",
        "probed",
        "settled",
    )

    def __init__(
        self,
        folder: Path,
        spec: Spec,
        most_bytes: int = 64 * 2**20,
        *,
        job: str | None = None,
        device: str | None = None,
        disk: Disk = files,
    ) -> None:
        """Open or create the folder.

        Raises OSError when it cannot be written, NewerFormatError when a newer fedge has written into it.
        """
        self.folder = folder
        self.most_bytes = most_bytes
        self._spec = spec
        self._job = job
        self._device = device
        self._disk = disk
        self.settled: Version | None = None
        self.probed: Probed | None = None
        """What the next report builds on: as durable as the updates, so that a death changes no report."""
        self.offer: Offer | None = None
        """The update that is not settled, if what is on disk can be sent."""
        self.names: tuple[Version, ...] = ()
        """Former names of its base."""
        self._body = b""
        """Its bytes, while it is offered and was put by this very process."""
        self._is_flushed = True
        """Whether what is settled is on disk."""
        self._has_checkpoint = False
        """Whether there is one: nobody else writes here, so that it is looked for once."""
        self._slot, self._serial = 1, 0
        """Which of the two files was put last, and its number."""
        if not self._disk.make_folder(folder):
            self._recall()

    def _recall(self) -> None:
        """Take up what a former process has left. Raises OSError or NewerFormatError."""
        self._check_formats()
        self._has_checkpoint = self._disk.exists(below(self.folder, "checkpoint.bin"))
        read = (self._read(name, _Settled) for name in ("settled.bin", "residual.bin"))
        known = [one for one in read if one is not None]
        self.settled = max((one.settled for one in known), default=None)
        self.probed = next((one.probed for one in known if one.probed is not None), None)
        self._slot, update = self._last()
        self._serial = 0 if update is None else update.serial
        if update is None or not self._understands(update, decodes=True):
            return
        if self.settled is None or self.settled < update.offer.base:
            self.offer, self.names, self.probed = update.offer, update.names, update.probed
        if update.settled is not None:
            self.settled = update.settled if self.settled is None else max(self.settled, update.settled)
            if self.offer is not None and self.offer.base <= self.settled:
                self.offer, self.names = None, ()
        self._is_flushed = self.offer is not None  # else who died in `flush` has left what is settled behind

    def _check_formats(self) -> None:
        """Raise NewerFormatError for a file that a newer fedge has written, before anything is removed or written."""
        for name in (*SLOTS, "settled.bin", "residual.bin", "checkpoint.bin"):
            content = self._content(name)
            try:
                if content is not None:
                    self._check_format(name, content)
            except formats.NewerFormatError:
                raise
            except files.UNREADABLE:
                pass  # who reads it says why

    def _check_format(self, name: str, content: bytes) -> None:
        """Raise FormatError for a format that is not read, or one of UNREADABLE."""
        cells = msgspec.msgpack.decode(content, type=dict[str, msgspec.Raw])
        found = 1 if name not in SLOTS or "terms" in cells else 0
        if "format" in cells:
            found = msgspec.msgpack.decode(cells["format"], type=int)
        what = str(self.folder / name)
        newer = "upgrade this agent, or remove the file: its base may be trained again"
        formats.check(what, found, FORMAT, newer=newer)
        if name == "checkpoint.bin" and "training" in cells:
            found = training_format_of(msgspec.msgpack.decode(cells["training"], type=bytes))
            if found:  # who resumes says what is damaged
                formats.check(f"the training in {what}", found, TRAINING_FORMAT, newer=newer)

    def _last(self) -> tuple[int, _Update | None]:
        """Return the update that was put last, and which of the files holds it."""
        found = []
        for slot, name in enumerate(SLOTS):
            if (update := self._read(name, _Update)) is not None:
                found.append((slot, update))
            else:  # whoever made it may have died before its name was on disk: it is made anew
                with contextlib.suppress(OSError):
                    self._disk.discard(below(self.folder, name))
        return max(found, key=lambda one: one[1].serial, default=(1, None))

    @property
    def trained(self) -> Version | None:
        """The last base whose training came to its end."""
        return self.offer.base if self.offer else self.settled

    def put(
        self,
        offer: Offer,
        body: bytes,
        terms: Terms,
        probed: Probed | None = None,
        names: tuple[Version, ...] = (),
    ) -> None:
        """Make an update durable, with the former names of its base.

        Raises OutboxFullError or OSError; nothing is then changed.
        """
        update = _Update(offer, body, terms, probed, names, self.settled, self._serial + 1)
        content = msgspec.msgpack.encode(update)
        if len(content) > self.most_bytes:
            raise OutboxFullError(f"an update of {len(content)} bytes is more than outbox_bytes = {self.most_bytes}")
        slot = 1 - self._slot
        self._disk.overwrite(below(self.folder, SLOTS[slot]), content)
        reach("outbox.put.between", (offer.job, offer.base))
        self._drop_checkpoint()
        self._slot, self._serial, self._body, self._is_flushed = slot, update.serial, body, True
        self.offer, self.probed, self.names = offer, probed, names

    def body(self) -> bytes:
        """Return the body of the update that is not settled; empty if there is none.

        Where it has rotted since it was put, `offer` is None from then on: there is nothing left to offer.
        """
        if self.offer is None or self._body:
            return self._body
        update = self._read(SLOTS[self._slot], _Update)
        if update is None or not self._understands(update):
            self.offer = None
            return b""
        return update.body

    def settle(self, base: Version) -> None:
        """Note that this base is done with, and that its update is not offered any more."""
        self.settled, self.offer, self._body, self._is_flushed = base, None, b"", False

    @property
    def is_flushed(self) -> bool:
        """Whether what is settled is on disk."""
        return self._is_flushed

    def flush(self) -> None:
        """Make durable what is settled, and remove its update. Raises OSError; it can then be called again."""
        if self._is_flushed or self.settled is None:
            return
        self._disk.seal(below(self.folder, "settled.bin"), msgspec.msgpack.encode(_Settled(self.settled, self.probed)))
        reach("outbox.flush.between", self.settled)
        for name in (*SLOTS, "residual.bin"):
            self._disk.discard(below(self.folder, name))
        self._slot, self._is_flushed = 1, True

    # Where training stands.

    def checkpoint(
        self,
        base: Version,
        data: int,
        state: TrainingState,
        loss: float | None = None,
        names: tuple[Version, ...] = (),
    ) -> None:
        """Write down where training stands, the mean loss of the epoch so far, and former names of the base.

        Raises OSError.
        """
        content = msgspec.msgpack.encode(_Checkpoint(base, data, training_to_bytes(state), loss, names))
        self._has_checkpoint = True
        self._disk.seal(below(self.folder, "checkpoint.bin"), content)

    def _drop_checkpoint(self) -> None:
        if self._has_checkpoint:
            self._disk.discard(below(self.folder, "checkpoint.bin"))
            self._has_checkpoint = False

    def resume(
        self, base: Version, data: int, train: TrainSpec, n_examples: int, names: tuple[Version, ...] = ()
    ) -> tuple[TrainingState, float | None] | None:
        """Return where training on this base and these rows stood, and its loss. names: former names of the base.

        None if it never began, under none of its names, or if what is on disk has rotted or is no place that this
        training comes to.
        """
        found = self._read("checkpoint.bin", _Checkpoint) if self._has_checkpoint else None
        if found is None or found.data != data or found.base.number != base.number:
            return None
        if {found.base, *found.names}.isdisjoint((base, *names)):
            return None
        try:
            state = training_from_bytes(found.training, self._spec)
            _check_size((*state.all_params.values(), *state.momentum.values(), *state.squares.values()))
            _check_position(state, found.loss, train, n_examples)
        except files.UNREADABLE as error:
            self._ignore("checkpoint.bin", error)
            return None
        return state, found.loss

    def _understands(self, update: _Update, *, decodes: bool = False) -> bool:
        """Return whether this is an update of this job; if not, a line in the log says why.

        decodes: whether to try that too, which takes about as long as to encode it.
        """
        try:
            self._check_offer(update.offer, update.body)
            if decodes:
                found = sections.split(update.body, dict.fromkeys(sections.REGISTRY, len(update.body)))
                if sections.DELTA in found:
                    Coding(self._spec, Terms(*update.terms), "").decode(found[sections.DELTA])
        except files.UNREADABLE as error:
            self._ignore(SLOTS[self._slot], error)
            return False
        return True

    def _check_offer(self, offer: Offer, body: bytes) -> None:
        """Raise CodecError unless this is the offer of this body, by this device, to this job."""
        if self._job not in (None, offer.job) or self._device not in (None, offer.device):
            raise CodecError(f"it is an update of device {offer.device} to job {offer.job}")
        if offer.n_bytes != len(body) or not hashlib.sha256(body).hexdigest().startswith(offer.digest):
            raise CodecError("its body is not the one that it offers")
        if offer.body not in (b"", body):
            raise CodecError("it has two bodies")

    def _read(self, name: str, kind: type[T]) -> T | None:
        content = self._content(name)
        if content is None:
            if self._disk.exists(below(self.folder, name)):
                log.error("file=%s is damaged and is ignored", self.folder / name)
            return None
        try:
            self._check_format(name, content)
            found = msgspec.msgpack.decode(content, type=kind)
            _check_probed(getattr(found, "probed", None))
            return found
        except files.UNREADABLE as error:
            self._ignore(name, error)
            return None

    def _content(self, name: str) -> bytes | None:
        path = below(self.folder, name)
        return self._disk.overwritten(path) if name in SLOTS else self._disk.unseal(path)

    def _ignore(self, name: str, error: Exception) -> None:
        log.error("file=%s is not understood and is ignored: %s", self.folder / name, describe(error))


def leftovers(folder: Path, known: Container[str], disk: Disk = files) -> list[str]:
    """Return the ids of the jobs that have an outbox in this folder and are not known, by name. Raises OSError.

    What is no outbox's folder is passed over; a folder that is not there holds none.
    """
    return [name for name in disk.folders(folder) if _JOB.fullmatch(name) and name not in known]


def forget(folder: Path, disk: Disk = files) -> None:
    """Remove the outbox of a job, if it is there, durably. Raises OSError; it can be called again."""
    disk.forget(folder)


def _check_probed(probed: Probed | None) -> None:
    """Raise CodecError for a loss that no device measures, and that no report could say anything of."""
    if probed is not None and not abs(probed.loss) < LARGEST:
        raise CodecError("it has a loss that no version has")


def _check_size(arrays: Iterable[Float32]) -> None:
    """Raise CodecError for a value that is not finite, or larger than training can use."""
    if not all(np.abs(array).max(initial=0.0) < LARGEST for array in arrays):
        raise CodecError("it has values that no training gives")


def _check_position(state: TrainingState, loss: float | None, train: TrainSpec, n_examples: int) -> None:
    """Raise CheckpointError for a loss that is none, and a place that training on these examples does not come to."""
    if not (abs(state.loss_sum) < LARGEST and abs(loss or 0.0) < LARGEST):
        raise CheckpointError("it has a loss that no training gives")
    ended = (state.epoch, state.batch) > (train.epochs, 0)
    if ended or state.n_seen != state.batch * train.batch_size or state.n_seen >= n_examples:
        raise CheckpointError(f"it stands in epoch {state.epoch} at batch {state.batch} after {state.n_seen} examples")
