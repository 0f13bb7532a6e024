"""A net of which a part stays as it is: the rest is trained and travels, behind the same face.

    [train] freeze = ["0.*"]                     all but these is trained
    [train] only = ["4.*"]                       these alone
    [train] adapter = { rank = 4, alpha = 8.0 }  of each chosen tensor W only B A, and beside it what `only` names

An adapter (Hu et al. 2021, LoRA, section 4.1) has, for a tensor W of shape (out, ...), flattened to (out, rest),

    W' = W + (alpha / rank) B A        A: W.adapter.down, (rank, rest);   B: W.adapter.up, (out * rank,), row by row
    dB = (alpha / rank) G A^T          G: the gradient by W'
    dA = (alpha / rank) B^T G

B has one axis, so that version 0 has zeros there and random numbers in A, as all nets (models/lattice.py): W' is W
then. Any net can be adapted, whoever computes it: what it is given is W'. Biases and whole tensors pass through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.lattice import initial
from models.nets.losses import Labels, Metrics
from models.nets.mlp import quietly
from models.params import Float32, Params, Spec, TensorSpec, n_parameters

if TYPE_CHECKING:
    from models.job import AdapterSpec, ModelSpec, TrainSpec
    from models.nets.net import Net

DOWN, UP = "adapter.down", "adapter.up"
NAMED = 300
"""Characters of the names of tensors in a message."""


class Adapter(NamedTuple):
    """What is trained of one tensor. scale: alpha / rank."""

    tensor: TensorSpec
    rank: int
    scale: float

    @property
    def down(self) -> TensorSpec:
        """A, (rank, rest)."""
        return TensorSpec(f"{self.tensor.name}.{DOWN}", (self.rank, self.tensor.size // self.tensor.shape[0]))

    @property
    def up(self) -> TensorSpec:
        """B, (out, rank) in one row."""
        return TensorSpec(f"{self.tensor.name}.{UP}", (self.tensor.shape[0] * self.rank,))

    def change(self, params: Params) -> Float32:
        """Return (alpha / rank) B A, of the tensor's shape."""
        up = params[self.up.name].reshape(self.tensor.shape[0], self.rank) * np.float32(self.scale)
        found: Float32 = np.matmul(up, params[self.down.name])
        return found.reshape(self.tensor.shape)

    def gradients(self, params: Params, gradient: Float32) -> Iterable[tuple[str, Float32]]:
        """Return the gradients by A and by B. gradient: by the whole tensor, of its shape."""
        by = gradient.reshape(self.tensor.shape[0], -1)
        up = params[self.up.name].reshape(self.tensor.shape[0], self.rank)
        scale = np.float32(self.scale)
        yield self.down.name, scale * (up.T @ by)
        yield self.up.name, (scale * (by @ params[self.down.name].T)).reshape(-1)


class Plan(NamedTuple):
    """Which tensors of a net stay as they are, and what is trained."""

    frozen: Spec
    """Those that stay, in the net's order; of adapted ones it is what is adapted."""
    trained: Spec
    """What is trained and travels, in the net's order: whole tensors, and of adapted ones A and B."""
    adapters: tuple[Adapter, ...]

    @property
    def whole(self) -> tuple[str, ...]:
        """The names of the tensors that are trained whole."""
        ours = {tensor.name for adapter in self.adapters for tensor in (adapter.down, adapter.up)}
        return tuple(tensor.name for tensor in self.trained if tensor.name not in ours)

    @property
    def n_adapted(self) -> int:
        """Coordinates of all adapted tensors together."""
        return sum(adapter.tensor.size for adapter in self.adapters)


