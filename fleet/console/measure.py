"""Measuring codecs on one real update: the logic of `fedge codec measure`.

The update is an NPZ whose float arrays, of any shape, are its tensors. The first row is the codec that was asked for;
then sketches of several sizes, float32 and int8, and a rotated quantiser in the manner of EDEN (Vargaftik et al. 2022)
at 1 and 2 bits, which lives here only to be compared with. A sketch is made to be cheap in rounds, not in error: what
its error costs on a fleet is said by `python -m benchmarks.fleets`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from models.codec import FLOAT32, INT8, Coding, Terms
from models.codec.terms import terms_for
from models.params import Params, Spec, n_parameters, spec_of

Float64 = npt.NDArray[np.float64]

CODECS = ("sketch", "float32", "int8")
SHARES = (32, 8, 1)
"""Coordinates a bucket of the sketches that are compared with."""
MOST_BUCKETS = 2**26
_REPEATS = 3
T = TypeVar("T")


class MeasureError(ValueError):
    """A file that is not an update, or a codec that nobody knows."""


class Row(TypedDict):
    """One codec on one update. `nmse` is |x - decoded|^2 / |x|^2; times are the best of three."""

    codec: str
    step: float | None
    """Of a quantiser that has one to set; no codec of today has."""
    buckets: int | None
    bits: int | None
    bytes: int
    bits_per_coordinate: float
    nmse: float
    encode_ms: float
    decode_ms: float


class Quantiser(NamedTuple):
    """A pair of functions to be timed: update to body, and body to update."""

    encode: Callable[[], bytes]
    decode: Callable[[bytes], Sequence[Float64]]


def measure(npz_path: Path | str, codec: str = "sketch", buckets: int | None = None, bits: int = 1) -> list[Row]:
    """Measure `codec` and the baselines on the update in `npz_path`. Raises MeasureError.

    buckets, bits: of the sketch that is asked for; an eighth as many buckets as coordinates where none are named.
    """
    if codec not in CODECS:
        raise MeasureError(f"codec {codec} is none of {', '.join(CODECS)}")
    if not 1 <= bits <= 4:
        raise MeasureError(f"{bits} bits a bucket are not 1 to 4")
    if buckets is not None and not 64 <= buckets <= MOST_BUCKETS:
        raise MeasureError(f"{buckets} buckets are not 64 to {MOST_BUCKETS}")
    update = load(npz_path)
    d = n_parameters(spec_of(update))
    asked = {"float32": FLOAT32, "int8": INT8}.get(codec) or terms_for(d, buckets or -(-d // 8), bits)
    others = [terms_for(d, -(-d // share)) for share in SHARES] + [terms_for(d, d, wide) for wide in (2, 4)]
    rows = [
        _row(name_of(terms), terms, ours(update, terms), update)
        for terms in dict.fromkeys((asked, *others, FLOAT32, INT8))
    ]
    return rows + [_row(f"eden-{wide}", None, eden(update, wide), update) for wide in (1, 2)]


def name_of(terms: Terms) -> str:
    """Return what a codec is called."""
    return "sketch" if terms.is_sketch else {FLOAT32: "float32", INT8: "int8"}[terms]


def table(rows: Sequence[Row]) -> str:
    """Set rows in columns for a person."""
    head = f"{'codec':8} {'buckets':>9} {'bits':>4} {'bytes':>10} {'bits/coord':>10} {'nmse':>9}"
    lines = [f"{head} {'encode ms':>10} {'decode ms':>10}"]
    for row in rows:
        shape = f"{'' if row['buckets'] is None else row['buckets']:>9} {'' if row['bits'] is None else row['bits']:>4}"
        sizes = f"{row['bytes']:>10,} {row['bits_per_coordinate']:>10.3f} {row['nmse']:>9.2g}"
        lines.append(f"{row['codec']:8} {shape} {sizes} {row['encode_ms']:>10.2f} {row['decode_ms']:>10.2f}")
    return "\n".join(lines)


def load(npz_path: Path | str) -> Params:
    """Read an update. Raises MeasureError for a file that is none, or values that are not finite."""
    try:
        with np.load(npz_path, allow_pickle=False) as stored, np.errstate(over="ignore"):  # inf, and said so below
            update = {name: np.asarray(stored[name], np.float32) for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:
        raise MeasureError(f"{npz_path} is not an NPZ of float arrays: {error}") from error
    if not update or not n_parameters(spec_of(update)):
        raise MeasureError(f"{npz_path} has no coordinates")
    for name, values in update.items():
        if not np.isfinite(values).all():
            raise MeasureError(f"array {name} has values that are not finite")
    return update


def ours(update: Params, terms: Terms) -> Quantiser:
    """Return one of our codecs on this update. The hash is made once a base, and is made here."""
    coding = Coding(spec_of(update), terms, "measure")
    if terms.is_sketch:
        coding.hash  # noqa: B018 -- made before anything is timed

    def decode(body: bytes) -> Sequence[Float64]:
        return [decoded.values() for decoded in coding.tensors(coding.decode(body))]

    return Quantiser(lambda: coding.encode(update, np.random.default_rng(0)), decode)


def eden(update: Params, bits: int) -> Quantiser:
    """Return the comparison: randomised Hadamard rotation, k-bit Lloyd-Max for Gaussians, one scale without
    bias.
    """
    flat = np.concatenate([values.ravel() for values in update.values()]).astype(np.float64)
    size = 1 << max(0, len(flat) - 1).bit_length()
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size)
    levels = np.array([[-0.7978846, 0.7978846], [-1.5104176, -0.4527800, 0.4527800, 1.5104176]][bits - 1], dtype=float)
    edges = (levels[1:] + levels[:-1]) / 2

    def encode() -> bytes:
        rotated = _hadamard(np.pad(flat, (0, size - len(flat))) * signs)
        rms = float(np.sqrt(np.mean(rotated**2))) or 1.0
        codes = np.searchsorted(edges, rotated / rms).astype(np.uint8)
        inner = float(levels[codes] @ rotated)
        scale = float(rotated @ rotated) / inner if inner else 0.0
        planes = [np.packbits(codes >> plane & 1) for plane in range(bits)]
        return np.float32(scale).tobytes() + b"".join(plane.tobytes() for plane in planes)

    def back(body: bytes) -> Sequence[Float64]:
        scale = np.frombuffer(body[:4], np.float32)[0]
        planes = np.frombuffer(body[4:], np.uint8).reshape(bits, -1)
        unpacked = [np.unpackbits(row)[:size].astype(np.int64) << plane for plane, row in enumerate(planes)]
        values = (_hadamard(levels[sum(unpacked)] * float(scale)) * signs)[: len(flat)]
        return _like(values, spec_of(update))

    return Quantiser(encode, back)


def _row(name: str, terms: Terms | None, quantiser: Quantiser, update: Params) -> Row:
    encode_ms, body = _timed(quantiser.encode)
    decode_ms, decoded = _timed(lambda: quantiser.decode(body))
    truth = [values.astype(np.float64) for values in update.values()]
    energy = sum(float(np.square(values).sum()) for values in truth)
    lost = sum(float(np.square(values - mine).sum()) for values, mine in zip(truth, decoded, strict=True))
    n = n_parameters(spec_of(update))
    nmse = lost / energy if energy else 0.0
    return Row(
        codec=name,
        step=None,
        buckets=terms.m if terms is not None and terms.is_sketch else None,
        bits=terms.bits if terms is not None and terms.is_sketch else None,
        bytes=len(body),
        bits_per_coordinate=8 * len(body) / n,
        nmse=nmse,
        encode_ms=encode_ms,
        decode_ms=decode_ms,
    )


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return 1e3 * best, result


def _hadamard(values: Float64) -> Float64:
    """Rotate by the orthonormal Walsh-Hadamard matrix; its own inverse. The length is a power of two."""
    out, span = values.copy(), 1
    while span < len(out):
        pairs = out.reshape(-1, 2, span)
        out = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).ravel()
        span *= 2
    rotated: Float64 = out / np.sqrt(len(out))
    return rotated


def _like(flat: Float64, spec: Spec) -> list[Float64]:
    ends = np.cumsum([tensor.size for tensor in spec])[:-1]
    return [part.reshape(tensor.shape) for part, tensor in zip(np.split(flat, ends), spec, strict=True)]
