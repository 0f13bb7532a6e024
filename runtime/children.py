"""What our child processes are started with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Where this package and its neighbours lie."""


def environment(**more: str) -> dict[str, str]:
    """Return our own environment for a child that is to find its modules exactly where this process finds its own."""
    paths = dict.fromkeys([str(ROOT), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}
