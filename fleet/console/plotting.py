"""`fedge job plot`: a job as one picture, a panel for each measure, the devices and the bytes of each version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from fleet.console import metrics, operator
from fleet.console.metrics import DeviceLine, VersionLine
from fleet.sight.asked import version_of
from models.measures import table as measures

MOST_PANELS = 16
Curve = tuple[str, Sequence[int], Sequence[float]]


class Drawn(Struct, frozen=True):
    """What was drawn."""

    file: str
    versions: int
    curves: list[str]


def plot(config: operator.OperatorConfig, name: str, out: Path) -> Drawn:
    """Draw a job into a PNG. Raises OperatorError, also where there is nothing to draw, or nothing to draw with."""
    if find_spec("matplotlib") is None:
        raise operator.OperatorError('a picture takes matplotlib: pip install "fedge[demo]"')
    if out.suffix.lower() != ".png":
        raise operator.OperatorError(f"{out}: a picture is written as PNG: name a file that ends in .png")
    versions = metrics.versions(config, name)
    drawn = curves(versions, metrics.devices(config, name))
    if not drawn:
        raise operator.OperatorError(f"nothing was measured of {name} yet: there is no version to draw")
    from fleet.demo import plots  # matplotlib is an extra

    try:
        plots.panels(name, drawn, out)
    except OSError as error:
        raise operator.OperatorError(f"{out} cannot be written: {error.strerror}") from error
    return Drawn(str(out), len(versions), [each for each, _, _ in drawn])


def curves(versions: Sequence[VersionLine], devices: Sequence[DeviceLine]) -> list[Curve]:
    """Return what is drawn, over the numbers of versions: every measure, participants, update bytes."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for line in versions:
        number = version_of(line.version).number
        for measure in filter(_is_drawn, line.metrics):
            numbers, values = found.setdefault(measure, ([], []))
            numbers.append(number)
            values.append(line.metrics[measure])
    n_bytes = Counter[int]()
    for brought in devices:
        n_bytes[brought.version + 1] += brought.body_bytes or 0
    current = version_of(versions[-1].version).number if versions else 0
    known = sorted(number for number, n in n_bytes.items() if n and number <= current)
    if known:
        found["update bytes"] = known, [float(n_bytes[number]) for number in known]
    return [(name, *curve) for name, curve in list(found.items())[:MOST_PANELS]]


def _is_drawn(name: str) -> bool:
    """Return whether this is a measure of a whole version, or how many devices it was made of."""
    return name == "participants" or name.removeprefix("federated_") in measures.MEASURES
