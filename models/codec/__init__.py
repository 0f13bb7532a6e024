"""The update codec: float arrays in, a few bytes out, exact integers back. BODY.md gives the bits.

encoded = encode(delta, spec, coding, state=state, rng=rng)     # body to send, pending to keep
decode(encoded.body, spec)                                      # the same integers on every machine
state = settle(encoded.pending, counted=True, spec=spec)        # once the verdict is in
"""

from models.codec.decoded import CodecError, Decoded
from models.codec.frame import decode, max_body_bytes
from models.codec.state import Pending, State
from models.codec.update import Encoded, drop, encode, settle

__all__ = [
    "CodecError",
    "Decoded",
    "Encoded",
    "Pending",
    "State",
    "decode",
    "drop",
    "encode",
    "max_body_bytes",
    "settle",
]
