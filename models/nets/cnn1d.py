"""A net of convolutions along time, for windows of a series: `length` moments of `columns` numbers each."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from models.nets import layered
from models.nets.convolutional import ConvolutionalSpec, layers
from models.nets.layered import numpy_net
from models.nets.layers.layer import Shape
from models.nets.op import Op


class Cnn1dSpec(
    ConvolutionalSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="cnn1d"
):
    """What a job says of it: `columns`, and what every net of convolutions has."""

    columns: Annotated[int, Meta(ge=1, le=100_000)] = 1
    """Numbers of each moment; a window is as long as `inputs` has room for."""

    def __post_init__(self) -> None:
        """Raise ValueError, with the key's name."""
        if self.inputs % self.columns:
            raise ValueError(
                f"options.columns = {self.columns}: inputs = {self.inputs} is no multiple of it: a window has length x "
                "columns inputs"
            )
        super().__post_init__()

    @property
    def example(self) -> Shape:
        """Return (length, columns)."""
        return self.inputs // self.columns, self.columns

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """See `NetSpec`."""
        return (self.example,)


net = numpy_net(Cnn1dSpec, layers)
"""The net that NumPy computes."""


def module(spec: Cnn1dSpec, nn: Any) -> Any:
    """Return the torch.nn.Sequential of the same layers. nn: torch.nn, which this file does without."""
    return layered.module(layers(spec), nn)


def operations(spec: Cnn1dSpec) -> tuple[Op, ...]:
    """Return the same as ONNX."""
    return layered.operations(layers(spec))
