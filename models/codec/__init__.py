"""The codec: updates in, a few bytes out, exact integers back, which add up as they are. BODY.md gives the bits.

coding = Coding(spec, Terms(m=6144, bits=1), "seed:number")
body = coding.encode(delta, rng)
update = coding.decode(body)                # the same integers on every machine
"""

from models.codec.coding import Coding, Update, max_body_bytes
from models.codec.decoded import CodecError, Decoded
from models.codec.terms import FLOAT32, INT8, Terms

__all__ = ["FLOAT32", "INT8", "CodecError", "Coding", "Decoded", "Terms", "Update", "max_body_bytes"]
