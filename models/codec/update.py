"""Encoding one device's update: nothing of it is kept, so that every update stands for itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.codec.decoded import CodecError
from models.codec.frame import decode, write
from models.job import CompressionSpec
from models.params import Params, ParamsError, Spec, check


class Encoded(NamedTuple):
    """An encoded update: the body to send, and how much of the energy was lost."""

    body: bytes
    nmse: float
    """|delta - decoded|^2 / |delta|^2; 0 for an all-zero update."""


def encode(
    delta: Params,
    spec: Spec,
    coding: CompressionSpec,
    *,
    rng: np.random.Generator,
    step_scale: float = 1.0,
) -> Encoded:
    """Encode an update.

    `step_scale` multiplies the step of `coding`: the aggregator's steering of this round. `rng` draws the
    test vectors of the randomised factorisation. Raises CodecError, naming the tensor, for shapes that are
    not the spec's and values that are not finite.
    """
    try:
        check(delta, spec)
    except ParamsError as error:
        raise CodecError(str(error)) from error
    tensors = tuple(delta[tensor.name] for tensor in spec)
    stochastic = coding.rounding == "stochastic"
    body = write(tensors, tensors, coding.codec, coding.step * step_scale, rng, stochastic=stochastic)
    return Encoded(body, _nmse(delta, body, spec))


def _nmse(delta: Params, body: bytes, spec: Spec) -> float:
    lost = energy = 0.0
    for tensor, decoded in zip(spec, decode(body, spec), strict=True):
        wide = delta[tensor.name].astype(np.float64)
        lost += float(np.square(wide - decoded.values()).sum())
        energy += float(np.square(wide).sum())
    return lost / energy if energy else 0.0
