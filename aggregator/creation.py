"""A new job: itself and its version 0, made durable in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from aggregator import bases, evaluation, starting
from aggregator.config import AggregatorConfig
from aggregator.convergence import STARTED
from aggregator.learner import Learner
from aggregator.record import Next, start
from aggregator.starting import Given
from aggregator.store import BodyRow, JobRow, Leaving, Start, Store
from broker.ceilings import MOST_CHUNKS
from broker.messages import BaseAt, Version, body_name
from models import frozen
from models.frozen import Find
from models.job import JobSpec
from models.nets import table as nets
from models.nets.finetune import Tuned
from models.nets.net import ModelError


def create(
    job: str,
    spec: JobSpec,
    store: Store,
    config: AggregatorConfig,
    check: Callable[[int], None] = lambda _rows: None,
    *,
    replaces: Sequence[str] = (),
    leaving: Sequence[Leaving] = (),
    request: str = "",
    given: Given | None = None,
) -> JobRow:
    """Make a job and its version 0 durable, in the place of those that it replaces, in one.

    leaving: what remains of these. given: weights that it starts from, as version 1, in place of those that its net's
    own code gives. check: told how many rows the test split has before anything of the net's size is made; raises
    ModelError where that is too much. Raises ModelError or DatasetError when it cannot be run here, StoreError when it
    cannot be written.
    """
    find = None if given is None else given.finder(spec, config)
    sha256, row = _based(spec, config, find)
    scorer = evaluation.Scorer(spec, config, sha256)
    check(0 if scorer.test is None else len(scorer.test.y))
    first = start(scorer.net, spec)
    metrics = scorer(first.model, None, first.held.buffers)
    evaluation.check_defined(spec, scorer.test, metrics)
    begins = None
    held = None if given is None else given.held(scorer.net, spec, config)
    if held is None:
        held = starting.of_net(scorer.net)
    if held is not None:
        learner = Learner(scorer.net, spec, first.to_bytes(), 0, first.sha256)
        following = learner.jump(held)
        rows = rows_of(Version(1, 1), following, config.limits.cut_for(config.broker.max_packet_bytes))
        scores = scorer(held.model, held.agreed, held.buffers)
        begins = Start(following.sha256, learner.kept(following), scores | {STARTED: 1.0}, rows)
    store.add_job(
        *(job, spec, first.sha256, first.to_bytes(), metrics),
        replaces=replaces,
        leaving=leaving,
        request=request,
        start=begins,
        base=row,
    )
    return JobRow(job, spec.name, spec, 1, "", "")


def _based(spec: JobSpec, config: AggregatorConfig, find: Find | None) -> tuple[str, BodyRow | None]:
    """Keep what is frozen of a net, where devices cannot make it from the seed; return its SHA-256, and how it lies at
    the broker. Raises ModelError.
    """
    if find is None and not spec.train.base and not nets.factories_of(spec.model):
        return "", None
    net = bases.net_of(spec, config, find or bases.finder(spec, config))
    if not isinstance(net, Tuned):
        return "", None
    sha256 = bases.keep(config, net)
    cut = config.limits.cut_for(config.broker.max_packet_bytes)
    at = BaseAt(sha256, frozen.n_bytes(net.plan.frozen), cut)
    if at.n_chunks > MOST_CHUNKS:
        raise ModelError(
            f"what is frozen of its net has {at.n_bytes:,} bytes, where {MOST_CHUNKS * cut:,} can travel: raise "
            "chunk_bytes in [limits], if the broker takes larger packets, or freeze less"
        )
    return sha256, BodyRow(at.name, 0, cut, b"".join(frozen.parts(net.frozen, net.plan.frozen)))


def as_tree(spec: JobSpec) -> dict[str, object]:
    """Return a job's specification as plain values, as it travels."""
    tree: dict[str, object] = msgspec.to_builtins(spec)
    return tree


def rows_of(version: Version, now: Next, chunk_bytes: int) -> list[BodyRow]:
    """Return the bodies that lead to a version."""
    return [BodyRow(body_name(version, start), version.number, chunk_bytes, body) for start, body in now.ways]
