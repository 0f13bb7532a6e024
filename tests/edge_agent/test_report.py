from __future__ import annotations

import numpy as np

from broker.messages import Version
from edge_agent.outbox import Probed
from edge_agent.report import Reporter, rng_of
from models.chain import Chain
from models.data.dataset import Dataset
from models.job import CompressionSpec, JobSpec, ModelSpec
from models.nets.table import build
from models.params import Params

SPEC = JobSpec("j", ModelSpec(inputs=4, hidden=(8,), outputs=2))
NET = build(SPEC.model)
CHAIN = Chain(NET.spec, SPEC)
_rng = np.random.default_rng(0)
ROWS = Dataset(_rng.standard_normal((40, 4), np.float32), _rng.integers(0, 2, 40))
V1, V2 = Version(1, 1), Version(1, 2)


def start() -> Params:
    return CHAIN.first().model.params(NET.spec)


def reporter(spec: JobSpec = SPEC, device: str = "d") -> Reporter:
    return Reporter(device, spec, NET, CHAIN)


def test_a_report_is_the_same_at_every_try_and_another_on_every_device() -> None:
    first, again = (reporter().report(V1, start(), ROWS, -10, None) for _ in range(2))
    assert first == again
    assert len(first[0]) == 2
    other = reporter(device="e").report(V1, start(), ROWS, -10, None)
    assert other[0][0] != first[0][0]
    assert rng_of("a", 1).random() != rng_of("a", 2).random()


def test_the_loss_that_the_next_report_builds_on_is_kept_also_where_there_is_nothing_to_tell() -> None:
    told, probed = reporter().report(Version(1, 0), start(), ROWS, 0, None)
    assert told == ()
    assert probed is not None
    assert probed.version == Version(1, 0)


def test_a_gain_is_measured_from_the_last_version_that_was_reported_on() -> None:
    lower = Probed(V1, 0.0)
    (_, gain), probed = reporter().report(V2, start(), ROWS, -10, lower)
    assert gain < 0  # the loss has risen from 0
    assert probed is not None
    assert probed.version == V2


def test_nothing_is_measured_where_the_buckets_are_fixed() -> None:
    fixed = JobSpec("j", SPEC.model, compression=CompressionSpec(buckets=64))
    last = Probed(V1, 0.5)
    assert reporter(fixed).report(V2, start(), ROWS, -10, last) == ((), last)


def test_params_beyond_all_numbers_are_not_reported_on() -> None:
    wild = {name: np.full_like(values, 1e30) for name, values in start().items()}
    told, probed = reporter().report(V1, wild, ROWS, -10, None)
    assert told == ()
    assert probed is None
