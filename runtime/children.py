"""What our child processes are started with, and what they end with."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Where this package and its neighbours lie."""
NOT_THERE = 4
"""The exit code of `fedge job export` where the aggregator answers that it has no such version."""
LOOKS_EVERY_S = 0.5
"""Where a child has to look itself whether its parent is still there."""
_PR_SET_PDEATHSIG = 1


def environment(**more: str) -> dict[str, str]:
    """Return our own environment for a child that is to find its modules exactly where this process finds its own."""
    paths = dict.fromkeys([str(ROOT), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def end_with(parent: int) -> None:
    """End this process with its parent, the process of this id, however that ends and whatever is done here.

    On Linux the kernel sees to it (prctl(2)): it kills this process when the thread that has started it ends, so that
    one must wait for it. Elsewhere, and where no library can be called, a thread looks every so often.
    """
    if not _is_killed_with_parent():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it has ended before this was called
        os._exit(1)


def _is_killed_with_parent() -> bool:
    with contextlib.suppress(ImportError, MemoryError, OSError, AttributeError):  # as in disk.exchange
        import ctypes

        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0)
    return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOKS_EVERY_S)
    os._exit(1)