def plan(train: TrainSpec, spec: Spec, by_code: Collection[str] = ()) -> Plan | None:
    """Return what is trained of a net; None where that is all of it.

    spec: of the whole net. by_code: the tensors that its own code has frozen, which are trained in no case. Raises
    ValueError, with the key and the names of the tensors, where a pattern is of no tensor, nothing is left to train, or
    an adapter does not fit.
    """
    free = [tensor.name for tensor in spec if tensor.name not in by_code]
    if train.adapter is None:
        whole = _left(train, spec, free)
    else:
        free = free if by_code else []  # code that has frozen some has meant the others
        whole = _matched(train.only, "only", spec) if train.only else set(free)
    whole -= set(by_code)
    adapters = () if train.adapter is None else _adapters(train.adapter, spec, whole)
    if not whole and not adapters:
        raise ValueError(f"[train] nothing is left to train: every tensor of the net is frozen ({_names(spec)})")
    if len(whole) == len(spec):
        if train.base:
            raise ValueError("[train] base: no tensor of the net is frozen, so there is nothing to have from it")
        return None
    by_name = {adapter.tensor.name: adapter for adapter in adapters}
    trained: list[TensorSpec] = []
    for tensor in spec:
        if tensor.name in by_name:
            trained += (by_name[tensor.name].down, by_name[tensor.name].up)
        elif tensor.name in whole:
            trained.append(tensor)
    return Plan(tuple(tensor for tensor in spec if tensor.name not in whole), tuple(trained), adapters)


def _left(train: TrainSpec, spec: Spec, free: list[str]) -> set[str]:
    """Return the names of what is trained where there are no adapters."""
    if train.only:
        return _matched(train.only, "only", spec)
    return set(free) - _matched(train.freeze, "freeze", spec)


def _matched(patterns: Iterable[str], key: str, spec: Spec) -> set[str]:
    """Return the names of the tensors that patterns are of. Raises ValueError for one that is of none."""
    found: set[str] = set()
    for pattern in patterns:
        ours = {tensor.name for tensor in spec if _is_of(pattern, tensor.name)}
        if not ours:
            raise ValueError(f"[train] {key}: no tensor is called {pattern!r}; the net has {_names(spec)}")
        found |= ours
    return found


def _is_of(pattern: str, name: str) -> bool:
    """Return whether a pattern is of a tensor: of its name, or of a module that holds it."""
    levels = name.split(".")
    return any(fnmatchcase(".".join(levels[:n]), pattern) for n in range(1, len(levels) + 1))


def _names(spec: Spec) -> str:
    names = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in spec)
    return names if len(names) <= NAMED else f"{names[:NAMED]} …"


