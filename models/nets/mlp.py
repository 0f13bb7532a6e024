"""A multilayer perceptron: dense layers with an activation between them.

It is the torch.nn.Sequential of the same layers, down to the names ("0.weight", "0.bias", "2.weight", ...: the
activations take the odd numbers), the shapes (weight: outputs x inputs) and, to rounding, loss and gradients, so
that one fleet may mix both. float32 throughout. What is overwritten is always our own: never params, X or y.

With `norm`, `dropout` or `residual` it is a stack of layers. After each hidden layer then comes its norm, its
activation and its dropout, and around all of these, but around those of the first hidden layer, which gives them their
width, the residual connection: x + f(x), or P x + f(x) where the widths differ.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from msgspec import Meta, structs

from models.nets import layered, losses
from models.nets.activations import IN_PLACE, Name
from models.nets.batches import ROWS_AT_ONCE, quietly
from models.nets.layers.activation import Activation
from models.nets.layers.dense import Dense
from models.nets.layers.dropout import MOST as MOST_DROPOUT
from models.nets.layers.dropout import Dropout
from models.nets.layers.layer import Layer
from models.nets.layers.norm import LayerNorm
from models.nets.layers.product import multiply
from models.nets.layers.residual import Residual
from models.nets.losses import Labels, Metrics, measure_all
from models.nets.net import NetSpec, check_size
from models.nets.op import Op
from models.nets.scratch import Scratch, scratch_of
from models.params import Beside, Float32, Params, Spec, TensorSpec

if TYPE_CHECKING:
    from models.job import ModelSpec
    from models.nets.net import Net

__all__ = ["ROWS_AT_ONCE", "Mlp", "MlpSpec", "layers", "module", "multiply", "net", "operations", "quietly"]
__all__ += ["spec_of_mlp"]


class MlpSpec(NetSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="mlp"):
    """What a job says of a multilayer perceptron."""

    hidden: tuple[int, ...] = ()
    """Units of each hidden layer."""
    activation: Name = "relu"
    norm: Literal["none", "layer"] = "none"
    """"layer": what a hidden layer gives is normalised over its units, before the activation."""
    dropout: Annotated[float, Meta(ge=0, le=MOST_DROPOUT)] = 0.0
    """The share of the numbers of a hidden layer that is dropped in training; 0 drops none."""
    residual: bool = False
    """Whether what comes into a hidden layer, but the first one, is added to what it gives."""

    @classmethod
    def of(cls, model: ModelSpec) -> Self:
        """See `NetSpec.of`. Options that say nothing of this kind are of no use, but jobs have always been free to say
        them; one that is nearly a key of this kind is refused.
        """
        said = [key for key in model.options if len(key) < 2 * max(map(len, OPTIONS))]
        if not OPTIONS.isdisjoint(said) or any(
            difflib.get_close_matches(key, OPTIONS, cutoff=0.7) for key in said[:64]
        ):
            return super().of(model)
        return super().of(structs.replace(model, options={}) if model.options else model)

    def __post_init__(self) -> None:
        widths = (self.inputs, *self.hidden, self.outputs)
        shape = f"inputs = {self.inputs}, hidden = {list(self.hidden)}, outputs = {self.outputs}"
        if self.residual and len(self.hidden) < 2:
            raise ValueError(
                f"options.residual = true, where hidden = {list(self.hidden)}: it goes around every hidden layer but "
                "the first one, so there have to be two or more"
            )
        said = [name for name, value in (("norm", self.norm != "none"), ("dropout", self.dropout)) if value]
        if said and not self.hidden:
            raise ValueError(f"options.{said[0]} is of hidden layers, where hidden = []: say hidden, or leave it out")
        check_size(sum((n_in + 1) * n_out for n_in, n_out in pairwise(widths)), sum(widths[1:]), shape)
        if not self.is_plain:
            layered.check(layers(self), shape)

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but dense layers and an activation that may overwrite what they give."""
        extra = self.norm != "none" or self.dropout or self.residual
        return not extra and self.activation in IN_PLACE


OPTIONS = {"norm", "dropout", "residual"}
"""Keys of a MlpSpec that are not those of every model: they stand in its `options`."""


def layers(spec: MlpSpec) -> tuple[Layer, ...]:
    """Return the layers of a multilayer perceptron, each hidden one with what comes after it."""
    found: list[Layer] = []
    for i, (n_in, n_out) in enumerate(pairwise((spec.inputs, *spec.hidden))):
        block: list[Layer] = [Dense(n_in, n_out)]
        block += [LayerNorm((n_out,))] if spec.norm == "layer" else []
        block += [Activation(spec.activation, (n_out,))]
        block += [Dropout(spec.dropout, (n_out,))] if spec.dropout else []
        if spec.residual and i:
            block = [Residual((n_in,), block, None if n_in == n_out else Dense(n_in, n_out))]
        found += block
    return (*found, Dense(spec.hidden[-1] if spec.hidden else spec.inputs, spec.outputs))


