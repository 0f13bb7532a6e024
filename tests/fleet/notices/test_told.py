"""The file of what was told: written whole, refused by name where it is newer, passed over where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.messages import Notice
from fleet.notices.told import FILE, Held, Told, ToldError, read, write
from runtime.formats import ZEROS, NewerFormatError, stamped

WRITTEN = (
    b'{"told":{"last":7,"away":{"pi-1":12.5},"lost":{"pi-2":0.0},"open":{"job.ended digits-1":1700000000.0},'
    b'"held":{"disk":[{"who":"pi-3","text":"it is full","job":"","device":"pi-3"}]},"more":{"disk":2},'
    b'"unsent":[{"at":1.5,"kind":"disk","text":"full"}],"dropped":3},"format":1,"checksum":"976b003e"}'
)
HELD = Held("pi-3", "it is full", device="pi-3")
OPEN = {"job.ended digits-1": 1.7e9}
UNSENT = [Notice(1.5, "disk", "full")]
TOLD = Told(7, {"pi-1": 12.5}, {"pi-2": 0.0}, OPEN, {"disk": [HELD]}, {"disk": 2}, UNSENT, 3)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read(tmp_path) == Told()
    write(tmp_path, TOLD)
    assert (tmp_path / FILE).read_bytes() == WRITTEN
    assert read(tmp_path) == TOLD
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_a_newer_one_is_refused_by_name_and_a_damaged_one_as_such(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(stamped(b'{"told":{"new":[]},"format":2,"checksum":"' + ZEROS.encode() + b'"}'))
    with pytest.raises(NewerFormatError, match=r"notices.json has format 2, of a newer fedge.*: upgrade this one"):
        read(tmp_path)
    for damaged in (b"", b"{", b"[]", WRITTEN[:-9], WRITTEN.replace(b"pi-1", b"pi-9"), b"\xff" * 99, b"[" * 100_000):
        path.write_bytes(damaged)
        with pytest.raises(ToldError, match=r"notices.json: is damaged"):
            read(tmp_path)
