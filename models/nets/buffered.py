"""A net with the buffers of one version: who calls it gives the parameters alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.buffers import Buffers
from models.nets.around import Around
from models.nets.losses import Labels, Metrics
from models.nets.net import Net
from models.params import Float32, Params

if TYPE_CHECKING:
    pass


def buffered(net: Net, buffers: Buffers) -> Net:
    """Return the net that has these buffers where a call is given none; the net itself where there are none."""
    return Buffered(net, buffers) if buffers else net


class Buffered(Around):
    """A net behind the face of `models.nets.net.Net`."""

    def __init__(self, net: Net, buffers: Buffers) -> None:
        super().__init__(net)
        self._own = buffers.params()

    def loss_and_gradients(self, params: Params, X: Float32, y: Labels, **how: Any) -> tuple[float, Params]:
        """See `models.nets.net.Net`."""
        return self._net.loss_and_gradients(self._own | params, X, y, **how)

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        return self._net.predict(self._own | params, X)

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        return self._net.evaluate(self._own | params, X, y)
