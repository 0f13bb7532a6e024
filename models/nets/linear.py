"""One dense layer: softmax regression for classes, linear regression for values.

It is a torch.nn.Linear, down to the names ("weight", "bias") and shapes (weight: outputs x inputs), and, to rounding,
loss and gradients, so that one fleet may mix NumPy and Torch. float32 throughout.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from models.nets import losses
from models.nets.batches import quietly
from models.nets.losses import Labels, Metrics, measure_all
from models.nets.net import NetSpec, check_size
from models.nets.op import Op
from models.nets.scratch import scratch_of
from models.params import Beside, Float32, Params, Spec, TensorSpec

if TYPE_CHECKING:
    from models.job import ModelSpec


class LinearSpec(NetSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="linear"):
    """What a job says of one dense layer: nothing beside what every net has."""

    def __post_init__(self) -> None:
        shape = f"inputs = {self.inputs}, outputs = {self.outputs}"
        check_size((self.inputs + 1) * self.outputs, self.outputs, shape)


def module(spec: LinearSpec, nn: Any) -> Any:
    """Return the torch.nn.Linear. nn: torch.nn, which this file does without."""
    return nn.Linear(spec.inputs, spec.outputs)


def operations(spec: LinearSpec) -> tuple[Op, ...]:  # noqa: ARG001  (the shapes are those of the parameters)
    """Return the one Gemm."""
    return (Op("Gemm", ("input", "weight", "bias"), "output", {"transB": 1}),)


class Linear:
    """The net of a ModelSpec of kind "linear". Holds no state: everything is a function of params and data."""

    start: Params | None = None
    least_rows = 1

    def __init__(self, model: ModelSpec) -> None:
        self.model = model
        self.spec = (TensorSpec("weight", (model.outputs, model.inputs)), TensorSpec("bias", (model.outputs,)))
        self.buffers: Spec = ()
        self.first_buffers: Beside = {}
        self.n_units = model.outputs
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
        draw: int = 0,  # noqa: ARG002  (nothing is drawn at random)
        only: Collection[str] | None = None,
    ) -> tuple[float, Params]:
        """See `models.nets.net.Net`. With d (n, outputs) the gradient by the outputs: d^T X, and d's sum by column."""
        raw = scratch_of(self).array("outputs", shape=(len(X), self.model.outputs))
        loss, delta = self._loss.gradient(_outputs(params, X, raw), y, weights)
        delta *= scale
        wanted = [name for name, _ in self.spec if only is None or name in only]
        gradients = out if out is not None else {name: np.empty_like(params[name]) for name in wanted}
        if "weight" in wanted and "weight" in gradients:
            np.matmul(delta.T, X, out=gradients["weight"])
        if "bias" in wanted and "bias" in gradients:
            np.add.reduce(delta, axis=0, out=gradients["bias"])
        return loss, gradients

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        with quietly():
            return self._loss.answer(_outputs(params, X))

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        with quietly():
            return measure_all(self._loss, lambda some: _outputs(params, some), X, y)


def _outputs(params: Params, X: Float32, out: Float32 | None = None) -> Float32:
    """Return the raw outputs, X weight^T + bias, (n, outputs) float32, in `out` where that is given."""
    outputs: Float32 = np.matmul(X, params["weight"].T, out=out)
    outputs += params["bias"]
    return outputs
