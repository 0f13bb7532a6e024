"""A net with the buffers of one version: who calls it gives the parameters alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.buffers import Buffers
from models.nets.losses import Labels, Metrics
from models.nets.net import Net
from models.params import Beside, Float32, Params, Spec

if TYPE_CHECKING:
    from models.job import ModelSpec


def buffered(net: Net, buffers: Buffers) -> Net:
    """Return the net that has these buffers where a call is given none; the net itself where there are none."""
    return Buffered(net, buffers) if buffers else net


class Buffered:
    """A net behind the face of `models.nets.net.Net`."""

    def __init__(self, net: Net, buffers: Buffers) -> None:
        self._net = net
        self._own = buffers.params()

    @property
    def model(self) -> ModelSpec:
        """See `models.nets.net.Net`."""
        return self._net.model

    @property
    def spec(self) -> Spec:
        """See `models.nets.net.Net`."""
        return self._net.spec

    @property
    def start(self) -> Params | None:
        """See `models.nets.net.Net`."""
        return self._net.start

    @property
    def least_rows(self) -> int:
        """See `models.nets.net.Net`."""
        return self._net.least_rows

    @property
    def buffers(self) -> Spec:
        """See `models.nets.net.Net`."""
        return self._net.buffers

    @property
    def first_buffers(self) -> Beside:
        """See `models.nets.net.Net`."""
        return self._net.first_buffers

    def loss_and_gradients(self, params: Params, X: Float32, y: Labels, **how: Any) -> tuple[float, Params]:
        """See `models.nets.net.Net`."""
        return self._net.loss_and_gradients(self._own | params, X, y, **how)

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        return self._net.predict(self._own | params, X)

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        return self._net.evaluate(self._own | params, X, y)
