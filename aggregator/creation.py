"""A new job: itself and its version 0, made durable in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from aggregator import evaluation, starting
from aggregator.config import AggregatorConfig
from aggregator.convergence import STARTED
from aggregator.learner import Learner
from aggregator.record import Next, start
from aggregator.starting import Given
from aggregator.store import BodyRow, JobRow, Leaving, Start, Store
from broker.messages import Version, body_name
from models.job import JobSpec


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
    scorer = evaluation.Scorer(spec, config)
    check(0 if scorer.test is None else len(scorer.test.y))
    first = start(scorer.net, spec)
    metrics = scorer(first.model, None, first.held.buffers)
    evaluation.check_defined(spec, scorer.test, metrics)
    begins = None
    held = starting.of_net(scorer.net) if given is None else given.held(scorer.net, spec, config)
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
    )
    return JobRow(job, spec.name, spec, 1, "", "")


def as_tree(spec: JobSpec) -> dict[str, object]:
    """Return a job's specification as plain values, as it travels."""
    tree: dict[str, object] = msgspec.to_builtins(spec)
    return tree


def rows_of(version: Version, now: Next, chunk_bytes: int) -> list[BodyRow]:
    """Return the bodies that lead to a version."""
    return [BodyRow(body_name(version, start), version.number, chunk_bytes, body) for start, body in now.ways]
