"""A net that is a stack of layers: NumPy's computation, Torch's module and the ONNX graph of one and the same list.

    layers = (Dense(4, 8), Activation("relu", (8,)), Dense(8, 3))       layer i is named "i", as in torch.nn.Sequential

A kind of net is a specification and a function that makes the list of it; `kind` is its row in the table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from models.nets import losses
from models.nets.layers.layer import Layer, Place, Scratch
from models.nets.losses import Labels, Metrics, measure_all
from models.nets.mlp import ROWS_AT_ONCE, quietly
from models.nets.net import NetSpec
from models.nets.op import Op
from models.params import Float32, Params, Spec, TensorSpec

if TYPE_CHECKING:
    from models.job import ModelSpec

S = TypeVar("S", bound=NetSpec)
Layers = Sequence[Layer]


def spec_of(layers: Layers) -> Spec:
    """Return names and shapes of all parameters, in the order of torch.nn.Sequential's named_parameters()."""
    return tuple(
        TensorSpec(f"{i}.{tensor.name}", tensor.shape) for i, layer in enumerate(layers) for tensor in layer.tensors
    )


def n_units(layers: Layers) -> int:
    """Return how many numbers all layers make of one example."""
    return sum(layer.n_units for layer in layers)


def module(layers: Layers, nn: Any) -> Any:
    """Return the torch.nn.Sequential of the same layers. nn: torch.nn."""
    return nn.Sequential(*(layer.module(nn) for layer in layers))


def operations(layers: Layers) -> tuple[Op, ...]:
    """Return the same as ONNX, from "input", (batch, inputs)."""
    found: list[Op] = []
    value = "input"
    for i, layer in enumerate(layers):
        ops = layer.operations(str(i), value)
        found += ops
        value = ops[-1].output if ops else value
    return tuple(found)


class Layered:
    """A net behind the face of `models.nets.net.Net`. Of its own it has room to work in, for each thread."""

    def __init__(self, model: ModelSpec, layers: Layers) -> None:
        self.model = model
        self.layers = tuple(layers)
        self.spec = spec_of(layers)
        self.n_units = n_units(layers)
        self._loss = losses.of(model)
        self._here = threading.local()
        free = [False, *(not layer.keeps_output for layer in self.layers[:-1])]
        free[1:2] = [False] if not self.layers[0].tensors else free[1:2]  # a view of the rows themselves
        self._free = free

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
    ) -> tuple[float, Params]:
        """See `models.nets.net.Net`. With `out` no large array is allocated once a batch of the size was seen."""
        scratch = self._scratch("training")
        places = list(self._places(scratch, draw))
        outputs = self._forward(places, params, X)
        raw = scratch.array("outputs", shape=outputs.shape)
        raw[...] = outputs
        loss, da = self._loss.gradient(raw, y, weights)
        da *= scale
        gradients = out if out is not None else {name: np.empty_like(params[name]) for name, _ in self.spec}
        for i in reversed(range(len(self.layers))):
            given = self.layers[i].backward(
                places[i], self._of(i, params), self._of(i, gradients), da, first=not self._before(i)
            )
            if given is None:
                break
            da = given
        return loss, gradients

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        with quietly():
            return self._loss.answer(self._outputs(params, X))

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        with quietly():
            return measure_all(self._loss, lambda some: self._outputs(params, some), X, y)

    def _scratch(self, use: str) -> Scratch:
        found: Scratch | None = getattr(self._here, use, None)
        if found is None:
            found = Scratch()
            setattr(self._here, use, found)
        return found

    def _places(self, scratch: Scratch, draw: int | None) -> Iterator[Place]:
        for i, free in enumerate(self._free):
            yield Place(scratch, str(i), draw=draw, free=free)

    def _forward(self, places: Sequence[Place], params: Params, X: Float32) -> Float32:
        for i, layer in enumerate(self.layers):
            X = layer.forward(places[i], self._of(i, params), X)
        return X

    def _of(self, i: int, params: Params) -> list[Float32]:
        return [params[f"{i}.{tensor.name}"] for tensor in self.layers[i].tensors]

    def _before(self, i: int) -> bool:
        """Return whether a layer before this one has parameters."""
        return any(layer.tensors for layer in self.layers[:i])

    def _outputs(self, params: Params, X: Float32) -> Float32:
        outputs = np.empty((len(X), self.model.outputs), np.float32)
        scratch = Scratch()  # as large as ROWS_AT_ONCE wants it, and gone afterwards
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            outputs[rows] = self._forward(list(self._places(scratch, None)), params, X[rows])
        return outputs


def numpy_net(spec: type[S], layers: Callable[[S], Layers]) -> Callable[[ModelSpec], Layered]:
    """Return what builds the net of a kind, for its row in the table."""
    return lambda model: Layered(model, layers(spec.of(model)))
