"""What a live source writes to the card in a day: `python -m benchmarks.live_wear [--hours H] [--folder DIR]`.

A source of ten values at 1 Hz in fast-forward, through the real ring: rows are appended and synced by a made-up clock.
Three figures for each sync_s, scaled to a day:

    rows       the bytes of the rows as they stand in the file
    kernel     what the kernel says that this process has had written (write_bytes of /proc/self/io: whole pages; "-"
               where the folder has no disk beneath it)
    estimate   what edge_agent/live/wear.py says, with the journal of ext4, which the kernel counts to nobody's account

No card's own erasing is in any of them. The folder should lie on the file system that is meant.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from edge_agent.live.joining import Row
from edge_agent.live.ring import Ring
from edge_agent.live.wear import DAY_S, a_day

COLUMNS = tuple(f"value{i}" for i in range(10))
SYNCS_S = (1.0, 10.0, 30.0, 60.0, 300.0)
BEGAN = 1_764_244_800


def written_bytes() -> int:
    """Return what the kernel has had written to disks for this process."""
    text = Path("/proc/self/io").read_text(encoding="ascii")
    return int(text.split("\nwrite_bytes:")[1].split()[0])


def run(folder: Path, sync_s: float, hours: float) -> tuple[int, int]:
    """Return the bytes of the rows, and those that the kernel has counted."""
    rng, before = random.Random(1), written_bytes()  # noqa: S311 -- readings are no secret
    ring = Ring(folder, COLUMNS, keep_bytes=2**26, sync_s=sync_s)
    for second in range(int(3600 * hours)):
        values = {name: round(20 + rng.random() * 5, 2) for name in COLUMNS}
        ring.append(Row(BEGAN + second + rng.random(), "", {**values}), float(second))
        if second >= ring.due_at:
            ring.flush()
    ring.close()
    return ring.n_bytes, written_bytes() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float, default=2.0, help="of readings for each line (2)")
    parser.add_argument("--folder", type=Path, help="on the file system that is meant (a temporary one)")
    arguments = parser.parse_args()
    print(
        "ten values at 1 Hz; MB of 10^6 bytes a day\n\n"
        "  sync_s   syncs    rows   kernel   estimate   a full ring of 64 MiB holds"
    )
    scale = DAY_S / (3600 * arguments.hours)
    for sync_s in SYNCS_S:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rows, kernel = run(Path(folder) / "a.ring", sync_s, arguments.hours)
        wear = a_day(rows * scale / DAY_S, 1.0, sync_s)
        counted = f"{kernel * scale / 1e6:.0f}" if kernel else "-"
        days = 2**26 / (rows * scale)
        figures = f"{sync_s:8.0f}{wear.syncs:8.0f}{wear.row_bytes / 1e6:8.1f}{counted:>9}{wear.disk_bytes / 1e6:11.0f}"
        print(f"{figures}   {days:.1f} days")


if __name__ == "__main__":
    main()