def net(model: ModelSpec) -> Net:
    """Return the net of a model of kind "mlp"."""
    spec = MlpSpec.of(model)
    return Mlp(model) if spec.is_plain else layered.Layered(model, layers(spec))


def layer_sizes(spec: MlpSpec | ModelSpec) -> tuple[tuple[int, int], ...]:
    """Return (inputs, outputs) of every dense layer."""
    return tuple(pairwise((spec.inputs, *spec.hidden, spec.outputs)))


def spec_of_mlp(spec: MlpSpec | ModelSpec) -> Spec:
    """Return names and shapes in the order of torch.nn.Sequential's named_parameters()."""
    return tuple(
        tensor
        for i, (n_in, n_out) in enumerate(layer_sizes(spec))
        for tensor in (
            TensorSpec(f"{2 * i}.weight", (n_out, n_in)),
            TensorSpec(f"{2 * i}.bias", (n_out,)),
        )
    )


def module(spec: MlpSpec, nn: Any) -> Any:
    """Return the torch.nn.Sequential of the same layers. nn: torch.nn, which this file does without."""
    return layered.module(layers(spec), nn)


def operations(spec: MlpSpec) -> tuple[Op, ...]:
    """Return Gemm, activation, Gemm, ...: as many Gemm as there are dense layers."""
    return layered.operations(layers(spec))


class Mlp:
    """The net of a plain model of kind "mlp". Holds no state: everything is a function of params and data."""

    start: Params | None = None
    least_rows = 1

    def __init__(self, model: ModelSpec) -> None:
        self.model = model
        self.spec = spec_of_mlp(model)
        self.buffers: Spec = ()
        self.first_buffers: Beside = {}
        self.at_once = ROWS_AT_ONCE
        self.n_units = sum(n_out for _, n_out in layer_sizes(model))
        self._names = tuple(tensor.name for tensor in self.spec)
        self._n_layers = len(self.spec) // 2
        self._activation = IN_PLACE[model.activation]
        self._loss = losses.of(model)

    def loss_and_gradients(
        self,
        params: Params,
        X: Float32,
        y: Labels,
        *,
        weights: Float32 | None = None,
        scale: float = 1.0,
        out: Params | None = None,
        draw: int = 0,  # noqa: ARG002  (nothing is drawn at random)
        only: Collection[str] | None = None,
    ) -> tuple[float, Params]:
        """See `models.nets.net.Net`. With `out` no large array is allocated once a batch of the size was seen.

        A tensor that is not in `out` does not move: its gradient is not worked out.
        """
        scratch = scratch_of(self)
        columns = self._forward(scratch, params, X)
        loss, rows = self._loss.gradient(columns.pop().T, y, weights)
        rows *= scale
        delta, ones = rows.T, scratch.array("ones", shape=(len(rows),))
        ones[...] = 1.0
        wanted = [name for name in self._names if (only is None or name in only) and (out is None or name in out)]
        gradients = out if out is not None else {name: np.empty_like(params[name]) for name in wanted}
        last = min((i // 2 for i, name in enumerate(self._names) if name in wanted), default=self._n_layers)
        for i in reversed(range(last, self._n_layers)):
            weight, bias = self._names[2 * i], self._names[2 * i + 1]
            if weight in wanted:
                multiply(delta, columns[i].T, gradients[weight])
            if bias in wanted:
                np.matmul(delta, ones, out=gradients[bias])
            if i > last:
                before = scratch.array("delta", i, shape=columns[i].shape)
                delta = np.matmul(params[weight].T, delta, out=before)
                slope = scratch.array("slope", shape=delta.shape, dtype=self._activation.dtype)
                self._activation.backward(delta, columns[i], slope)
        return loss, gradients

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        with quietly():
            return self._loss.answer(self._outputs(params, X))

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        with quietly():
            return measure_all(self._loss, lambda some: self._outputs(params, some), X, y)

    def _forward(self, scratch: Scratch, params: Params, X: Float32) -> list[Float32]:
        """Return X, the activations of each hidden layer and the raw outputs, each example a column.

        Columns, because OpenBLAS multiplies a large weight by a narrow batch faster than the other way round.
        """
        columns = [X.T]
        for i in range(self._n_layers):
            weight = params[self._names[2 * i]]
            z = multiply(weight, columns[-1], scratch.array("z", i, shape=(len(weight), len(X))))
            z += params[self._names[2 * i + 1]][:, np.newaxis]
            if i < self._n_layers - 1:
                self._activation.forward(z)
            columns.append(z)
        return columns

    def _outputs(self, params: Params, X: Float32) -> Float32:
        outputs = np.empty((len(X), self.model.outputs), np.float32)
        scratch = Scratch()  # room for a few rows, gone afterwards
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            outputs[rows] = self._forward(scratch, params, X[rows])[-1].T
        return outputs
