"""What every format is asked for: all of a table's columns, as lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from models.data import table
from models.data.blocks import Fault, Kind
from models.data.source import DataSource


class Read(NamedTuple):
    """A table as it was read."""

    columns: dict[str, list[Any]]
    """None in the place of nan, so that lists compare."""
    lines: list[int]
    faults: list[Fault]
    notes: tuple[str, ...]


def read_table(
    settings: DataSource,
    wanted: Mapping[str, Kind] | None = None,
    *,
    ended: bool = False,
    allow: tuple[str, ...] = (),
    unasked: Collection[str] = (),
) -> Read:
    """Return all rows of a table: of all columns but those left out, as numbers or as what is wanted."""
    opened = table.known(settings).open(settings, ended=ended, allow=allow)
    try:
        kinds = {name: Kind.NUMBER for name in opened.header if name not in unasked} | dict(wanted or {})
        found = Read({name: [] for name in kinds}, [], [], opened.notes)
        for block in opened.blocks(kinds):
            for name, values in block.columns.items():
                cells = values if isinstance(values, list) else values.tolist()
                assert len(cells) == len(block.lines)
                found.columns[name] += [
                    None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells
                ]
            found.lines.extend(block.lines.tolist())
            found.faults.extend(block.faults)
        return found
    finally:
        opened.close()


@pytest.fixture
def read_back(tmp_path: Path) -> Callable[..., Read]:
    """Write a table's file and read it: `read_back("a,y\\n1,0\\n", "x.csv", wanted, ended=..., key=value)`."""

    def back(
        body: str | bytes,
        name: str = "x.csv",
        wanted: Mapping[str, Kind] | None = None,
        *,
        ended: bool = False,
        unasked: Collection[str] = (),
        **keys: Any,
    ) -> Read:
        path = tmp_path / name
        path.write_bytes(body if isinstance(body, bytes) else body.encode())
        return read_table(DataSource(str(path), **keys), wanted, ended=ended, unasked=unasked)

    return back
