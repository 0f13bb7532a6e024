"""Rows that come slowly, as from a sensor: a device that takes its time, and no processor."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np


def rows(file: str, seconds: float) -> tuple[Any, Any]:
    """Return the arrays X and y of a file, after some seconds."""
    time.sleep(seconds)
    with np.load(Path(file)) as found:
        return found["X"], found["y"]
