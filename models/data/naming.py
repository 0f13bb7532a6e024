"""What the columns of a table are called, and where those are that somebody wants. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from models.data.dataset import DatasetError
from models.data.settings import SourceSettings

_SHOWN = 20
"""Names that a message has."""


UNNAMED = (
    "none of the names that are wanted is in its first line, and no number stands below: is that line a row? Write the "
    'names of the columns above it, or beside the path, header = ["NAME", …] (the log of this machine has the line)'
)
"""What is said of a table whose first line may be a row as well as names, of which nothing may travel."""


def called(names: Sequence[str], settings: SourceSettings, *, is_named: bool = True) -> tuple[str, ...]:
    """Return the names that a table's columns go by: its own, but for those that the settings rename.

    is_named: whether they are names for certain. Raises DatasetError where they rename what is not there.
    """
    for name in settings.rename:
        if name not in names:
            if not is_named:
                raise DatasetError(f"{settings.path}: rename: no column {name!r}; {UNNAMED}", cell=listed(names))
            raise DatasetError(f"{settings.path}: rename: no column {name!r}; the header has {listed(names)}")
    return tuple(settings.rename.get(name, name) for name in names)


def places(header: Sequence[str], wanted: Iterable[str], path: str) -> Mapping[str, int]:
    """Return where each column is that is wanted. Raises DatasetError for one that is not there, or there twice."""
    found = {}
    for name in wanted:
        n = header.count(name)
        if n > 1:
            raise DatasetError(f"{path}: column {name!r} is doubled: give one of the {n} another name in the header")
        if not n:
            raise DatasetError(f"{path}: no column {name!r}; the header has {listed(header)}")
        found[name] = header.index(name)
    return found


def counted(n: int, what: str) -> str:
    """Return a number of things: "1 cell", "2 cells"."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first of them where there are many."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else shown or "nothing"
