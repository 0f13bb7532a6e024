"""What a device must not forget of one job: the update without verdict, and the residual that the next one builds on.

   update.bin     an encoded update, from before its first byte is sent until its verdict
   residual.bin   the residual, and the base of the last update that was settled
   checkpoint.bin where training stands

1. `put` returns when the update is on disk; only then may it be offered.
2. `settle` first writes the new residual, with the base it settles, then removes the update. If the power is cut in
   between, the update is found to be settled already, and is removed at the next start.
3. A file that has rotted, or that holds what no agent of this job would write, is named in the log and treated as
   absent: the base is then trained again, or the residual starts from nothing. Neither can make an update count twice:
   the aggregator's ledger has the last word.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from broker.failpoints import reach
from broker.faults import describe
from broker.messages import Offer, Verdict, Version
from edge_agent import files
from models import codec
from models.checkpoint import CheckpointError, TrainingState
from models.checkpoint import from_bytes as training_from_bytes
from models.checkpoint import to_bytes as training_to_bytes
from models.codec import CodecError, Pending, State
from models.job import TrainSpec
from models.params import Float32, Spec

log = logging.getLogger(__name__)

T = TypeVar("T")

LARGEST = 2.0**100
"""No parameter, velocity or residual of a training that converges comes near; float32 sums below it cannot overflow."""
_JOB = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""What may be a job's id, and so the name of its folder."""


class _Update(Struct, frozen=True):
    offer: Offer
    pending: bytes


class _Residual(Struct, frozen=True):
    settled: Version
    state: bytes


class _Checkpoint(Struct, frozen=True):
    base: Version
    data: int
    """CRC-32 of the rows that were trained on: other rows, another run."""
    training: bytes
    loss: float | None = None


class OutboxFullError(RuntimeError):
    """An update larger than this device's outbox may be."""


