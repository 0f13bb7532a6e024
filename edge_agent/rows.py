"""The rows of a job on this device: read from their source, and in the form that the job's model takes."""

from __future__ import annotations

import weakref

from msgspec import Struct, structs

from models import statistic
from models.data.dataset import Dataset, fit
from models.data.source import Source, kept, scratch_of
from models.job import JobSpec
from models.params import Float32

FITTED_AT_ONCE = 50_000
"""Rows that are given the form that the model takes while the loop waits; more are, beside it."""


class Rows(Struct, frozen=True):
    """A device's rows as the job's model takes them, and their fingerprint."""

    data: Dataset
    fingerprint: int
    statistic: bytes = b""
    """What is said of them, where the fleet has to agree first."""


class RowReader:
    """Reads the rows of one job."""

    __slots__ = ("_file_system", "_last", "_source", "_spec")

    def __init__(self, spec: JobSpec, source: Source, file_system: int | None) -> None:
        self._spec = spec
        self._source = source
        self._file_system = file_system
        self._last: tuple[weakref.ref[Float32], int] | None = None
        """The last rows that were read, which their source holds and the training on them, and their fingerprint."""

    def kept(self) -> Rows | None:
        """Return the rows of the last reading, if they show to be those of now without waiting. Raises DatasetError."""
        last = self._last
        found = None if last is None else kept(self._source, self._file_system)
        if found is None or last is None or last[0]() is not found.X or len(found.y) > FITTED_AT_ONCE:
            return None
        return Rows(fit(found, self._spec.model), last[1])

    def read(self) -> Rows:
        """Return the rows as they are now. May run on another thread, one at a time. Raises DatasetError."""
        found = self._source.snapshot()
        data = fit(found, self._spec.model, scratch_of(self._source))
        last = self._last
        if last is None or last[0]() is not found.X:
            last = self._last = weakref.ref(found.X), data.fingerprint
        return Rows(data, last[1])

    def read_to_agree(self) -> Rows:
        """Return the rows with what is said of them: a large table takes long. As `read`."""
        rows = self.read()
        said = statistic.of_rows(self._spec, rows.data.X, rows.data.y)
        return structs.replace(rows, statistic=statistic.to_bytes(said))
