"""What was measured of a version, as a few lines for people: its measures, by class, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.console.operator import Scores, VersionScores
from models.measures import table as measures

WIDEST = 16
"""Characters of a class in a table."""
_BESIDE = ("participants", "examples", "device_loss", measures.ALWAYS)
"""Among the metrics of a version, and no measures of it."""


def lines(scores: Scores) -> list[str]:
    """Return the current version's scores; and the best one's, where that is another."""
    current, best = scores.current, scores.best
    found = _of_version(f"version {current.number}", current, scores.classes)
    if best.number != current.number:
        found += _of_version(f"best: version {best.number}", best, scores.classes)
    return found


def _of_version(title: str, one: VersionScores, classes: Sequence[str]) -> list[str]:
    whole = {name: value for name, value in one.measures.items() if name in measures.MEASURES}
    if not whole:
        return []
    told = "  ".join(f"{name} {value:.4f}" for name, value in whole.items())
    return [f"{title}: {told}", *_by_class(one.measures, classes), *_confusion(one.confusion, classes)]


def _by_class(found: Mapping[str, float], classes: Sequence[str]) -> list[str]:
    """Return a table of the measures of single classes, a row for each class."""
    of_class: dict[str, dict[str, float]] = {}
    for name, value in found.items():
        measure, of = measures.split(name)
        if of is not None and measure in measures.MEASURES:
            of_class.setdefault(of, {})[measure] = value
    if not of_class:
        return []
    columns = [
        name for name, row in measures.MEASURES.items() if row.by_class and any(name in of_class[c] for c in of_class)
    ]
    order = [name for name in classes if name in of_class] or sorted(of_class, key=lambda name: (len(name), name))
    rows = [["class", *columns]]
    rows += [[name, *(f"{of_class[name][c]:.4f}" if c in of_class[name] else "-" for c in columns)] for name in order]
    return _aligned(rows)


def _confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> list[str]:
    """Return the confusion matrix, a row for each true class; the column of no answer only where there is any."""
    if not matrix:
        return []
    names = list(classes) if len(classes) == len(matrix) else [str(index) for index in range(len(matrix))]
    silent = any(row[-1] for row in matrix)
    width = len(names) + silent
    rows = [["is \\ answered", *[*names, "nothing"][:width]]]
    rows += [[name, *(f"{n}" for n in row[:width])] for name, row in zip(names, matrix, strict=True)]
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    cut = [[cell if len(cell) <= WIDEST + 2 else f"{cell[: WIDEST + 1]}…" for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in cut) for at in range(len(cut[0]))]
    return [
        "    " + "  ".join((str.rjust if at else str.ljust)(row[at], widths[at]) for at in range(len(row)))
        for row in cut
    ]
