"""What has been told already, as a file in the state directory: no start tells that again, nor what was before it.

`notices.json` is written whole and put in its place, before anybody is told; a notice that nobody has taken yet lies in
it too. So a notice may be told twice where a process was killed in between, and none is lost but those that a queue
which is full drops, and counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from broker.messages import Notice
from runtime import formats
from runtime.disk import write_private
from runtime.words import clean

FORMAT = 1
FILE = "notices.json"
MOST_DEVICES = 100_000
"""That are remembered as away, or as lost."""
MOST_OPEN = 10_000
"""Incidents that are remembered."""
MOST_HELD = 1000
"""Of a kind, that are named or counted together later."""
MOST_UNSENT = 100
MOST_BYTES = 64_000_000
"""Of the file: more is none of ours."""

Ids = Annotated[dict[str, float], Meta(max_length=MOST_DEVICES)]


class Held(Struct):
    """One of a kind that waits to be told together with others. who: a device or a job."""

    who: str
    text: str
    job: str = ""
    device: str = ""


class Told(Struct, omit_defaults=True):
    """All that is remembered. It changes."""

    last: int | None = None
    """Number of the last event that was looked at; None: of none yet."""
    away: Ids = {}
    """Device to for how many seconds it has been seen to be away."""
    lost: Ids = {}
    """Devices that were told as lost; the number says nothing."""
    open: Annotated[dict[str, float], Meta(max_length=MOST_OPEN + 1)] = {}
    """Kind and name of an incident that was told, to when a sign of it was last seen."""
    held: dict[str, list[Held]] = {}
    """By kind."""
    more: dict[str, int] = {}
    """By kind, how many more are held than are named."""
    unsent: list[Notice] = []
    dropped: int = 0
    """Notices that did not fit in there, since the webhook last took one."""


class _File(Struct):
    told: Told
    format: int = FORMAT
    checksum: str = formats.ZEROS


class _Numbered(Struct):
    format: Annotated[int, Meta(ge=0)] = 1


class ToldError(ValueError):
    """The file is damaged: which it is."""


def read(folder: Path) -> Told:
    """Return what is remembered in a state directory; nothing where there is no file.

    Raises OSError, ToldError, or FormatError for a format that is not read.
    """
    path = folder / FILE
    if not path.exists():
        return Told()
    if path.stat().st_size > MOST_BYTES:
        raise ToldError(f"{path}: is too large to be what was written there")
    text = path.read_bytes()
    try:
        number = msgspec.json.decode(text, type=_Numbered).format
        if not formats.is_whole(text):
            raise ToldError(f"{path}: is damaged")
        formats.check(str(path), number, FORMAT)
        return msgspec.json.decode(text, type=_File).told
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ToldError(f"{path}: is damaged: {clean(str(error))}") from error


def write(folder: Path, told: Told) -> None:
    """Remember this. Raises OSError; what was remembered before then still is."""
    write_private(folder / FILE, formats.stamped(msgspec.json.encode(_File(told))))
