"""A net of convolutions over images: `height` rows of `width` places, with one number each or, in colour, several."""

from __future__ import annotations

import math
from typing import Annotated, Any

from msgspec import Meta

from models.nets import layered
from models.nets.convolutional import ConvolutionalSpec, layers
from models.nets.layered import numpy_net
from models.nets.layers.layer import Shape
from models.nets.op import Op

Side = Annotated[int, Meta(ge=0, le=100_000)]


class Cnn2dSpec(
    ConvolutionalSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="cnn2d"
):
    """What a job says of it: `height` and `width`, and what every net of convolutions has."""

    height: Side = 0
    """Rows of an image. Where neither is said, an image is square and grey."""
    width: Side = 0
    """Places of a row. An image has as many channels as `inputs` has room for."""

    def __post_init__(self) -> None:
        """Raise ValueError, with the key's name."""
        height, width = self.size
        if not (height and width):
            raise ValueError(
                f"inputs = {self.inputs}: say options.height and options.width of the images, both; their channels are "
                "inputs / (height * width)"
            )
        if self.inputs % (height * width):
            raise ValueError(
                f"options.height = {height}, options.width = {width}: inputs = {self.inputs} is no multiple of "
                f"{height * width}: an image has height * width * channels inputs"
            )
        super().__post_init__()

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width; 0 for one that is not known."""
        side = math.isqrt(self.inputs)
        if (self.height, self.width) == (0, 0) and side * side == self.inputs:
            return side, side
        return self.height, self.width

    @property
    def example(self) -> Shape:
        """Return (height, width, channels)."""
        height, width = self.size
        return height, width, self.inputs // (height * width)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """See `NetSpec`. Grey images may be without an axis for their one channel."""
        return (self.example, self.example[:2]) if self.example[2] == 1 else (self.example,)


net = numpy_net(Cnn2dSpec, layers)
"""The net that NumPy computes."""


def module(spec: Cnn2dSpec, nn: Any) -> Any:
    """Return the torch.nn.Sequential of the same layers. nn: torch.nn, which this file does without."""
    return layered.module(layers(spec), nn)


def operations(spec: Cnn2dSpec) -> tuple[Op, ...]:
    """Return the same as ONNX."""
    return layered.operations(layers(spec))
