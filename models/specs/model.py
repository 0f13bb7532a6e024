"""[model] of a job: which net."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from models.specs.bounds import check_plain

USUAL_LOSS: Final = "cross_entropy"
"""Where a job says none."""


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
        check_plain(self.options, "options")
        check_plain(self.loss_options, "loss_options")
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
