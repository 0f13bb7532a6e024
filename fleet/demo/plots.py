"""Pictures for people, as PNG. The one file that imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
FLEET, CENTRAL, FLOAT32 = "#0b6e99", "#c05621", "#a0aec0"
SERIES = (FLEET, CENTRAL, "#5b7f3a", "#7a4f9e")
SIZE_INCHES = (7.2, 4.4)
DPI = 150


def accuracy_by_round(accuracies: Sequence[float], central: float, title: str, path: Path) -> None:
    """Draw the accuracy of version 1, 2, ... as a line over the rounds, with the central net's for comparison."""
    figure, axes = _paper(title, "round")
    rounds = range(1, len(accuracies) + 1)
    axes.axhline(central, color=CENTRAL, linewidth=1.4, linestyle=(0, (5, 3)))
    axes.plot(rounds, accuracies, color=FLEET, linewidth=2.2, solid_capstyle="round")
    axes.plot(rounds[-1], accuracies[-1], "o", color=FLEET, markersize=6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, len(accuracies) * 1.02)
    end, last = len(accuracies), accuracies[-1]
    _label(axes, (end, central), f"trained in one place  {central:.1%}", CENTRAL, above=central >= last)
    _label(axes, (end, last), f"the fleet  {last:.1%}", FLEET, above=central < last)
    _fit(axes, [*accuracies, central])
    figure.savefig(path, dpi=DPI)


def accuracy_by_bytes(
    accuracies: Sequence[float], sent: Sequence[float], sent_float32: Sequence[float], title: str, path: Path
) -> None:
    """Draw the accuracy over the bytes that a device has sent and received so far, beside the same rounds in float32.

    sent, sent_float32: a number of bytes for each accuracy, none of them falling.
    """
    figure, axes = _paper(title, "sent and received by a device, MQTT payload")
    axes.set_xscale("log")
    for bytes_, colour, width, name in (
        (sent_float32, FLOAT32, 2.0, "the same rounds in float32, computed"),
        (sent, FLEET, 2.2, "fedge"),
    ):
        axes.plot(bytes_, accuracies, color=colour, linewidth=width, solid_capstyle="round")
        axes.plot(bytes_[-1], accuracies[-1], "o", color=colour, markersize=6)
        text = f"{name}  {_bytes(bytes_[-1], 0)}"
        at = (bytes_[-1], accuracies[-1])
        _label(axes, at, text, FLEET if colour == FLEET else FAINT, above=True)
    axes.xaxis.set_major_formatter(FuncFormatter(_bytes))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _fit(axes, accuracies)
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
    axes.xaxis.set_major_formatter(FuncFormatter(_bytes))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _fit(axes, [value for _, _, accuracies in lines for value in accuracies])
    figure.savefig(path, dpi=DPI)


def _paper(title: str, xlabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", pad=12)
    axes.set_xlabel(xlabel, color=FAINT, fontsize=10)
    axes.set_ylabel("accuracy on the test split", color=FAINT, fontsize=10)
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


def _fit(axes: Axes, values: Sequence[float]) -> None:
    """Leave room for the labels above and below."""
    room = 0.15 * (max(values) - min(values)) + 0.005
    axes.set_ylim(min(values) - room, max(values) + room)


def _bytes(n: float, _position: int) -> str:
    """Return a number of bytes as a label: 300 B, 20 kB, 1.5 MB (decimal)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} B"
