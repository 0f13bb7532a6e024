"""What is frozen of the nets of jobs, on this device: found by its SHA-256, or fetched once, piece by piece.

    STATE/bases/<sha256>.base      all of it, held against its hash before it was called so; mapped by who uses it
    STATE/bases/.<sha256>.base     what has come of it, in order: a start after a kill goes on behind it

Looked for here first, then in the files that [models] names, then in what a factory's code gives. What is in none of
them is fetched from the job's own topics, where it lies in pieces. Its length follows from the net, and is held against
what is announced before anything is kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from broker.ceilings import MOST_CHUNKS
from broker.messages import BaseAt, Body
from broker.wire import Wire
from edge_agent import files
from edge_agent.config import ModelSettings
from edge_agent.home import Home
from edge_agent.seldom import NOTHING
from edge_agent.workspace import Out, Subscribe, Unsubscribe
from models import frozen
from models.frozen import Find, FrozenError, MissingError, Own
from models.job import JobSpec
from models.nets import table as nets
from models.nets.net import ModelError
from models.params import Params, Spec
from runtime.failpoints import reach

log = logging.getLogger(__name__)

FOLDER = "bases"
FETCHING = "what is frozen of its net is being fetched"
"""What the reason begins with why a device takes no part yet."""
AT_ONCE, AT_ONCE_BYTES = 16, 2**21
"""Pieces that are asked for at a time, and how many bytes these have: a broker queues no more for one device."""


class Bases:
    """What is here. home: where files lie, if they lie in a file system; else it is in memory."""

    __slots__ = ("_folder", "_here", "_models", "_wire", "announced", "coming")  # most devices have nothing of it

    def __init__(self, home: Home, models: ModelSettings, wire: Wire) -> None:
        self._folder = home.folder / FOLDER if home.file_system is not None else None
        self._models = models
        self._wire = wire
        self._here: Mapping[str, bytearray] = NOTHING
        """What was fetched, where there is no file system."""
        self.announced: Mapping[str, BaseAt] = NOTHING
        """Job to what was announced of it."""
        self.coming: Mapping[str, Fetching] = NOTHING
        """Job to what is on its way for it."""

    def note(self, job: str, at: BaseAt) -> None:
        """Note what was announced of a job."""
        self.announced = {**self.announced, job: at}

    def finder(self, job: str, spec: JobSpec) -> Find:
        """Return what gives a job's frozen tensors. It raises MissingError where they are not here, and can be had."""
        at = self.announced.get(job)

        def find(tensors: Spec, own: Own) -> Params:
            wanted = spec.train.base or ("" if at is None else at.sha256)
            if at is not None and at.sha256 != wanted:
                raise ModelError(f"[train] base = {wanted}, and its aggregator announces {at.sha256}: submit it again")
            if not wanted:
                return own()
            found = self._stored(tensors, wanted)
            if found is None and nets.factories_of(spec.model):
                found = _if_it_is(own(), tensors, wanted, job)
            if found is None and (at is None or at.n_bytes != frozen.n_bytes(tensors) or at.n_chunks > MOST_CHUNKS):
                raise ModelError(_not_to_be_had(tensors, wanted, at))
            if found is None:
                raise MissingError(f"{FETCHING}, {frozen.n_bytes(tensors):,} bytes, once", tensors)
            return found

        return find

    def _stored(self, tensors: Spec, wanted: str) -> Params | None:
        """Return the tensors of this SHA-256, as they lie here; None where they do not."""
        if wanted in self._here:
            return frozen.from_bytes(self._here[wanted], tensors, wanted)
        own = [] if self._folder is None else [self._folder / f"{wanted}{frozen.ENDING}"]
        for path in (*own, *map(Path, self._models.bases)):
            try:
                return frozen.read(path, tensors, wanted)
            except FileNotFoundError:
                continue
            except (FrozenError, OSError) as error:
                log.warning("base=%s is not in file=%s: %s", wanted[:16], path, error)
        return None

    def begin(self, job: str, tensors: Spec) -> list[Out] | None:
        """Fetch what was announced of a job, or go on; return what follows, None where all is here by now.

        Raises OSError, or FrozenError where it has come to something else.
        """
        out = self.stop(job)
        if any(other.at.sha256 == self.announced[job].sha256 for other in self.coming.values()):
            return out  # it is on its way for another job, and is looked for again later
        fetching = Fetching(job, self.announced[job], tensors, self._folder, self._wire)
        self.coming = {**self.coming, job: fetching}
        log.info("base=%s job=%s is fetched: %s", fetching.at.sha256[:16], job, fetching.stands)
        if fetching.is_done:
            self._end(fetching, job)
            return None
        return [*out, *fetching.ask()]

    def again(self, job: str) -> list[Out] | None:
        """Ask again for the pieces that have not come: the broker may have dropped them.

        None: it is to be begun anew, as nothing is on its way, or it lies there otherwise by now.
        """
        fetching = self.coming.get(job)
        if fetching is None or fetching.at != self.announced.get(job):
            return None
        log.warning("base=%s job=%s stalls: %s", fetching.at.sha256[:16], job, fetching.stands)
        return [*fetching.stop(), *fetching.ask()]

    def take(self, chunk: Body) -> list[Out] | None:
        """Take a piece; return what follows, None where with it all is here. Raises OSError, or FrozenError where it
        has come to something else.
        """
        fetching = self.coming.get(chunk.job)
        if fetching is None or chunk.name != fetching.at.name:
            return []
        out = fetching.take(chunk)
        if not fetching.is_done:
            return out
        self._end(fetching, chunk.job)
        return None

    def _end(self, fetching: Fetching, job: str) -> None:
        self._pop(job)
        data = fetching.finish()
        if data is not None:
            self._here = {**self._here, fetching.at.sha256: data}
        log.info("base=%s job=%s is here, %d bytes", fetching.at.sha256[:16], job, fetching.at.n_bytes)

    def stop(self, job: str) -> list[Out]:
        """Fetch nothing more for a job; what has come of it stays."""
        fetching = self._pop(job)
        return [] if fetching is None else fetching.stop()

    def _pop(self, job: str) -> Fetching | None:
        fetching = self.coming.get(job)
        if fetching is not None:
            self.coming = {other: one for other, one in self.coming.items() if other != job} or NOTHING
        return fetching

    def sweep(self, needed: Collection[JobSpec], but: str) -> None:
        """Remove what no job here needs any more. but: the job that is forgotten. Raises OSError."""
        self.announced = {job: at for job, at in self.announced.items() if job != but} or NOTHING
        names = {spec.train.base for spec in needed} | {at.sha256 for at in self.announced.values()}
        self._here = {name: data for name, data in self._here.items() if name in names} or NOTHING
        for path in () if self._folder is None else self._folder.glob(f"*{frozen.ENDING}"):
            if path.stem.removeprefix(".") not in names:
                path.unlink(missing_ok=True)


