"""Every benchmark that needs no data of its own, one after another: `make bench`, or `python -m benchmarks`.

Each prints what it measured and how; figures within one run compare, figures of two runs on a busy machine do not.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    ("training: NumPy against Torch, and memory", ["benchmarks.training"]),
    ("codec: bits at equal error, and speed", ["benchmarks.codec"]),
    ("overhead: what a round costs", ["benchmarks.overhead", "--agents", "10", "--repeats", "1"]),
    ("scale: events, chunks and the simulator", ["benchmarks.scale"]),
    ("end to end: bytes and rounds against float32", ["benchmarks.end_to_end"]),
    ("secured: bytes, CPU and memory with message keys and TLS", ["benchmarks.secured"]),
    ("sight: what it costs to look on a large fleet", ["benchmarks.sight"]),
    ("looking: what the page of a large fleet costs", ["benchmarks.looking", "--seconds", "5", "--tries", "5"]),
    ("live: what a live source writes to a card in a day", ["benchmarks.live_wear", "--hours", "1"]),
)


def main() -> int:
    """Run them all; 1 if one of them failed."""
    failed = 0
    for title, command in BENCHMARKS:
        print(f"\n{title}\n", flush=True)
        failed |= subprocess.run([sys.executable, "-m", *command], check=False).returncode
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main())
