"""A job: the one thing an ML engineer writes, as the frozen struct that travels to every device.

Everything but `name` and `model` has a default. Every number has a floor and a ceiling, wide of what anybody uses:
what lies beyond would not survive the journey as JSON (inf), or do nothing, or nothing but harm. Checks that need two
keys at once are in `__post_init__` and raise ValueError with the key's name, which the settings loader turns into one
line naming file, table and key.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from models.contract import NO_CONTRACT, ContractSpec
from models.measures import table as measures

Name = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z", description='a name is 1 to 64 letters, digits, "_" or "-"')
]
"""What names anything on the wire: a fleet, a job, a device, a data source."""

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Natural = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Devices = Annotated[int, Meta(ge=1, le=100_000)]
"""A number of devices: an aggregator keeps no more in its roster."""
Rate = Annotated[float, Meta(ge=1e-12, le=1e6)]
"""A learning rate. Below, a step is lost in a float32; above, no loss stays finite."""
Momentum = Annotated[float, Meta(ge=0, le=0.9999)]
"""Nearer to 1, a float32 is 1: nothing is ever forgotten."""
Share = Annotated[float, Meta(gt=0, le=1)]

MOST_JSON_BYTES = 262_144 - 4096
"""Of a job as it travels: what a control message may have (WIRE.md), with room for what stands around the job there and
for keys that a file writes out though they have their defaults."""
MOST_LABELS = 64
"""Of a device, and so of what a job asks for: a presence has room for no more."""
AVERAGED = 1
"""Versions of the mean that is deployed where a job does not say, and is compressed."""
MOST_AVERAGED = 16
"""Of these at most: their sum still has room in an int64."""
AVERAGED_SHARE = 8
"""They are at most one in so many of all that there are: while versions improve quickly, a mean of more lags behind."""
KEEP_BYTES = 2**26
"""What the states of every Nth version take on the disk, where a job does not say."""
USUAL_LOSS: Final = "cross_entropy"
"""Where a job says none."""
MAX_LOSS = 0.01
"""Of accuracy or R2: what a model in int8 may lose on a device, where a job does not say."""
MOST_DEPTH = 16
"""Of tables and lists within each other in `options`."""


class ModelSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which net: the envelope that travels, the same for every kind.

    `kind` names a row of `models.nets.table`, or code: "package.module:factory" (runs only where agent.toml allows it).
    The kind's row says which of the other keys are its own; one that is not is refused, and so is a net too large.
    """

    kind: str = "mlp"
    inputs: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    hidden: tuple[Annotated[int, Meta(ge=1, le=100_000)], ...] = ()
    outputs: Annotated[int, Meta(ge=1, le=100_000)] = 1
    activation: Literal["relu", "tanh", "gelu", "silu", "sigmoid", "leaky_relu"] = "relu"
    loss: Literal["cross_entropy", "mse", "binary", "multilabel", "huber", "quantile", "focal", "reconstruction"] = (
        USUAL_LOSS
    )
    """"cross_entropy", "focal": one class of `outputs`; "binary": one of two, by one output; "multilabel": several
    labels a row, each there or not; "mse", "huber", "quantile": values. A kind that has a loss of its own
    ("reconstruction") has it where none is said."""
    loss_options: dict[str, Any] = {}
    """What only this loss has: label_smoothing of "cross_entropy", gamma of "focal", pos_weight of "binary" and
    "multilabel", delta of "huber", quantiles of "quantile"."""
    framework: Literal["numpy", "torch", "any"] = "any"
    """Who computes it: "any" leaves it to the device (NumPy unless agent.toml says torch)."""
    start: Literal["factory", "seed"] | None = None
    """Of a factory: the weights that a job begins with. "factory", or nothing: those of its module, made once by the
    aggregator with Torch's generator at the job's seed; they are version 1, and sent. "seed": drawn from the job's seed
    by everybody, so that nothing is sent."""
    options: dict[str, Any] = {}
    """Keyword arguments of a factory, or keys that only this kind has: what TOML and JSON both have, so no dates, and
    no inf or nan."""

    def __post_init__(self) -> None:
        from models.nets import losses, table  # here alone: they load NumPy, which who only reads words does without

        kind = table.find(self.kind)
        if len(self.hidden) > 64:
            raise ValueError("hidden has more than 64 layers")
        _check_plain(self.options, "options")
        _check_plain(self.loss_options, "loss_options")
        self._settle_loss(kind.loss, {row.loss for row in table.NETS.values()})
        table.check_options(self)
        kind.spec.of(self)
        losses.of(self)

    def _settle_loss(self, own: str | None, owned: Collection[str | None]) -> None:
        """Have the loss that the kind has to have. own: None for any. owned: those that only some kinds have.

        Raises ValueError for another.
        """
        if own is None and self.loss in owned:
            raise ValueError(f'loss = "{self.loss}" is none of kind = "{self.kind}"')
        if own is not None and self.loss not in (own, USUAL_LOSS):
            raise ValueError(f'loss = "{self.loss}": kind = "{self.kind}" has a loss of its own: leave loss out')
        if own is not None:
            msgspec.structs.force_setattr(self, "loss", own)

    @property
    def classifies(self) -> bool:
        """Whether it learns classes, so that it has an accuracy; else it learns values."""
        from models.nets import losses  # here alone, as the table above

        return losses.of(self).classifies

    @property
    def labels_are_classes(self) -> bool:
        """Whether a label says what a row is, so that a window has that of most of its rows; else it is a value."""
        return self.classifies or self.finds_anomalies

    @property
    def finds_anomalies(self) -> bool:
        """Whether its answers are anomaly scores, one a row: it has neither classes nor values, and needs no labels."""
        return self.task == "scores"

    @property
    def task(self) -> Literal["classes", "labels", "values", "scores"]:
        """Return what the label of a row is: one of several classes; several labels, each there or not; numbers; or,
        where there is one at all, whether the row is an anomaly.
        """
        from models.nets import losses

        return losses.of(self).task

    @property
    def levels(self) -> tuple[float, ...]:
        """Return of which quantiles of each value there is an output; none where an output is a value, or a class."""
        from models.nets import losses

        return losses.of(self).levels

    @property
    def n_classes(self) -> int:
        """Return how many classes it tells apart, or of how many labels it says whether they are there; 0 of values."""
        from models.nets import losses

        return losses.of(self).n_classes


