"""How good a version is by its devices (aggregator/federated.py), as the aggregator tells it, and in lines."""

from __future__ import annotations

from msgspec import Struct

SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "f1", "auc", "log_loss", "rmse", "mae", "r2")
"""Measures that a person is shown of one version, in this order."""
MOST_SHOWN = 12
"""Labels that a person is shown: those that are found least."""


class Label(Struct, frozen=True):
    """How much of one label is found. worst: the device that finds least of it, and how much that is."""

    rows: int
    recall: float
    worst: tuple[str, float]


class ByDevices(Struct, frozen=True):
    """How good a version is by its devices: of each measure the mean, the standard deviation between devices, the
    quartiles and the worst device.
    """

    devices: int
    rows: int
    """That they hold back, as far as they weigh."""
    version: int | None = None
    """Its number, where it does not stand beside."""
    mean: dict[str, float] = {}
    spread: dict[str, float] = {}
    quartiles: dict[str, tuple[float, float, float]] = {}
    worst: dict[str, tuple[str, float]] = {}
    labels: dict[str, Label] = {}
    """Those first that are found least."""


def lines(told: ByDevices | None) -> list[str]:
    """Return what is told of a version in lines; none where nothing is."""
    if told is None:
        return []
    found = [f"version {told.version} by {told.devices} devices, on {told.rows} rows that they hold back:"]
    for name in SHOWN:
        if name in told.mean and name in told.spread and name in told.quartiles and name in told.worst:
            quartiles, (device, value) = "  ".join(f"{each:.4f}" for each in told.quartiles[name]), told.worst[name]
            found.append(
                f"  {name:<18} mean {told.mean[name]:.4f}  spread {told.spread[name]:.4f}  quartiles {quartiles}  "
                f"worst {value:.4f} ({device})"
            )
    for name, label in list(told.labels.items())[:MOST_SHOWN]:
        device, value = label.worst
        found.append(f"  {name:<18} found {label.recall:.4f} of {label.rows} rows  worst {value:.4f} ({device})")
    if len(told.labels) > MOST_SHOWN:
        found.append(f"  and {len(told.labels) - MOST_SHOWN} labels that are found more often (--json has them)")
    return found
