"""NPZ files: arrays `X` (n, ...) and the labels (n,) or (n, outputs).

uint8 features are scaled to [0, 1]; every other number becomes float32. Nothing is unpickled, ever: a pickle is a
program.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset, DatasetError, checked, float32
from models.data.settings import SourceSettings
from models.nets.losses import Labels
from models.params import Float32

NPZ_ERRORS = (
    OSError,
    EOFError,
    ValueError,  # NumPy's own, and a pickled array
    KeyError,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # an encrypted member
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What np.load may raise on a damaged or hostile file."""


def check(settings: SourceSettings) -> None:
    """Raise ValueError for keys that an NPZ file cannot have been meant with."""
    if len(settings.columns) > 1:
        raise ValueError(f"features names {len(settings.columns)} arrays where an NPZ file has one, of all features")


def read(settings: SourceSettings) -> Dataset:
    """Read the file's examples. Raises DatasetError."""
    path, label = Path(settings.path), settings.label
    key = settings.columns[0] if settings.columns else "X"
    X, y = read_arrays(path, (key, label)).values()
    for name, values in ((key, X), (label, y)):
        if values.dtype.kind not in "buif" or values.ndim == 0:
            raise DatasetError(f"{path}: {name} is {values.dtype} {values.shape}, not rows of numbers")
    if len(X) != len(y):
        raise DatasetError(f"{path}: {len(X)} rows in {key} but {len(y)} in {label}")
    return Dataset(checked(_scaled(X), key, path), checked(_plain(y), label, path), str(path))


def _scaled(X: npt.NDArray[Any]) -> Float32:
    """Return float32; uint8 is scaled to [0, 1]."""
    scaled = float32(X)
    if X.dtype == np.uint8:
        scaled /= 255.0
    return scaled


def _plain(y: npt.NDArray[Any]) -> Labels:
    """Return whole numbers as int64, others as float32."""
    return float32(y) if y.dtype.kind == "f" else y.astype(np.int64)


def read_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read these arrays of an NPZ file, or all of them in the file's order. Raises DatasetError."""
    try:
        # opened here because np.load leaves a damaged file open
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DatasetError(f"{path}: a single array, not an NPZ")
            names = file.files if names is None else names
            for name in names:
                if name not in file.files:
                    raise DatasetError(f"{path}: no array {name}; it has {', '.join(file.files) or 'none'}")
            return {name: file[name] for name in names}
    except DatasetError:
        raise
    except NPZ_ERRORS as error:
        raise DatasetError(f"{path}: cannot be read as NPZ: {error}") from error
