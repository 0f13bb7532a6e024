"""The net of a made-up world: a multilayer perceptron of very few numbers, and what may be wrong with it.

It is registered as a factory would be, so that jobs name it, and asks its world at every call: how long it takes, and
whether it throws, diverges or lies. A job is *poisoned* by a word in its model's options:

    place:   build, train (on devices), evaluate (at the server)
    how:     raise, shape (gradients or metrics of another shape), kill (the process dies, as for want of memory)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from models.job import ModelSpec
from models.nets import table as nets
from models.nets.losses import Labels, Metrics
from models.nets.mlp import Mlp
from models.params import Float32, Params

KIND = "fleet.world:net"
INPUTS, OUTPUTS = 4, 2


class PoisonError(RuntimeError):
    """What a poisoned job's own code throws."""


class Surroundings(Protocol):
    """What the net asks its world."""

    def computes(self, place: str, poison: str) -> float:
        """Let the time pass that this takes, or throw; give what gradients are multiplied by."""


_world: Surroundings | None = None


@contextmanager
def surrounded_by(world: Surroundings) -> Iterator[None]:
    """Have the net ask this world, for the length of a block."""
    global _world  # as the registry of nets is: one world runs at a time
    before, _world = _world, world
    nets.NETS[KIND] = nets.NETS["mlp"]._replace(numpy=ToyNet)
    try:
        yield
    finally:
        _world = before
        if before is None:
            del nets.NETS[KIND]


def model(poison: str = "", hidden: tuple[int, ...] = ()) -> ModelSpec:
    """Return the model of a job. poison: "place:how", or nothing."""
    return ModelSpec(KIND, INPUTS, hidden, OUTPUTS, options={"poison": poison} if poison else {})


class ToyNet(Mlp):
    """A multilayer perceptron that asks its world first."""

    def __init__(self, model: ModelSpec) -> None:
        super().__init__(model)
        self._poison = str(model.options.get("poison", ""))
        self._ask("build")

    def _ask(self, place: str) -> float:
        return 1.0 if _world is None else _world.computes(place, self._poison)

    def loss_and_gradients(
        self,
        params: Params,
        X: Float32,
        y: Labels,
        *,
        weights: Float32 | None = None,
        scale: float = 1.0,
        out: Params | None = None,
        draw: int = 0,
        only: Collection[str] | None = None,
    ) -> tuple[float, Params]:
        """See `models.nets.net.Net`."""
        factor = self._ask("train")
        loss, gradients = super().loss_and_gradients(
            params, X, y, weights=weights, scale=scale * factor, out=out, draw=draw, only=only
        )
        if self._poison == "train:shape":
            gradients = {name: np.zeros((3, 3), np.float32) for name in gradients}
        return loss * factor, gradients

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        self._ask("evaluate")
        if self._poison == "evaluate:shape":
            X = X[:, :-1]
        return super().evaluate(params, X, y)
