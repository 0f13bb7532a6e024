"""NPZ files: arrays `X` (n, ...) and the labels (n,) or (n, outputs), by position; or columns by name.

    X, y                     by position, as ever: uint8 features are scaled to [0, 1], others become float32
    X, columns, y, …         the columns of X are called so; other arrays of as many rows are columns too
    temp, vib, y             an array a column

Labels may be text. Nothing is unpickled, ever: a pickle is a program.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from models.data import npy
from models.data.blocks import BLOCK_ROWS, Block, Fault, Kind
from models.data.cells import CellError, Cells, Doubles, Why, missing_of
from models.data.dataset import DatasetError, checked, float32
from models.data.naming import called, listed, places
from models.data.npy import Array
from models.data.settings import SourceSettings
from models.data.textfile import at_once
from models.data.values import Values
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
NAMINGS = ("columns", "names", "feature_names")
"""Arrays that name the columns of the features."""
MOST_ARRAYS = 100_000
MOST_BYTES = 2**18
"""Of the features in a block: fewer rows where they are large. A device has room for a few of them beside all rows."""


def open_table(settings: SourceSettings, *, ended: bool) -> NpzTable | NpzArrays:  # noqa: ARG001 -- no row is half there
    """Open an NPZ file: by name if its columns have names, else by position. Raises DatasetError."""
    path = settings.path
    with contextlib.ExitStack() as stack:
        try:
            # opened here because ZipFile leaves a damaged file open
            stream = stack.enter_context(open(path, "rb", opener=at_once))
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise DatasetError(f"{path}: cannot be read as NPZ: it is no file")
            if stream.read(6) == b"\x93NUMPY":
                raise DatasetError(f"{path}: a single array, not an NPZ: write one with numpy.savez")
            file = zipfile.ZipFile(stream)
            arrays = {name: npy.header_of(file, name) for name in _names(file)}
        except DatasetError:
            raise
        except NPZ_ERRORS as error:
            raise DatasetError(f"{path}: cannot be read as NPZ: {error}") from error
        opened = _opened(file, arrays, settings)
        opened.own = stack.pop_all()
        return opened


def _names(file: zipfile.ZipFile) -> list[str]:
    if len(file.namelist()) > MOST_ARRAYS:
        raise ValueError(f"it has more than {MOST_ARRAYS:,} arrays")
    return [name.removesuffix(".npy") for name in file.namelist()]


def _opened(file: zipfile.ZipFile, arrays: dict[str, Array], settings: SourceSettings) -> NpzTable | NpzArrays:
    path, columns = settings.path, settings.columns
    key = columns[0] if len(columns) == 1 else "X"
    naming = next((name for name in NAMINGS if name in arrays and arrays[name].dtype.kind in "US"), None)
    X = arrays.get(key)
    if naming is not None and X is not None and len(X.shape) == 2 and arrays[naming].shape == (X.shape[1],):
        with _told(path):
            names = tuple(str(name) for name in np.concatenate(list(npy.rows(file, arrays[naming], 2**16))).tolist())
        others = {
            name: one for name, one in arrays.items() if name not in (key, naming) and one.shape[:1] == X.shape[:1]
        }
        return NpzTable(file, settings, (*names, *_flat(others)), {key: (X, names)}, _flat(others))
    if len(columns) <= 1 and X is not None and settings.label in arrays:
        return NpzArrays(file, settings, X, arrays[settings.label])
    flat = _flat(arrays)
    if (
        len(flat) < len(arrays)
        or len({one.n_rows for one in flat.values()}) != 1
        or (len(columns) <= 1 and len(flat) < 2)
    ):
        missing = key if X is None else settings.label
        raise DatasetError(
            f"{path}: no array {missing}; it has {listed(list(arrays))}: it wants an array of features and one "
            "of labels, or one of the same length for each column"
        )
    return NpzTable(file, settings, tuple(flat), {}, flat)


def _flat(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: one for name, one in arrays.items() if len(one.shape) == 1 or one.shape[1:] == (1,)}


class NpzTable:
    """See `Table`. Rows are counted from 0."""

    def __init__(
        self,
        file: zipfile.ZipFile,
        settings: SourceSettings,
        names: tuple[str, ...],
        wide: dict[str, tuple[Array, tuple[str, ...]]],
        flat: dict[str, Array],
    ) -> None:
        """wide: arrays of many columns, with their names. flat: those of one column. Raises DatasetError."""
        self.own = contextlib.ExitStack()
        self._file, self._settings, self._wide, self._flat, self._inner = file, settings, wide, flat, names
        self._values = Values(
            Cells(missing=missing_of(settings.missing_values)), settings.time_format, texts_count=False
        )
        self.header = called(names, settings)
        self.notes: tuple[str, ...] = ("columns by name",)
        if any(array.dtype == np.uint8 for array, _ in wide.values()):
            self.notes = (*self.notes, "bytes, 0 to 255, as they are")

    def close(self) -> None:
        """See `Table`."""
        self._file.close()
        self.own.close()

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """See `Table`."""
        at = places(self.header, wanted, self._settings.path)
        return self._blocks(wanted, {name: self._inner[at[name]] for name in wanted})

    def _blocks(self, wanted: Mapping[str, Kind], inner: Mapping[str, str]) -> Iterator[Block]:
        path, first, needed = self._settings.path, 0, set(inner.values())
        wide = {key: one for key, one in self._wide.items() if needed & set(one[1])}
        flat = {name: one for name, one in self._flat.items() if name in needed}
        n_rows = max(1, min(BLOCK_ROWS, *(MOST_BYTES // max(1, one.row_bytes) for one, _ in wide.values()), BLOCK_ROWS))
        with _told(path):
            streams = [npy.rows(self._file, array, n_rows) for array, _ in wide.values()]
            streams += [npy.rows(self._file, array, n_rows) for array in flat.values()]
            for parts in zip(*streams, strict=True):
                cells: dict[str, NDArray[Any]] = {}
                for (_, names), part in zip(wide.values(), parts, strict=False):
                    cells |= {name: part[:, at] for at, name in enumerate(names) if name in needed}
                cells |= {name: part.reshape(-1) for name, part in zip(flat, parts[len(wide) :], strict=True)}
                block = self._block(wanted, {name: cells[inner[name]] for name in wanted}, first)
                first += len(block.lines)
                yield block

    def _block(self, wanted: Mapping[str, Kind], cells: Mapping[str, NDArray[Any]], first: int) -> Block:
        columns: dict[str, Doubles | list[str]] = {}
        faults: list[Fault] = []
        n = 0
        for name, kind in wanted.items():
            n = len(cells[name])
            try:
                columns[name], whys = self._column(name, kind, cells[name])
            except CellError as error:
                raise DatasetError(f"{self._settings.path}, column {name}: {error}") from None
            faults += [Fault(first + row, name, why) for row, why in whys]
        faults.sort(key=lambda fault: fault.line)
        return Block(columns, np.arange(first, first + n), tuple(faults))

    def _column(self, name: str, kind: Kind, cells: NDArray[Any]) -> tuple[Doubles | list[str], Sequence[Why]]:
        if cells.dtype.kind == "M" and kind is Kind.TIME:
            whole = cells.astype("datetime64[us]").astype(np.int64)
            return np.where(np.isnat(cells), np.nan, whole / 1e6), ()
        if cells.dtype.kind == "S":
            cells = _texts(cells)
        if cells.dtype.kind == "M" and kind is not Kind.NUMBER:
            return ["" if np.isnat(cell) else str(cell) for cell in cells], ()
        if cells.dtype.kind not in "buifU":
            raise CellError(f"is {cells.dtype}, neither numbers nor text")
        if kind is Kind.NUMBER and cells.dtype.kind == "b":
            return cells.astype(np.float64), ()
        return self._values.column(name, kind, cells.tolist())


class NpzArrays:
    """A table whose columns have no names: one array of features, and one of labels."""

    header: tuple[str, ...] = ()

    def __init__(self, file: zipfile.ZipFile, settings: SourceSettings, X: Array, y: Array) -> None:
        """Look at their types. Raises DatasetError."""
        self.own = contextlib.ExitStack()
        self._file, self._path, self._X, self._y = file, settings.path, X, y
        if settings.rename:
            raise DatasetError(f"{settings.path}: rename: {X.name} has no columns with names")
        for array, kinds in ((X, "buif"), (y, "buifUS")):
            if array.dtype.kind not in kinds or not array.shape:
                raise DatasetError(f"{settings.path}: {array.name} is {array.dtype} {array.shape}, not rows of numbers")
        if X.n_rows != y.n_rows:
            raise DatasetError(f"{settings.path}: {X.n_rows} rows in {X.name} but {y.n_rows} in {y.name}")
        scaled = ("bytes, 0 to 255: divided by 255, unless the job normalises",) if X.dtype == np.uint8 else ()
        self.notes: tuple[str, ...] = ("columns by position", *scaled)
        self.n_rows = X.n_rows

    def close(self) -> None:
        """See `Table`."""
        self._file.close()
        self.own.close()

    def blocks(self, wanted: Mapping[str, Kind]) -> Iterator[Block]:
        """Raise DatasetError: there are no names."""
        raise DatasetError(
            f"{self._path}: {self._X.name} has no names of columns, so that {listed(list(wanted))} cannot be found: "
            "add an array `columns` with their names"
        )

    def parts(self, *, scaled: bool = True) -> Iterator[tuple[Float32, Labels | NDArray[np.str_]]]:
        """Yield some rows at a time: features (n, ...) float32, and labels: int64, float32 or text.

        scaled: divide bytes by 255. Raises DatasetError.
        """
        n_rows = max(1, min(BLOCK_ROWS, MOST_BYTES // max(1, self._X.row_bytes)))
        with _told(self._path):
            features = npy.rows(self._file, self._X, n_rows)
            for X, y in zip(features, npy.rows(self._file, self._y, n_rows), strict=True):
                yield _scaled(X) if scaled else float32(X), _texts(y) if y.dtype.kind in "US" else _plain(y)

    def arrays(self, *, scaled: bool = True) -> tuple[Float32, Labels | NDArray[np.str_]]:
        """Return all rows: features (n, ...) float32, and labels: int64, float32 or text.

        scaled: divide bytes by 255. Raises DatasetError, also where a number is not finite.
        """
        labels, at = [], 0
        with _told(self._path):
            X = np.empty(self._X.shape, np.float32)
        for part, y in self.parts(scaled=scaled):
            X[at : at + len(part)] = part
            labels.append(y)
            at += len(part)
        if not labels:
            raise DatasetError(f"{self._path}: no rows in {self._X.name}")
        return checked(X, self._X.name, self._path), checked(np.concatenate(labels), self._y.name, self._path)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what a damaged file raises into a DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except NPZ_ERRORS as error:
        raise DatasetError(f"{path}: cannot be read as NPZ: {error}") from error


def _scaled(X: npt.NDArray[Any]) -> Float32:
    """Return float32; uint8 is scaled to [0, 1]."""
    scaled = float32(X)
    if X.dtype == np.uint8:
        scaled /= 255.0
    return scaled


def _texts(cells: npt.NDArray[Any]) -> NDArray[np.str_]:
    """Return text; bytes are UTF-8."""
    return np.char.decode(cells, "utf-8", "replace") if cells.dtype.kind == "S" else cells


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
