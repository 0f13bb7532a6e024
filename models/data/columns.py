"""Rows under named columns, as CSV files and queries have them: which columns are meant, and the arrays they become."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from models.data.dataset import Dataset, DatasetError, checked, float32
from models.data.settings import SourceSettings


def choose(settings: SourceSettings, header: Sequence[str], whose: str) -> list[str]:
    """Return the names of the columns that a source's settings mean: the features in their order, then the label.

    whose: what has the columns, for messages. Raises DatasetError for one that is not there, or there twice.
    """
    features = settings.columns or [name for name in header if name != settings.label]
    names = [*features, settings.label]
    for name in names:
        if header.count(name) != 1:
            how = "no" if name not in header else "more than one"
            raise DatasetError(f"{settings.path}: {how} column {name!r}; {whose} has {', '.join(header) or 'nothing'}")
    return names


def dataset_of(settings: SourceSettings, numbers: array[float], n_columns: int) -> Dataset:
    """Return the examples of these numbers (doubles, row by row, the label last). Raises DatasetError."""
    table = np.frombuffer(numbers, np.float64).reshape(-1, n_columns)
    X, y = float32(table[:, :-1]), float32(table[:, -1])
    path = settings.path
    return Dataset(checked(X, "the features", path), checked(y, settings.label, path), path)
