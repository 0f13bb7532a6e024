"""What a device must not forget of one job: the update without verdict, and the residual that the next one builds on.

   update.bin     an encoded update, from before its first byte is sent until its verdict
   residual.bin   the residual, and the base of the last update that was settled
   checkpoint.bin where training stands

1. `put` returns when the update is on disk; only then may it be offered.
2. `settle` first writes the new residual, with the base it settles, then removes the update. If the power is cut in
   between, the update is found to be settled already, and is removed at the next start.
3. A file that has rotted is named in the log and treated as absent: the base is then trained again, or the residual
   starts from nothing. Neither can make an update count twice: the aggregator's ledger has the last word.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from broker.failpoints import reach
from broker.messages import Offer, Verdict, Version
from edge_agent import files
from models import codec
from models.checkpoint import CheckpointError, TrainingState
from models.checkpoint import from_bytes as training_from_bytes
from models.checkpoint import to_bytes as training_to_bytes
from models.codec import CodecError, Pending, State
from models.params import Spec

log = logging.getLogger(__name__)

T = TypeVar("T")


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
    """The folder of one job on one device."""

    def __init__(self, folder: Path, spec: Spec, most_bytes: int = 64 * 2**20) -> None:
        """Open or create the folder. Raises OSError when it cannot be written."""
        self.folder = folder
        self.most_bytes = most_bytes
        self._spec = spec
        folder.mkdir(parents=True, exist_ok=True)
        residual = self._read("residual.bin", _Residual)
        self.settled: Version | None = residual.settled if residual else None
        update = self._read("update.bin", _Update)
        if update is not None and self.settled is not None and update.offer.base <= self.settled:
            files.remove(folder / "update.bin")
            update = None
        self.offer: Offer | None = update.offer if update else None

    @property
    def trained(self) -> Version | None:
        """The last base whose training came to its end."""
        return self.offer.base if self.offer else self.settled

    def state(self, base: Version, max_staleness: int) -> State:
        """Give the residual to encode the next update with; none if it is too old to be of use."""
        residual = self._read("residual.bin", _Residual)
        if residual is None:
            return codec.drop()
        settled = residual.settled
        if settled.generation != base.generation or base.number - settled.number > max_staleness:
            log.info("residual dropped folder=%s settled=%s base=%s", self.folder, settled, base)
            return codec.drop()
        try:
            return State.from_bytes(residual.state, self._spec)
        except CodecError as error:
            log.warning("residual dropped folder=%s: %s", self.folder, error)
            return codec.drop()

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
        """Give the body of the update without verdict; empty if there is none."""
        pending = self._pending()
        return pending.body if pending else b""

    def settle(self, verdict: Verdict) -> None:
        """Settle the residual by the verdict and forget the update. Raises OSError; it can then be called again."""
        pending = self._pending()
        state = codec.settle(pending, counted=verdict.counted, spec=self._spec) if pending else codec.drop()
        files.seal(self.folder / "residual.bin", msgspec.msgpack.encode(_Residual(verdict.base, state.to_bytes())))
        reach("outbox.settle.between", verdict)
        files.remove(self.folder / "update.bin")
        self.settled, self.offer = verdict.base, None

    # Where training stands.

    def checkpoint(self, base: Version, data: int, state: TrainingState, loss: float | None = None) -> None:
        """Write down where training stands, and the mean loss of the epoch so far. Raises OSError."""
        content = msgspec.msgpack.encode(_Checkpoint(base, data, training_to_bytes(state), loss))
        files.seal(self.folder / "checkpoint.bin", content)

    def resume(self, base: Version, data: int) -> tuple[TrainingState, float | None] | None:
        """Give where training on this base and these rows stood, and its loss; None if it never began or has rotted."""
        found = self._read("checkpoint.bin", _Checkpoint)
        if found is None or (found.base, found.data) != (base, data):
            return None
        try:
            return training_from_bytes(found.training, self._spec), found.loss
        except CheckpointError as error:
            log.warning("checkpoint ignored folder=%s: %s", self.folder, error)
            return None

    def delete(self) -> None:
        """Forget everything of this job."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pending(self) -> Pending | None:
        update = self._read("update.bin", _Update)
        try:
            return Pending.from_bytes(update.pending, self._spec) if update else None
        except CodecError as error:
            log.warning("update lost folder=%s: %s", self.folder, error)
            return None

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.folder / name
        content = files.unseal(path)
        if content is None:
            if path.exists():
                log.error("file=%s is damaged and is ignored", path)
            return None
        try:
            return msgspec.msgpack.decode(content, type=kind)
        except msgspec.MsgspecError as error:
            log.error("file=%s is not understood and is ignored: %s", path, error)
            return None
