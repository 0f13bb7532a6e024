"""Made-up records of watches: acceleration and turning at 25 Hz, of people who move each in their own way.

    python examples/wrist/make_data.py [FOLDER]

writes wrist.csv, five people whose watches train, and wrist-test.csv, two people whom no watch has seen. A bout is one
activity for some ten seconds; in each the watch sits a little differently, so that where gravity points says nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HZ = 25
BOUT_S = 10
BOUTS = 4
"""Of each activity and person."""
COLUMNS = ("ax", "ay", "az", "gx", "gy", "gz")
HEADER = ("person", "bout", "time", *COLUMNS, "activity")
# Steps or strokes a second, g of acceleration, degrees a second of turning, and how much of it is in the second
# harmonic: what tells walking from stairs and running.
ACTIVITIES = {
    "still": (0.3, 0.02, 3.0, 0.0),
    "walk": (1.8, 0.35, 80.0, 0.3),
    "stairs": (1.4, 0.40, 60.0, 1.1),
    "run": (2.7, 1.00, 200.0, 0.5),
    "wash": (3.6, 0.40, 150.0, 0.1),
}
TRAINED, HELD_OUT = ("ada", "ben", "cleo", "dan", "eve"), ("finn", "gus")

Array = npt.NDArray[Any]


def turned(rng: np.random.Generator) -> Array:
    """Return a rotation about a random axis, (3, 3), by half a right angle as a rule (Rodrigues)."""
    axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), rng.normal(0, 0.8)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def bout(rng: np.random.Generator, activity: str, pace: float, force: float) -> Array:
    """Return (n, 6) of one bout. pace, force: the person's own factors on how fast and how strongly it moves."""
    steps, g, degrees, second = ACTIVITIES[activity]
    t = np.arange(HZ * BOUT_S) / HZ
    wander = np.cumsum(rng.normal(0, 0.02, len(t)))
    phase = 2 * np.pi * steps * pace * rng.normal(1, 0.04) * t + rng.uniform(0, 2 * np.pi) + wander
    shifted = phase[:, None] + np.array([0.0, 0.7, 1.9])
    wave = np.sin(shifted) + second * np.sin(2 * shifted)
    moved = g * force * rng.normal(1, 0.1) * wave * np.array([1.0, 0.6, 0.3])
    swung = degrees * force * rng.normal(1, 0.1) * np.roll(wave, 3, axis=0) * np.array([0.4, 1.0, 0.5])
    sits = turned(rng)
    acceleration = (moved + np.array([0, 0, 1.0])) @ sits + rng.normal(0, 0.05, moved.shape)
    return np.hstack([acceleration, swung @ sits + rng.normal(0, 6, swung.shape)])


def rows(people: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    """Return the lines of these people's watches."""
    lines = [",".join(HEADER)]
    for person in people:
        pace, force = rng.normal(1, 0.08), rng.normal(1, 0.15)
        order = rng.permutation([activity for activity in ACTIVITIES for _ in range(BOUTS)])
        for number, activity in enumerate(order.tolist()):
            for at, values in enumerate(bout(rng, activity, pace, force)):
                time = number * 60 + at / HZ
                numbers = ",".join(f"{value:.3f}" for value in values)
                lines.append(f"{person},{person}-{number},{time:.2f},{numbers},{activity}")
    return lines


def main(folder: Path) -> None:
    """Write both files."""
    rng = np.random.default_rng(15)
    for name, people in (("wrist.csv", TRAINED), ("wrist-test.csv", HELD_OUT)):
        (folder / name).write_text("\n".join(rows(people, rng)) + "\n", encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
