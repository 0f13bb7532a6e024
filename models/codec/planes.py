"""Many small integers in few bytes: zigzag, cut into bytes, and each plane of bytes deflated with Huffman codes alone.

The integers of a snapshot are close to Gaussian; a Huffman code is within a few hundredths of a bit of what they hold,
and zlib has one everywhere. RFC 1950 and 1951.

    number of planes (1 byte), then for each, the lowest first: length (uint32), deflated bytes
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from models.codec.decoded import CodecError
from models.integers import Int64

MOST_PLANES = 6


def write(integers: Int64) -> bytes:
    """Code integers, int64 of shape (n,), below 2**47 in magnitude."""
    folded = ((integers << 1) ^ (integers >> 63)).astype("<u8")
    count = max(1, -(-int(folded.max(initial=0)).bit_length() // 8))
    cells = folded.view(np.uint8).reshape(-1, 8)
    out = [bytes((count,))]
    for plane in range(count):
        packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
        packed = packer.compress(np.ascontiguousarray(cells[:, plane]).tobytes()) + packer.flush()
        out += [struct.pack("<I", len(packed)), packed]
    return b"".join(out)


def read(body: bytes, n: int) -> Int64:
    """Read n integers. Raises CodecError for anything else; memory is bounded by n, whatever the bytes say."""
    if not body or not 1 <= body[0] <= MOST_PLANES:
        raise CodecError("a snapshot has no planes, or too many")
    cells, at = np.zeros((n, 8), np.uint8), 1
    for plane in range(body[0]):
        try:
            (length,) = struct.unpack_from("<I", body, at)
            cells[:, plane] = _inflated(body[at + 4 : at + 4 + length], n)
        except (struct.error, zlib.error) as error:
            raise CodecError(f"a snapshot does not inflate: {error}") from error
        at += 4 + length
    if at != len(body):
        raise CodecError("a snapshot goes on after its last plane")
    folded = cells.view("<u8").reshape(-1).astype(np.uint64)
    return (folded >> np.uint64(1)).astype(np.int64) ^ -(folded & np.uint64(1)).astype(np.int64)


def max_bytes(n: int) -> int:
    """Return the most bytes that n integers may take: six stored planes."""
    return 1 + MOST_PLANES * (4 + n + n // 100 + 64)


def _inflated(packed: bytes, n: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    packer = zlib.decompressobj()
    found = packer.decompress(packed, n + 1)
    if len(found) != n or not packer.eof or packer.unused_data:
        raise CodecError("a plane of a snapshot has another length than its net")
    return np.frombuffer(found, np.uint8)
