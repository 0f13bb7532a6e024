"""How large a number may be that comes over the wire: what can honestly occur, with room, and far below its type.

A number that was believed once is counted up, compared and written down: one near the end of its type would leave
nothing above it, for good. So whoever unpacks a message holds every integer against its ceiling here, and refuses the
message where one is above. What a sender may *move* within the ceilings is bounded as well: see `Leadership` and
`Jobs.look_back` of the aggregator, `Announced` of the agent. WIRE.md, "Ceilings", names the attack each prevents.

Nobody sends a number above its ceiling: what is counted up stops there (`after`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MOST_TERM = 2**40
"""A fleet whose aggregator is started anew every second for a century comes to 2**32. Words that nobody vouches for
move a term by 2**16 a minute at most (aggregator/leadership.py): they take thirty years to use up the rest."""
MOST_CLAIM = 2**20
"""Operators who say `--take-over` every ten minutes for twenty years."""
MOST_GENERATION = 2**32
"""A generation lies up to 1,000 above the one before, and a store gets one when it was copied, moved or restored: four
million times."""
MOST_NUMBER = 2**32
"""A version every second for a century."""
MOST_COUNT = 2**32
"""Boots, rolls, attempts: one every second for a century."""
MOST_ROWS = 2**32
"""Examples of one device: at a byte each they fill the largest card there is four times over; and those of 100,000
devices still add up within 2**53."""
MOST_BUCKETS = 2**32
"""A sketch has no more buckets than its net has coordinates, and those are counted in four bytes."""
MOST_CHUNKS = 4096
"""No body is cut into more."""
MOST_PACKET_BYTES = 2**28
"""The largest packet of MQTT."""
MOST_BODY_BYTES = MOST_CHUNKS * MOST_PACKET_BYTES
"""So no body can be longer. What a job's own net can need is far less, and each is held against that, too, before a
byte of it is kept."""
MOST_SPREAD_S = 86_400.0
"""A day: aggregator.toml allows no more."""

Term = Annotated[int, Meta(ge=0, le=MOST_TERM)]
Claim = Annotated[int, Meta(ge=0, le=MOST_CLAIM)]
Generation = Annotated[int, Meta(ge=0, le=MOST_GENERATION)]
Number = Annotated[int, Meta(ge=0, le=MOST_NUMBER)]
Count = Annotated[int, Meta(ge=0, le=MOST_COUNT)]
Rows = Annotated[int, Meta(ge=0, le=MOST_ROWS)]
SomeRows = Annotated[int, Meta(ge=1, le=MOST_ROWS)]
Buckets = Annotated[int, Meta(ge=0, le=MOST_BUCKETS)]
Index = Annotated[int, Meta(ge=0, le=MOST_CHUNKS - 1)]
ChunkBytes = Annotated[int, Meta(ge=1, le=MOST_PACKET_BYTES)]
BodyBytes = Annotated[int, Meta(ge=1, le=MOST_BODY_BYTES)]
Spread = Annotated[float, Meta(ge=0, le=MOST_SPREAD_S)]

FAR = 2**20
"""How far, in generations or in numbers, one word may lie above what is known and still be believed: no fleet has made
a million versions that its leader knows nothing of. What lies further is nonsense, and says nothing."""


def after(number: int, most: int) -> int:
    """Return the number that follows, which is the last one itself where there is none above."""
    return min(number + 1, most)
