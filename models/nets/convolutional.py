"""What nets of convolutions have in common, along one axis (cnn1d) or two (cnn2d): their keys, and the layers of them.

    for each number of channels:    convolution, norm, activation, pool
    then                            flatten or the mean over all places, dense layers of `hidden`, a dense layer

Where the largest of a pool is taken and the activation never falls, it comes after the pool: the same numbers, of
fewer places.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from msgspec import Meta

from models.nets import layered
from models.nets.activations import Name
from models.nets.layers.activation import Activation
from models.nets.layers.axis import Padding
from models.nets.layers.conv import Conv
from models.nets.layers.dense import Dense
from models.nets.layers.dropout import MOST as MOST_DROPOUT
from models.nets.layers.dropout import Dropout
from models.nets.layers.layer import Layer, Shape
from models.nets.layers.norm import GroupNorm, LayerNorm
from models.nets.layers.pool import MeanOfPlaces, Pool, Pooling
from models.nets.layers.residual import Residual
from models.nets.layers.rows import Flatten, Rows
from models.nets.layers.separable import Depthwise, Pointwise
from models.nets.net import NetSpec, check_size
from models.params import n_parameters

Places = Annotated[int, Meta(ge=1, le=1_000_000)]
"""Along an axis."""
MOST_LAYERS = 32
MOST_UNITS = 2**21
"""Of all layers together, for one example: 8 MB. How many a batch may have is between the device and its memory."""
MOST_SEEN = 2**22
"""Numbers that a convolution may see of one example, at all places: 16 MB."""
MOST_SPREAD = 2**20
"""Numbers that the weights of a depthwise convolution may be, laid out for all places of an axis: 4 MB."""
KERNEL = {1: 5, 2: 3}
"""Places along one axis, or each of two."""
RISING = ("relu", "leaky_relu", "tanh", "sigmoid")
"""Activations that never fall: of the largest they are the largest."""


class ConvolutionalSpec(NetSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The keys of both kinds. `hidden` and `activation` are the model's own; all others stand in its `options`."""

    channels: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=10_000)], ...], Meta(min_length=1, max_length=MOST_LAYERS)
    ] = (16, 32)
    """What each convolution gives for a place: one convolution for each number."""
    kernel: Places | tuple[Places, ...] | None = None
    """Places that a convolution sees at once, along each axis; one number for all convolutions, or one for each. When
    not given: `KERNEL`, or as many as there are."""
    stride: Places | tuple[Places, ...] = 1
    """From one place to the next."""
    padding: Padding = "same"
    """"same": zeros beyond the edges, so that a convolution with stride 1 gives as many places as there are."""
    pool: Places | tuple[Places, ...] | None = None
    """Places of which one is made after a convolution, along each axis; 1 for no pool. When not given: 2, where there
    are as many."""
    pooling: Pooling = "max"
    norm: Literal["none", "layer", "group"] = "none"
    """Of what a convolution gives. "layer": over the channels, at each place; "group": over all places and the channels
    of a group."""
    norm_groups: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """Of norm = "group": into so many the channels are divided."""
    dropout: Annotated[float, Meta(ge=0, le=MOST_DROPOUT)] = 0.0
    """The share of what comes into each dense layer that is dropped in training; 0 drops none."""
    residual: bool = False
    """Whether what comes into a convolution, but the first one, is added to what it gives."""
    separable: bool = False
    """Whether each convolution but the first one is done in two steps, of far fewer numbers: each channel with a kernel
    of its own, then all channels at each place."""
    head: Literal["flatten", "mean"] = "flatten"
    """What dense layers see: the channels of all places, or their mean over the places."""
    hidden: tuple[int, ...] = ()
    """Units of each dense layer before the outputs."""
    activation: Name = "relu"

    @property
    def example(self) -> Shape:
        """Return the shape of an example, channels last."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        """Raise ValueError, with the key's name, for what does not go together, and for nets too large."""
        for key in ("kernel", "stride", "pool"):
            value, n = getattr(self, key), len(self.channels)
            if isinstance(value, tuple) and len(value) != n:
                raise ValueError(
                    f"options.{key} = {list(value)}: options.channels has {n} convolutions, so say one number for all "
                    f"of them or {n} numbers"
                )
        if self.norm != "group" and self.norm_groups != 1:
            raise ValueError(f'options.norm_groups = {self.norm_groups} wants options.norm = "group"')
        for key in ("residual", "separable"):
            if getattr(self, key) and len(self.channels) < 2:
                raise ValueError(
                    f"options.{key} = true is of every convolution but the first, so options.channels has to have two "
                    "numbers or more"
                )
        if self.residual and self.padding != "same":
            raise ValueError('options.residual = true wants options.padding = "same": both have the same places then')
        made = layers(self)
        shape = f"options.channels = {list(self.channels)} at {_said(self.example)}, hidden = {list(self.hidden)}"
        check_size(n_parameters(layered.spec_of(made)), layered.n_units(made), shape, MOST_UNITS)

    def of_layer(self, key: str, i: int, places: int) -> int:
        """Return the number of a convolution, of a key that has one for all or one for each. places: that there are."""
        value = getattr(self, key)
        if value is None:
            return min(places, {"kernel": KERNEL[len(self.example) - 1], "pool": 2}[key])
        return int(value[i] if isinstance(value, tuple) else value)


