"""Matrix products in pieces that OpenBLAS multiplies as they are."""

from __future__ import annotations

import numpy as np

from models.params import Float32

SMALL_PRODUCT = 1_000_000
"""Up to this m n k OpenBLAS may multiply as is; beyond it first copies both sides into packed panels, which for a
narrow batch takes as long as the product (sgemm_small_kernel_permit_skylakex.c; measured: half the time)."""


def multiply(left: Float32, right: Float32, out: Float32) -> Float32:
    """Return left @ right in `out`: (m, k) @ (k, n), in blocks of its longer side that are multiplied unpacked.

    A wide batch, whose blocks would be too small, is worth packing.
    """
    m, n = out.shape
    if m >= n and (rows := SMALL_PRODUCT // right.size & ~7) >= 16:  # whole vectors of the kernel
        for start in range(0, m, rows):
            np.matmul(left[start : start + rows], right, out=out[start : start + rows])
        return out
    if m < n and (columns := SMALL_PRODUCT // left.size & ~15) >= 64:
        for start in range(0, n, columns):
            np.matmul(left, right[:, start : start + columns], out=out[:, start : start + columns])
        return out
    return np.matmul(left, right, out=out)