class Outbox:
    """The folder of one job on one device. Beside OutboxFullError, its methods raise OSError or nothing.

    job, device: whose updates it may hold; any when not given.
    """

    def __init__(
        self,
        folder: Path,
        spec: Spec,
        most_bytes: int = 64 * 2**20,
        *,
        job: str | None = None,
        device: str | None = None,
    ) -> None:
        """Open or create the folder. Raises OSError when it cannot be written."""
        self.folder = folder
        self.most_bytes = most_bytes
        self._spec = spec
        self._job = job
        self._device = device
        files.make_folder(folder)
        residual = self._read("residual.bin", _Residual)
        self.settled: Version | None = residual.settled if residual else None
        update = self._read("update.bin", _Update)
        if update is not None and self.settled is not None and update.offer.base <= self.settled:
            files.remove(folder / "update.bin")
            update = None
        self.offer: Offer | None = None
        """The update without verdict, if what is on disk can be sent, and settled."""
        if update is not None and self._understand(update, decodes=True) is not None:
            self.offer = update.offer

    @property
    def trained(self) -> Version | None:
        """The last base whose training came to its end."""
        return self.offer.base if self.offer else self.settled

    def state(self, base: Version, max_staleness: int) -> State:
        """Return the residual to encode the next update with; none if it is too old to be of use."""
        residual = self._read("residual.bin", _Residual)
        if residual is None:
            return codec.drop()
        settled = residual.settled
        if not 0 <= base.number - settled.number <= max_staleness:
            log.info("residual dropped folder=%s settled=%s base=%s", self.folder, settled, base)
            return codec.drop()
        try:
            state = State.from_bytes(residual.state, self._spec)
            _check_size(state.residual)
        except files.UNREADABLE as error:
            self._ignore("residual.bin", error)
            return codec.drop()
        return state

    def put(self, offer: Offer, pending: Pending) -> None:
        """Make an update durable. Raises OutboxFullError or OSError; nothing is then changed."""
        content = msgspec.msgpack.encode(_Update(offer, pending.to_bytes()))
        if len(content) > self.most_bytes:
            raise OutboxFullError(f"an update of {len(content)} bytes is more than outbox_bytes = {self.most_bytes}")
        files.seal(self.folder / "update.bin", content)
        reach("outbox.put.between", (offer.job, offer.base))
        files.remove(self.folder / "checkpoint.bin")
        self.offer = offer

    def body(self) -> bytes:
        """Return the body of the update without verdict; empty if there is none.

        Where it has rotted since the outbox was opened, `offer` is None from then on: there is nothing left to offer.
        """
        pending = self._pending()
        if pending is None:
            self.offer = None
        return pending.body if pending else b""

    def settle(self, verdict: Verdict, renamed: Version | None = None) -> None:
        """Settle the residual by the verdict and forget the update. Raises OSError; it can then be called again.

        renamed: the present name of the base that it is on, where it has another by now.
        """
        settled = renamed or verdict.base
        before = self._read("residual.bin", _Residual) if verdict.again else None
        state = before.state if before is not None else self._settled(verdict).to_bytes()
        files.seal(self.folder / "residual.bin", msgspec.msgpack.encode(_Residual(settled, state)))
        reach("outbox.settle.between", verdict)
        files.remove(self.folder / "update.bin")
        self.settled, self.offer = settled, None

    # Where training stands.

    def checkpoint(self, base: Version, data: int, state: TrainingState, loss: float | None = None) -> None:
        """Write down where training stands, and the mean loss of the epoch so far. Raises OSError."""
        content = msgspec.msgpack.encode(_Checkpoint(base, data, training_to_bytes(state), loss))
        files.seal(self.folder / "checkpoint.bin", content)

    def resume(
        self, base: Version, data: int, train: TrainSpec, n_examples: int
    ) -> tuple[TrainingState, float | None] | None:
        """Return where training on this base and these rows stood, and its loss.

        None if it never began, or if what is on disk has rotted or is no place that this training comes to.
        """
        found = self._read("checkpoint.bin", _Checkpoint)
        if found is None or (found.base, found.data) != (base, data):
            return None
        try:
            state = training_from_bytes(found.training, self._spec)
            _check_size((*state.params.values(), *state.momentum.values()))
            _check_position(state, found.loss, train, n_examples)
        except files.UNREADABLE as error:
            self._ignore("checkpoint.bin", error)
            return None
        return state, found.loss

    def _pending(self) -> Pending | None:
        """Return the update without verdict; None when there is none, or none that can be sent."""
        update = None if self.offer is None else self._read("update.bin", _Update)
        return None if update is None else self._understand(update)

    def _understand(self, update: _Update, *, decodes: bool = False) -> Pending | None:
        """Return what waits for its verdict; None, with a line in the log, when it is not an update of this job.

        decodes: whether to try that too, which takes about as long as to encode it.
        """
        try:
            pending = Pending.from_bytes(update.pending, self._spec)
            self._check_offer(update.offer, pending.body)
            if decodes:
                with np.errstate(all="ignore"):
                    codec.decode(pending.body, self._spec)
        except files.UNREADABLE as error:
            self._ignore("update.bin", error)
            return None
        return pending

    def _check_offer(self, offer: Offer, body: bytes) -> None:
        """Raise CodecError unless this is the offer of this body, by this device, to this job."""
        if self._job not in (None, offer.job) or self._device not in (None, offer.device):
            raise CodecError(f"it is an update of device {offer.device} to job {offer.job}")
        if offer.n_bytes != len(body) or not hashlib.sha256(body).hexdigest().startswith(offer.digest):
            raise CodecError("its body is not the one that it offers")
        if offer.body not in (b"", body):
            raise CodecError("it has two bodies")

    def _settled(self, verdict: Verdict) -> State:
        """Return the residual that a verdict leaves; none where the update is lost, nonsense, or one too many."""
        pending = self._pending()
        if pending is None or verdict.again:
            return codec.drop()
        try:
            with np.errstate(all="ignore"):  # what overflows is refused below
                state = codec.settle(pending, counted=verdict.counted, spec=self._spec)
            _check_size(state.residual)
        except files.UNREADABLE as error:
            self._ignore("update.bin", error)
            return codec.drop()
        return state

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.folder / name
        content = files.unseal(path)
        if content is None:
            if path.exists():
                log.error("file=%s is damaged and is ignored", path)
            return None
        try:
            return msgspec.msgpack.decode(content, type=kind)
        except files.UNREADABLE as error:
            self._ignore(name, error)
            return None

    def _ignore(self, name: str, error: Exception) -> None:
        log.error("file=%s is not understood and is ignored: %s", self.folder / name, describe(error))


def leftovers(folder: Path, known: Container[str]) -> list[str]:
    """Return the ids of the jobs that have an outbox in this folder and are not known, by name. Raises OSError.

    What is no outbox's folder is passed over; a folder that is not there holds none.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []
    return [name for name in names if _JOB.fullmatch(name) and name not in known]


def forget(folder: Path) -> None:
    """Remove the outbox of a job, if it is there, durably. Raises OSError; it can be called again."""
    if folder.exists():
        shutil.rmtree(folder)
        files.sync_folder(folder.parent)


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
