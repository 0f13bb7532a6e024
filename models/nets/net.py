"""What a net is: pure, its parameters go in and come out of every call. And what every specification of one has."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec
from msgspec import Struct

if TYPE_CHECKING:  # it asks the table, whose rows stand on this
    from models.job import ModelSpec
    from models.nets.losses import Labels, Metrics
    from models.params import Beside, Float32, Params, Spec

MOST_PARAMETERS = 25_000_000
"""Of a built-in net: 100 MB in float32, and some 600 MB of the server's state, which SQLite takes up to 1 GB."""
MOST_UNITS = 2**17
"""Of a built-in net, all layers together: 1,024 rows at once are then 512 MB of activations."""

NO_WEIGHTS = (
    "rows count differently (class_weight in [contract]), and its own loss gives one number for all of them: let it "
    "give one for each row, or take them, loss(outputs, y, weights)"
)
"""Why the rows of a job cannot count differently, where a module brings a loss along."""


class ModelError(ValueError):
    """A model that cannot be built here; the message says what to change."""


class NetSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What nets of every kind have; each kind's own specification adds its keys, and is tagged by its kind.

    A `ModelSpec` is the envelope that travels: keys of a kind which are not fields of the envelope stand in its
    `options`. What a specification checks of its own keys, and that the net is not too large, is in its
    `__post_init__`, which raises ValueError.
    """

    inputs: int = 1
    """Features of one example."""
    outputs: int = 1
    loss: str = "cross_entropy"
    """A row of `models.nets.losses`;"""
    loss_options: dict[str, Any] = {}
    """and what it may be told."""
    framework: str = "any"

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return which shapes an example may have, beside that of a flat row; none where that is of no matter."""
        return ()

    @classmethod
    def of(cls, model: ModelSpec) -> Self:
        """Return what a model says, as the specification of this kind.

        Raises ValueError, with the key's name, for a key that the kind has not and for a value that it cannot take.
        (A key of another kind that has its default there cannot be told from one that is left out.)
        """
        said: dict[str, Any] = msgspec.to_builtins(model)
        if "kind" not in cls.__struct_fields__:
            said.pop("kind", None)
        own = {} if "options" in cls.__struct_fields__ else said.pop("options", {})
        for key in (*said, *own):
            if key not in cls.__struct_fields__ or (key in own and key in model.__struct_fields__):
                raise ValueError(_no_key(cls, model, f"options.{key}" if key in own else key))
        try:
            return msgspec.convert(said | own, cls)
        except msgspec.ValidationError as error:
            raise ValueError(_worded(str(error), own)) from error


def check_size(n_parameters: int, n_units: int, shape: str, most_units: int = MOST_UNITS) -> None:
    """Raise ValueError for a built-in net that is too large to be computed.

    n_units: outputs of all layers together. shape: the keys that say how large it is, for the message. most_units: of a
    kind whose layers have many outputs, and of which fewer rows are in memory at once (models/nets/batches.py).
    """
    if n_parameters > MOST_PARAMETERS:
        raise ValueError(
            f"{n_parameters:,} parameters are more than the {MOST_PARAMETERS:,} of a built-in net: {shape}"
        )
    if n_units > most_units:
        raise ValueError(f"{n_units:,} units are more than the {most_units:,} of a built-in net: {shape}")


def _no_key(cls: type[NetSpec], model: ModelSpec, key: str) -> str:
    """Return that this kind has no such key, and which it has, as a job file writes them."""
    envelope = model.__struct_fields__
    known = ", ".join(name if name in envelope else f"options.{name}" for name in cls.__struct_fields__)
    return f'kind = "{model.kind}" has no key "{key[:100]}": leave it out (it has {known})'


def _worded(message: str, own: dict[str, Any]) -> str:
    """Say of which key a message of msgspec is, which ends with its path: " - at `$.channels[0]`"."""
    what, found, path = message.rpartition(" - at `$.")
    key = path.rstrip("`")
    name = key.partition("[")[0]
    return f"{'options.' if name in own else ''}{key}: {what}" if found else message


class Net(Protocol):
    """Pure functions over explicit params (float32, in the order of `spec`).

    X is float32 (n, inputs), or (n, ...) as a factory's module wants it; y is int64 (n,) where a label
    is one of several classes, else float32 (n, columns) (`models.data.dataset.fit` gives both). n is at least 1.
    """

    @property
    def model(self) -> ModelSpec:
        """What it was built from: inputs, outputs and loss say what data it takes."""

    @property
    def spec(self) -> Spec:
        """Names and shapes of the parameters, in their order."""

    @property
    def start(self) -> Params | None:
        """The weights that its code wants a job to begin with, fresh arrays in the order of `spec`; None: version 0's,
        which everybody draws from the job's seed.
        """

    @property
    def least_rows(self) -> int:
        """Rows that a step has to have at least, but for the only one of an epoch: BatchNorm takes no single one."""

    @property
    def buffers(self) -> Spec:
        """Names and shapes of the float buffers that travel beside the parameters; () for most nets.

        The params that a call is given may hold them by name; where one is missing, what `first_buffers` says counts.
        A step of training changes those that it is given in place, as it does what else `first_buffers` has.
        """

    @property
    def first_buffers(self) -> Beside:
        """What the code gives the buffers, and whatever else training changes that stays here. Nobody changes it."""

    def loss_and_gradients(
        self,
        params: Params,
        X: Float32,
        y: Labels,
        *,
        weights: Float32 | None = None,
        scale: float = 1.0,
        out: Params | None = None,
        draw: int = 0,
        only: Collection[str] | None = None,
    ) -> tuple[float, Params]:
        """Return the mean loss over the batch and `scale` times its gradient by every parameter.

        weights: (n,) float32, how much each row's loss counts: (1/n) sum_i w_i l_i; all are 1 where none are given.
        Scaling costs least at the outputs, where the gradient is smallest: SGD passes its learning rate.
        `out`: arrays of the spec's shapes that it may overwrite and give back instead of allocating; a tensor that is
        not in it does not move, and a net that NumPy computes does not work out its gradient. draw: 63 bits,
        from which everything follows that is drawn at random in this step (dropout): the same in a run that is
        resumed. only: the names of the parameters whose gradients are wanted, where that is not all of them: the others
        need not be worked out, nor be there in `out`. The loss may be nan or inf; it is the caller's to look.
        """

    def predict(self, params: Params, X: Float32) -> Float32:
        """Return (n, outputs) float32: what the loss makes of raw outputs (`Loss.answer`): probabilities, or values."""

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """Return mean loss, accuracy where the labels are classes, and n."""
