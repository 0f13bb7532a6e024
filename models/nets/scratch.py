"""Memory that a net works in, used again for every batch.

A thread has that of the net which trains in it, until another one does: jobs whose turns follow each other do not take
the sum of what they need.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
MOST_VIEWS = 4096
"""Shapes whose arrays are kept: of all layers, for a batch, a smaller last one, and those of other users of a net."""


class Scratch:
    """Arrays that are used again for every batch, by name. For one thread."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, ...], Array] = {}
        self._views: dict[tuple[object, ...], Array] = {}

    def array(self, *name: object, shape: Shape, dtype: npt.DTypeLike = np.float32) -> Array:
        """Return an array of this shape whose content is anything, the same memory for the same name and dtype.

        A smaller batch gets the first part of the memory.
        """
        view = self._views.get((name, shape, dtype))
        return self._carved((name, dtype), shape, dtype) if view is None else view

    @property
    def n_bytes(self) -> int:
        """Return how much memory it holds."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def _carved(self, name: tuple[object, ...], shape: Shape, dtype: npt.DTypeLike) -> Array:
        size = 1
        for length in shape:
            size *= length
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            self._views.clear()  # some are of memory that would else stay
            buffer = self._buffers[name] = np.empty(size, dtype)
        if len(self._views) >= MOST_VIEWS:
            self._views.clear()
        view = self._views[(name[0], shape, dtype)] = buffer[:size].reshape(shape)
        return view


class _Here(threading.local):
    scratch = Scratch()
    owner: weakref.ref[object] | None = None


_here = _Here()


def scratch_of(net: object) -> Scratch:
    """Return the memory that a net trains in, in this thread. Where another one did last, it starts with none."""
    if _here.owner is None or _here.owner() is not net:
        _here.owner, _here.scratch = weakref.ref(net), Scratch()
    return _here.scratch
