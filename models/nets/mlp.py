"""A multilayer perceptron in NumPy: dense layers with relu or tanh between them.

It is the torch.nn.Sequential of the same layers, down to the names ("0.weight", "0.bias", "2.weight", ...: the
activations take the odd numbers), the shapes (weight: outputs x inputs) and, to rounding, loss and gradients, so
that one fleet may mix both. float32 throughout. What is overwritten is always our own: never params, X or y.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from msgspec import field

from models.nets import losses
from models.nets.losses import Labels, Metrics, measure_all
from models.nets.net import NetSpec, check_size
from models.nets.op import Op
from models.params import Float32, Params, Spec, TensorSpec

if TYPE_CHECKING:
    from models.job import ModelSpec

ROWS_AT_ONCE = 1024
"""Rows that predict and evaluate push through together: bounds their memory, and is wide enough for BLAS."""

SMALL_PRODUCT = 1_000_000
"""Up to this m n k OpenBLAS may multiply as is; beyond it first copies both sides into packed panels, which for a
narrow batch takes as long as the product (sgemm_small_kernel_permit_skylakex.c; measured: half the time)."""


class MlpSpec(NetSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="mlp"):
    """What a job says of a multilayer perceptron."""

    hidden: tuple[int, ...] = ()
    """Units of each hidden layer."""
    activation: Literal["relu", "tanh"] = "relu"
    options: dict[str, Any] = field(default_factory=dict)
    """Of no use; but jobs have always been free to say them."""

    def __post_init__(self) -> None:
        widths = (self.inputs, *self.hidden, self.outputs)
        n_parameters = sum((n_in + 1) * n_out for n_in, n_out in pairwise(widths))
        shape = f"inputs = {self.inputs}, hidden = {list(self.hidden)}, outputs = {self.outputs}"
        check_size(n_parameters, sum(widths[1:]), shape)


class Activation(NamedTuple):
    """forward: overwrites z with a(z). backward: multiplies the gradient in place by a'(z), given a = a(z).

    torch, onnx: what the module of torch.nn and the operator are called.
    """

    forward: Callable[[Float32], None]
    backward: Callable[[Float32, Float32], None]
    torch: str
    onnx: str


def _relu(z: Float32) -> None:
    np.maximum(z, 0.0, out=z)


def _relu_backward(gradient: Float32, a: Float32) -> None:
    gradient *= a > 0.0


def _tanh(z: Float32) -> None:
    np.tanh(z, out=z)


def _tanh_backward(gradient: Float32, a: Float32) -> None:
    gradient *= 1.0 - a * a


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(_relu, _relu_backward, "ReLU", "Relu"),
    "tanh": Activation(_tanh, _tanh_backward, "Tanh", "Tanh"),
}


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
    layers = []
    for n_in, n_out in layer_sizes(spec):
        layers += [nn.Linear(n_in, n_out), getattr(nn, ACTIVATIONS[spec.activation].torch)()]
    return nn.Sequential(*layers[:-1])


def operations(spec: MlpSpec) -> tuple[Op, ...]:
    """Return Gemm, activation, Gemm, ...: as many Gemm as there are dense layers."""
    found, value = [], "input"
    for i in range(0, 2 * len(layer_sizes(spec)), 2):
        if i:
            found.append(Op(ACTIVATIONS[spec.activation].onnx, (value,), f"{i - 1}.output"))
            value = f"{i - 1}.output"
        found.append(Op("Gemm", (value, f"{i}.weight", f"{i}.bias"), f"{i}.output", {"transB": 1}))
        value = f"{i}.output"
    return tuple(found)


def quietly() -> np.errstate:
    """Parameters that have diverged show in the answer, as inf or nan, and need no warning beside it."""
    return np.errstate(over="ignore", invalid="ignore")


def multiply(left: Float32, right: Float32, out: Float32) -> Float32:
    """Return left @ right in `out`: (m, k) @ (k, n), in blocks of rows small enough to be multiplied unpacked."""
    rows = SMALL_PRODUCT // right.size & ~7  # whole vectors of the kernel
    if rows < 16:  # a wide batch, which is worth packing
        return np.matmul(left, right, out=out)
    for start in range(0, len(left), rows):
        block = slice(start, start + rows)
        np.matmul(left[block], right, out=out[block])
    return out


class Mlp:
    """The net of a ModelSpec of kind "mlp". Holds no state: everything is a function of params and data."""

    def __init__(self, model: ModelSpec) -> None:
        self.model = model
        self.spec = spec_of_mlp(model)
        self._names = tuple(tensor.name for tensor in self.spec)
        self._n_layers = len(self.spec) // 2
        self._activation = ACTIVATIONS[model.activation]
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
    ) -> tuple[float, Params]:
        """See `models.nets.net.Net`. With `out` no large array is allocated."""
        columns = self._forward(params, X)
        loss, rows = self._loss.gradient(columns.pop().T, y, weights)
        rows *= scale
        delta, ones = rows.T, np.ones(len(rows), np.float32)
        gradients = out if out is not None else {name: np.empty_like(params[name]) for name in self._names}
        for i in reversed(range(self._n_layers)):
            weight, bias = self._names[2 * i], self._names[2 * i + 1]
            multiply(delta, columns[i].T, gradients[weight])
            np.matmul(delta, ones, out=gradients[bias])
            if i:
                delta = params[weight].T @ delta
                self._activation.backward(delta, columns[i])
        return loss, gradients

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        with quietly():
            return self._loss.answer(self._outputs(params, X))

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        with quietly():
            return measure_all(self._loss, lambda some: self._outputs(params, some), X, y)

    def _forward(self, params: Params, X: Float32) -> list[Float32]:
        """Return X, the activations of each hidden layer and the raw outputs, each example a column.

        Columns, because OpenBLAS multiplies a large weight by a narrow batch faster than the other way round.
        """
        columns = [X.T]
        for i in range(self._n_layers):
            weight = params[self._names[2 * i]]
            z = multiply(weight, columns[-1], np.empty((len(weight), len(X)), np.float32))
            z += params[self._names[2 * i + 1]][:, np.newaxis]
            if i < self._n_layers - 1:
                self._activation.forward(z)
            columns.append(z)
        return columns

    def _outputs(self, params: Params, X: Float32) -> Float32:
        outputs = np.empty((len(X), self.model.outputs), np.float32)
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            outputs[rows] = self._forward(params, X[rows])[-1].T
        return outputs
