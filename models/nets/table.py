"""What a net is, and the one list of them.

A net is pure: its parameters go in and come out of every call. The same ModelSpec may be computed by NumPy or by
Torch; names, order and shapes of the parameters are the same. This module loads neither torch nor onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Protocol

from models.job import ModelSpec
from models.nets.losses import Labels, Metrics
from models.nets.mlp import Mlp
from models.params import Float32, Params, Spec

__all__ = ["NETS", "Labels", "Metrics", "ModelError", "Net", "build", "framework_of"]


class ModelError(ValueError):
    """A model that cannot be built here; the message says what to change."""


class Net(Protocol):
    """Pure functions over explicit params (float32, in the order of `spec`).

    X is float32 (n, inputs), or (n, ...) as a factory's module wants it; y is int64 (n,) in 0..outputs-1 for
    cross_entropy and float32 (n, outputs) for mse (`models.data.dataset.fit` gives both). n is at least 1.
    """

    @property
    def model(self) -> ModelSpec:
        """What it was built from: inputs, outputs and loss say what data it takes."""

    @property
    def spec(self) -> Spec:
        """Names and shapes of the parameters, in their order."""

    def loss_and_gradients(
        self, params: Params, X: Float32, y: Labels, *, scale: float = 1.0, out: Params | None = None
    ) -> tuple[float, Params]:
        """Return the mean loss over the batch and `scale` times its gradient by every parameter.

        Scaling costs least at the outputs, where the gradient is smallest: SGD passes its learning rate.
        `out`: arrays of the spec's shapes that it may overwrite and give back instead of allocating. The loss may
        be nan or inf; it is the caller's to look.
        """

    def predict(self, params: Params, X: Float32) -> Float32:
        """Return (n, outputs) float32: softmax probabilities for cross_entropy, the raw outputs for mse."""

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """Return mean loss, accuracy where the labels are classes, and n."""


NETS: dict[str, Callable[[ModelSpec], Net]] = {"mlp": Mlp}
"""Kinds that NumPy computes. Torch computes them too, and whatever a factory makes."""


def framework_of(model: ModelSpec, preferred: str = "numpy") -> str:
    """Say who computes it, "numpy" or "torch": the model's word first, then the device's preference."""
    if model.kind not in NETS:
        return "torch"
    return preferred if model.framework == "any" else model.framework


def build(model: ModelSpec, *, framework: str = "numpy", allow: Sequence[str] = ()) -> Net:
    """Build the net of a model.

    framework: what this machine prefers where the model leaves it open. allow: the "package.module:factory"
    strings that may run here, since a factory is code. Raises ModelError if the kind is not allowed, Torch is
    wanted and missing, or the factory does not give a module.
    """
    if model.kind not in NETS and model.kind not in allow:
        raise ModelError(
            f'model.kind = "{model.kind}" names code that may not run here: '
            "if you trust it, add it to allow in [models] of agent.toml (or aggregator.toml)"
        )
    if framework_of(model, framework) == "numpy":
        return NETS[model.kind](model)
    if find_spec("torch") is None:
        raise ModelError(f'model.kind = "{model.kind}" needs Torch here: pip install "fedge[torch]"')
    from models.nets.torch_net import build_torch  # here alone: it loads torch, which most devices do without

    return build_torch(model)
