"""What a device of the demo serves, as the folder of its model says."""

from __future__ import annotations

from pathlib import Path

import msgspec

from broker.messages import Status
from edge_agent.card import Card


def serves(slot: Path, status: Status) -> bool:
    """Return whether a slot holds this version, as ONNX."""
    try:
        card = card_of(slot)
    except (OSError, msgspec.MsgspecError):
        return False
    release = card.release
    return (release.generation, release.number) == (status.version.generation, status.version.number) and (
        "model.onnx" in card.files
    )


def card_of(slot: Path) -> Card:
    """Return what a slot says of its model. Raises OSError or MsgspecError."""
    return msgspec.json.decode((slot / "model.json").read_bytes(), type=Card)
