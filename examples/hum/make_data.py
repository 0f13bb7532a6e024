"""Made-up vibration of machines that hum: the level of twelve bands of frequency, in dB, once a second.

    python examples/hum/make_data.py [FOLDER]

writes hum.csv, four machines that are well, without a word on what is normal, and hum-test.csv, half an hour of each
with faults now and then, and a column `fault` that says when. A machine hums at the band of its speed and, softer, at
twice that, and speed and load come and go: so each band is at times loud and at times quiet, and what gives a fault
away is no loud band, but one that is loud at the wrong speed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BANDS = tuple(f"band{number:02d}" for number in range(1, 13))
MACHINES = ("fan", "mill", "press", "pump")
TRAINED_S, TESTED_S = 4000, 1800
FAULT_S = 20

Array = npt.NDArray[Any]


def wandering(n: int, seconds: float, rng: np.random.Generator) -> Array:
    """Return (n,) between 0 and 1 that comes and goes over so many seconds."""
    at = np.arange(n) / seconds
    waves = sum(np.sin(2 * np.pi * (at * pace + rng.random())) for pace in rng.uniform(0.5, 1.5, 4))
    return np.asarray(0.5 + 0.5 * np.tanh(waves))


def hump(middle: Array, width: float) -> Array:
    """Return (n, bands): 1 in the band at `middle`, (n,), and less with the distance from it."""
    return np.asarray(np.exp(-(((np.arange(len(BANDS)) - middle[:, None]) / width) ** 2)))


def levels(n: int, own: Array, rng: np.random.Generator, faulty: Array) -> Array:
    """Return (n, bands) in dB. own: (bands,) what the machine's frame adds; faulty: (n,) 0, or a fault's number."""
    speed, load = 1 + 4 * wandering(n, 240, rng), wandering(n, 90, rng)
    found = 38 + own + (14 + 6 * load[:, None]) * hump(speed, 1.1) + (8 + 8 * load[:, None]) * hump(2 * speed, 1.3)
    found += np.where(faulty == 1, 10, 0)[:, None] * hump(0.4 * speed + 8, 1.2)  # a bearing: a band of its own
    found += np.where(faulty == 2, 10, 0)[:, None] * hump(0.5 * speed, 1.0)  # something loose: half the speed
    found -= np.where(faulty == 3, 12, 0)[:, None] * hump(2 * speed, 1.3)  # a belt that slips: its hum is gone
    return np.asarray(found + rng.normal(0, 1.0, found.shape))


def main(folder: Path) -> None:
    """Write both files."""
    rng = np.random.default_rng(15)
    header = ["machine", "time", *BANDS]
    train, test = [",".join(header)], [",".join([*header, "fault"])]
    for machine in MACHINES:
        own = rng.normal(0, 1.0, len(BANDS))
        for second, row in enumerate(levels(TRAINED_S, own, rng, np.zeros(TRAINED_S))):
            train.append(f"{machine},{second},{','.join(f'{level:.1f}' for level in row)}")
        n = TESTED_S // FAULT_S
        faulty = np.repeat(np.where(rng.random(n) < 0.2, rng.integers(1, 4, n), 0), FAULT_S)
        for second, row in enumerate(levels(TESTED_S, own, rng, faulty)):
            cells = ",".join(f"{level:.1f}" for level in row)
            test.append(f"{machine},{second + 86_400},{cells},{int(faulty[second] > 0)}")
    for name, lines in (("hum.csv", train), ("hum-test.csv", test)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
