"""What a net is: pure, its parameters go in and come out of every call."""

from __future__ import annotations

from typing import Protocol

from models.job import ModelSpec
from models.nets.losses import Labels, Metrics
from models.params import Float32, Params, Spec


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
