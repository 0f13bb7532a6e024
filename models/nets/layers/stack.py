"""Layers one after the other: what a net is made of, and what stands within a residual connection.

Layer i of a stack is named "i" within it, as in torch.nn.Sequential.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from models.nets.layers.layer import Layer, Place, Shape
from models.nets.op import Op
from models.params import Float32, Spec, TensorSpec


class Ran(NamedTuple):
    """A batch that went forward through a stack."""

    a: Float32
    free: bool
    """Whether who gets `a` may overwrite it: no layer looks at it again, and it is no view of an x that is not free."""
    places: list[Place]
    """Of each layer, for the way back."""


class Stack:
    """See `models.nets.layers.layer.Layer`. There is at least one layer."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.shape: Shape = self.layers[-1].shape
        self.tensors: Spec = tuple(
            TensorSpec(f"{i}.{tensor.name}", tensor.shape)
            for i, layer in enumerate(self.layers)
            for tensor in layer.tensors
        )
        self.n_units = sum(layer.n_units for layer in self.layers)
        self.keeps_output = any(layer.keeps_output for layer in self.layers)  # the last ones may give views
        ends = list(accumulate(len(layer.tensors) for layer in self.layers))
        self._own = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def run(self, place: Place, tensors: Sequence[Float32], x: Float32, *, free: bool) -> Ran:
        """Return what `forward` gives, and what `back` needs. free: whether x may be overwritten."""
        places: list[Place] = []
        for i, layer in enumerate(self.layers):
            places.append(place.within(str(i), free=free))
            a = layer.forward(places[-1], tensors[self._own[i]], x)
            free = not layer.keeps_output and (free or not np.may_share_memory(a, x))
            x = a
        return Ran(x, free, places)

    def back(
        self,
        places: Sequence[Place],
        tensors: Sequence[Float32],
        gradients: Sequence[Float32 | None],
        da: Float32,
        *,
        first: bool,
    ) -> Float32 | None:
        """Do what `backward` does, in the places of a run: as far as anybody wants a gradient."""
        moving = [i for i, own in enumerate(self._own) if any(g is not None for g in gradients[own])]
        lowest = (moving[0] if moving else len(self.layers)) if first else 0
        for i in reversed(range(lowest, len(self.layers))):
            own, last = self._own[i], first and i == lowest
            given = self.layers[i].backward(places[i], tensors[own], gradients[own], da, first=last)
            if given is None:
                return None
            da = given
        return None if first else da

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        ran = self.run(place, tensors, x, free=place.free)
        place.kept = ran.places
        return ran.a

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """See `Layer`."""
        return self.back(place.kept, tensors, gradients, da, first=first)

    def module(self, nn: Any) -> Any:
        """Return the torch.nn.Sequential of the same layers. nn: torch.nn."""
        return nn.Sequential(*(layer.module(nn) for layer in self.layers))

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`. name: "" for a whole net."""
        found: list[Op] = []
        for i, layer in enumerate(self.layers):
            ops = layer.operations(f"{name}.{i}" if name else str(i), value)
            found += ops
            value = ops[-1].output if ops else value
        return tuple(found)
