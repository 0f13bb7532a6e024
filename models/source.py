"""Where the rows of a data source are, and reading them as a model takes them. Both roots' configs have such tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from models import dataset
from models.dataset import Dataset
from models.job import ModelSpec


class DataSource(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of examples. On a device they never leave it."""

    path: str
    """An NPZ file with X and y, or a CSV file with a header row."""
    label: str = "y"
    """Name of the label column (CSV) or array (NPZ)."""
    features: str | tuple[str, ...] | None = None
    """Feature columns (CSV; all others when not given) or the name of the feature array (NPZ; X)."""


Reader = Callable[[DataSource, ModelSpec], Dataset]
"""What `read` is: who runs a fleet in one process gives each device its rows without a file."""


def read(source: DataSource, model: ModelSpec) -> Dataset:
    """Read a source as this model takes it. Raises DatasetError, naming the file and the row or column."""
    path = Path(source.path)
    features = source.features
    if isinstance(features, str):
        data = dataset.load(path, label=source.label, key=features)
    else:
        data = dataset.load(path, label=source.label, features=features)
    return dataset.fit(data, model)