OPTIMIZER_KEYS = {
    "sgd": ("momentum", "nesterov"),
    "adam": ("beta1", "beta2", "epsilon"),
    "adamw": ("beta1", "beta2", "epsilon"),
}
"""What only some optimizers have."""

Patterns = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...], Meta(max_length=64)]
"""Of names of tensors, or of modules that hold them, with * and ? as in a shell ("0.weight", "*.bias", "encoder.*")."""


class AdapterSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Low-rank adapters (Hu et al. 2021, LoRA): of each chosen tensor W only B A is trained, W + (alpha / rank) B A."""

    rank: Annotated[int, Meta(ge=1, le=4096)] = 4
    """Of B A: no more than the smaller side of any chosen tensor."""
    alpha: Annotated[float, Meta(ge=1e-6, le=1e6)] | None = None
    """As much as the rank when not given, so that alpha / rank is 1."""
    layers: Patterns = ("*",)
    """Which tensors of two axes or more are adapted; those that `only` names are trained whole instead."""


class TrainSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a device trains. The client optimizer is its own setting, apart from the server's."""

    epochs: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    batch_size: Count = 10
    """More than a device has examples: all of them at once."""
    learning_rate: Rate = 0.1
    learning_rate_decay: Annotated[float, Meta(ge=1e-3, le=1)] = 1.0
    """Multiplies the learning rate once per round: rate = learning_rate * decay ** version number."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """torch.optim's SGD, Adam or AdamW (models/training/optimizers.py), with fresh state in every round. Of the latter
    two a usual learning_rate is 0.001."""
    momentum: Momentum = 0.0
    """Of "sgd"."""
    nesterov: bool = False
    """Of "sgd" with momentum."""
    weight_decay: Annotated[float, Meta(ge=0, le=1e3)] = 0.0
    """A part of the gradient, but of "adamw" apart from it."""
    beta1: Momentum = 0.9
    """Of "adam" and "adamw": how much of the mean of gradients stays from one step to the next."""
    beta2: Annotated[float, Meta(ge=0, le=0.99999)] = 0.999
    """Of "adam" and "adamw": the same of the mean of their squares."""
    epsilon: Annotated[float, Meta(ge=1e-12, le=1)] = 1e-8
    """Of "adam" and "adamw": a weight whose gradients are smaller moves by less than the learning rate."""
    clip_norm: Annotated[float, Meta(ge=1e-6, le=1e6)] | None = None
    """Largest norm of a step's gradient, over all weights together: a longer one is scaled down to it."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls from a round's first step to its last (models/training/schedule.py)."""
    warmup: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of a round's steps in which the learning rate rises first."""

    freeze: Patterns = ()
    """Tensors that stay as they are: they are not trained and do not travel. All others are trained."""
    only: Patterns = ()
    """The same the other way round: all other tensors stay as they are."""
    adapter: AdapterSpec | None = None
    """Train low-rank adapters, and beside them only what `only` names."""
    base: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z", description="it is a SHA-256, 64 hex digits")] = ""
    """SHA-256 of the tensors that stay as they are (models/frozen.py), where a file has them: `fedge job submit --base`
    writes it. When not given they follow from the seed, are the factory's own, or of the job that this starts from."""

    def __post_init__(self) -> None:
        own = OPTIMIZER_KEYS[self.optimizer]
        for key, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True):
            is_of_some = any(key in keys for keys in OPTIMIZER_KEYS.values())
            if is_of_some and key not in own and getattr(self, key) != default:
                raise ValueError(
                    f'{key}: optimizer = "{self.optimizer}" has none: leave it out (it has {", ".join(own)})'
                )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov = true wants momentum, such as 0.9: without it there is no velocity to add")
        if self.optimizer == "adamw" and not self.weight_decay:
            raise ValueError(
                'optimizer = "adamw" is "adam" as long as weight_decay is 0: say weight_decay, 0.01 in Torch, or "adam"'
            )
        if self.freeze and (self.only or self.adapter is not None):
            other = "only" if self.only else "adapter"
            raise ValueError(f"freeze and {other} say both what is trained: leave one of them out")

    @property
    def tunes(self) -> bool:
        """Whether the job says that a part of its net stays as it is."""
        return bool(self.freeze or self.only) or self.adapter is not None


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


class CompressionSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How updates and versions are coded, in explicit numbers. The job's plain knob chooses among presets."""

    codec: Literal["float32", "int8", "sketch"] = "sketch"
    tolerance: Annotated[float, Meta(ge=1e-3, le=10)] = 0.05
    """How much longer the noise of the sketch may make the training, as a share of the rounds: the buckets follow."""
    buckets: Annotated[int, Meta(ge=64, le=2**26)] | None = None
    """So many buckets in every round, whatever they cost; as many as there are parameters, or more: one for each."""
    bits: Annotated[int, Meta(ge=1, le=4)] = 1
    """Bits a bucket of an update, where `buckets` is given and there is one for each parameter; else it is 1."""
    bits_down: Annotated[int, Meta(ge=1, le=4)] = 1
    """Bits a bucket of a version, where `buckets` is given."""

    def __post_init__(self) -> None:
        if self.codec != "sketch" and self.buckets is not None:
            raise ValueError(f'buckets = {self.buckets}: codec = "{self.codec}" has none')
        if self.buckets is None and (self.bits, self.bits_down) != (1, 1):
            raise ValueError("bits and bits_down want buckets: without them they follow from the tolerance")


PRESETS: dict[str, CompressionSpec] = {
    "off": CompressionSpec(codec="float32"),
    "light": CompressionSpec(tolerance=0.02),
    "strong": CompressionSpec(tolerance=0.05),
    "extreme": CompressionSpec(tolerance=0.15),
}


class JobSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole job file."""

    name: Name
    model: ModelSpec
    seed: Natural = 0
    data: Name | None = None
    """The data source a device must have to take part; the job's own name when not given."""
    compression: Literal["off", "light", "strong", "extreme"] | CompressionSpec = "strong"
    deploy: Annotated[
        str,
        Meta(
            pattern=r"\A(final|never|every [1-9][0-9]{0,5})\Z",
            description='it is "final", "never" or "every N", N up to 999999',
        ),
    ] = "final"
    """Which versions a device fetches and serves locally: "final", "every N" or "never"."""
    deploy_average: Annotated[int, Meta(ge=1, le=MOST_AVERAGED)] | None = None
    """What is deployed and exported is the mean of so many of the last versions, of fewer early on; 1: the version
    itself, and all there is where nothing is compressed."""
    quantise: Literal["none", "int8"] = "none"
    """What is served on a device is computed in: float32, or int8 where that loses little enough on its own rows."""
    quantise_max_loss: Annotated[float, Meta(ge=0, le=1)] | None = None
    """What a model in int8 may lose of its accuracy, or of its R2, on a device; MAX_LOSS when not given."""
    contract: ContractSpec = NO_CONTRACT
    """What a row is, and what is made of it before the net sees it."""
    train: TrainSpec = TrainSpec()
    rounds: RoundsSpec = RoundsSpec()
    aggregate: AggregateSpec = AggregateSpec()

    def __post_init__(self) -> None:
        stop = self.rounds.stop
        if stop.is_set or stop.metric != StopSpec().metric:
            try:
                measures.check(stop.metric, self.model, self.contract.class_names)
            except ValueError as error:
                raise ValueError(f"[rounds.stop] metric: {error}") from None
        if self.averaged > 1 and self.coding.codec == "float32":
            raise ValueError(
                f"deploy_average = {self.deploy_average}: where nothing is compressed a version travels whole, so that "
                "those before it cannot be had: leave it out, or choose another compression"
            )
        _check_quantise(self)
        _check_contract(self)
        _check_strategy(self)
        _check_tuning(self)
        n_bytes = len(msgspec.json.encode(self))
        if n_bytes > MOST_JSON_BYTES:
            raise ValueError(
                f"[model] options: the job is {n_bytes:,} bytes as JSON where {MOST_JSON_BYTES:,} can travel: "
                "name a file that the factory reads instead"
            )

    @property
    def data_name(self) -> str:
        """Name of the data source that this job trains on."""
        return self.data or self.name

    @property
    def coding(self) -> CompressionSpec:
        """The compression in explicit numbers."""
        return PRESETS[self.compression] if isinstance(self.compression, str) else self.compression

    @property
    def averaged(self) -> int:
        """How many versions are averaged into what is deployed, at most."""
        return self.deploy_average or (1 if self.coding.codec == "float32" else AVERAGED)

    def averaged_from(self, number: int) -> int:
        """Return the number of the first version that is averaged where the version of this number is deployed.

        The last one is the version itself, and so is the first where nothing is averaged. It never goes back.
        """
        return number + 1 - max(1, min(self.averaged, number // AVERAGED_SHARE))


def _check_contract(job: JobSpec) -> None:
    """Raise ValueError where the model and the contract with its data do not go together."""
    contract, model = job.contract, job.model
    if contract.n_inputs is not None and contract.n_inputs != model.inputs:
        rows = f" for {contract.n_rows} rows each" if contract.n_rows > 1 else ""
        raise ValueError(
            f"[contract] features make {contract.n_inputs:,} inputs{rows}, where [model] has inputs = {model.inputs}: "
            f"say inputs = {contract.n_inputs}"
        )
    if contract.n_inputs is None and model.inputs % contract.n_rows:
        raise ValueError(
            f"[model] inputs = {model.inputs} is no multiple of [contract.window] length = {contract.n_rows}"
        )
    if model.finds_anomalies and (contract.classes or contract.class_weight != "none"):
        raise ValueError(
            f'[contract] classes and class_weight: kind = "{model.kind}" learns no classes: leave them out (labels, '
            "where rows have some, are 0 for normal and 1 for an anomaly)"
        )
    columns = _columns_of(model)
    if columns and contract.window and model.inputs != columns * contract.n_rows:
        each = model.inputs // contract.n_rows
        raise ValueError(
            f"[model] options.columns = {columns}, where a window of [contract.window] has {contract.n_rows} rows of "
            f"{each}: say columns = {each}"
        )
    if not model.classifies and (contract.classes or contract.class_weight != "none"):
        raise ValueError(f'[contract] classes and class_weight: a model with loss = "{model.loss}" learns no classes')
    _check_classes(job)
    if isinstance(contract.class_weight, dict) and not contract.classes:
        raise ValueError("[contract] class_weight names classes: say which there are, classes = [...]")


def _check_classes(job: JobSpec) -> None:
    """Raise ValueError where the labels that the contract names are not those of the model's loss."""
    from models.nets import losses  # here alone, as the table above

    contract, model, loss = job.contract, job.model, losses.of(job.model)
    n_names, n_labels = len(contract.classes), len(contract.labels)
    if n_labels > 1 and contract.classes and loss.task == "classes":
        raise ValueError(
            "[contract] label names several columns, which is for values, and for several labels a row "
            '(loss = "multilabel"): a model of classes has one label'
        )
    if n_labels > 1 and n_labels != loss.n_columns:
        each = f' (loss = "{model.loss}" takes {loss.n_columns})' if loss.n_columns != model.outputs else ""
        raise ValueError(
            f"[contract] label names {n_labels} columns, where the model has {model.outputs} outputs{each}"
        )
    if n_names and n_names != loss.n_classes:
        two = "" if loss.n_classes == model.outputs else f' and loss = "{model.loss}" {loss.n_classes} classes'
        raise ValueError(f"[model] outputs = {model.outputs}{two}, where [contract] names {n_names} classes")
    if contract.class_weight != "none" and loss.task == "labels":
        raise ValueError(
            f'[contract] class_weight is of one class a row, and loss = "{model.loss}" has several labels a row: say '
            "pos_weight in [model.loss_options]"
        )


def _columns_of(model: ModelSpec) -> int | None:
    """Return how many numbers a row of a window has, where that is a key of the model's kind."""
    from models.nets import table  # here alone, as above

    found = getattr(table.find(model.kind).spec.of(model), "columns", None)
    return found if isinstance(found, int) else None


def _check_quantise(job: JobSpec) -> None:
    """Raise ValueError where a job says of int8 what comes to nothing."""
    if job.quantise == "none":
        if job.quantise_max_loss is not None:
            raise ValueError(
                f'quantise_max_loss: {job.quantise_max_loss:g} wants quantise = "int8", without which nothing is lost'
            )
    elif job.deploy == "never":
        raise ValueError(
            f'quantise: "{job.quantise}" with deploy = "never" is of no use, as no device serves a model: leave one out'
        )


def _check_strategy(job: JobSpec) -> None:
    from models.strategies.table import refusal  # here alone: it loads NumPy, and whoever reads only words does without

    if why := refusal(job):
        raise ValueError(why)


def _check_tuning(job: JobSpec) -> None:
    """Raise ValueError where a part of a built-in net is to stay as it is that it has not, or all of it."""
    if not job.train.tunes and not job.train.base:
        return
    from models.nets import finetune, table  # here alone, as the others

    numpy = table.find(job.model.kind).numpy
    if numpy is not None:  # of a factory only its code knows the tensors
        finetune.plan(job.train, numpy(job.model).spec)


def _check_plain(value: object, where: str, depth: int = 0) -> None:
    """Raise ValueError for what is another value, or none at all, after a journey as JSON."""
    match value:
        case bool() | str():
            return
        case int() if abs(value) <= 2**53:
            return
        case float() if math.isfinite(value):
            return
        case list() | dict() if depth >= MOST_DEPTH:
            raise ValueError(f"{where[:100]} goes more than {MOST_DEPTH} tables and lists deep")
        case list():
            for index, item in enumerate(value):
                _check_plain(item, f"{where}[{index}]", depth + 1)
        case dict():
            for name, item in value.items():
                _check_plain(item, f"{where}.{name}", depth + 1)
        case _:
            raise ValueError(f"{where[:100]} = {str(value)[:50]} does not survive JSON, as which a job travels")
