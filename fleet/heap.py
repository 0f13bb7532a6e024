"""How the C library shares memory out and gives it back, set once for a process before it works with arrays.

A round allocates and frees the same few arrays of a megabyte again and again. Left alone, glibc takes each from the
kernel and gives it back, and every page of it is zeroed anew: a third to two thirds of the time of a pass over it.
Kept, they cost a process nothing beyond the peak that it has anyway (mallopt(3), M_MMAP_THRESHOLD, M_TRIM_THRESHOLD).

Left alone it also gives each thread a heap of its own, and what the network thread has freed the main thread cannot
use: a device would have room for a version twice. Python runs one thread at a time, so one heap will do (M_ARENA_MAX).
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
KEPT_BYTES = 32 * 2**20
"""Arrays up to this size come from the heap, and so much of it stays when it is free."""


def keep_freed_memory() -> None:
    """Keep up to KEPT_BYTES of freed memory. Where the C library knows nothing of it (musl, macOS) nothing happens.

    Who has set MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_, or MALLOC_ARENA_MAX, has the last word. To be called
    before a thread is started.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_ARENA_MAX, 1)
    if not {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
