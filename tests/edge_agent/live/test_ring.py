"""The ring is cut at every byte, flipped at every byte, and killed; what is believed of it was written so."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.live.joining import Row
from edge_agent.live.ring import AGAIN_S, EARLY, MOST_WAITING, Ring, RingError
from models.data import ring_file
from models.data.dataset import DatasetError
from models.data.ring_file import segments
from runtime.formats import NewerFormatError

KEEP = 2**18


def opened(folder: Path, *columns: str, keep_bytes: int = KEEP, **more: float) -> Ring:
    return Ring(folder, columns or ("t", "y"), keep_bytes=keep_bytes, **more)


def fill(ring: Ring, first: int, n: int) -> None:
    for i in range(first, first + n):
        ring.append(Row(float(i), "", {"t": i / 8, "y": "run" if i % 2 else "off"}), float(i))
    ring.flush()


def times(folder: Path) -> list[int]:
    table = ring_file.Ring(str(folder))
    try:
        return [round(float(row["time"])) for row in table.rows()]
    finally:
        table.close()


def test_rows_are_read_as_they_were_appended_and_others_go_on_behind_them_after_a_start(tmp_path: Path) -> None:
    folder = tmp_path / "a.ring"
    for first in (0, 10):
        ring = opened(folder)
        fill(ring, first, 10)
        ring.close()
    assert times(folder) == list(range(20))
    assert len(segments(folder)) == 1


def test_what_waits_is_written_when_it_is_due_and_at_the_end(tmp_path: Path) -> None:
    ring = opened(tmp_path / "a.ring", sync_s=60.0)
    assert ring.due_at == math.inf
    ring.append(Row(1.0, "", {"t": 1.0}), 100.0)
    ring.append(Row(2.0, "", {"t": 2.0}), 130.0)
    assert ring.due_at == 160.0
    assert segments(tmp_path / "a.ring") == []
    ring.close()
    assert times(tmp_path / "a.ring") == [1, 2]


def test_many_rows_are_written_before_their_time(tmp_path: Path) -> None:
    ring = opened(tmp_path / "a.ring", sync_s=60.0)
    n = 0
    while ring.due_at != 100.0:
        ring.append(Row(1.0, "", {"t": 1.0}), 100.0)
        n += 1
    assert n < EARLY / 30
    ring.close()


def test_a_ring_cut_at_any_byte_loses_no_whole_line_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "a.ring"
    ring = opened(folder)
    fill(ring, 0, 4)
    ring.close()
    path = segments(folder)[0]
    content = path.read_bytes()
    ends = [at for at, byte in enumerate(content, 1) if byte == 10]
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        for late in segments(folder)[1:]:
            late.unlink()
        whole = max(0, sum(end <= cut + 1 for end in ends) - 1)  # but for its end is whole
        assert times(folder) == list(range(whole))
        ring = opened(folder)
        fill(ring, 100, 1)
        ring.close()
        assert times(folder) == [*range(whole), 100]


def test_a_tail_of_zeros_as_a_power_cut_leaves_it_is_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "a.ring"
    ring = opened(folder)
    fill(ring, 0, 3)
    ring.close()
    with segments(folder)[0].open("ab") as file:
        file.write(bytes(5000))
    assert times(folder) == [0, 1, 2]
    ring = opened(folder)
    fill(ring, 3, 1)
    ring.close()
    assert times(folder) == [0, 1, 2, 3]
    assert b"\0" not in segments(folder)[0].read_bytes()


def test_a_byte_that_rots_costs_one_row_at_most_and_none_is_believed_that_was_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "a.ring"
    ring = opened(folder)
    fill(ring, 0, 5)
    ring.close()
    path = segments(folder)[0]
    content = path.read_bytes()
    written = rows(folder)
    for at in range(len(content)):
        for flip in (0x01, 0x20, 0x80, content[at] ^ 0x0A):
            if flip:
                path.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
                found = rows(folder)
                assert all(row in written for row in found)
                assert len(found) >= len(written) - 1
                if content[at] == 10:
                    assert found == written  # two lines whose end has rotted are found all the same


def rows(folder: Path) -> list[dict[str, Any]]:
    table = ring_file.Ring(str(folder))
    try:
        return list(table.rows())
    finally:
        table.close()


def test_a_line_without_its_checksum_would_be_half_believed() -> None:
    """What the checksum is for: this cut is JSON, and says another number."""
    line = ring_file.line_of({"time": 1.0, "t": 21.5})
    cut = line[: line.index(b".5")] + b"}"
    assert ring_file._decoded(cut) == {"time": 1.0, "t": 21}
    assert not ring_file.is_whole(cut)
    assert ring_file.salvaged(cut) == []


def test_the_oldest_rows_go_a_segment_at_a_time_and_the_ring_stays_within_its_bound(tmp_path: Path) -> None:
    folder = tmp_path / "a.ring"
    ring, n = opened(folder), 0
    for _ in range(40):
        fill(ring, n, 500)
        n += 500
        assert sum(path.stat().st_size for path in segments(folder)) <= KEEP
    ring.close()
    kept = times(folder)
    assert kept == list(range(n - len(kept), n))
    assert len(kept) < n
    assert sum(path.stat().st_size for path in segments(folder)) > KEEP * 7 / 8


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 600), st.booleans()), max_size=20))
def test_a_ring_keeps_its_bound_and_its_newest_rows_whatever_is_written_and_however_often_it_is_opened(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("ring") / "a.ring"
    ring, n = opened(folder), 0
    for more, again in written:
        fill(ring, n, more)
        n += more
        if again:
            ring.close()
            ring = opened(folder)
        on_disk = sum(path.stat().st_size for path in segments(folder))
        assert ring.n_bytes == on_disk <= KEEP
    ring.close()
    kept = times(folder) if n else []
    assert kept == list(range(n - len(kept), n))
    assert len(kept) == n or sum(path.stat().st_size for path in segments(folder)) > KEEP / 2


def test_rows_older_than_keep_s_go(tmp_path: Path) -> None:
    ring = opened(tmp_path / "a.ring", keep_s=3600.0)
    fill(ring, 0, 400)
    first = len(segments(tmp_path / "a.ring"))
    fill(ring, 10_000, 1)
    ring.close()
    assert first >= 1
    assert times(tmp_path / "a.ring") == [10_000]


def test_other_columns_begin_another_segment_and_the_old_rows_stay(tmp_path: Path) -> None:
    folder = tmp_path / "a.ring"
    ring = opened(folder)
    fill(ring, 0, 2)
    ring.close()
    ring = opened(folder, "t", "v", "y")
    fill(ring, 2, 2)
    ring.close()
    table = ring_file.Ring(str(folder))
    assert table.header == ("time", "t", "y", "v")
    table.close()
    assert times(folder) == [0, 1, 2, 3]


def test_a_second_process_is_told_and_changes_nothing(tmp_path: Path) -> None:
    ring = opened(tmp_path / "a.ring")
    with pytest.raises(RingError, match="is written to by another process"):
        opened(tmp_path / "a.ring")
    fill(ring, 0, 1)
    ring.close()
    opened(tmp_path / "a.ring").close()


def test_what_a_newer_fedge_has_written_is_refused_by_name_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / "a.ring"
    folder.mkdir()
    path = folder / "00000001.jsonl"
    path.write_bytes(ring_file.line_of({"format": 2, "columns": ["t"]}) + b"{")
    before = path.read_bytes()
    with pytest.raises(NewerFormatError, match="of a newer fedge"):
        opened(folder)
    with pytest.raises(DatasetError, match="of a newer fedge"):
        ring_file.Ring(str(folder))
    assert path.read_bytes() == before


def test_a_full_disk_costs_no_row_that_fits_into_memory_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a.ring"
    ring = opened(folder)
    fill(ring, 0, 2)
    real = os.pwrite

    def half(descriptor: int, data: memoryview, at: int) -> int:
        if at % 2 == full["parity"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:7], at)

    full = {"parity": (ring.n_bytes + 7) % 2}
    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="No space left"):
        fill(ring, 2, 2)
    assert times(folder) == [0, 1]
    assert segments(folder)[0].stat().st_size == ring.n_bytes
    ring.put_off(500.0)
    assert ring.due_at == 500.0 + AGAIN_S
    monkeypatch.setattr(os, "pwrite", real)
    ring.flush()
    ring.close()
    assert times(folder) == [0, 1, 2, 3]


def test_a_disk_that_stays_full_costs_the_oldest_rows_which_are_counted(tmp_path: Path) -> None:
    ring = opened(tmp_path / "a.ring")
    n = 3 * MOST_WAITING // 50
    for i in range(n):
        ring.append(Row(float(i), "", {"t": 1.0, "y": "x"}), 0.0)
    assert ring.n_lost > 0
    ring.close()
    found = times(tmp_path / "a.ring")
    assert found == list(range(n - len(found), n))
    assert len(found) + ring.n_lost == n
