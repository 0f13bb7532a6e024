"""What an update must be before it may touch the sum."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from models import codec, fold
from models.codec import CodecError, Decoded
from models.fold import Fold, FoldError
from models.params import Spec

FEWEST_PEERS = 3
"""Peers whose norms are known before their median says what is usual; until then the model's own norm does."""


class RefusedError(Exception):
    """Why an update is refused, in words for its device's operator."""


class Admitted(NamedTuple):
    """An update that is in the sum, with the weight that it has there."""

    norm: float
    weight: int


def admit(body: bytes, weight: int, spec: Spec, into: Fold, limit: float, most: float = 0.0) -> Admitted:
    """Decode an update, hold it against every gate and add it to the fold.

    A body decodes to finite numbers of the spec's shapes or not at all. One whose norm is over the limit weighs less,
    but 1 at least, so that it moves the sum about as far as one at the limit does (norm bounding: Sun et al. 2019,
    "Can You Really Backdoor Federated Learning?"); one that is over `most` as well is refused. Raises RefusedError,
    with the fold unchanged.
    """
    try:
        decoded: Sequence[Decoded] = codec.decode(body, spec)
        norm = fold.norm(decoded)
        if not norm <= max(limit, most):
            raise RefusedError(f"its norm {norm:.4g} is more than {limit:.4g}, which is far from its peers'")
        if norm > limit:
            weight = max(1, int(weight * (limit / norm)))
        into.add(decoded, weight)
    except CodecError as error:
        raise RefusedError(f"its body does not decode: {error}") from error
    except FoldError as error:
        raise RefusedError(f"it does not fit the sum: {error}") from error
    return Admitted(norm, weight)


def limit_of_norm(peers: Sequence[float], model_norm: float, ratio: float) -> float:
    """Return the largest norm that is let in: `ratio` times the median of the peers', or of the model's own norm.

    Devices that move nothing (norm 0) say nothing of what is usual.
    """
    moving = [norm for norm in peers if norm > 0]
    usual = statistics.median(moving) if len(moving) >= FEWEST_PEERS else model_norm
    return ratio * usual if usual > 0 else math.inf
