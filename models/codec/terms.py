"""How updates are coded that leave one base: so many buckets, so many bits each. The aggregator says it with the round.

    (m, 1)             a sketch of m buckets, for m below d
    (m, 1 ... 4)       m at least d: every coordinate has a bucket of its own, rotated
    (0, 8), (0, 32)    int8 and float32, coordinate by coordinate

They belong to the base: every attempt to leave it has the same ones, and they are durable with it.
"""

from __future__ import annotations

from typing import NamedTuple

from models.codec.plan import FEWEST, shape

WIDEST = 4


class Terms(NamedTuple):
    """m: buckets, 0 for none. bits: of a bucket, or of a coordinate where there are no buckets."""

    m: int
    bits: int

    @property
    def is_sketch(self) -> bool:
        """Whether updates are folded into buckets."""
        return self.m > 0

    def are_for(self, d: int) -> bool:
        """Return whether d coordinates can be coded so: what comes from the wire is held against this first."""
        if not self.m:
            return self.bits in (8, 32)
        return d >= FEWEST and self.m == shape(self.m)[0] and self.m <= shape(d)[0] and 1 <= self.bits <= WIDEST


FLOAT32 = Terms(0, 32)
INT8 = Terms(0, 8)


def terms_for(d: int, buckets: int, bits: int = 1) -> Terms:
    """Return the terms with about so many buckets, between the fewest and one for each of d; int8 where d is tiny."""
    return Terms(shape(min(buckets, d))[0], bits) if d >= FEWEST else INT8