def layers(spec: ConvolutionalSpec) -> tuple[Layer, ...]:
    """Return the layers of a net. Raises ValueError, with the key's name, where nothing is left of the places."""
    found: list[Layer] = [Rows(spec.example)]
    for i in range(len(spec.channels)):
        found += _block(spec, i, found[-1].shape)
    end = found[-1].shape
    found.append(Flatten(end) if spec.head == "flatten" else MeanOfPlaces(end))
    for units in (*spec.hidden, spec.outputs):
        (width,) = found[-1].shape
        found += [Dropout(spec.dropout, (width,))] if spec.dropout else []
        found += [Dense(width, units), Activation(spec.activation, (units,))]
    return tuple(found[:-1])


def _block(spec: ConvolutionalSpec, i: int, shape: Shape) -> list[Layer]:
    """Return a convolution of examples of a shape, and what comes after it."""
    places = min(shape[:-1])
    if (kernel := spec.of_layer("kernel", i, places)) > places:
        raise ValueError(
            f"options.kernel = {kernel}: convolution {i + 1} is given {_said(shape)}: say {places} or less, or a "
            "smaller options.pool or options.stride before it"
        )
    if (stride := spec.of_layer("stride", i, places)) > places:
        raise ValueError(
            f"options.stride = {stride}: convolution {i + 1} is given {_said(shape)}, so that it would look at one "
            f"alone: say {places} or less"
        )
    block = _convolution(spec, i, shape)
    found: list[Layer] = block
    if spec.residual and i:
        plain = Pointwise(shape, spec.channels[i]) if stride == 1 else Conv(shape, spec.channels[i], 1, stride)
        found = [Residual(shape, block, None if shape == block[-1].shape else plain)]
    return [*found, *_after(spec, i, block[-1].shape)]


def _convolution(spec: ConvolutionalSpec, i: int, shape: Shape) -> list[Layer]:
    """Return the convolution, in one step or two, and its norm."""
    kernel, stride = (spec.of_layer(key, i, min(shape[:-1])) for key in ("kernel", "stride"))
    if spec.separable and i:
        depthwise = Depthwise(shape, kernel, stride, spec.padding)
        if depthwise.n_spread > MOST_SPREAD:
            raise ValueError(
                f"options.kernel = {kernel}: convolution {i + 1}, which is separable, would lay {depthwise.n_spread:,} "
                f"weights out along {_said(depthwise.shape)}, where it can {MOST_SPREAD:,}: say a smaller one"
            )
        found: list[Layer] = [depthwise, Pointwise(depthwise.shape, spec.channels[i])]
    else:
        conv = Conv(shape, spec.channels[i], kernel, stride, spec.padding)
        if conv.n_seen > MOST_SEEN:
            raise ValueError(
                f"options.kernel = {kernel}: convolution {i + 1} would see {conv.n_seen:,} numbers of an example, at "
                f"{_said(conv.shape)}, where it can see {MOST_SEEN:,}: say a smaller one, or a larger options.stride"
            )
        found = [conv]
    if spec.norm == "group" and spec.channels[i] % spec.norm_groups:
        raise ValueError(
            f"options.norm_groups = {spec.norm_groups} does not divide the {spec.channels[i]} of options.channels"
        )
    if spec.norm != "none":
        given = found[-1].shape
        found.append(LayerNorm(given) if spec.norm == "layer" else GroupNorm(spec.norm_groups, given))
    return found


def _after(spec: ConvolutionalSpec, i: int, shape: Shape) -> list[Layer]:
    """Return activation and pool of what a convolution gives."""
    size = spec.of_layer("pool", i, min(shape[:-1]))
    if size > min(shape[:-1]):
        raise ValueError(
            f"options.pool = {size}: convolution {i + 1} gives {_said(shape)}, so that nothing would be left: say 1 "
            "for no pool there, or have fewer convolutions"
        )
    if size == 1:
        return [Activation(spec.activation, shape)]
    pool = Pool(shape, size, spec.pooling)
    if spec.pooling == "max" and spec.activation in RISING:
        return [pool, Activation(spec.activation, pool.shape)]
    return [Activation(spec.activation, shape), pool]


def _said(shape: Shape) -> str:
    return f"{' x '.join(map(str, shape[:-1]))} place{'' if math.prod(shape[:-1]) == 1 else 's'}"
