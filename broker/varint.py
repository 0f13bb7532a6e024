"""Whole numbers of a variable length: seven bits a byte, the lowest first, the highest bit where another follows.

MQTT has lengths so (version 5, section 1.5.5), of four bytes at most, and so has an envelope (envelope.py).
"""


def write(number: int) -> bytes:
    """Return a number that is not negative as bytes."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