def _adapters(said: AdapterSpec, spec: Spec, whole: set[str]) -> tuple[Adapter, ...]:
    """Return the adapters. Raises ValueError."""
    wide = tuple(tensor for tensor in spec if len(tensor.shape) > 1)
    chosen: set[str] = set()
    for pattern in said.layers:
        ours = {tensor.name for tensor in wide if _is_of(pattern, tensor.name)}
        if not ours:
            flat = any(_is_of(pattern, tensor.name) for tensor in spec)
            what = "has only tensors of one axis, which have no rank" if flat else "is no tensor"
            raise ValueError(f"[train.adapter] layers: {pattern!r} {what}; the net has {_names(spec)}")
        chosen |= ours
    found = []
    scale = (said.rank if said.alpha is None else said.alpha) / said.rank
    for tensor in wide:
        if tensor.name not in chosen - whole:
            continue
        smaller = min(tensor.shape[0], tensor.size // max(1, tensor.shape[0]))
        if said.rank > smaller:
            raise ValueError(
                f"[train.adapter] rank = {said.rank} is more than the smaller side of {tensor.name}, {smaller} of "
                f"{tensor.shape}: choose a lower rank, and alpha with it, other layers, or train it whole by only in "
                "[train]"
            )
        found.append(Adapter(tensor, said.rank, scale))
    if not found:
        raise ValueError("[train.adapter] layers: each of them is trained whole by only: there is nothing to adapt")
    return tuple(found)


class Tuned:
    """A net behind the face of `models.nets.net.Net`, of which a part stays as it is.

    net: the whole one. frozen: what stays, of the plan's names and shapes; it is never changed, and not copied. seed:
    of the job, from which its adapters are drawn.
    """

    def __init__(self, net: Net, plan: Plan, frozen: Params, seed: int = 0) -> None:
        self.whole = net
        self._seed = seed
        self.plan = plan
        self.frozen = frozen
        self._names = tuple(tensor.name for tensor in net.spec)
        self._adapters = {adapter.tensor.name: adapter for adapter in plan.adapters}
        self._wanted = frozenset((*plan.whole, *self._adapters))
        self._here = threading.local()

    @property
    def model(self) -> ModelSpec:
        """See `models.nets.net.Net`."""
        return self.whole.model

    @property
    def spec(self) -> Spec:
        """What is trained and travels."""
        return self.plan.trained

    @property
    def start(self) -> Params | None:
        """See `models.nets.net.Net`: of what is trained whole; adapters begin as in version 0."""
        given: Params | None = getattr(self.whole, "start", None)
        if given is None or not self.plan.whole:
            return None
        drawn = initial(self.spec, self._seed).params(self.spec)
        return drawn | {name: given[name] for name in self.plan.whole}

    def __getattr__(self, name: str) -> Any:
        """Return what else there is of the whole net (its buffers, the fewest rows that it takes)."""
        if name.startswith("_") or name == "whole":
            raise AttributeError(name)
        return getattr(self.whole, name)

    def served(self, params: Params) -> Params:
        """Return all parameters of the whole net, in its order: what is exported and served. Nothing is changed.

        params: what is trained. What they have beside (buffers) comes along.
        """
        return self._merged(params, lambda adapter: np.empty(adapter.tensor.shape, np.float32))

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
        only: Collection[str] | None = None,  # noqa: ARG002  (what is trained here was chosen before)
    ) -> tuple[float, Params]:
        """See `models.nets.net.Net`."""
        work = self._work()
        merged = self._merged(params, lambda adapter: work[adapter.up.name])
        whole = {name: out[name] for name in self.plan.whole} if out is not None else None
        space = None if whole is None else whole | {name: work[name] for name in self._adapters}
        loss, found = self.whole.loss_and_gradients(
            merged, X, y, weights=weights, scale=scale, out=space, draw=draw, only=self._wanted
        )
        gradients = {name: found[name] for name in self.plan.whole}
        for name, adapter in self._adapters.items():
            gradients |= adapter.gradients(params, found[name])
        return loss, {tensor.name: gradients[tensor.name] for tensor in self.spec}

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        with quietly():
            return self.whole.predict(self.served(params), X)

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        with quietly():
            return self.whole.evaluate(self.served(params), X, y)

    def _merged(self, params: Params, room: Callable[[Adapter], Float32]) -> Params:
        """Return the parameters of the whole net. room: gives the array that an adapted tensor is worked out in."""
        found: Params = {}
        for name in self._names:
            adapter = self._adapters.get(name)
            if adapter is not None:
                found[name] = np.add(self.frozen[name], adapter.change(params), out=room(adapter))
            else:
                found[name] = params[name] if name in self._wanted else self.frozen[name]
        ours = {tensor.name for tensor in self.spec}
        return found | {name: value for name, value in params.items() if name not in ours}

    def _work(self) -> Params:
        """Return room for the adapted tensors of a step, and for their gradients, the same for all steps."""
        found: Params | None = getattr(self._here, "arrays", None)
        if found is None:
            found = self._here.arrays = {}
            for adapter in self.plan.adapters:
                found[adapter.up.name] = np.empty(adapter.tensor.shape, np.float32)
                found[adapter.tensor.name] = np.empty(adapter.tensor.shape, np.float32)
        return found


def served(net: Net, params: Params) -> Params:
    """Return the parameters of `job.model`'s own net, which is what is exported, deployed and kept as a file.

    net: of `nets.of_job`. params: of what it trains. Where nothing is frozen they are the same.
    """
    return net.served(params) if isinstance(net, Tuned) else params


def served_spec(net: Net) -> Spec:
    """Return names and shapes of the same."""
    return net.whole.spec if isinstance(net, Tuned) else net.spec


def n_frozen(net: Net) -> int:
    """Return how many coordinates of a net stay as they are, and do not travel."""
    return n_parameters(net.plan.frozen) if isinstance(net, Tuned) else 0
