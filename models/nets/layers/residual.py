"""A residual connection around layers (He et al. 2016): a = f(x) + x, or f(x) + P x where the shapes differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.nets.layers.layer import Layer, Place, Shape
from models.nets.layers.stack import Stack
from models.nets.op import Op
from models.params import Float32, Spec, TensorSpec


class Residual:
    """See `models.nets.layers.layer.Layer`. x: (n, *shape of inputs).

    The layers within are named "0", "1", ... in it; the projection is named "projection". Raises ValueError where what
    is added has another shape than what it is added to.
    """

    keeps_output = False

    def __init__(self, inputs: Shape, layers: Sequence[Layer], projection: Layer | None = None) -> None:
        self._within, self._projection = Stack(layers), projection
        self.shape = self._within.shape
        if (skipped := inputs if projection is None else projection.shape) != self.shape:
            raise ValueError(f"a residual connection adds {skipped} to {self.shape}: a projection has to fit them")
        own: Spec = () if projection is None else projection.tensors
        self.tensors: Spec = self._within.tensors + tuple(TensorSpec(f"projection.{t.name}", t.shape) for t in own)
        self.n_units = self._within.n_units + (0 if projection is None else projection.n_units)
        self._n_within = len(self._within.tensors)

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        n = self._n_within
        ran = self._within.run(place, tensors[:n], x, free=False)
        projected = place.within("projection", free=False)
        skipped = x if self._projection is None else self._projection.forward(projected, tensors[n:], x)
        place.kept = ran.places, projected
        return np.add(ran.a, skipped, out=ran.a if ran.free else place.array("a", ran.a.shape))

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """See `Layer`."""
        places, projected = place.kept
        n, skipped = self._n_within, da
        if self._projection is not None or not first:  # the layers within overwrite da
            skipped = place.array("da", da.shape)
            skipped[...] = da
        dx = self._within.back(places, tensors[:n], gradients[:n], da, first=first)
        by_skip: Float32 | None = skipped
        if self._projection is not None:
            by_skip = self._projection.backward(projected, tensors[n:], gradients[n:], skipped, first=first)
        if first or dx is None or by_skip is None:
            return None
        dx += by_skip
        return dx

    def module(self, nn: Any) -> Any:
        """See `Layer`."""

        class Added(nn.Module):  # type: ignore[misc]
            def __init__(self, within: Any, projection: Any) -> None:
                super().__init__()
                for name, part in within.named_children():
                    self.add_module(name, part)
                self.within = [part for _, part in within.named_children()]
                if projection is not None:
                    self.projection = projection

            def forward(self, x: Any) -> Any:
                a = x
                for part in self.within:
                    a = part(a)
                return a + (self.projection(x) if hasattr(self, "projection") else x)

        return Added(self._within.module(nn), None if self._projection is None else self._projection.module(nn))

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`."""
        within = self._within.operations(name, value)
        beside = () if self._projection is None else self._projection.operations(f"{name}.projection", value)
        given, skipped = ((ops[-1].output if ops else value) for ops in (within, beside))
        return (*within, *beside, Op("Add", (given, skipped), f"{name}.output"))
