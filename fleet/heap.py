"""How the C library gives memory back, set once for a process before it works with arrays.

A round allocates and frees the same few arrays of a megabyte again and again. Left alone, glibc takes each from the
kernel and gives it back, and every page of it is zeroed anew: a third to two thirds of the time of a pass over it.
Kept, they cost a process nothing beyond the peak that it has anyway (mallopt(3), M_MMAP_THRESHOLD, M_TRIM_THRESHOLD).
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 32 * 2**20
"""Arrays up to this size come from the heap, and so much of it stays when it is free."""


def keep_freed_memory() -> None:
    """Keep up to KEPT_BYTES of freed memory. Where the C library knows nothing of it (musl, macOS) nothing happens.

    Who has set MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_ has the last word.
    """
    if {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
