"""Encoding one device's update, and settling it when its verdict is in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.codec.decoded import CodecError
from models.codec.frame import decode, write
from models.codec.state import Pending, State
from models.job import CompressionSpec
from models.params import Params, ParamsError, Spec, check

Float32 = npt.NDArray[np.float32]


class Encoded(NamedTuple):
    """An encoded update: the body to send, what to keep until its verdict, and how much of the energy was
    lost.
    """

    body: bytes
    pending: Pending
    nmse: float
    """|whole - decoded|^2 / |whole|^2; 0 for an all-zero update."""


def encode(
    delta: Params,
    spec: Spec,
    coding: CompressionSpec,
    *,
    state: State,
    rng: np.random.Generator,
    step_scale: float = 1.0,
) -> Encoded:
    """Encode an update together with what earlier ones lost.

    `step_scale` multiplies the step of `coding`: the aggregator's steering of this round. `rng` draws the
    test vectors of the randomised factorisation. Raises CodecError, naming the tensor, for shapes that are
    not the spec's and values that are not finite.
    """
    whole = _whole(delta, spec, state)
    units = tuple(delta[tensor.name] for tensor in spec)
    stochastic = coding.rounding == "stochastic"
    body = write(whole, units, coding.codec, coding.step * step_scale, rng, stochastic=stochastic)
    kept = whole if coding.error_feedback else ()
    return Encoded(body, Pending(kept, body), _nmse(whole, body, spec))


def settle(pending: Pending, *, counted: bool, spec: Spec) -> State:
    """Return the state after a verdict: what the body lost where it was counted, everything where it was
    refused.
    """
    if not counted or not pending.whole:
        return State(pending.whole)
    pairs = zip(pending.whole, decode(pending.body, spec), strict=True)
    return State(tuple((whole - decoded.values()).astype(np.float32) for whole, decoded in pairs))


def drop() -> State:
    """Return the state of a device whose residual is too old to be of use."""
    return State()


def _whole(delta: Params, spec: Spec, state: State) -> tuple[Float32, ...]:
    try:
        check(delta, spec)
    except ParamsError as error:
        raise CodecError(str(error)) from error
    if not state.residual:
        return tuple(delta[tensor.name] for tensor in spec)
    if [r.shape for r in state.residual] != [tensor.shape for tensor in spec]:
        raise CodecError("the residual has other shapes than the spec")
    with np.errstate(over="ignore"):
        whole = tuple(delta[t.name] + r for t, r in zip(spec, state.residual, strict=True))
    for tensor, values in zip(spec, whole, strict=True):
        if not np.isfinite(values).all():
            raise CodecError(f"tensor {tensor.name} overflows with its residual")
    return whole


def _nmse(whole: tuple[Float32, ...], body: bytes, spec: Spec) -> float:
    lost = energy = 0.0
    for values, decoded in zip(whole, decode(body, spec), strict=True):
        wide = values.astype(np.float64)
        lost += float(np.square(wide - decoded.values()).sum())
        energy += float(np.square(wide).sum())
    return lost / energy if energy else 0.0
