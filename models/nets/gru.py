"""Gated recurrent units over a sequence, then dense layers: classes of windows, or forecasts.

rows (length * columns) ─ Gru, in layers ─ [norm] ─ [dropout] ─ the layers of an mlp ─ outputs
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from models.nets import layered, mlp
from models.nets.activations import Name
from models.nets.layers.dropout import MOST as MOST_DROPOUT
from models.nets.layers.dropout import Dropout
from models.nets.layers.gru import Gru, Head
from models.nets.layers.layer import Layer, Shape
from models.nets.layers.norm import LayerNorm
from models.nets.net import NetSpec, check_size
from models.nets.op import Op
from models.params import n_parameters


class GruSpec(NetSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="gru"):
    """What a job says of a recurrent net. A row is a sequence, moment after moment: inputs = length * columns."""

    hidden: tuple[int, ...] = ()
    """Units of each dense layer between the states and the outputs."""
    activation: Name = "relu"
    """Of these."""
    columns: Annotated[int, Meta(ge=1, le=100_000)] = 1
    """Numbers of one moment."""
    units: Annotated[int, Meta(ge=1, le=4096)] = 32
    """Of the state, in each layer."""
    layers: Annotated[int, Meta(ge=1, le=4)] = 1
    """Layers of units, each of which sees all states of the one before."""
    head: Head = "last"
    """What the dense layers see: the state after the last moment, or the mean of those after all."""
    norm: Literal["none", "layer"] = "none"
    """"layer": what the dense layers see is normalised over its units, and so is what each hidden one of them gives."""
    dropout: Annotated[float, Meta(ge=0, le=MOST_DROPOUT)] = 0.0
    """The share of these numbers that is dropped in training; 0 drops none."""

    def __post_init__(self) -> None:
        if self.inputs % self.columns:
            raise ValueError(
                f"inputs = {self.inputs} is no multiple of options.columns = {self.columns}: "
                "a row is a sequence, moment after moment, of so many numbers each"
            )
        made = layers(self)
        states = self.inputs // self.columns * self.units * self.layers
        shape = f"inputs = {self.inputs}, options.units = {self.units}, options.layers = {self.layers}, hidden"
        n_units = states + layered.n_units(made[1:])
        check_size(n_parameters(layered.spec_of(made)), n_units, f"{shape} = {list(self.hidden)}")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """See `NetSpec`: moment after moment."""
        return ((self.inputs // self.columns, self.columns),)


def layers(spec: GruSpec) -> tuple[Layer, ...]:
    """Return the layers of the net."""
    made: list[Layer] = [Gru(spec.inputs // spec.columns, spec.columns, spec.units, spec.layers, spec.head)]
    made += [LayerNorm((spec.units,))] if spec.norm == "layer" else []
    made += [Dropout(spec.dropout, (spec.units,))] if spec.dropout else []
    head = mlp.MlpSpec(
        inputs=spec.units,
        hidden=spec.hidden,
        outputs=spec.outputs,
        activation=spec.activation,
        norm=spec.norm if spec.hidden else "none",
        dropout=spec.dropout if spec.hidden else 0.0,
    )
    return (*made, *mlp.layers(head))


def module(spec: GruSpec, nn: Any) -> Any:
    """Return the torch.nn.Sequential of the same layers. nn: torch.nn, which this file does without."""
    return layered.module(layers(spec), nn)


def operations(spec: GruSpec) -> tuple[Op, ...]:
    """Return the same as ONNX."""
    return layered.operations(layers(spec))


net = layered.numpy_net(GruSpec, layers)
"""The net that NumPy computes."""
