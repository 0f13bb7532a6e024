"""What a device tells beside an update: what the steering of the coding wants to know (models/steering.py)."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from broker.messages import Version
from edge_agent.outbox import LARGEST, Probed
from models.chain import Chain
from models.data.dataset import Dataset
from models.job import JobSpec
from models.nets.net import Net
from models.params import Params
from models.training import probe


class Reporter:
    """Measures for one job on one device."""

    __slots__ = ("_chain", "_device", "_net", "_spec")

    def __init__(self, device: str, spec: JobSpec, net: Net, chain: Chain) -> None:
        self._device = device
        self._spec = spec
        self._net = net
        self._chain = chain

    def report(
        self, base: Version, start: Params, data: Dataset, octave: int, last: Probed | None
    ) -> tuple[tuple[float, ...], Probed | None]:
        """Measure on a base, where it is this device's turn; return the report, and what the next one builds on.

        start: the params of the base, which may be used up. octave: of its noise, 0 where that is not known. last: what
        this one builds on. The report is [curvature, gain] (models/training/probe.py), or () where there is nothing to
        tell.
        """
        before = None if last is None else last.version.number
        if self._spec.coding.buckets is not None or not probe.is_due(self._device, base.number, before):
            return (), last
        rows = probe.some_rows(data, self._device)
        here = probe.loss(self._net, start, rows)
        now = Probed(base, here) if abs(here) < LARGEST else None
        if now is None or not octave or not base.number:
            return (), now
        rng = rng_of("probe", self._spec.seed, base.number, self._device)
        curvature = probe.curvature(self._net, start, rows, here, math.ldexp(1.0, octave), rng)
        told = _short(curvature), _short(probe.gain(*self._before(last, base, rows), here, base.number))
        return (told if all(map(math.isfinite, told)) else ()), now

    def _before(self, last: Probed | None, base: Version, rows: Dataset) -> tuple[float, int]:
        """Return the loss on these rows at an earlier version, and its number: the last reported on, or the first."""
        if last is not None and last.version.generation == base.generation and last.version.number < base.number:
            return last.loss, last.version.number
        return probe.loss(self._net, self._chain.first().params(self._net.spec), rows), 0


def rng_of(*names: object) -> np.random.Generator:
    """Return the generator of one encoding, or of one report: the same at every try on one base."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _short(value: float) -> float:
    return float(f"{value:.3g}")
