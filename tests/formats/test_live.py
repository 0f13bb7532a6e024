"""A ring that an earlier fedge has written is read to the last row, and goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_agent.live.joining import Row
from edge_agent.live.ring import Ring
from models.data import ring_file

HERE = Path(__file__).parent / "live" / "hall.ring"
ROWS = [
    {"time": 1764244800.25, "group": "3", "t": 20.5, "y": True},
    {"time": 1764244801.25, "group": "3", "t": 21.5, "y": "run"},
    {"time": 1764244802.25, "group": "3", "t": 22.5},
    {"time": 1764244803.25, "group": "3", "t": 23.5, "y": "run"},
]


def test_a_ring_of_format_1_is_read_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "hall.ring"
    shutil.copytree(HERE, folder)
    ring = Ring(folder, ("group", "t", "y"), keep_bytes=2**18)
    ring.append(Row(1764244804.25, "3", {"group": "3", "t": 1.0}), 0.0)
    ring.close()
    table = ring_file.Ring(str(folder))
    assert table.header == ("time", "group", "t", "y")
    assert list(table.rows()) == [*ROWS, {"time": 1764244804.25, "group": "3", "t": 1}]
    table.close()
    assert [path.name for path in ring_file.segments(folder)] == ["00000001.jsonl"]
