"""The homes of agents that a test has opened are closed behind it: each holds a lock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_agent.home import Home

HOMES: list[Home] = []
"""What a test has opened."""


@pytest.fixture(autouse=True)
def _homes_are_closed() -> Iterator[None]:
    yield
    while HOMES:
        HOMES.pop().close()
