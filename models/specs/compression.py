"""[compression] of a job: how updates and versions are coded."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class CompressionSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How updates and versions are coded, in explicit numbers. The job's plain knob chooses among presets."""

    codec: Literal["float32", "int8", "sketch"] = "sketch"
    tolerance: Annotated[float, Meta(ge=1e-3, le=10)] = 0.05
    """How much longer the noise of the sketch may make the training, as a share of the rounds: the buckets follow."""
    buckets: Annotated[int, Meta(ge=64, le=2**26)] | None = None
    """So many buckets in every round, whatever they cost; as many as there are parameters, or more: one for each."""
    bits: Annotated[int, Meta(ge=1, le=4)] = 1
    """Bits a bucket of an update, where `buckets` is given and there is one for each parameter; else it is 1."""
    bits_down: Annotated[int, Meta(ge=1, le=4)] = 1
    """Bits a bucket of a version, where `buckets` is given."""

    def __post_init__(self) -> None:
        if self.codec != "sketch" and self.buckets is not None:
            raise ValueError(f'buckets = {self.buckets}: codec = "{self.codec}" has none')
        if self.buckets is None and (self.bits, self.bits_down) != (1, 1):
            raise ValueError("bits and bits_down want buckets: without them they follow from the tolerance")


PRESETS: dict[str, CompressionSpec] = {
    "off": CompressionSpec(codec="float32"),
    "light": CompressionSpec(tolerance=0.02),
    "strong": CompressionSpec(tolerance=0.05),
    "extreme": CompressionSpec(tolerance=0.15),
}
