"""Where the rows of a data source are, and reading them as a model takes them. Both roots' configs have such tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from models.data import dataset
from models.data.dataset import Dataset
from models.job import ModelSpec

FilePath = Annotated[
    str,
    Meta(
        pattern=r"\A[^\x00-\x1f\x7f]{1,4096}\Z",
        description="a path is 1 to 4,096 characters, none of them a control character",
    ),
]
"""What names a file or a folder."""
Column = Annotated[str, Meta(min_length=1, max_length=1000)]
"""What names a column or an array: anything a header may hold, even a line break."""


class DataSource(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of examples. On a device they never leave it."""

    path: FilePath
    """An NPZ file with X and y, or a CSV file with a header row."""
    label: Column = "y"
    """Name of the label column (CSV) or array (NPZ)."""
    features: Column | Annotated[tuple[Column, ...], Meta(min_length=1)] | None = None
    """Feature columns (CSV; all others when not given) or the name of the feature array (NPZ; X). One column may stand
    alone, without brackets."""

    def __post_init__(self) -> None:
        if self.label in self._named:
            raise ValueError(f"features has the label {self.label!r} among them")
        if self._is_npz and len(self._named) > 1:
            raise ValueError(f"features names {len(self._named)} arrays where an NPZ file has one, of all features")

    @property
    def _named(self) -> tuple[str, ...]:
        if self.features is None:
            return ()
        return (self.features,) if isinstance(self.features, str) else self.features

    @property
    def _is_npz(self) -> bool:
        return dataset.kind_of(Path(self.path)) == "npz"


Reader = Callable[[DataSource, ModelSpec], Dataset]
"""What `read` is: who runs a fleet in one process gives each device its rows without a file."""


def load(source: DataSource) -> Dataset:
    """Read a source as it is. Raises DatasetError, naming the file and the row or column."""
    path, names = Path(source.path), source._named
    if source._is_npz:
        return dataset.load(path, label=source.label, key=names[0] if names else "X")
    return dataset.load(path, label=source.label, features=names or None)


def read(source: DataSource, model: ModelSpec) -> Dataset:
    """Read a source as this model takes it. Raises DatasetError, naming the file and the row or column."""
    return dataset.fit(load(source), model)
