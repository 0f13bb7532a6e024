"""[rounds] and [aggregate] of a job: who takes part, when a round and the job end, how updates become a version."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.measures import table as measures
from models.specs.bounds import MOST_LABELS, Count, Devices, Momentum, Name, Share

KEEP_BYTES = 2**26
"""What the states of every Nth version take on the disk, where a job does not say."""


class StopSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a job has converged: a target on a measure, or no improvement for `patience` rounds."""

    metric: Annotated[str, Meta(min_length=1, max_length=250)] = "accuracy"
    """A row of `models.measures.table`; of one class as "recall:fault"."""
    target: Annotated[float, Meta(ge=-1e30, le=1e30)] | None = None
    """Reached from below where higher is better, else from above."""
    patience: Count | None = None
    min_delta: Annotated[float, Meta(ge=0, le=1e30)] = 0.0

    def __post_init__(self) -> None:
        try:
            measure = measures.find(self.metric)
        except ValueError as error:
            raise ValueError(f"metric: {error}") from None
        if self.target is not None:
            measures.check_target(self.metric, self.target)
        if measure.is_bounded and self.min_delta >= measure.most:
            raise ValueError(f"min_delta = {self.min_delta:g}: no {self.metric} improves by so much")

    @property
    def is_set(self) -> bool:
        """Whether anything ends the job before its last round."""
        return (self.target, self.patience) != (None, None)


class RoundsSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How rounds are drawn and ended. `target` wins over `fraction` where both are given."""

    labels: Annotated[dict[Name, Name], Meta(max_length=MOST_LABELS)] = {}
    """Only devices whose agent.toml has all of these labels take part."""
    fraction: Share = 1.0
    """Share of the eligible devices to draw."""
    target: Devices | None = None
    """Updates that end a round at once."""
    quorum: Devices = 1
    """Fewest updates that make a version when the deadline comes."""
    min_devices: Devices | None = None
    """Eligible devices before a round may open; `quorum` when not given."""
    over_selection: Annotated[float, Meta(ge=1, le=10)] = 1.0
    """Devices drawn for each update wanted."""
    wait: Literal["target", "all"] = "target"
    """"all": a round ends only when every drawn device is counted; the membership is then fixed."""
    deadline_s: Annotated[float, Meta(ge=0.1, le=1e9)] | Literal["learned"] = 60.0
    """"learned": from how long its devices took so far, so that a slow device is a member and not a
    failure."""
    max_deadline_s: Annotated[float, Meta(gt=0, le=1e9)] = 3600.0
    """Longest deadline that may be learned, and the first one."""
    absent: Literal["drop", "end"] = "drop"
    """With wait = "all", what a member that was absent throughout three attempts running comes to: the
    membership goes on without it, or the job ends."""
    late: Literal["refuse", "fold"] = "refuse"
    """An update to a version that has been left: refused, or folded with a weight that falls with its
    staleness."""
    grace_s: Annotated[float, Meta(ge=0, le=1e9)] = 10.0
    """How long a round still waits for a device after its last will."""
    max_share: Share | None = None
    """What one device may weigh in a round's mean, of all that it weighs: who claims more is cut down to it. Where
    fewer than 1 / max_share devices count, all weigh the same. When not given: 0.5 where the rows of devices were
    stated at their enrolment, else 1, which is no limit."""
    max_rounds: Count = 100
    max_staleness: Annotated[int, Meta(ge=0, le=10_000)] = 20
    """Versions after which a late update is refused in any case."""
    stop: StopSpec = StopSpec()
    keep_every: Count | None = None
    """The states of versions N, 2 N, 3 N, … are kept, beside those of the best and the last one."""
    keep_bytes: Annotated[int, Meta(ge=0, le=2**40)] = KEEP_BYTES
    """What those of `keep_every` may take on the disk, together: beyond it the oldest go."""

    def __post_init__(self) -> None:
        if self.keep_every is None and self.keep_bytes != KEEP_BYTES:
            raise ValueError(f"keep_bytes = {self.keep_bytes} wants keep_every: without it there is nothing to bound")
        if self.target is not None and self.quorum > self.target:
            raise ValueError(f"quorum = {self.quorum} is more than target = {self.target}")
        if self.min_devices is not None and self.quorum > self.min_devices:
            raise ValueError(
                f"quorum = {self.quorum} is more than min_devices = {self.min_devices}: "
                "a round would open that cannot make a version"
            )


class AggregateSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How updates become the next version. The server optimizer is its own setting, apart from the
    client's.
    """

    strategy: Literal["fedavg", "fedadam", "median"] = "fedavg"
    server_learning_rate: Annotated[float, Meta(ge=1e-6, le=1e3)] = 1.0
    server_momentum: Momentum = 0.0
    """Of "fedavg" and "median": above 0 it is FedAvgM."""
    server_beta1: Momentum = 0.9
    """Of "fedadam": how much of its mean of updates stays from one version to the next."""
    server_beta2: Momentum = 0.99
    """Of "fedadam": the same of its mean of their squares."""
    server_epsilon: Annotated[float, Meta(ge=1e-6, le=1)] = 1e-3
    """Of "fedadam": a weight whose updates are smaller than this moves by less than the learning rate."""
    max_examples: Annotated[int, Meta(ge=1, le=2**32)] | None = None
    """An update that claims more examples is refused: a device's own count is a claim, not a fact. When not given, any
    number may be claimed; one far beyond what the devices of its round say they have counts as less, and that is said
    (aggregator/scale.py)."""
    max_norm_ratio: Annotated[float, Meta(gt=1, le=1e9)] = 10.0
    """An update whose norm is more than this times the median of its peers' weighs so much less; what becomes of one
    that is larger than the model itself as well says `gate`."""
    gate: Literal["clip", "refuse"] = "clip"
    """What becomes of an update that is far from its peers' and larger than the model: it is scaled down to the largest
    norm that is let in, or refused (aggregator/gates.py)."""
