"""Gated recurrent units over a sequence, then dense layers: classes of windows, or forecasts.

rows (length * columns) ─ Gru, in layers ─ [norm] ─ [dropout] ─ dense layers, as in an mlp ─ outputs
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from models.nets.layered import Layers, n_units, numpy_net, spec_of
from models.nets.layered import module as module_of
from models.nets.layered import operations as operations_of
from models.nets.layers.activation import Activation
from models.nets.layers.dense import Dense
from models.nets.layers.gru import Gru, Head
from models.nets.layers.layer import Layer
from models.nets.net import NetSpec, check_size
from models.nets.op import Op
from models.params import n_parameters


class GruSpec(NetSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="gru"):
    """What a job says of a recurrent net. A row is a sequence, moment after moment: inputs = length * columns."""

    hidden: tuple[int, ...] = ()
    """Units of each dense layer between the last state and the outputs."""
    activation: Literal["relu", "tanh"] = "relu"
    """Of these."""
    columns: Annotated[int, Meta(ge=1, le=100_000)] = 1
    """Numbers of one moment."""
    units: Annotated[int, Meta(ge=1, le=4096)] = 32
    """Of the state, in each layer."""
    layers: Annotated[int, Meta(ge=1, le=4)] = 1
    """Layers of units, each of which sees all states of the one before."""
    head: Head = "last"
    """What the dense layers see: the state after the last moment, or the mean of those after all."""

    def __post_init__(self) -> None:
        if self.inputs % self.columns:
            raise ValueError(
                f"inputs = {self.inputs} is no multiple of options.columns = {self.columns}: "
                "a row is a sequence, moment after moment, of so many numbers each"
            )
        made = layers(self)
        states = self.inputs // self.columns * self.units * self.layers
        shape = f"inputs = {self.inputs}, options.units = {self.units}, options.layers = {self.layers}, hidden"
        check_size(n_parameters(spec_of(made)), states + n_units(made[1:]), f"{shape} = {list(self.hidden)}")


def layers(spec: GruSpec) -> Layers:
    """Return the layers of the net."""
    made: list[Layer] = [Gru(spec.inputs // spec.columns, spec.columns, spec.units, spec.layers, spec.head)]
    width = spec.units
    for units in spec.hidden:
        made += [Dense(width, units), Activation(spec.activation, (units,))]
        width = units
    return (*made, Dense(width, spec.outputs))


def module(spec: GruSpec, nn: Any) -> Any:
    """Return the torch.nn.Sequential of the same layers. nn: torch.nn, which this file does without."""
    return module_of(layers(spec), nn)


def operations(spec: GruSpec) -> tuple[Op, ...]:
    """Return the same as ONNX."""
    return operations_of(layers(spec))


numpy = numpy_net(GruSpec, layers)
"""The net that NumPy computes."""
