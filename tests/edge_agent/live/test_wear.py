from __future__ import annotations

import pytest

from edge_agent.live.wear import BLOCK, JOURNAL_BLOCKS, a_day


def test_a_day_counts_rows_syncs_whole_blocks_and_the_journal() -> None:
    found = a_day(row_bytes=200, rows_per_s=1, sync_s=60)
    assert (found.rows, found.row_bytes, found.syncs) == (86_400, 86_400 * 200, 1440)
    assert found.disk_bytes == 86_400 * 200 + 1440 * (1 + JOURNAL_BLOCKS) * BLOCK


def test_a_slow_source_syncs_once_a_row_and_a_fast_one_whenever_much_waits() -> None:
    assert a_day(200, 1 / 600, 60).syncs == pytest.approx(144)
    assert a_day(200, 1, 0).syncs == pytest.approx(86_400)
    assert a_day(1000, 100, 3600).syncs == pytest.approx(86_400 * 100 * 1000 / 65_536)
