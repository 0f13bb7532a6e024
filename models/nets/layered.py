"""A net that is a stack of layers: NumPy's computation, Torch's module and the ONNX graph of one and the same list.

    layers = (Dense(4, 8), Activation("relu", (8,)), Dense(8, 3))       layer i is named "i", as in torch.nn.Sequential

A kind of net is a specification and a function that makes the list of it; `kind` is its row in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from models.nets import losses
from models.nets.batches import quietly, rows_at_once
from models.nets.layers.layer import Layer, Place
from models.nets.layers.stack import Stack
from models.nets.losses import Labels, Metrics, measure_all
from models.nets.net import NetSpec, check_size
from models.nets.op import Op
from models.nets.scratch import Scratch, scratch_of
from models.params import Beside, Float32, Params, Spec, n_parameters

if TYPE_CHECKING:
    from models.job import ModelSpec

S = TypeVar("S", bound=NetSpec)
Layers = Sequence[Layer]


def spec_of(layers: Layers) -> Spec:
    """Return names and shapes of all parameters, in the order of torch.nn.Sequential's named_parameters()."""
    return Stack(layers).tensors


def n_units(layers: Layers) -> int:
    """Return how many numbers all layers make of one example."""
    return Stack(layers).n_units


def check(layers: Layers, shape: str) -> None:
    """Raise ValueError for layers that are too large to be computed: layers themselves hold no numbers of a net.

    shape: the keys that say how large they are, for the message.
    """
    check_size(n_parameters(spec_of(layers)), n_units(layers), shape)


def module(layers: Layers, nn: Any) -> Any:
    """Return the torch.nn.Sequential of the same layers. nn: torch.nn."""
    return Stack(layers).module(nn)


def operations(layers: Layers) -> tuple[Op, ...]:
    """Return the same as ONNX, from "input", (batch, inputs)."""
    return Stack(layers).operations("", "input")


class Layered:
    """A net behind the face of `models.nets.net.Net`. n_units: see `models.nets.size.Size`, as for at_once."""

    start: Params | None = None
    least_rows = 1

    def __init__(self, model: ModelSpec, layers: Layers) -> None:
        self.model = model
        self.layers = tuple(layers)
        self._stack = Stack(layers)
        self.spec = self._stack.tensors
        self.buffers: Spec = ()
        self.first_buffers: Beside = {}
        self.n_units = self._stack.n_units
        self.at_once = rows_at_once(self.n_units)
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
        draw: int = 0,
        only: Collection[str] | None = None,
    ) -> tuple[float, Params]:
        """See `models.nets.net.Net`. With `out` no large array is allocated once a batch of the size was seen.

        A tensor that is not in `out` does not move: its gradient is not worked out.
        """
        wanted = [name for name, _ in self.spec if only is None or name in only]
        gradients = out if out is not None else {name: np.empty_like(params[name]) for name in wanted}
        tensors = [params[tensor.name] for tensor in self.spec]
        scratch = scratch_of(self)
        ran = self._stack.run(Place(scratch, "", draw=draw, free=False), tensors, X, free=False)
        raw = scratch.array("outputs", shape=ran.a.shape)
        raw[...] = ran.a
        loss, da = self._loss.gradient(raw, y, weights)
        da *= scale
        moves = [gradients.get(t.name) if only is None or t.name in only else None for t in self.spec]
        self._stack.back(ran.places, tensors, moves, da, first=True)
        return loss, gradients

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        with quietly():
            return self._loss.answer(self._outputs(params, X))

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        with quietly():
            return measure_all(self._loss, lambda some: self._outputs(params, some), X, y)

    def _outputs(self, params: Params, X: Float32) -> Float32:
        outputs = np.empty((len(X), self.model.outputs), np.float32)
        tensors = [params[tensor.name] for tensor in self.spec]
        place = Place(Scratch(), "", draw=None, free=False)  # room for a few rows, gone afterwards
        for start in range(0, len(X), self.at_once):
            rows = slice(start, start + self.at_once)
            outputs[rows] = self._stack.run(place, tensors, X[rows], free=False).a
        return outputs


def numpy_net(spec: type[S], layers: Callable[[S], Layers]) -> Callable[[ModelSpec], Layered]:
    """Return what builds the net of a kind, for its row in the table."""
    return lambda model: Layered(model, layers(spec.of(model)))
