"""Curves of a job: every measure, participants, bytes and seconds of its versions, as numbers and as plain SVG paths.

The SVG is for who has no script; with one the same numbers are drawn by uPlot. Of a long job some points are left out:
of each stretch the lowest and the highest stay, so that no peak is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from fleet.sight.readings import VersionPoint

MOST_DRAWN = 240
"""Points of an SVG path."""
MOST_SENT = 2000
"""Points of each curve that a script gets."""
MOST_UNFOLDED = 4
"""Measures whose curves are seen at once."""
WIDTH, HEIGHT = 600, 140
"""Of the drawing, in its own units."""
FIRST = ("accuracy", "loss")
_TITLES = {
    "participants": "Updates in the version",
    "bytes_up": "Bytes of its updates, all devices together",
    "bytes_down": "Bytes of the body that leads to it",
    "seconds": "Seconds of its round",
}
_OF_DEVICES = {
    "mean": "on devices, mean",
    "worst": "on the worst device",
    "spread": "between devices, standard deviation",
}
_UNITS = {"bytes_up": "bytes", "bytes_down": "bytes", "seconds": "seconds"}


class Series(Struct, frozen=True):
    """One curve: a value, or None, for each version."""

    name: str
    title: str
    values: list[float | None]
    unit: str = ""

    @property
    def last(self) -> float | None:
        """The last value that there is."""
        return next((value for value in reversed(self.values) if value is not None), None)

    @property
    def is_of_class(self) -> bool:
        """Whether it is of one class of the answers alone ("recall:3")."""
        return ":" in self.name


class Curves(Struct, frozen=True):
    """All curves of a job over the same versions."""

    numbers: list[int]
    at: list[float]
    series: list[Series]


class Drawing(Struct, frozen=True):
    """A curve as it is drawn. path: of SVG; dots: of points that stand alone. The others label the axes."""

    path: str
    dots: list[tuple[float, float]]
    low: float
    high: float


def curves_of(points: Sequence[VersionPoint], most: int = MOST_SENT) -> Curves:
    """Return every curve that these versions have a value for."""
    measures = measures_of(points)
    series = [Series(name, name, [_finite(point.metrics.get(name)) for point in points]) for name in measures]
    spreads = [point.federated for point in points]
    measure = next((spread.measure for spread in spreads if spread is not None), "")
    for name, title in _OF_DEVICES.items():
        values = [None if spread is None else _finite(getattr(spread, name)) for spread in spreads]
        series.append(Series(f"devices_{name}", f"{measure} {title}".strip(), values))
    for name in _TITLES:
        values = [_finite(getattr(point, name)) for point in points]
        series.append(Series(name, _TITLES[name], values, _UNITS.get(name, "")))
    series = [one for one in series if one.last is not None]
    kept = _kept(len(points), [one.values for one in series], most)
    return Curves(
        [points[i].number for i in kept],
        [points[i].at for i in kept],
        [Series(one.name, one.title, [one.values[i] for i in kept], one.unit) for one in series],
    )


def measures_of(points: Sequence[VersionPoint]) -> list[str]:
    """Return the measures of versions: those that people look for first, those of one class alone last."""
    names = {name for point in points for name in point.metrics} - {"participants"}
    return sorted(names, key=lambda name: (":" in name, FIRST.index(name) if name in FIRST else len(FIRST), name))


def unfolded(series: Sequence[Series], measures: Sequence[str], judged: str) -> frozenset[str]:
    """Return the names of the curves that are seen at once: all but those of measures beyond the first few.

    judged: the measure that the job stops by, "" for none: it is one of these.
    """
    first = {judged, *[name for name in measures if ":" not in name][:MOST_UNFOLDED]}
    return frozenset(one.name for one in series if one.name in first or one.name not in measures)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _kept(n: int, curves: Sequence[Sequence[float | None]], most: int) -> Sequence[int]:
    """Return which of n points stay: at most about `most`, and of each stretch the extremes of every curve."""
    if n <= most:
        return range(n)
    each = max(2, 2 * len(curves))
    stretches = max(1, most // each)
    kept = {0, n - 1}
    for stretch in range(stretches):
        inside = range(stretch * n // stretches, (stretch + 1) * n // stretches)
        for values in curves:
            there = [i for i in inside if values[i] is not None]
            if there:
                kept |= {min(there, key=lambda i: values[i] or 0.0), max(there, key=lambda i: values[i] or 0.0)}
    return sorted(kept)


def drawn(xs: Sequence[float], values: Sequence[float | None]) -> Drawing | None:
    """Return a curve as an SVG path within WIDTH and HEIGHT; None without any value."""
    pairs = [(x, y) for x, y in zip(xs, values, strict=True) if y is not None]
    if not pairs:
        return None
    if len(pairs) > MOST_DRAWN:
        pairs = [pairs[i] for i in _kept(len(pairs), [[y for _, y in pairs]], MOST_DRAWN)]
    low, high = min(y for _, y in pairs), max(y for _, y in pairs)
    left, right = min(xs), max(xs)
    across, up = (right - left) or 1.0, (high - low) or 1.0
    places = [
        (round(WIDTH * (x - left) / across, 1), round(HEIGHT - HEIGHT * ((y - low) / up if high > low else 0.5), 1))
        for x, y in pairs
    ]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if len(places) > 1 else ""
    return Drawing(path, places[-1:], low, high)
