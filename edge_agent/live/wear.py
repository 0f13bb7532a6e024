"""What a live source writes to a card in a day, worked out.

A sync writes whole blocks: those that the new rows lie in, of which the first holds older rows as well and is written
again; and, since the file has grown, what the journal of ext4 takes for that (a descriptor, the inode's block, a
commit) and the inode's block in its place, later. What a card makes of it within (it erases pieces of megabytes) is not
known to anybody outside it. benchmarks/live_wear.py holds this against what a kernel counts.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 4096
JOURNAL_BLOCKS = 4
DAY_S = 86_400.0


class Wear(NamedTuple):
    """Of a day. row_bytes: of the rows themselves; disk_bytes: with whole blocks and the journal."""

    rows: float
    row_bytes: float
    syncs: float
    disk_bytes: float


def a_day(row_bytes: float, rows_per_s: float, sync_s: float) -> Wear:
    """Return what rows of this length at this rate write, synced every sync_s seconds.

    >>> round(a_day(row_bytes=200, rows_per_s=1, sync_s=60).disk_bytes / 1e6)
    47
    """
    rows = rows_per_s * DAY_S
    written = rows * row_bytes
    rate = rows_per_s if sync_s <= 0 else min(rows_per_s, 1 / sync_s)
    syncs = max(rate * DAY_S, written / 65_536)
    return Wear(rows, written, syncs, written + syncs * (BLOCK / 2 + BLOCK / 2 + JOURNAL_BLOCKS * BLOCK))
