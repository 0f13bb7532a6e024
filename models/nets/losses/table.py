"""The one list of losses, and the one way from a model to its own."""

from __future__ import annotations

import functools

import msgspec

from models.nets.losses.cross_entropy import CrossEntropy
from models.nets.losses.focal import Focal
from models.nets.losses.huber import Huber
from models.nets.losses.loss import HasLoss, Loss, LossOptions
from models.nets.losses.quantile import Quantile
from models.nets.losses.reconstruction import Reconstruction
from models.nets.losses.sigmoid import Binary, Multilabel
from models.nets.losses.squared_error import SquaredError

LOSSES: dict[str, type[LossOptions]] = {
    "cross_entropy": CrossEntropy,
    "mse": SquaredError,
    "binary": Binary,
    "multilabel": Multilabel,
    "huber": Huber,
    "quantile": Quantile,
    "focal": Focal,
    "reconstruction": Reconstruction,
}
"""What a job may say of each loss; it makes the loss."""


def of(model: HasLoss) -> Loss:
    """Return the loss of a model, its options bound.

    Raises ValueError, with the key's name, for an option that the loss has not, for a value that it cannot take, and
    for outputs that it cannot have.
    """
    if not model.loss_options and model.loss in LOSSES:
        return _usual(model.loss, model.outputs)
    row = LOSSES.get(model.loss)
    if row is None:
        raise ValueError(f'loss = "{model.loss[:100]}" is none of {", ".join(LOSSES)}')
    for key in model.loss_options:
        if key not in row.__struct_fields__:
            raise ValueError(f'loss = "{model.loss}" has no option "{key[:100]}": {_has(row)}')
    try:
        options = msgspec.convert(model.loss_options, row)
    except msgspec.ValidationError as error:
        what, found, path = str(error).rpartition(" - at `$.")
        raise ValueError(f"loss_options.{path.rstrip('`')}: {what}" if found else f"loss_options: {error}") from error
    return options.loss(model.outputs)


@functools.lru_cache(maxsize=64)
def _usual(name: str, outputs: int) -> Loss:
    """Return the loss of this name with all options at their defaults: asked for several times a round."""
    return LOSSES[name]().loss(outputs)


def _has(row: type[LossOptions]) -> str:
    names = ", ".join(row.__struct_fields__)
    return f"[model.loss_options] may have {names}" if names else "leave [model.loss_options] out"
