"""The card of a model slot: what lies in it, as its model.json says it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_agent import files
from edge_agent.quantising import Quantised
from models.contract import NO_CONTRACT, ContractSpec
from models.job import ModelSpec
from runtime import formats

FILES = ("model.onnx", "model.npz", "model.json")
FORMAT = 2
"""Of a slot. 2: the card has a checksum over itself."""
WITH_CONTRACT = 3
"""Of one whose card has a contract; others are of the format before, which older fedges read."""
WITH_QUANTISED = 4
"""Of one whose card says what has come of int8."""


class SlotError(ValueError):
    """A slot without a usable model, or rows that do not fit it."""


class NewerSlotError(SlotError):
    """A slot that a newer fedge has filled."""


class Release(msgspec.Struct, frozen=True):
    """Which version of which job: its generation and number, and the SHA-256 of the model.

    That is the one that its head carries, but where it is a mean, or where the server's optimizer has a state.
    """

    job: str
    generation: int
    number: int
    sha256: str
    averaged_since: int | None = None
    """Number of the first version of which this is the mean, up to the one named; None: it is the version itself."""


class Card(msgspec.Struct, frozen=True):
    """What lies in the slot, as model.json says it."""

    release: Release
    model: ModelSpec
    files: dict[str, str]
    """File name to SHA-256, hexadecimal; no model.onnx where it could not be written."""
    format: int = 1
    contract: ContractSpec = NO_CONTRACT
    """What the rows are that it takes."""
    agreed: bytes = b""
    """What its fleet has agreed on (models/agreement.py), base64; empty where there is nothing."""
    threshold: float | None = None
    """The score above which a row is an anomaly; None where that is not known, or none is looked for."""
    quantised: Quantised | None = None
    """What has come of putting it in int8, where its job wants that: a measured loss and gain, or why it is not."""
    checksum: str = ""
    """CRC-32 of the card with eight zeros in this place, hexadecimal; a card of format 1 has none."""


class _Numbered(msgspec.Struct, frozen=True):
    """What the cards of all formats have."""

    format: int = 1


def written(card: Card, digests: dict[str, str]) -> bytes:
    """Return a card that names these files, as model.json has it: with its format and its checksum."""
    number = FORMAT if card.contract == NO_CONTRACT else WITH_CONTRACT
    number = number if card.quantised is None else WITH_QUANTISED
    blank = msgspec.structs.replace(card, files=digests, format=number, checksum=formats.ZEROS)
    return formats.stamped(msgspec.json.format(_encoded(blank)) + b"\n")


def read(directory: Path) -> Card:
    """Read the card of a version. Raises OSError or SlotError, NewerSlotError for one of a newer fedge."""
    path = directory / "model.json"
    content = path.read_bytes()
    try:
        number = msgspec.json.decode(content, type=_Numbered).format
        if (number > 1 or formats.is_stamped(content)) and not formats.is_whole(content):
            raise SlotError(f"{path} is damaged: its checksum is wrong")
        formats.check(str(path), number, WITH_QUANTISED, newer="upgrade this agent, or remove the slot")
        return msgspec.json.decode(content, type=Card)
    except formats.NewerFormatError as error:
        raise NewerSlotError(str(error)) from error
    except SlotError:
        raise
    except files.UNREADABLE as error:
        raise SlotError(f"{path}: {error}") from error


def newer(path: Path) -> NewerSlotError | None:
    """Return why a slot is to be left alone, where a newer fedge has filled it."""
    try:
        read(path / "current")
    except NewerSlotError as error:
        return error
    except (OSError, SlotError):
        return None
    return None


def _encoded(card: Card) -> bytes:
    """Return a card as JSON; without what an older fedge has no word for where there is nothing of it."""
    said = msgspec.to_builtins(card)
    if card.format == FORMAT:
        del said["contract"], said["agreed"]
    if card.threshold is None:
        del said["threshold"]
    if card.format < WITH_QUANTISED:
        del said["quantised"]
    return msgspec.json.encode(said)
