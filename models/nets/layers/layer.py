"""What a layer is, and what it works in.

    x ──forward──▶ a        what backward needs of a batch, the layer keeps in its place
    dx ◀─backward── da      and the gradient of each of its tensors

A layer holds no numbers of a net: its tensors go in and come out of every call, and what it makes on the way lies in
the place that it is given, which is used again for the next batch. So one layer may be at work in several threads.

Arrays are float32, C-contiguous, and batches come first: (n, *shape). What has a place has its channels last: a window
is (length, channels), an image (height, width, channels). Modules of Torch and ONNX graphs have channels first, since
theirs do; what flattens goes back to channels last, so that a dense layer's weight means the same everywhere.

Who may write where: `x` belongs to whom it came from, unless `place.free`; `da` is the layer's own to overwrite, and
`dx` is then its caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.nets.op import Op
from models.nets.scratch import Array, Scratch, Shape
from models.params import Float32, Spec

__all__ = ["Array", "Layer", "Place", "Scratch", "Shape"]


class Place:
    """Where one layer works on one batch: its part of the scratch, and what it keeps from forward for backward."""

    __slots__ = ("_name", "draw", "free", "kept", "scratch")

    def __init__(self, scratch: Scratch, name: str, *, draw: int | None, free: bool) -> None:
        self.scratch = scratch
        self._name = name
        self.draw = draw
        """What is drawn at random follows from it, and from nothing else; None where nobody trains."""
        self.free = free
        """Whether forward may overwrite x."""
        self.kept: Any = None
        """What the layer wants to find again in backward."""

    def array(self, what: str, shape: Shape, dtype: npt.DTypeLike = np.float32) -> Array:
        """Return scratch of this layer by what it is for; the content is anything."""
        return self.scratch.array(self._name, what, shape=shape, dtype=dtype)

    def within(self, name: str, *, free: bool) -> Place:
        """Return the place of a layer within this one. The place of a whole net has the name ""."""
        return Place(self.scratch, f"{self._name}.{name}" if self._name else name, draw=self.draw, free=free)

    @property
    def name(self) -> str:
        """The layer's name in the net: "3", "3.0"."""
        return self._name


class Layer(Protocol):
    """Pure functions over the layer's tensors. Its shapes are fixed when it is made, which raises ValueError."""

    @property
    def shape(self) -> Shape:
        """Of what it gives, an example."""

    @property
    def tensors(self) -> Spec:
        """Its parameters, by their names within it ("weight"), in the order of the torch module's."""

    @property
    def n_units(self) -> int:
        """Numbers that forward makes of one example in scratch, those on the way too: what memory hangs on."""

    @property
    def keeps_output(self) -> bool:
        """Whether its backward looks at what its forward gave: then nobody may overwrite that."""

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """Return (n, *shape)."""

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """Write the gradients of the tensors, and return that of x; None where `first`: nobody wants it.

        gradients: arrays of the tensors' shapes to be overwritten; None for a tensor that does not move.
        """

    def module(self, nn: Any) -> Any:
        """Return the torch.nn.Module that is the same, with parameters of the same names. nn: torch.nn."""

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """Return the same as ONNX, from a value; the last one gives what it gives. name: of the layer in the net, for
        its parameters (f"{name}.weight") and for all values within it.
        """
