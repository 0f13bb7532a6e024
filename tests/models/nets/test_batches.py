from __future__ import annotations

import pytest

from models.nets.batches import ROWS_AT_ONCE, rows_at_once


@pytest.mark.parametrize(
    ("n_units", "rows"), [(0, ROWS_AT_ONCE), (256, ROWS_AT_ONCE), (512, 512), (2**18, 1), (10**30, 1)]
)
def test_the_wider_a_net_the_fewer_rows_go_through_it_at_once(n_units: int, rows: int) -> None:
    assert rows_at_once(n_units) == rows
