"""What the authority knows of each device, for the aggregator to read: one file, replaced whole at every change."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec

from identity.keys import KeyFileError, key_of
from runtime import formats
from runtime.words import clean

FORMAT = 1
MOST_BYTES = 64 * 1024 * 1024


class RegistryError(ValueError):
    """A registry that cannot be used; the message is one line, names the file and says what to do."""


class Enrolled(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device as it was enrolled last.

    epoch: how often it was enrolled; words of an earlier epoch are not believed. key: its public Ed25519 key, as text.
    serial: of its certificate, in hex; absent where it has a password. expires: when that ends. rows: at most so many
    examples are believed.
    """

    key: str
    epoch: int = 1
    serial: str | None = None
    expires: dt.datetime | None = None
    rows: int | None = None
    labels: dict[str, str] = {}
    revoked: bool = False


class Registry(msgspec.Struct, frozen=True):
    """All devices of a fleet by their ids. list_until: when the broker's list of the revoked has to be renewed."""

    fleet: str
    devices: dict[str, Enrolled] = {}
    list_until: dt.datetime | None = None
    format: int = FORMAT

    def key_of(self, device: str) -> bytes | None:
        """Return the 32 bytes of the key that a device signs with; None for one that is unknown or revoked."""
        known = self.devices.get(device)
        return None if known is None or known.revoked else key_of(known.key)


def read_registry(path: str | Path, fleet: str | None = None) -> Registry:
    """Return the registry of a file. fleet: the one that it must be of. Raises RegistryError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RegistryError(f"{path}: the registry cannot be read: {error.strerror or error}") from error
    if len(text) > MOST_BYTES:
        raise RegistryError(f"{path}: is longer than {MOST_BYTES:,} bytes")
    try:
        formats.check(str(path), msgspec.json.decode(text, type=_Numbered).format, FORMAT)
        registry = msgspec.json.decode(text, type=Registry)
        for known in registry.devices.values():
            key_of(known.key)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"{path}: is damaged: {clean(str(error))}") from error
    except (KeyFileError, formats.FormatError) as error:
        raise RegistryError(f"{path}: {error}") from error
    if fleet is not None and registry.fleet != fleet:
        raise RegistryError(f"{path}: these are the devices of the fleet {registry.fleet!r}, not of {fleet!r}")
    return registry


class _Numbered(msgspec.Struct):
    format: int = 1
