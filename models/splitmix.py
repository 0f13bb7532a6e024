"""splitmix64 (Steele, Lea and Flood 2014): a counter-based generator that any language can repeat in integers.

Whatever two machines must draw alike comes from here: version 0 of a model, and the dither of a coded update.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def outputs(seed: int, start: int, n: int) -> npt.NDArray[np.uint64]:
    """Return outputs start + 1 ... start + n of splitmix64 from state `seed`, both modulo 2**64."""
    z = np.arange(n, dtype=np.uint64)  # arrays wrap, as the generator wants
    z += np.uint64((start + 1) % 2**64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(seed % 2**64)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
