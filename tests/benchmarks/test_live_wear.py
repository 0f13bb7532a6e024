from __future__ import annotations

from pathlib import Path

from benchmarks.live_wear import run
from edge_agent.live.wear import DAY_S, a_day
from models.data.ring_file import segments


def test_what_a_run_counts_is_what_lies_there_and_the_estimate_is_no_less_than_what_the_kernel_counts(
    tmp_path: Path,
) -> None:
    rows, kernel = run(tmp_path / "a.ring", 60.0, 0.25)
    assert rows == sum(path.stat().st_size for path in segments(tmp_path / "a.ring"))
    day = DAY_S / 900
    assert kernel * day <= a_day(rows / 900, 1.0, 60.0).disk_bytes
