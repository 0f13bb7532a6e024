"""The rows of a job on this device: read from their source, and in the form that the job's model takes."""

from __future__ import annotations

import weakref

from msgspec import structs

from edge_agent.workspace import Rows, Workspace
from models import statistic
from models.data.dataset import fit
from models.data.source import kept, scratch_of

FITTED_AT_ONCE = 50_000
"""Rows that are given the form that the model takes while the loop waits; more are, beside it."""


class RowReader(Workspace):
    """A job that reads its rows."""

    __slots__ = ()

    def _kept(self) -> Rows | None:
        """Return the rows of the last reading, if they show to be those of now without waiting. Raises DatasetError."""
        last = self._last
        found = None if last is None else kept(self._source, self._file_system)
        if found is None or last is None or last[0]() is not found.X or len(found.y) > FITTED_AT_ONCE:
            return None
        return Rows(found if last[2] else fit(found, self.spec.model), last[1])

    def _read(self) -> Rows:
        """Return the rows as they are now. May run on another thread, one at a time. Raises DatasetError."""
        found = self._source.snapshot()
        data = fit(found, self.spec.model, scratch_of(self._source))
        last = self._last
        if last is None or last[0]() is not found.X:
            last = self._last = weakref.ref(found.X), data.fingerprint, data is found
        return Rows(data, last[1])

    def _read_to_agree(self) -> Rows:
        """Return the rows with what is said of them: a large table takes long. As `_read`."""
        rows = self._read()
        said = statistic.of_rows(self.spec, rows.data.X, rows.data.y)
        return structs.replace(rows, statistic=statistic.to_bytes(said))
