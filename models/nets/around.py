"""What a net around another one passes on: all that is not about rows and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.nets.net import Net
from models.params import Beside, Params, Spec

if TYPE_CHECKING:
    from models.job import ModelSpec


class Around:
    """The part of `models.nets.net.Net` that is the inner net's own."""

    def __init__(self, net: Net) -> None:
        self._net = net

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
