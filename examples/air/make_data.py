"""Made-up hourly records of four stations: CO, wind and temperature, and the CO six hours later.

    python examples/air/make_data.py [FOLDER]

writes air.csv. Traffic makes CO by the hour and the day of the week, wind carries it away (twice the wind, half of it),
and on cold still nights it stays. Wind comes in fronts of some days. What will be is a product of what the clock says
and what the wind has been: so a weighted sum of the last hours forecasts badly.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DAYS = 100
AHEAD_H = 6
STATIONS = {"crossing": 1.5, "park": 0.8, "ring": 1.3, "school": 1.1}
"""And the CO of a usual hour there, in milligrams a cubic metre."""
BEGINS = datetime(2024, 9, 2, tzinfo=UTC)
HEADER = ("station", "time", "co", "wind", "temperature", "co_in_6h")

Array = npt.NDArray[Any]


def wandering(n: int, hours: float, rng: np.random.Generator) -> Array:
    """Return (n,) that wanders about 0 with variance 1 and forgets itself in so many hours."""
    keep = np.exp(-1 / hours)
    found, now = np.empty(n), rng.normal()
    for at, push in enumerate(rng.normal(0, np.sqrt(1 - keep**2), n)):
        now = found[at] = keep * now + push
    return found


def station(usual: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return CO, wind (m/s) and temperature (degrees C) of every hour."""
    hour = np.arange(DAYS * 24)
    clock, weekend = hour % 24, (hour // 24) % 7 >= 5
    wind = 3.0 * np.exp(0.5 * wandering(len(hour), 72, rng))
    temperature = 10 + 5 * wandering(len(hour), 90, rng) + 5 * np.sin(2 * np.pi * (clock - 9) / 24)
    rush = np.exp(-(((clock - 8) / 2.0) ** 2)) + np.exp(-(((clock - 18) / 2.5) ** 2))
    traffic = 0.25 + rush * np.where(weekend, 0.35, 1.0)
    still = 1 + 0.8 * (temperature < 6) * (wind < 2.5)
    made = usual * traffic * 2.5 * still / (0.8 + wind)
    smooth = np.convolve(made, [0.5, 0.3, 0.2])[: len(made)]
    return smooth * np.exp(rng.normal(0, 0.08, len(made))), wind, temperature


def main(folder: Path) -> None:
    """Write the file."""
    rng = np.random.default_rng(15)
    lines = [",".join(HEADER)]
    for name, usual in STATIONS.items():
        co, wind, temperature = station(usual, rng)
        for at in range(len(co)):
            when = (BEGINS + timedelta(hours=at)).strftime("%Y-%m-%dT%H:%M:%SZ")
            later = f"{co[at + AHEAD_H]:.2f}" if at + AHEAD_H < len(co) else ""  # nobody knows yet
            lines.append(f"{name},{when},{co[at]:.2f},{wind[at]:.1f},{temperature[at]:.1f},{later}")
    (folder / "air.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(folder / "air.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
