"""How long a body may be, by the net and the job that it is of: what is let in before a byte of it is read."""

from __future__ import annotations

from models import agreement, buffers, exact
from models.body import LATE_HEAD, SPAN
from models.codec import planes
from models.codec.coding import max_body_bytes
from models.codec.plan import FEWEST, shape
from models.codec.terms import INT8, WIDEST, Terms
from models.job import JobSpec
from models.params import Spec, n_parameters
from models.strategies.strategy import MOST_ROWS
from models.strategies.table import STRATEGIES

SLACK = 2**16
"""Bytes that a body may always have; steps of a group have an eighth of it (aggregator/learner.py)."""


def max_step_bytes(spec: Spec) -> int:
    """Return the most bytes that a step may have; one that carries late updates too."""
    return 4 * (max_body_bytes(spec) + LATE_HEAD.size)


def agreed_bytes(job: JobSpec) -> int:
    """Return how much longer a body may be for what the fleet agrees on."""
    most = agreement.max_bytes(job)
    return most and most + 5


def buffered_bytes(of_buffers: Spec) -> int:
    """Return how much longer a body may be for the buffers of its net; a group says them with each step."""
    most = buffers.max_bytes(of_buffers)
    return most and SPAN * (most + 5)


def max_way_bytes(spec: Spec, of_buffers: Spec = ()) -> int:
    """Return the most bytes that any body of a version may have. of_buffers: the buffers of its net."""
    n = n_parameters(spec)
    whole = max(planes.max_bytes((1 + MOST_ROWS) * n), exact.max_bytes(n, MOST_ROWS) + 2 * len(spec) + SLACK)
    return max(SPAN * (max_step_bytes(spec) + 4), whole) + 8 + buffered_bytes(of_buffers)


def whole_bytes(job: JobSpec, spec: Spec, of_buffers: Spec = ()) -> int:
    """Return how long a body is that says a version of this job whole, where each is as long as every other; else 0.

    That is so where versions are float32 and nothing else: of whoever knows the job nobody need be told. (One that
    float32 does not say exactly, as weights that were given far from version 0, has another body.)
    """
    is_plain = job.coding.codec == "float32" and not agreed_bytes(job) and not buffered_bytes(of_buffers)
    return 1 + 4 * n_parameters(spec) if is_plain else 0


def max_way_bytes_of(job: JobSpec, spec: Spec, of_buffers: Spec = ()) -> int:
    """Return the most bytes that a body of a version of this job may have: what a device lets in.

    By what its coding writes: a version whole; else a step with late updates, small ones in a group, or a snapshot.
    """
    n, beside = n_parameters(spec), agreed_bytes(job) + buffered_bytes(of_buffers)
    if job.coding.codec == "float32":
        return max(4 * n, exact.max_bytes(n, 0)) + SLACK + beside
    widest = Terms(shape(n)[0], WIDEST) if job.coding.codec == "sketch" and n >= FEWEST else INT8
    step = 4 * (max_body_bytes(spec, widest) + LATE_HEAD.size) + 4
    rows = STRATEGIES[job.aggregate.strategy].rows(job.aggregate)
    whole = max(planes.max_bytes((1 + rows) * n), exact.max_bytes(n, rows))
    return max(step, SPAN * (min(step, SLACK) + 4), whole) + SLACK + beside
