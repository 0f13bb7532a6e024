"""A job file drafted from a table: what its columns seem to be, and the job that trains on them.

    Table ──sample──▶ what each column is ──all rows──▶ Findings ──▶ job file, with comments

What is guessed is said, with why, so that a person can put it right. A draft names classes and columns and counts rows;
it shows no other cell, and it stays with who asked for it. How the job file is written is in job_file.py.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np
from msgspec import Struct

from models.data.blocks import Arrays, Kind, Table
from models.data.cells import MISSING, Cells
from models.data.dataset import DatasetError
from models.data.job_file import Column, Values, body, head
from models.data.settings import SourceSettings
from models.data.times import compact_format, is_time

SAMPLE = 5_000
"""Rows that show what a column is."""
MOST_CLASSES = 50
"""Different labels that are still classes."""
MOST_NUMBERS = 20
"""The same of whole numbers."""
_PIXELS = 64
"""Columns of whole numbers from 0 to 255 that are an image."""
_LABELS = ("label", "class", "target", "y", "labels", "klass", "outcome", "fault", "activity", "state")
_TIMES = re.compile(r"(?i)\A(_?time|timestamp|date|datetime|ts|when|utc|zeit|datum|heure|t)\b.*\Z")
_GROUPS = re.compile(r"(?i)\A(group|trial|patient|subject|session|machine|device|run|batch|series|person)([_ ]?id)?\Z")
_COUNTERS = re.compile(r"(?i)\A(|#|id|no|nr|n|index|idx|row|record|unnamed: 0|result|table)\Z")


class Draft(Struct, frozen=True):
    """A job for a table, and what it was made from."""

    file: str
    rows: int
    columns: list[Column]
    label: str
    label_why: str
    classes: list[str]
    notes: list[str]
    job: str
    """The job file, TOML."""


class _Seen(Struct):
    """What was seen of one column."""

    name: str
    texts: Sequence[str] = ()
    """Of the sample, without what is missing."""
    n_missing: int = 0
    is_number: bool = False
    is_time: bool = False
    low: float = math.inf
    high: float = -math.inf
    is_whole: bool = True
    counts_rows: bool = True
    last: float | None = None


def draft(table: Table, settings: SourceSettings, label: str | None = None) -> Draft:
    """Return a job for a table. label: the name of its column, guessed where there is none. Raises DatasetError."""
    if isinstance(table, Arrays):
        return _of_arrays(table, settings)
    header = table.header
    doubled = {name for name in header if header.count(name) > 1}
    if label is not None and (label not in header or label in doubled):
        raise DatasetError(
            f"{settings.path}: --label {label}: no such column, or more than one: it has {', '.join(header)}"
        )
    seen = _sampled(table, [name for name in header if name not in doubled])
    if not any(one.texts for one in seen.values()):
        raise DatasetError(f"{settings.path}: no rows yet: a draft needs some")
    label, why = (label, "as was asked for") if label is not None else _label(list(seen.values()), settings)
    labels, marks = Counter[str](), Counter[str]()
    n_rows = _look_through(table, seen, label, labels, marks if settings.missing_values is None else None)
    columns = [_column(one, n_rows, label, why, pixels=_are_pixels(seen, label)) for one in seen.values()]
    columns += [Column(name, "unused", "its name is doubled", 0.0) for name in sorted(doubled)]
    classes = _classes(labels, seen[label], settings.path)
    features = [one.name for one in columns if one.role == "feature"]
    if not features:
        raise DatasetError(f"{settings.path}: no column of numbers is left for a feature, beside the label {label!r}")
    pixels = _are_pixels(seen, label)
    notes = list(table.notes)
    if marks:
        stand = ", ".join(f"{mark} ({n:,} rows)" for mark, n in marks.most_common(5))
        notes.append(f"taken for no label, unless classes has them: {stand}")
    lines = [
        *head(settings, n_rows, notes, columns),
        *body(
            *(settings, features, label, why, classes),
            pixels="pixels" if pixels else "standard",
            labels=labels,
            values=_values(table, label) if classes is None else None,
            missing=sum(one.missing for one in columns if one.role == "feature"),
        ),
    ]
    return Draft(settings.path, n_rows, columns, label, why, classes or [], notes, "\n".join(lines) + "\n")


def _sampled(table: Table, names: Sequence[str]) -> dict[str, _Seen]:
    """Return what the first rows show of each column."""
    texts: dict[str, list[str]] = {name: [] for name in names}
    for block in table.blocks(dict.fromkeys(names, Kind.TEXT)):
        for name in names:
            texts[name] += block.columns[name]
        if len(texts[names[0]]) >= SAMPLE:
            break
    found = {}
    for name in names:
        filled = [cell for cell in islice(texts[name], SAMPLE) if cell]
        found[name] = _Seen(name, filled, is_time=_are_times(filled[:200]))
    _find_numbers(table, found)
    return found


def _are_times(cells: Sequence[str]) -> bool:
    """Return whether most of these cells are dates, or all of them dates written in digits."""
    return sum(map(is_time, cells)) * 2 > len(cells) or (len(set(cells)) > 2 and bool(compact_format(cells)))


def _find_numbers(table: Table, seen: Mapping[str, _Seen]) -> None:
    """Note which columns are numbers: as the table reads them, most cells of its first rows are."""
    kinds = {one.name: Kind.NUMBER for one in seen.values() if one.texts and not one.is_time}
    block = next(iter(table.blocks(kinds)), None) if kinds else None
    for name in kinds if block is not None else ():
        values = np.asarray(block.columns[name]) if block is not None else np.zeros(0)
        n_filled = len([cell for cell in seen[name].texts[: len(values)] if cell])
        seen[name].is_number = bool(n_filled) and int(np.isfinite(values).sum()) * 2 > n_filled


def _label(seen: Sequence[_Seen], settings: SourceSettings) -> tuple[str, str]:
    """Return which column is the label, and why."""
    called = {one.name.strip().lower(): one.name for one in reversed(seen) if one.texts}
    for name in (settings.label.lower(), *_LABELS):
        if name in called:
            return called[name], "because of its name"
    likely = [one for one in seen if one.texts and not one.is_time]
    words = [one for one in likely if not one.is_number and len(set(one.texts)) <= MOST_CLASSES]
    if len(words) == 1:
        return words[0].name, "the only column of words"
    if not likely:
        raise DatasetError(f"{settings.path}: no column could be the label: say which one is, --label NAME")
    return likely[-1].name, "the last column"


def _look_through(
    table: Table, seen: Mapping[str, _Seen], label: str, labels: Counter[str], marks: Counter[str] | None
) -> int:
    """Note of all rows what is missing, the extremes, and the labels. Return how many there are.

    marks: what stands for nothing in the place of a label, as everybody writes it; None where the source says it.
    """
    kinds = {one.name: Kind.NUMBER for one in seen.values() if one.is_number and one.name != label}
    kinds |= {one.name: Kind.TEXT for one in seen.values() if not one.is_number or one.name == label}
    kinds[label] = Kind.TEXT if marks is None else Kind.LABEL
    n_rows = 0
    for block in table.blocks(kinds):
        if marks is not None:
            block.columns[label] = _without(block.columns[label], marks)
        n_rows += len(block.lines)
        for name, cells in block.columns.items():
            if isinstance(cells, list):
                seen[name].n_missing += cells.count("")
                continue
            _note(seen[name], cells)
        if len(labels) <= 10 * MOST_CLASSES:
            wrong = {fault.line for fault in block.faults}  # as a row of units has it, that no job trains on
            labels.update(
                str(cell)
                for cell, line in zip(block.columns[label], block.lines.tolist(), strict=True)
                if cell and line not in wrong
            )
    _make_plain(labels)
    return n_rows


def _values(table: Table, label: str) -> Values:
    """Return how large labels of values are."""
    found = Values()
    for block in table.blocks({label: Kind.NUMBER}):
        values = np.asarray(block.columns[label], np.float64)
        found = found.noted(values[np.isfinite(values)])
    return found


def _without(cells: Iterable[object], marks: Counter[str]) -> list[str]:
    """Return labels, "" for what stands for nothing, which is counted."""
    texts = list(map(str, cells))
    marks.update(text for text in texts if text.lower() in MISSING)
    return ["" if text.lower() in MISSING else text for text in texts]


def _note(seen: _Seen, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    filled = values[np.isfinite(values)]
    seen.n_missing += len(values) - len(filled)
    if not len(filled):
        return
    seen.low, seen.high = min(seen.low, float(filled.min())), max(seen.high, float(filled.max()))
    seen.is_whole = seen.is_whole and bool((filled == np.floor(filled)).all())
    steps = np.diff(filled if seen.last is None else np.concatenate(([seen.last], filled)))
    seen.counts_rows = seen.counts_rows and len(filled) == len(values) and bool((steps == 1).all())
    seen.last = float(filled[-1])


def _make_plain(labels: Counter[str]) -> None:
    """Count labels by what their classes are called."""
    counts = list(labels.items())
    labels.clear()
    for cell, n in counts:
        labels[_plain(cell)] += n
    words: dict[str, list[str]] = {"true": [], "false": []}
    for cell in labels:
        words.get(cell.lower(), []).append(cell)
    if labels["0"] + labels["1"] and any(words.values()):  # True and 1 are one class
        words = {"true": ["1", *words["true"]], "false": ["0", *words["false"]]}
    for first, *others in filter(None, words.values()):
        for cell in others:
            labels[first] += labels.pop(cell)
    for cell in [cell for cell, n in labels.items() if not n]:
        del labels[cell]


def _plain(cell: str) -> str:
    """Return a label as a class is called: a whole number without a point."""
    try:
        value = Cells().number(cell)
    except ValueError:
        return cell
    words = cell.lower() in ("true", "false") or not math.isfinite(value)
    return cell if words or not value.is_integer() else str(int(value))


def _are_pixels(seen: Mapping[str, _Seen], label: str) -> bool:
    numbers = [one for one in seen.values() if one.is_number and one.name != label and one.high >= one.low]
    wide = len(numbers) >= _PIXELS and all(one.is_whole and one.low >= 0 and one.high <= 255 for one in numbers)
    return wide and max(one.high for one in numbers) > 15


def _column(seen: _Seen, n_rows: int, label: str, why: str, *, pixels: bool) -> Column:
    role, reason = _role(seen, label, why, n_rows, pixels=pixels)
    return Column(seen.name, role, reason, round(seen.n_missing / n_rows, 4) if n_rows else 0.0)


def _role(seen: _Seen, label: str, why: str, n_rows: int, *, pixels: bool) -> tuple[str, str]:
    """Return what a column is for, and why."""
    match seen:
        case _ if seen.name == label:
            return "label", why
        case _ if not seen.texts:
            return "unused", "it is empty"
        case _ if seen.is_time or (_TIMES.match(seen.name) and seen.is_number and seen.low > 1e8):
            return "time", "it has times"
        case _ if _GROUPS.match(seen.name):
            return "group", "because of its name"
        case _ if not seen.is_number:
            few = 1 < len(set(seen.texts)) <= MOST_CLASSES
            return "unused", "it has words" + few * f" (fedge simulate --partition {_column_option(seen.name)})"
        case _ if seen.counts_rows and n_rows > 2 and (_COUNTERS.match(seen.name) or seen.last == seen.high):
            return "unused", "it counts the rows"
        case _ if seen.low == seen.high and n_rows > 1 and not pixels:
            return "unused", "it is the same in all rows"
    return "feature", f"{seen.low:g} to {seen.high:g}"


def _column_option(name: str) -> str:
    """Return how a command line names a column to deal rows out by."""
    text = f"column:{name}"
    return text if re.fullmatch(r"[\w:.-]+", text) else f"'{text}'"


def _classes(labels: Counter[str], seen: _Seen, path: str) -> list[str] | None:
    """Return the names of the classes in order; None for values. Raises DatasetError."""
    if not labels:
        raise DatasetError(
            f"{path}: the label {seen.name!r} is empty in all rows: say which column it is, --label NAME"
        )
    if seen.is_number:
        if len(labels) > MOST_NUMBERS or not all(re.fullmatch(r"-?\d+|(?i:true|false)", one) for one in labels):
            return None
        return sorted(
            labels, key=lambda one: (not one.lstrip("-").isdigit(), int(one) if one.lstrip("-").isdigit() else one)
        )
    if len(labels) > MOST_CLASSES or any(len(one) > 200 for one in labels):
        raise DatasetError(
            f"{path}: the label {seen.name!r} has more than {MOST_CLASSES} different words: say which column it is, "
            "--label NAME"
        )
    return sorted(labels)


def _of_arrays(table: Arrays, settings: SourceSettings) -> Draft:
    """Return a job for features and labels by position."""
    n_rows, shape, width, is_text, is_bytes = 0, (0,), 1, False, any("255" in note for note in table.notes)
    labels = Counter[str]()
    whole, values = True, Values()
    for X, y in table.parts():
        n_rows, shape = n_rows + len(X), X.shape[1:]
        width, is_text = math.prod(y.shape[1:]), y.dtype.kind == "U"
        if not is_text:
            whole = whole and bool((y == np.floor(y)).all())
            values = values.noted(y.astype(np.float64).reshape(-1))
        if len(labels) <= 10 * MOST_CLASSES and width == 1:
            labels.update(map(str, y.reshape(-1).tolist()))
    _make_plain(labels)
    if not n_rows:
        raise DatasetError(f"{settings.path}: no rows yet: a draft needs some")
    seen = _Seen(settings.label, is_number=not is_text)
    classes = _classes(labels, seen, settings.path) if width == 1 and (is_text or whole) else None
    lines = [
        *head(settings, n_rows, table.notes, []),
        *body(
            *(settings, [], settings.label, "the array of that name", classes),
            pixels="pixels" if is_bytes else "standard",
            labels=labels,
            shape=shape,
            outputs=width,
            values=values if classes is None else None,
        ),
    ]
    columns = [Column(settings.label, "label", "the array of that name", 0.0)]
    return Draft(
        *(settings.path, n_rows, columns, settings.label, "the array of that name", classes or []),
        *(list(table.notes), "\n".join(lines) + "\n"),
    )
