from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import rows
from models.data.source import DataSource, load


def test_a_million_rows_are_read_in_less_memory_than_they_are() -> None:
    """They take 32 MB, which lie in a file; the benchmark has ten million of them, in three formats."""
    ((kind, cost),) = rows.measure(1_000_000, ("npz",))
    assert (kind, cost.rows) == ("npz", 1_000_000)
    assert cost.read_mb - cost.idle_mb < 20


def test_the_rows_of_every_format_are_the_same(tmp_path: Path) -> None:
    query = "SELECT * FROM readings"
    found = [
        load(DataSource(str(rows.write(tmp_path, kind, 250)), query=query if kind == "db" else None))
        for kind in rows.FORMATS
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other.X, found[0].X)
        np.testing.assert_array_equal(other.y, found[0].y)
