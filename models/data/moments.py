"""What is made of the time of a row: two inputs for each time feature, a sine and a cosine, so that the end of a day, a
week or a year is next to its beginning.

    hour      2 pi * (seconds since midnight) / 86,400
    weekday   2 pi * (day of the week, Monday is 0) / 7
    month     2 pi * (day of the year, January 1st is 0) / 365.2425

Times are seconds since 1970, in UTC or as their table writes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.contract import TimeFeature
from models.params import Float32

DAY_S = 86_400
MOST_S = 2.5e11
"""A time further from 1970, some 8,000 years, is none."""
_MONDAY = 3
"""The day of the week on which 1970 began is a Thursday."""


def waves(seconds: npt.NDArray[np.float64], features: Sequence[TimeFeature]) -> Float32:
    """Return (n, 2 * len(features)) inputs, in the order of `ContractSpec.columns`. Times are finite."""
    turns = [_turns(seconds, name) for name in features]
    waves = [wave(2 * np.pi * turn) for turn in turns for wave in (np.sin, np.cos)]
    return np.stack(waves, axis=1).astype(np.float32) if waves else np.empty((len(seconds), 0), np.float32)


def _turns(seconds: npt.NDArray[np.float64], feature: TimeFeature) -> npt.NDArray[np.float64]:
    days = np.floor(seconds / DAY_S)
    match feature:
        case "hour":
            return seconds / DAY_S - days
        case "weekday":
            return (days + _MONDAY) % 7 / 7
        case "month":
            dates = days.astype(np.int64).astype("datetime64[D]")
            since: npt.NDArray[np.float64] = (dates - dates.astype("datetime64[Y]")).astype(np.float64)
            return since / 365.2425
