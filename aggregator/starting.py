"""What a job starts from, where it is not its seed: a version of another job here, or weights that an operator sent."""

from __future__ import annotations

from typing import NamedTuple

from aggregator.config import AggregatorConfig
from models.chain import Chain, Held
from models.codec import CodecError
from models.job import JobSpec
from models.nets import table as nets
from models.nets.net import ModelError, Net
from models.strategies.state import State


class Given(NamedTuple):
    """Weights: the body that says them exactly. of: the job that they are of; None: the job that starts from them."""

    body: bytes
    what: str
    of: JobSpec | None = None

    def held(self, net: Net, spec: JobSpec, config: AggregatorConfig) -> Held:
        """Return them as version 1 of a job: its server's optimizer begins anew, and all else goes along.

        Raises ModelError where they are for another net.
        """
        source = net if self.of is None else nets.build(self.of.model, allow=config.models.allow)
        for theirs, ours in zip(source.spec, net.spec, strict=False):
            if theirs != ours:
                raise ModelError(
                    f"it cannot start from {self.what}: that has {theirs.name} of shape {theirs.shape}, where the net "
                    f"of this job has {ours.name} of shape {ours.shape}"
                )
        if len(source.spec) != len(net.spec):
            raise ModelError(
                f"it cannot start from {self.what}: that has {len(source.spec)} arrays, where the net of this job has "
                f"{len(net.spec)}"
            )
        chain = Chain(net.spec, spec if self.of is None else self.of)
        try:
            return chain.take(chain.first(), 1, self.body)._replace(state=State())
        except CodecError as error:
            raise ModelError(f"it cannot start from {self.what}: {error}") from error
