"""What a device measures for the steering of the coding: what noise would cost here, and what the last versions gained.

Noise of energy E, spread evenly over all directions, adds about curvature * E to the loss. An antithetic pair tells it

    curvature = ((L(W + z) + L(W - z)) / 2 - L(W)) / |z|^2,      z normal, |z|^2 about E

without the gradient, which cancels (one draw alone is negative half of the time). `E` is about the energy of the noise
in the version itself, as its round says: what the next one's may come to. All on at most ROWS rows, always the same.
Signs in the place of normal numbers would be cheaper (Hutchinson 1990), and cost up to a tenth more bytes.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from models.data.dataset import Dataset
from models.nets.net import Net
from models.params import Params, spec_of
from models.rows import params_of, row_of

ROWS = 256
SLAB = 2**14
"""Coordinates that are drawn at a time, and added and squared while they are in the cache."""
EARLY = 4
"""Versions below this are always reported on."""
EVERY = 3
"""Later ones in turn: a report costs a third of a small update."""
LATEST = 6
"""Who has not reported for so many versions does, whoever's turn it is."""


def is_due(device: str, number: int, last: int | None) -> bool:
    """Return whether a device reports on the version of this number, having reported on `last`."""
    if number < EARLY or last is None or number - last >= LATEST:
        return True
    return (number + zlib.crc32(device.encode())) % EVERY == 0


def some_rows(data: Dataset, device: str) -> Dataset:
    """Return at most ROWS rows, the same for a device every time."""
    n = len(data.y)
    if n <= ROWS:
        return data
    chosen = np.random.default_rng(zlib.crc32(device.encode())).choice(n, ROWS, replace=False)
    return Dataset(data.X[chosen], data.y[chosen], data.source)


def loss(net: Net, params: Params, rows: Dataset) -> float:
    """Return the mean loss on the rows."""
    return net.evaluate(params, rows.X, rows.y).loss


def gain(before: float, number: int, here: float, now: int) -> float:
    """Return what a version gains by now, of a loss that was `before` at version `number` and is `here` at `now`.

    A loss falls ever more slowly: what it fell by a version was true of the middle between the two. As long as it falls
    like one over the number of the version, it now falls by (number + 1) / (now + 1) of that.
    """
    return (before - here) / (now - number) * (number + 1) / (now + 1)


def curvature(net: Net, params: Params, rows: Dataset, here: float, energy: float, rng: np.random.Generator) -> float:
    """Return what noise adds to the loss per unit of its energy, and nan where the loss is not finite.

    params: used up, for there is no room for them beside both draws. here: the loss without noise.
    """
    over = row_of(list(params.values()))
    under = np.empty_like(over)
    noise = np.empty(min(SLAB, over.size), np.float32)
    size, square, spec = np.float32(math.sqrt(energy / over.size)), 0.0, spec_of(params)
    with np.errstate(all="ignore"):
        for at in range(0, over.size, SLAB):
            start = over[at : at + SLAB]
            piece = rng.standard_normal(dtype=np.float32, out=noise[: start.size])
            piece *= size
            np.subtract(start, piece, out=under[at : at + SLAB])
            start += piece
            wide = piece.astype(np.float64)
            square += float(np.dot(wide, wide))
        up, down = (loss(net, params_of(row, spec), rows) for row in (over, under))
    if not energy:
        return math.nan
    return ((up + down) / 2 - here) / square
