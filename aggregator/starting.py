"""What a job starts from, where it is not its seed: a version of another job, what is sent, or a factory gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aggregator.config import AggregatorConfig
from models import agreement
from models.buffers import first_of
from models.chain import Chain, Held
from models.codec import CodecError
from models.job import JobSpec
from models.lattice import LatticeError, of_params
from models.nets import table as nets
from models.nets.net import ModelError, Net


class Given(NamedTuple):
    """Weights: the body that says them exactly. of: the job that they are of; None: the job that starts from them."""

    body: bytes
    what: str
    of: JobSpec | None = None

    def held(self, net: Net, spec: JobSpec, config: AggregatorConfig) -> Held:
        """Return them for the net of a job, as its version 1. Raises ModelError where they are for another one.

        What their fleet has agreed on goes along: the job has the same columns, and normalises as that did.
        """
        if self.of is not None:
            _check_same("features", self.of.contract.columns, spec.contract.columns, self.what)
            if self.of.model.classifies:
                _check_same("classes", self.of.contract.class_names, spec.contract.class_names, self.what)
        source = net if self.of is None else nets.of_job(self.of, allow=config.models.allow)
        for theirs, ours in zip(source.spec + source.buffers, net.spec + net.buffers, strict=False):
            if theirs != ours:
                raise ModelError(
                    f"it cannot start from {self.what}: that has {theirs.name} of shape {theirs.shape}, where the net "
                    f"of this job has {ours.name} of shape {ours.shape}"
                )
        n_theirs, n_ours = len(source.spec + source.buffers), len(net.spec + net.buffers)
        if n_theirs != n_ours:
            raise ModelError(
                f"it cannot start from {self.what}: that has {n_theirs} arrays, where the net of this job has {n_ours}"
            )
        chain = Chain(net.spec, spec if self.of is None else self.of, first_of(source))
        try:
            found = chain.take(chain.first(), 1, self.body)
        except CodecError as error:
            raise ModelError(f"it cannot start from {self.what}: {error}") from error
        if self.of is not None and (there := self.of.contract.normalise) != (here := spec.contract.normalise):
            raise ModelError(
                f'it cannot start from {self.what}: that was trained with normalise = "{there}", where [contract] of '
                f'this job says "{here}"'
            )
        agreed = found.agreed if agreement.fits(found.agreed, spec) else None
        return Held(1, found.model, agreed=agreed, buffers=found.buffers)


def of_net(net: Net) -> Held | None:
    """Return the weights that a net's own code gives, as version 1 of its job; None where it has none, and version 0 is
    what the job begins with. Raises ModelError.
    """
    if (start := net.start) is None:
        return None
    try:
        return Held(1, of_params(start, net.spec), buffers=first_of(net))
    except LatticeError as error:
        raise ModelError(f'it cannot start from the weights of model.kind = "{net.model.kind}": {error}') from error


def _check_same(key: str, there: Sequence[str], here: Sequence[str], what: str) -> None:
    """Raise ModelError where weights are of columns, or classes, that have other names, or another order."""
    if not there or not here or there == here:
        return
    order = "the same in another order" if sorted(there) == sorted(here) else "others"
    at = next((at for at, (one, other) in enumerate(zip(there, here, strict=False)) if one != other), None)
    first = f", as the {at + 1}. of them {there[at]!r} and {here[at]!r}" if at is not None else ""
    raise ModelError(
        f"it cannot start from {what}: the {key} that [contract] of this job names are {order}{first}: say them as "
        "that job did"
    )
