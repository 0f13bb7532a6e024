"""Which devices were made known to Home Assistant, under which prefix: a file in the state directory.

Written before anything is published, so that it can be taken back: where a device is gone while nobody looks, where
another prefix is named, and where discovery is switched off.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from runtime import formats
from runtime.disk import write_private
from runtime.words import clean

log = logging.getLogger(__name__)

FORMAT = 1
FILE = "homeassistant.json"
MOST_BYTES = 64_000_000

_Level = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,80}\Z")]


class _File(Struct):
    devices: dict[_Level, list[_Level]]
    format: int = FORMAT
    checksum: str = formats.ZEROS


class _Numbered(Struct):
    format: Annotated[int, Meta(ge=0)] = 1


def read(folder: Path) -> dict[str, set[str]]:
    """Return the devices by prefix; none where there is no file, or it is damaged: then the log says so.

    Raises OSError, or FormatError for a format that is not read.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    text = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
    try:
        number = msgspec.json.decode(text, type=_Numbered).format
        if not formats.is_whole(text):
            raise ValueError("its checksum is wrong")
        formats.check(str(path), number, FORMAT)
        found = msgspec.json.decode(text, type=_File).devices
    except formats.FormatError:
        raise
    except (ValueError, RecursionError) as error:
        log.error("%s: is damaged: %s; devices that are gone may stay in Home Assistant", path, clean(str(error)))
        return {}
    return {prefix: set(devices) for prefix, devices in found.items()}


def write(folder: Path, devices: dict[str, set[str]]) -> None:
    """Remember this; no file where it is nothing. Raises OSError."""
    kept = {prefix: sorted(names) for prefix, names in sorted(devices.items()) if names}
    if kept:
        write_private(folder / FILE, formats.stamped(msgspec.json.encode(_File(kept))))
    else:
        (folder / FILE).unlink(missing_ok=True)
