"""[train] of a job: how a device trains, and which part of the net."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.specs.bounds import Count, Momentum, Rate

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
