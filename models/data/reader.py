"""One reading of a source: an opened table becomes the examples of a job, and what was found out on the way is noted.

Table ──match──▶ take ──▶ examples ──▶ Reading: the Dataset, and what is to be said of it
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from models.contract import NO_CONTRACT, ContractSpec
from models.data import matching, positional, rows, table, unlabelled
from models.data.blocks import Arrays, Kind, Table
from models.data.dataset import Dataset, DatasetError, KindError
from models.data.examples import Maker
from models.data.settings import SourceSettings
from models.data.skipped import Skipped
from models.data.spool import NoRoomError, Spools, is_mapped
from models.params import Float32

MOST_WRONG = 0.9
"""Share of a column's cells that are no numbers beyond which it is no column of numbers."""


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
    whose, is_named = "the query" if settings.query else "the header", bool(getattr(opened, "is_named", True))
    match = matching.match(settings, contract, opened.header, whose, is_named=is_named)
    spools, skipped = Spools(scratch, path), Skipped(path, settings.max_skipped, place)
    taken = rows.take(opened, match, settings, contract, skipped, spools, pause)
    _check_kinds(match, skipped, path)
    skipped.check()
    maker = Maker(
        *(contract, matching.how(settings, contract), match.features, path, skipped, spools),
        classifies=classifies,
        pause=pause,
        fill=fill,
    )
    data = maker.examples(taken)
    skipped.check()
    if not len(data.y):
        raise DatasetError(f"{path}: no example is left")
    notes = tuple(filter(None, (*opened.notes, skipped.exact, _too_few(data, contract), _lies(data))))
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
    """Raise KindError for a column that is of another type than the job wants, as a whole."""
    for name, kind in match.wanted.items():
        if kind is not Kind.NUMBER or skipped.share_wrong(name) < MOST_WRONG:
            continue
        if name in match.labels and len(match.labels) > 1:
            raise KindError(
                f"{path}: the label {name!r} is no number: of several labels a row each is a value, or 1 (there) or 0"
            )
        if name in match.labels:
            raise KindError(
                f"{path}: the label {name!r} is no number: name the job's classes, classes = [...] in [contract] "
                f"(`fedge job draft {path}` writes the line)"
            )
        raise KindError(
            f"{path}: column {name!r} holds no numbers, which the job wants there ({skipped.first_wrong(name)}): have "
            "numbers there, or leave it out of the job's features"
        )


def _lies(data: Dataset) -> str:
    """Return where examples lie that are too many for the memory."""
    return f"{len(data.y):,} examples lie in a file, not in memory" if is_mapped(data.X) else ""


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
    labelled: bool = True,
    allow: Sequence[str] = (),
    ended: bool = False,
    pause: Callable[[], None] = rows.breathe,
) -> Reading:
    """Return the examples of the file of a source.

    labelled: whether rows need labels; else those that have none are normal ones (unlabelled.py). allow: the factories
    that may run here. ended: leave out a last row that is being written. See `read`.
    """
    row = table.known(settings)
    try:
        if labelled:
            found = row.open(settings, ended=ended, allow=allow)
        else:
            found, settings = unlabelled.opened(row, settings, contract, ended=ended, allow=allow)
        with contextlib.closing(found) as opened:
            if isinstance(opened, Arrays):
                return of_arrays(opened, settings, contract, scratch, classifies=classifies, pause=pause)
            place = "line" if row.name in _OF_LINES else "row"
            return read(opened, settings, contract, scratch, classifies=classifies, place=place, pause=pause)
    except DatasetError:
        raise
    except (ValueError, TypeError, LookupError) as error:  # whose text may have a cell in it
        told = f"{settings.path}: reading failed with {type(error).__name__}: the log of this machine has why"
        raise DatasetError(told, cell=str(error)) from error
