"""CSV files: UTF-8, a header row, one example a line, numbers only; one column holds the labels.

Lines are counted from 1, as in an editor.
"""

from __future__ import annotations

import csv
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from models.data.columns import choose, dataset_of
from models.data.dataset import Dataset, DatasetError, checked
from models.data.settings import SourceSettings
from models.params import Float32


def read(settings: SourceSettings, *, ended: bool = False) -> Dataset:
    """Read the file's examples. Raises DatasetError.

    ended: leave out a last line that has no end: somebody is in the middle of writing it, and a number that is cut off
    is a number too.
    """
    path = Path(settings.path)
    lines = _lines(path, ended=ended)
    _, header = next(lines, (0, []))
    names = choose(settings, header, "the header")
    wanted = [header.index(name) for name in names]
    numbers = array("d")
    for line, cells in lines:
        if len(cells) != len(header):
            raise DatasetError(f"{path}, line {line}: {len(cells)} columns where the header has {len(header)}")
        numbers.extend(_numbers(path, line, [cells[i] for i in wanted], names))
    return dataset_of(settings, numbers, len(names))


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
    return checked(np.frombuffer(numbers, np.float32).reshape(-1, inputs), "X", path)


def is_ended(settings: SourceSettings) -> bool:
    """Return whether the last line has its end, as far as that can be read."""
    try:
        with Path(settings.path).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) in b"\r\n"
    except OSError:
        return True


def _lines(path: Path, *, ended: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Return (line number, stripped cells) of every line that is not blank. ended: of those that have their end."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(line for line in file if line.endswith(("\r", "\n"))) if ended else csv.reader(file)
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
