"""`fedge agent source NAME`: what a live source has kept, how fast it comes, and what it writes to the card.

The ring is read as it lies there, beside an agent that may be at work. No value of a reading is shown.
"""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct

from edge_agent.live.health import clock
from edge_agent.live.settings import LiveSettings, live_sources
from edge_agent.live.wear import a_day
from fleet.roles import load_agent
from models.data import ring_file
from models.data.ring_file import TIME, segments
from runtime.settings import SettingsError
from runtime.words import clean

RECENT = 1000
"""Rows that the rate is taken from."""


class Kept(Struct, frozen=True):
    """What lies in a ring. Times in seconds since 1970; None where there is none yet.

    rows_per_s: of the last rows. missing: column to how many rows lack it. written_bytes_per_day: as estimated
    (edge_agent/live/wear.py), with whole blocks and the journal.
    """

    name: str
    path: str
    rows: int = 0
    damaged_lines: int = 0
    disk_bytes: int = 0
    keep_bytes: int = 0
    sync_s: float = 0.0
    first: float | None = None
    last: float | None = None
    age_s: float | None = None
    rows_per_s: float | None = None
    missing: dict[str, int] = {}
    written_bytes_per_day: int | None = None


def source(config: Path, name: str) -> Kept:
    """Return what the live source of this name has kept. Raises SettingsError where there is none, DatasetError."""
    sources = live_sources(load_agent(config).data)
    found = next((live for live in sources if live.name == name), None)
    if found is None:
        known = ", ".join(live.name for live in sources) or "none"
        raise SettingsError(f"{config}: [data.{clean(name, 64)}] is no source with a table mqtt; there is {known}")
    return look(found)


def look(live: LiveSettings) -> Kept:
    """Return what a live source has kept. Raises DatasetError where it cannot be read."""
    mqtt, folder = live.mqtt, Path(live.folder)
    nothing = Kept(live.name, live.folder, keep_bytes=mqtt.keep_bytes, sync_s=mqtt.sync_s)
    if not segments(folder):
        return nothing
    ring, times, n_rows = ring_file.Ring(live.folder), list[float](), 0
    missing = dict.fromkeys(live.columns, 0)
    try:
        for row in ring.rows():
            n_rows += 1
            times.append(float(row[TIME]))
            if len(times) > 2 * RECENT:
                del times[1:-RECENT]
            for name in missing:
                missing[name] += name not in row
    finally:
        ring.close()
    n_bytes = sum(path.stat().st_size for path in segments(folder) if path.exists())
    if not n_rows:
        return nothing
    recent = times[-min(len(times), RECENT) :]
    spent = recent[-1] - recent[0]
    rate = (len(recent) - 1) / spent if spent > 0 else None
    wear = None if rate is None else round(a_day(n_bytes / n_rows, rate, mqtt.sync_s).disk_bytes)
    return Kept(
        *(live.name, live.folder, n_rows, ring.n_damaged, n_bytes, mqtt.keep_bytes, mqtt.sync_s),
        first=times[0],
        last=times[-1],
        age_s=round(time.time() - times[-1], 3),
        rows_per_s=rate if rate is None else round(rate, 6),
        missing={name: n for name, n in missing.items() if n},
        written_bytes_per_day=wear,
    )


def described(kept: Kept) -> list[str]:
    """Return the lines of it for people."""
    if kept.first is None or kept.last is None:
        return [
            f"{kept.name}: no reading has been kept yet in {kept.path}: is an agent running? Its log says what ails it"
        ]
    lines = [
        f"{kept.name}: {kept.rows:,} rows in {kept.path}, from {clock(kept.first)} to {clock(kept.last)}",
        f"  last row      {kept.age_s or 0.0:,.0f} s ago (rows are put on disk every {kept.sync_s:g} s)",
        f"  on disk       {kept.disk_bytes / 1e6:,.1f} MB of {kept.keep_bytes / 1e6:,.1f} MB",
    ]
    if kept.rows_per_s is not None and kept.written_bytes_per_day is not None:
        lines.append(f"  rate          {kept.rows_per_s:.3g} rows a second")
        written = f"about {kept.written_bytes_per_day / 1e6:,.0f} MB a day"
        lines.append(f"  writes        {written} to the card, with whole blocks and the journal")
    lines += [f"  missing       {clean(name, 80)} in {n:,} rows" for name, n in kept.missing.items()]
    if kept.damaged_lines:
        lines.append(f"  damaged       {kept.damaged_lines:,} lines, which are left out")
    return lines
