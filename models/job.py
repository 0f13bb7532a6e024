"""A job: the one thing an ML engineer writes, as the frozen struct that travels to every device.

Everything but `name` and `model` has a default. Checks that need two keys at once are in `__post_init__` and
raise ValueError with the key's name, which the settings loader turns into one line naming file, table and
key.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
"""What names anything on the wire: a fleet, a job, a device, a data source."""

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Natural = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
NonNegative = Annotated[float, Meta(ge=0)]


class ModelSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which net. `kind` is "mlp" or "package.module:factory" (runs only where agent.toml allows it)."""

    kind: str = "mlp"
    inputs: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    hidden: tuple[Annotated[int, Meta(ge=1, le=100_000)], ...] = ()
    outputs: Annotated[int, Meta(ge=1, le=100_000)] = 1
    activation: Literal["relu", "tanh"] = "relu"
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    framework: Literal["numpy", "torch", "any"] = "any"
    """Who computes it: "any" leaves it to the device (NumPy unless agent.toml says torch)."""
    options: dict[str, Any] = {}
    """Keyword arguments of a factory, plain TOML values."""

    def __post_init__(self) -> None:
        if self.kind != "mlp" and ":" not in self.kind:
            raise ValueError(f'kind = "{self.kind}" is neither "mlp" nor "package.module:factory"')
        if len(self.hidden) > 64:
            raise ValueError("hidden has more than 64 layers")


class TrainSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a device trains. The client optimizer is its own setting, apart from the server's."""

    epochs: Count = 1
    batch_size: Count = 10
    learning_rate: Positive = 0.1
    learning_rate_decay: Share = 1.0
    """Multiplies the learning rate once per round: rate = learning_rate * decay ** version number."""
    optimizer: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    weight_decay: NonNegative = 0.0


class StopSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a job has converged: a target on a metric, or no improvement for `patience` rounds."""

    metric: Literal["accuracy", "loss"] = "accuracy"
    target: float | None = None
    patience: Count | None = None
    min_delta: NonNegative = 0.0


class RoundsSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How rounds are drawn and ended. `target` wins over `fraction` where both are given."""

    labels: dict[Name, Name] = {}
    """Only devices whose agent.toml has all of these labels take part."""
    fraction: Share = 1.0
    """Share of the eligible devices to draw."""
    target: Count | None = None
    """Updates that end a round at once."""
    quorum: Count = 1
    """Fewest updates that make a version when the deadline comes."""
    min_devices: Count | None = None
    """Eligible devices before a round may open; `quorum` when not given."""
    over_selection: Annotated[float, Meta(ge=1, le=10)] = 1.0
    """Devices drawn for each update wanted."""
    wait: Literal["target", "all"] = "target"
    """"all": a round ends only when every drawn device is counted; the membership is then fixed."""
    deadline_s: Annotated[float, Meta(gt=0, le=1e9)] | Literal["learned"] = 60.0
    """"learned": from how long its devices took so far, so that a slow device is a member and not a
    failure."""
    late: Literal["refuse", "fold"] = "refuse"
    """An update to a version that has been left: refused, or folded with a weight that falls with its
    staleness."""
    grace_s: NonNegative = 10.0
    """How long a round still waits for a device after its last will."""
    max_rounds: Count = 100
    max_staleness: Natural = 20
    """Versions after which a device drops its error-feedback residual, and a late update is refused in any
    case."""
    stop: StopSpec = StopSpec()

    def __post_init__(self) -> None:
        if self.target is not None and self.quorum > self.target:
            raise ValueError(f"quorum = {self.quorum} is more than target = {self.target}")


class AggregateSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How updates become the next version. The server optimizer is its own setting, apart from the
    client's.
    """

    strategy: Literal["fedavg"] = "fedavg"
    server_optimizer: Literal["sgd"] = "sgd"
    server_learning_rate: Positive = 1.0
    server_momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    max_examples: Annotated[int, Meta(ge=1, le=2**20)] = 2**20
    """An update that claims more examples is refused: a device's own count is a claim, not a fact."""
    max_norm_ratio: Annotated[float, Meta(gt=1)] = 10.0
    """An update whose norm is more than this times the median of its peers' is refused."""


class CompressionSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How updates and versions are coded, in explicit numbers. The job's plain knob chooses among presets."""

    codec: Literal["float32", "int8", "adaptive"] = "adaptive"
    step: Positive = 8.0
    """Quantiser step of an update in units of its rms, where the codec has one."""
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    """How "adaptive" rounds updates: without bias, so that their mean needs no feedback, or for the least
    error."""
    error_feedback: bool = False
    """A device adds what an update lost to its next one. Not with stochastic rounding, whose noise would pile
    up."""
    steered: bool = True
    """The aggregator makes the step of "adaptive" coarser or finer as the rounds can bear."""
    noise_share: Annotated[float, Meta(gt=0, le=0.9)] = 0.4
    """What they are to bear: the share of the energy of a round's mean that its coding has added."""
    downlink_step: NonNegative = 2.5
    """Grid of the versions, in units of the rms of the first step; 0 publishes versions without loss."""
    downlink_lead: Annotated[float, Meta(ge=0, le=2)] = 1.0
    """How many rounds a version on a grid leads while the steps go on as they went, so that it is not behind."""

    def __post_init__(self) -> None:
        if self.error_feedback and self.codec == "adaptive" and self.rounding == "stochastic":
            raise ValueError('error_feedback = true wants rounding = "nearest"')

    @property
    def is_steered(self) -> bool:
        """Whether the aggregator follows the rounds with the step: that takes noise without bias."""
        return self.steered and self.codec == "adaptive" and self.rounding == "stochastic"


PRESETS: dict[str, CompressionSpec] = {
    "off": CompressionSpec(codec="float32", downlink_step=0.0),
    "light": CompressionSpec(codec="int8", error_feedback=True, downlink_step=1.0),
    "strong": CompressionSpec(codec="adaptive", step=8.0),
    "extreme": CompressionSpec(codec="adaptive", step=16.0, noise_share=0.7, downlink_step=4.0),
}


class JobSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole job file."""

    name: Name
    model: ModelSpec
    seed: Natural = 0
    data: Name | None = None
    """The data source a device must have to take part; the job's own name when not given."""
    compression: Literal["off", "light", "strong", "extreme"] | CompressionSpec = "strong"
    deploy: Annotated[str, Meta(pattern=r"\A(final|never|every [1-9][0-9]{0,5})\Z")] = "final"
    """Which versions a device fetches and serves locally: "final", "every N" or "never"."""
    train: TrainSpec = TrainSpec()
    rounds: RoundsSpec = RoundsSpec()
    aggregate: AggregateSpec = AggregateSpec()

    @property
    def data_name(self) -> str:
        """Name of the data source that this job trains on."""
        return self.data or self.name

    @property
    def coding(self) -> CompressionSpec:
        """The compression in explicit numbers."""
        return PRESETS[self.compression] if isinstance(self.compression, str) else self.compression
