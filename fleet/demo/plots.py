"""Pictures for people, as PNG. The one file that imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from models.measures import table as measures

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
FLEET, CENTRAL, FLOAT32 = "#0b6e99", "#c05621", "#a0aec0"
SERIES = (FLEET, CENTRAL, "#5b7f3a", "#7a4f9e")
SIZE_INCHES = (7.2, 4.4)
DPI = 150


def by_round(
    rounds: Sequence[int], values: Sequence[float], measure: str, central: float | None, title: str, path: Path
) -> None:
    """Draw a measure of versions over their rounds, with the central net's for comparison where that is known."""
    figure, axes = _paper(title, "round", measure)
    if central is not None:
        axes.axhline(central, color=CENTRAL, linewidth=1.4, linestyle=(0, (5, 3)))
    axes.plot(rounds, values, color=FLEET, linewidth=2.2, solid_capstyle="round")
    axes.plot(rounds[-1], values[-1], "o", color=FLEET, markersize=6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, rounds[-1] * 1.02)
    end, last = rounds[-1], values[-1]
    if central is not None:
        text = f"trained in one place  {_value(central, measure)}"
        _label(axes, (end, central), text, CENTRAL, above=central >= last)
    _label(axes, (end, last), f"the fleet  {_value(last, measure)}", FLEET, above=central is None or central < last)
    _fit(axes, values if central is None else [*values, central], measure)
    figure.savefig(path, dpi=DPI)


def by_bytes(
    values: Sequence[float],
    sent: Sequence[float],
    sent_float32: Sequence[float] | None,
    measure: str,
    title: str,
    path: Path,
) -> None:
    """Draw a measure over the bytes that a device has sent and received so far, beside the same rounds in float32.

    sent, sent_float32 (None: not known): a number of bytes for each value, none of them falling.
    """
    figure, axes = _paper(title, "sent and received by a device, MQTT payload", measure)
    axes.set_xscale("log")
    for bytes_, colour, width, name in (
        (sent_float32, FLOAT32, 2.0, "the same rounds in float32, computed"),
        (sent, FLEET, 2.2, "fedge"),
    ):
        if bytes_ is None:
            continue
        axes.plot(bytes_, values, color=colour, linewidth=width, solid_capstyle="round")
        axes.plot(bytes_[-1], values[-1], "o", color=colour, markersize=6)
        text = f"{name}  {_bytes(bytes_[-1], 0)}"
        at = (bytes_[-1], values[-1])
        is_near = sent_float32 is not None and sent_float32[-1] < _NEAR * sent[-1]  # then their names would overlap
        _label(axes, at, text, FLEET if colour == FLEET else FAINT, above=colour != FLEET or not is_near)
    _mark_bytes(axes, [*sent, *(sent_float32 or ())])
    _fit(axes, values, measure)
    figure.savefig(path, dpi=DPI)


def accuracy_by_bytes_of(lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], title: str, path: Path) -> None:
    """Draw runs as lines: (coding, bytes so far, accuracies), the same length and at least one; one colour a coding.

    Bytes are those of all devices, both ways.
    """
    figure, axes = _paper(title, "sent and received by all devices")
    axes.set_xscale("log")
    codings = list(dict.fromkeys(coding for coding, _, _ in lines))
    for coding, sent, accuracies in lines:
        colour = FLOAT32 if coding == codings[-1] else SERIES[codings.index(coding) % len(SERIES)]
        axes.plot(sent, accuracies, color=colour, linewidth=1.4, alpha=0.85)
    for coding in codings:
        sent, accuracies = next((sent, accuracies) for name, sent, accuracies in lines if name == coding)
        colour = FAINT if coding == codings[-1] else SERIES[codings.index(coding) % len(SERIES)]
        _label(axes, (sent[-1], accuracies[-1]), coding, colour, above=True)
    _mark_bytes(axes, [n for _, sent, _ in lines for n in sent])
    _fit(axes, [value for _, _, accuracies in lines for value in accuracies])
    figure.savefig(path, dpi=DPI)


_NEAR = 30.0
"""Times as many bytes: what is nearer is not half a picture apart."""
_PERCENT = ("accuracy", "balanced_accuracy")


def _value(value: float, measure: str) -> str:
    return f"{value:.1%}" if measure in _PERCENT else f"{value:.4g}"


def _paper(title: str, xlabel: str, measure: str = "accuracy") -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", pad=12)
    axes.set_xlabel(xlabel, color=FAINT, fontsize=10)
    axes.set_ylabel(f"{measure.replace('_', ' ')} on the test split", color=FAINT, fontsize=10)
    if measure in _PERCENT:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=FAINT, length=0, labelsize=9.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    return figure, axes


def _label(axes: Axes, at: tuple[float, float], text: str, colour: str, *, above: bool) -> None:
    """Name a line at its right end."""
    axes.annotate(
        text,
        at,
        xytext=(0, 7 if above else -11),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        color=colour,
        fontsize=10,
        fontweight="bold",
        path_effects=[withStroke(linewidth=4, foreground="white")],
    )


def _fit(axes: Axes, values: Sequence[float], measure: str = "accuracy") -> None:
    """Leave room for the labels above and below, and mark no value there that the measure cannot have."""
    room = 0.15 * (max(values) - min(values)) + 0.005
    low, high = min(values) - room, max(values) + room
    axes.set_ylim(low, high)
    known = measures.find(measure)
    marks = [float(mark) for mark in axes.get_yticks() if low <= mark <= high]
    axes.yaxis.set_major_locator(FixedLocator([mark for mark in marks if known.least <= mark <= known.most]))


def _mark_bytes(axes: Axes, sent: Sequence[float]) -> None:
    """Name bytes on an axis: powers of ten, and numbers between them where there are few of these."""
    if max(sent) < _NEAR * max(min(sent), 1.0):
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(_bytes))
    axes.xaxis.set_minor_formatter(NullFormatter())


def panels(title: str, curves: Sequence[tuple[str, Sequence[int], Sequence[float]]], path: Path) -> None:
    """Draw curves over the numbers of versions, a panel each: (name, numbers, values), at least one, of one point each
    at least. Names that end in "bytes" are counted in bytes.
    """
    n_columns = min(2, len(curves))
    n_rows = -(-len(curves) // n_columns)
    figure = Figure(figsize=(SIZE_INCHES[0] * n_columns * 0.75, 2.6 * n_rows + 0.5), layout="constrained")
    figure.suptitle(title, x=0.02, ha="left", color=INK, fontweight="bold")
    for at, (name, numbers, values) in enumerate(curves):
        axes = figure.add_subplot(n_rows, n_columns, at + 1)
        axes.set_title(name, loc="left", fontsize=10, color=INK)
        axes.plot(numbers, values, color=SERIES[at % len(SERIES)], linewidth=1.8, solid_capstyle="round")
        axes.plot(numbers[-1], values[-1], "o", color=SERIES[at % len(SERIES)], markersize=4)
        axes.grid(color=GRID)
        axes.tick_params(colors=FAINT, labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name.endswith("bytes"):
            axes.yaxis.set_major_formatter(FuncFormatter(_bytes))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=DPI)


def _bytes(n: float, _position: int) -> str:
    """Return a number of bytes as a label: 300 B, 20 kB, 1.5 MB (decimal)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} B"
