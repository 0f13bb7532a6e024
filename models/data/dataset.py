"""Data of one device, from a file to the arrays that a net trains on.

NPZ: arrays `X` (n, ...) and the labels (n,) or (n, outputs). uint8 features are scaled to [0, 1]; every other
number becomes float32. CSV: UTF-8, a header row, one example a line, numbers only; one column holds the labels.

Nothing is unpickled, ever: a pickle is a program. Every error is a DatasetError that names the file and the place.
Rows are counted from 0 as in the array; lines of a CSV from 1 as in an editor.
"""

from __future__ import annotations

import csv
import math
import tokenize
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from models.job import ModelSpec
from models.nets import table as nets
from models.nets.losses import LabelError, Labels
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


class DatasetError(ValueError):
    """Data that cannot be used; the message names the file and the row, line or column."""


class Dataset(NamedTuple):
    """X: (n, ...) float32, C-contiguous. y: n labels. n is at least 1; everything is finite."""

    X: Float32
    y: Labels
    source: str = "data"
    """The file, for messages."""


def load(path: Path, *, label: str = "y", features: Sequence[str] | None = None, key: str = "X") -> Dataset:
    """Read a file of examples.

    label: the array (NPZ) or column (CSV) of the labels. features: the columns of a CSV to use, in this order;
    all but the label's when not given. key: the array of the features in an NPZ. Raises DatasetError.
    """
    match kind_of(path):
        case "npz":
            return _load_npz(path, key, label)
        case "csv":
            return _load_csv(path, label, features)
    raise DatasetError(f"{path}: neither .npz nor .csv")


def kind_of(path: Path) -> Literal["npz", "csv"] | None:
    """Return how, by its name, a file of examples is written; None for neither way."""
    match path.suffix.lower():
        case ".npz":
            return "npz"
        case ".csv":
            return "csv"
    return None


def fit(data: Dataset, model: ModelSpec) -> Dataset:
    """Return the data as this model takes them, or raise DatasetError.

    As the row of its kind does: X (n, inputs) for the built-in nets, as it is for a factory's; y as the loss takes it,
    (n,) int64 in 0..outputs-1 for cross_entropy, (n, outputs) float32 for mse. Arrays that fit already are not copied.
    """
    n_features = math.prod(data.X.shape[1:])
    if n_features != model.inputs:
        raise DatasetError(
            f"{data.source}: {n_features} features an example where the model has inputs = {model.inputs}"
        )
    kind = nets.find(model.kind)
    try:
        X, y = kind.fit(kind.spec.of(model), data.X, data.y)
    except LabelError as error:
        where = data.source if error.row is None else f"{data.source}, row {error.row}"
        raise DatasetError(f"{where}: {error}") from error
    return data if X is data.X and y is data.y else Dataset(X, y, data.source)


def load_rows(path: Path, inputs: int) -> Float32:
    """Read (n, inputs) float32 rows without labels from a CSV, for a prediction.

    The first line is a header if any of its cells is no number. Raises DatasetError.
    """
    lines = list(_lines(path))
    if lines and not all(_is_number(cell) for cell in lines[0][1]):
        del lines[0]
    numbers = array("f")
    for line, cells in lines:
        if len(cells) != inputs:
            raise DatasetError(f"{path}, line {line}: {len(cells)} columns where the model has inputs = {inputs}")
        numbers.extend(_numbers(path, line, cells, [f"column {i + 1}" for i in range(inputs)]))
    return _checked(np.frombuffer(numbers, np.float32).reshape(-1, inputs), "X", path)


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


def _load_npz(path: Path, key: str, label: str) -> Dataset:
    X, y = read_arrays(path, (key, label)).values()
    for name, values in ((key, X), (label, y)):
        if values.dtype.kind not in "buif" or values.ndim == 0:
            raise DatasetError(f"{path}: {name} is {values.dtype} {values.shape}, not rows of numbers")
    if len(X) != len(y):
        raise DatasetError(f"{path}: {len(X)} rows in {key} but {len(y)} in {label}")
    return Dataset(_checked(_scaled(X), key, path), _checked(_plain(y), label, path), str(path))


def _scaled(X: npt.NDArray[Any]) -> Float32:
    """Return float32; uint8 is scaled to [0, 1]."""
    scaled = _float32(X)
    if X.dtype == np.uint8:
        scaled /= 255.0
    return scaled


def _float32(values: npt.NDArray[Any]) -> Float32:
    with np.errstate(over="ignore"):  # what is too large becomes inf, which the check reports with its row
        return np.ascontiguousarray(values, np.float32)


def _plain(y: npt.NDArray[Any]) -> Labels:
    """Return whole numbers as int64, others as float32."""
    return _float32(y) if y.dtype.kind == "f" else y.astype(np.int64)


def _load_csv(path: Path, label: str, features: Sequence[str] | None) -> Dataset:
    lines = _lines(path)
    _, header = next(lines, (0, []))
    names = list(features) if features is not None else [name for name in header if name != label]
    for name in (*names, label):
        if header.count(name) != 1:
            how = "no" if name not in header else "more than one"
            raise DatasetError(f"{path}: {how} column {name!r}; the header has {', '.join(header) or 'nothing'}")
    wanted = [header.index(name) for name in (*names, label)]
    numbers = array("d")
    for line, cells in lines:
        if len(cells) != len(header):
            raise DatasetError(f"{path}, line {line}: {len(cells)} columns where the header has {len(header)}")
        numbers.extend(_numbers(path, line, [cells[i] for i in wanted], (*names, label)))
    table = np.frombuffer(numbers, np.float64).reshape(-1, len(wanted))
    X, y = _float32(table[:, :-1]), _float32(table[:, -1])
    return Dataset(_checked(X, "the features", path), _checked(y, label, path), str(path))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Return (line number, stripped cells) of every line that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for cells in reader:
                if cells:
                    yield reader.line_num, [cell.strip() for cell in cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as CSV: {error}") from error


def _numbers(path: Path, line: int, cells: Sequence[str], names: Sequence[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        name, cell = next((n, c) for n, c in zip(names, cells, strict=True) if not _is_number(c))
        raise DatasetError(f"{path}, line {line}, column {name}: {cell!r} is no number") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _checked(values: npt.NDArray[Any], name: str, path: Path) -> npt.NDArray[Any]:
    """Return the values back, or raise DatasetError if there are none or one is not finite."""
    if values.size == 0:
        raise DatasetError(f"{path}: no rows in {name}")
    # nan and inf show in the extremes, which need no array of the size of the data
    if values.dtype.kind == "f" and not np.isfinite([values.min(), values.max()]).all():
        row = next(i for i, value in enumerate(values) if not np.isfinite(value).all())
        raise DatasetError(f"{path}, row {row}: {name} has a value that is not a finite float32")
    return values
