"""How `fedge agent predict` tells anomaly scores: each with whether it is above the threshold of the model's fleet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_agent.card import Card

COLUMNS = ("score", "anomaly")


def is_anomaly(threshold: float, score: float) -> bool:
    """Return what model.onnx says as well: a score that is no number is an anomaly's."""
    return not score <= threshold


def line(card: Card, score: float) -> str:
    """Return a score and "yes" or "no"; nothing behind it where the fleet has no threshold yet."""
    verdict = ""
    if card.threshold is not None:
        verdict = "yes" if is_anomaly(card.threshold, score) else "no"
    return f"{score:.6g},{verdict}"


def facts(card: Card, scores: Sequence[float]) -> dict[str, Any]:
    """Return the threshold, None where there is none yet, and of each score whether it is an anomaly's."""
    threshold = card.threshold
    found: dict[str, Any] = {"threshold": threshold}
    return found if threshold is None else found | {"anomalies": [is_anomaly(threshold, one) for one in scores]}


def note(card: Card) -> str:
    """Return what the threshold is, in words."""
    if card.threshold is None:
        return "no threshold is known yet: the fleet has not said how its rows score"
    return f"a row that scores above {card.threshold:.6g} is an anomaly, by how the fleet's rows score"