def _if_it_is(values: Params, tensors: Spec, wanted: str, job: str) -> Params | None:
    mine = frozen.sha256(values, tensors)
    if mine == wanted:
        return values
    log.warning(
        "job=%s what its factory gives here as frozen is %s, where its fleet has %s: another Torch, or other files?",
        *(job, mine[:16], wanted[:16]),
    )
    return None


def _not_to_be_had(tensors: Spec, wanted: str, at: BaseAt | None) -> str:
    if at is not None:
        return (
            f"what is frozen of its net has {frozen.n_bytes(tensors):,} bytes, and its aggregator announces "
            f"{at.n_bytes:,} in {at.n_chunks:,} pieces: it has another net, or they are more than {MOST_CHUNKS:,}"
        )
    return (
        f"[train] base = {wanted}: these tensors are not here, and its aggregator does not have them: name a file that "
        "has them in bases, in [models] of agent.toml"
    )


class Fetching:
    """Frozen tensors on their way: a few pieces are asked for at a time, and what has come is kept in order.

    folder: where files lie; None: it is kept in memory. Raises OSError.
    """

    def __init__(self, job: str, at: BaseAt, tensors: Spec, folder: Path | None, wire: Wire) -> None:
        self.at = at
        self._job = job
        self._tensors = tensors
        self._wire = wire
        self._folder = folder
        self._data = bytearray()
        self._n_here = self._found()
        """Pieces that are here, in order."""
        self._beyond: dict[int, bytes] = {}
        """Pieces that have come before those in front of them."""
        self._asked: set[int] = set()

    @property
    def stands(self) -> str:
        """How far it is, in words."""
        return f"{self._n_here} of {self.at.n_chunks} pieces are here"

    @property
    def is_done(self) -> bool:
        """Whether all of it has come."""
        return self._n_here == self.at.n_chunks

    @property
    def _part(self) -> Path:
        assert self._folder is not None, "it is kept in memory"  # noqa: S101 -- callers have looked
        return self._folder / f".{self.at.sha256}{frozen.ENDING}"

    def _found(self) -> int:
        """Return how many pieces have come in a former life; what is behind the last whole one is cut off."""
        if self._folder is None:
            return 0
        files.make_folder(self._folder)
        size = self._part.stat().st_size if self._part.exists() else 0
        whole = size // self.at.chunk_bytes if size < self.at.n_bytes else self.at.n_chunks
        if size > self.at.n_bytes:
            whole = 0
        if size and size != self._end_of(whole):
            os.truncate(self._part, self._end_of(whole))
        return whole

    def _end_of(self, n: int) -> int:
        """Return how many bytes the first pieces have."""
        return min(n * self.at.chunk_bytes, self.at.n_bytes)

    def ask(self) -> list[Out]:
        """Ask for the next pieces."""
        most = max(1, min(AT_ONCE, AT_ONCE_BYTES // self.at.chunk_bytes))
        until = min(self._n_here + most, self.at.n_chunks)
        wanted = [i for i in range(self._n_here, until) if i not in self._asked and i not in self._beyond]
        self._asked.update(wanted)
        return [Subscribe(tuple(self._filter(i) for i in wanted))] if wanted else []

    def take(self, chunk: Body) -> list[Out]:
        """Take a piece, and ask for the next. One that nobody has asked for, or of another length, is passed over."""
        index = chunk.index
        if index not in self._asked or len(chunk.data) != self._end_of(index + 1) - self._end_of(index):
            return []
        self._asked.discard(index)
        self._beyond[index] = chunk.data
        ready: list[bytes] = []
        while self._n_here + len(ready) in self._beyond:
            ready.append(self._beyond.pop(self._n_here + len(ready)))
        self._keep(b"".join(ready))
        self._n_here += len(ready)
        return [Unsubscribe((self._filter(index),)), *self.ask()]

    def _keep(self, data: bytes) -> None:
        if self._folder is None:
            self._data += data
        elif data:
            with self._part.open("ab", buffering=0) as file:
                file.write(data)
            reach("bases.piece.after", self._job)

    def finish(self) -> bytearray | None:
        """Hold what has come against its hash, and call it by that: it is durable then. Return it where it is in
        memory. Raises FrozenError where it is something else, which is removed; OSError.
        """
        if self._folder is None:
            self.tensors()
            return self._data
        try:
            frozen.read(self._part, self._tensors, self.at.sha256)
        except FrozenError:
            self._part.unlink(missing_ok=True)
            raise
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        reach("bases.name.before", self._job)
        self._part.replace(self._folder / f"{self.at.sha256}{frozen.ENDING}")
        files.sync_folder(self._folder)
        return None

    def tensors(self) -> Params:
        """Return what has come, where it is in memory. Raises FrozenError where it is something else."""
        return frozen.from_bytes(self._data, self._tensors, self.at.sha256)

    def stop(self) -> list[Out]:
        """Ask for nothing more."""
        filters, self._asked = tuple(self._filter(i) for i in sorted(self._asked)), set()
        return [Unsubscribe(filters)] if filters else []

    def _filter(self, index: int) -> str:
        return self._wire.filter_for("body", job=self._job, name=self.at.name, index=str(index))
