"""One reading of a source: an opened table becomes the examples of a job, and what was found out on the way is noted.

Table ──match──▶ take ──▶ examples ──▶ Reading: the Dataset, and what is to be said of it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from models.contract import NO_CONTRACT, ContractSpec
from models.data import matching, positional, rows, table
from models.data.blocks import Arrays, Kind, Table
from models.data.dataset import Dataset, DatasetError
from models.data.examples import Maker
from models.data.settings import SourceSettings
from models.data.skipped import Skipped
from models.data.spool import NoRoomError, Spools
from models.params import Float32


class Reading(NamedTuple):
    """What came of reading a source."""

    data: Dataset
    notes: tuple[str, ...]
    """What was found out by looking, and what was left out: for this machine's log."""


def read(
    opened: Table,
    settings: SourceSettings,
    contract: ContractSpec = NO_CONTRACT,
    scratch: Path | None = None,
    *,
    classifies: bool = True,
    place: str = "line",
    pause: Callable[[], None] = rows.breathe,
    fill: Float32 | None = None,
) -> Reading:
    """Return the examples of a table as a contract means them.

    scratch: where examples lie that are too many for the memory; all are in memory where it is None. classifies:
    whether labels are classes. place: what a row's `line` is called, "line" or "row". pause: called after each block.
    fill: what stands for missing values that are filled with a mean, where it is not that of these rows.
    Raises DatasetError, naming the source and the place.
    """
    try:
        return _read(opened, settings, contract, scratch, classifies, place, pause, fill)
    except NoRoomError as error:
        raise DatasetError(str(error)) from error


def _read(
    opened: Table,
    settings: SourceSettings,
    contract: ContractSpec,
    scratch: Path | None,
    classifies: bool,
    place: str,
    pause: Callable[[], None],
    fill: Float32 | None = None,
) -> Reading:
    path = settings.path
    match = matching.match(settings, contract, opened.header, "the query" if settings.query else "the header")
    spools, skipped = Spools(scratch, path), Skipped(path, settings.max_skipped, place)
    taken = rows.take(opened, match, settings, contract, skipped, spools, pause)
    _check_kinds(match, skipped, path)
    skipped.check()
    maker = Maker(
        *(contract, matching.how(settings, contract), match.features, path, skipped, spools),
        classifies=classifies and len(match.labels) == 1,
        pause=pause,
        fill=fill,
    )
    data = maker.examples(taken)
    skipped.check()
    if not len(data.y):
        raise DatasetError(f"{path}: no example is left")
    notes = tuple(filter(None, (*opened.notes, skipped.exact, _too_few(data, contract))))
    return Reading(data._replace(told=skipped.told), notes)


def of_arrays(
    arrays: Arrays,
    settings: SourceSettings,
    contract: ContractSpec = NO_CONTRACT,
    scratch: Path | None = None,
    *,
    classifies: bool = True,
    pause: Callable[[], None] = rows.breathe,
) -> Reading:
    """Return the examples of a table whose columns have no names. See `read`."""
    try:
        if contract == NO_CONTRACT:
            data = positional.as_they_are(arrays, settings, Spools(scratch, settings.path), pause)
            return Reading(data, tuple(arrays.notes))
        named = positional.named(arrays, settings, contract)
        found = _read(named.table, named.settings, named.contract, scratch, classifies, "row", pause)
    except NoRoomError as error:
        raise DatasetError(str(error)) from error
    data = shaped(found.data, named.shape)
    return Reading(data, tuple(filter(None, (*arrays.notes, named.note, *found.notes))))


def shaped(data: Dataset, shape: tuple[int, ...]) -> Dataset:
    """Return the data with inputs of this shape, where they are those of one row still."""
    if data.X.shape[1:] == shape or math.prod(data.X.shape[1:]) != math.prod(shape):
        return data
    held_out = None if data.held_out is None else shaped(data.held_out, shape)
    return data._replace(X=data.X.reshape(-1, *shape), held_out=held_out)


def _check_kinds(match: matching.Match, skipped: Skipped, path: str) -> None:
    """Raise DatasetError for a column that is of another type than the job wants, as a whole."""
    for name, kind in match.wanted.items():
        if kind is not Kind.NUMBER or skipped.share_wrong(name) < 0.5:
            continue
        if name in match.labels:
            raise DatasetError(
                f"{path}: the label {name!r} is no number: name the job's classes, classes = [...] in [contract] "
                f"(`fedge job draft {path}` writes the line)"
            )
        raise DatasetError(
            f"{path}: column {name!r} holds no numbers, which the job wants there: have numbers there, or leave it "
            "out of the job's features"
        )


def _too_few(data: Dataset, contract: ContractSpec) -> str:
    """Return what to say where nothing could be held back."""
    if not contract.validation or data.held_out is not None:
        return ""
    what = "group" if contract.by is not None else "stretch of its series" if contract.window is not None else "row"
    return f"nothing is held back for validation: there is no second {what}"


_OF_LINES = ("CSV", "JSON lines")
"""The formats whose rows are counted as an editor counts lines."""


def read_file(
    settings: SourceSettings,
    contract: ContractSpec = NO_CONTRACT,
    scratch: Path | None = None,
    *,
    classifies: bool = True,
    allow: Sequence[str] = (),
    ended: bool = False,
    pause: Callable[[], None] = rows.breathe,
) -> Reading:
    """Return the examples of the file of a source.

    allow: the factories that may run here. ended: leave out a last row that is being written. See `read`.
    """
    row = table.known(settings)
    opened = row.open(settings, ended=ended, allow=allow)
    try:
        if isinstance(opened, Arrays):
            return of_arrays(opened, settings, contract, scratch, classifies=classifies, pause=pause)
        place = "line" if row.name in _OF_LINES else "row"
        return read(opened, settings, contract, scratch, classifies=classifies, place=place, pause=pause)
    finally:
        opened.close()
