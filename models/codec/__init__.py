"""The update codec: float arrays in, a few bytes out, exact integers back. BODY.md gives the bits.

encoded = encode(delta, spec, coding, rng=rng)      # the body to send
decode(encoded.body, spec)                          # the same integers on every machine
"""

from models.codec.decoded import CodecError, Decoded
from models.codec.frame import decode, max_body_bytes
from models.codec.update import Encoded, encode

__all__ = ["CodecError", "Decoded", "Encoded", "decode", "encode", "max_body_bytes"]
