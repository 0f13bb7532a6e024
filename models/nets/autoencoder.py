"""An autoencoder: a net that gives its rows back through a narrow code, and so badly where they are unlike all others.

    row ──▶ hidden[0] ──▶ … ──▶ hidden[-1], the code ──▶ … ──▶ hidden[0] ──▶ row'      score = mean (row' - row)^2

The score of a row is the mean squared error of what it gives back, of the row as the net sees it: after all that
normalises it. It is what is trained, what is answered, one a row, and above a threshold a row is an anomaly; the fleet
works that out together (aggregator/calibration.py). So rows need no labels. Where they have some, 0 is a normal row and
1 an anomaly, which is not trained on.

Between dense layers is the activation, but not behind the code or at the end (Hinton and Salakhutdinov 2006, "Reducing
the dimensionality of data with neural networks", have a linear code too): hidden = [8] alone
finds principal components.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from models.nets.activations import Name
from models.nets.layered import Layers, module, numpy_net, operations
from models.nets.layers.activation import Activation
from models.nets.layers.dense import Dense
from models.nets.layers.layer import Layer
from models.nets.layers.reconstruction import Reconstruction
from models.nets.net import NetSpec, check_size
from models.nets.op import Op

LEAST_SHARE, MOST_SHARE = 0.5, 0.9999
"""Of normal rows below the threshold. Beyond, a fleet has too few rows above it to say where it is."""
MOST_NOISE = 10.0


class AutoencoderSpec(
    NetSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="autoencoder"
):
    """What a job says of an autoencoder."""

    hidden: tuple[int, ...] = ()
    """Units of each layer up to the code, which is the last; behind it they come once more, mirrored."""
    activation: Name = "relu"
    loss: Literal["reconstruction"] = "reconstruction"
    """Its own, and no other."""
    noise: float = 0.0
    """Standard deviation of what is added to the inputs in training, as the net sees them."""
    normal_share: float = 0.99
    """Share of the fleet's normal rows that are below the threshold; the others are false alarms."""

    def __post_init__(self) -> None:
        if self.outputs != 1:
            raise ValueError(
                f"outputs = {self.outputs}: an autoencoder gives its {self.inputs} inputs back and answers one score a "
                "row: leave outputs out"
            )
        if not self.hidden:
            raise ValueError("hidden is missing: say how wide the layers up to the code are, as in hidden = [32, 8]")
        if not 0.0 <= self.noise <= MOST_NOISE:
            raise ValueError(f"options.noise = {self.noise:g} is not within 0 and {MOST_NOISE:g}")
        if not LEAST_SHARE <= self.normal_share <= MOST_SHARE:
            raise ValueError(
                f"options.normal_share = {self.normal_share:g} is not within {LEAST_SHARE:g} and {MOST_SHARE:g}"
            )
        if self.hidden[-1] >= self.inputs and not self.noise:
            raise ValueError(
                f"hidden ends with a code of {self.hidden[-1]} units for inputs = {self.inputs}: so every row can be "
                "given back as it is, and none is an anomaly: have fewer there, or options.noise above 0"
            )
        widths = widths_of(self)
        n_parameters = sum((n_in + 1) * n_out for n_in, n_out in pairwise(widths))
        check_size(n_parameters, sum(widths[1:]), f"inputs = {self.inputs}, hidden = {list(self.hidden)}")


def widths_of(spec: AutoencoderSpec) -> tuple[int, ...]:
    """Return the widths from the inputs through the code and back."""
    return (spec.inputs, *spec.hidden, *reversed(spec.hidden[:-1]), spec.inputs)


def layers_of(spec: AutoencoderSpec) -> Layers:
    """Return the one layer that it is: encoder and decoder, held against their rows."""
    layers: list[Layer] = []
    pairs = list(pairwise(widths_of(spec)))
    for i, (n_in, n_out) in enumerate(pairs):
        layers.append(Dense(n_in, n_out))
        if i not in (len(spec.hidden) - 1, len(pairs) - 1):
            layers.append(Activation(spec.activation, (n_out,)))
    return (Reconstruction(spec.inputs, layers, spec.noise),)


def torch_module(spec: AutoencoderSpec, nn: Any) -> Any:
    """Return the module of torch.nn that is the same."""
    return module(layers_of(spec), nn)


def onnx_operations(spec: AutoencoderSpec) -> tuple[Op, ...]:
    """Return the same as ONNX."""
    return operations(layers_of(spec))


Autoencoder = numpy_net(AutoencoderSpec, layers_of)
"""What builds the net of a ModelSpec of kind "autoencoder"."""
