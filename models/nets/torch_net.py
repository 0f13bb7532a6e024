"""Nets that Torch computes: whatever nn.Module the row of a kind makes.

Parameters cross as float32 in the order of named_parameters(), shared ones once; so do float buffers, as BatchNorm's
statistics. What becomes of other buffers says torch_buffers.py. What a module may say of itself:

    input_shape     a tuple of ints, without the batch: each row is reshaped to it
    input_shapes    a tuple of such tuples: forward takes as many tensors, which a row is cut into, in this order
    loss            a method loss(outputs, y), or with weights as well, in place of the job's: a number, or one a row

Torch is imported here, and in other files of this folder with its name. Importing it sets Torch to one thread: small
nets are slower on more.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from models.nets import losses
from models.nets.batches import ROWS_AT_ONCE
from models.nets.losses import Labels, Metrics, measure, measure_all
from models.nets.net import NO_WEIGHTS, ModelError
from models.nets.torch_buffers import TorchBuffers
from models.params import Float32, Params, Spec, TensorSpec

if TYPE_CHECKING:
    from models.job import ModelSpec

__all__ = ["TorchNet", "nn", "seeded"]

torch.set_num_threads(1)


class TorchNet:
    """A module behind the face of `models.nets.net.Net`, in float32. Of its own it keeps nothing.

    It must give (n, outputs) raw outputs: no softmax at its end. gives_start: whether the weights that the module has
    now are the first ones of its job. Raises ModelError for a module that cannot be trained like this.
    """

    def __init__(self, model: ModelSpec, module: nn.Module, *, gives_start: bool = False) -> None:
        self.model = model
        self.module = in_float32(module, model.kind)
        self._beside = TorchBuffers(module, f'model.kind = "{model.kind}"')
        self.buffers, self.first_buffers = self._beside.spec, self._beside.first
        self.spec = tuple(TensorSpec(name, tuple(p.shape)) for name, p in module.named_parameters())
        self.frozen = tuple(name for name, p in module.named_parameters() if not p.requires_grad)
        """The parameters that the module's own code has frozen."""
        self.least_rows = 2 if any(isinstance(part, _BatchNorm) for part in module.modules()) else 1
        self.own_loss = own_loss(module)
        """The module's, in place of the job's."""
        self._gives_start = gives_start
        self._loss = losses.of(model)
        self._step = _Step(self.module, shapes_of(module, model), model, self.own_loss)
        self.at_once = ROWS_AT_ONCE
        """Rows that go through it together where nobody trains; who knows what it makes of each may lower it."""
        self._drawing: list[Any] = []  # modules whose random numbers NumPy draws, by their names
        for name, part in module.named_modules():
            if hasattr(part, "draws_as"):
                part.draws_as = name
                self._drawing.append(part)

    @property
    def start(self) -> Params | None:
        """See `models.nets.net.Net`: fresh arrays."""
        if not self._gives_start:
            return None
        return {name: p.detach().numpy().copy() for name, p in self.module.named_parameters()}

    def loss_and_gradients(
        self,
        params: Params,
        X: Float32,
        y: Labels,
        *,
        weights: Float32 | None = None,
        scale: float = 1.0,
        out: Params | None = None,  # noqa: ARG002  (a net may use it and need not)
        draw: int = 0,
        only: Collection[str] | None = None,
    ) -> tuple[float, Params]:
        """See `models.nets.net.Net`. The gradients are always fresh arrays."""
        loss, gradients = self.differentiated(params, X, y, weights=weights, scale=scale, draw=draw, only=only)
        found: Params = {}
        for name, shape in self.spec:
            if name in gradients:
                gradient = gradients[name]
                found[name] = np.zeros(shape, np.float32) if gradient is None else gradient.contiguous().numpy()
        return loss, found

    def differentiated(
        self,
        params: Params,
        X: Float32,
        y: Labels,
        *,
        weights: Float32 | None = None,
        scale: float = 1.0,
        draw: int = 0,
        only: Collection[str] | None = None,
    ) -> tuple[float, dict[str, Tensor | None]]:
        """Return the loss and `scale` times its gradient by each parameter; None by one that it does not hang on.
        only: those that are wanted.

        Raises ModelError for outputs, or a loss, of another shape, and where the loss hangs on no parameter at all.
        """
        torch.manual_seed(draw)
        for part in self._drawing:
            part.draw = draw
        tensors = {t.name: tensor(params[t.name]) for t in self.spec}
        leaves = {name: p.requires_grad_() for name, p in tensors.items() if only is None or name in only}
        counts = None if weights is None else tensor(weights)
        beside = self._beside.given(params, training=True)
        with self._beside.constants_of(self.module):
            _, loss = self._call(tensors, beside, X, (tensor(y), counts), training=True)
        self._beside.take(beside, params)
        if loss is None or not loss.requires_grad:
            raise ModelError(
                f'model.kind = "{self.model.kind}": its loss hangs on none of its parameters, so that there is nothing '
                "to train: no detach(), no_grad(), argmax or round between them and the outputs"
            )
        gradients = torch.autograd.grad(loss, list(leaves.values()), torch.tensor(scale), allow_unused=True)
        return float(loss.detach()), dict(zip(leaves, gradients, strict=True))

    def own(self, spec: Spec) -> Params:
        """Return what the module itself holds in these parameters, in its memory."""
        there = dict(self.module.named_parameters())
        return {tensor.name: there[tensor.name].detach().contiguous().numpy() for tensor in spec}

    def hold(self, params: Params) -> None:
        """Put these parameters into the module, in their memory, so that they are not there twice."""
        there = dict(self.module.named_parameters())
        for name, values in params.items():
            there[name].data = tensor(values)

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        return self._loss.answer(self.outputs(params, X))

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`. The loss is the module's own, where it has one."""
        if self.own_loss is None:
            return measure_all(self._loss, lambda some: self.outputs(params, some), X, y)
        loss = right = 0.0
        tensors, classifies = {t.name: tensor(params[t.name]) for t in self.spec}, False
        for start in range(0, len(X), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            beside = self._beside.given(params, training=False)
            with torch.no_grad():
                outputs, value = self._call(tensors, beside, X[rows], (tensor(y[rows]), None), training=False)
            found = measure(self._loss, outputs.numpy().copy(), y[rows])
            loss += math.nan if value is None else found.n * float(value)
            classifies = found.accuracy is not None
            right += found.n * (found.accuracy or 0.0)
        return Metrics(loss / len(X), right / len(X) if classifies else None, len(X))

    def outputs(self, params: Params, X: Float32) -> Float32:
        """Return the module's raw outputs in use, (n, outputs) float32. Raises ModelError on another shape."""
        tensors = {t.name: tensor(params[t.name]) for t in self.spec}
        outputs = np.empty((len(X), self.model.outputs), np.float32)
        with torch.no_grad():
            for start in range(0, len(X), self.at_once):
                rows = slice(start, start + self.at_once)
                beside = self._beside.given(params, training=False)
                outputs[rows] = self._call(tensors, beside, X[rows], None, training=False)[0].numpy()
        return outputs

    def _call(
        self,
        tensors: dict[str, Tensor],
        beside: dict[str, Tensor],
        X: Float32,
        labels: tuple[Tensor, Tensor | None] | None,
        *,
        training: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return outputs and loss; no loss without labels and their weights.

        beside: the module's buffers; afterwards what the call has left of them.
        """
        self._step.train(training)
        named = {f"module.{name}": tensor for name, tensor in (tensors | beside).items()}
        given: tuple[Tensor, Tensor | None] = torch.func.functional_call(self._step, named, (tensor(X), labels))
        beside.update({key: named[f"module.{key}"] for key in beside})  # those that the module has put in their place
        return given


class _Step(nn.Module):
    """A module and its loss as one, so that a loss of the module's own has the same parameters as its outputs."""

    def __init__(
        self, module: nn.Module, shapes: Shapes | None, model: ModelSpec, own: Callable[..., Any] | None
    ) -> None:
        super().__init__()
        self.module = module
        self.model = model
        self._shapes = shapes
        self._own = own
        self._usual = losses.of(model).torch(nn)

    def forward(self, X: Tensor, labels: tuple[Tensor, Tensor | None] | None) -> tuple[Tensor, Tensor | None]:
        outputs = self._checked(self.module(*cut(X, self._shapes)), len(X))
        if labels is None:
            return outputs, None
        y, weights = labels
        return outputs, self._usual(outputs, y, weights) if self._own is None else self._by_own(outputs, y, weights)

    def _checked(self, outputs: Any, n: int) -> Tensor:
        """Return the outputs as float32. Raises ModelError for what is none of (n, outputs)."""
        kind, wanted = self.model.kind, f"{n} rows where the model has outputs = {self.model.outputs}"
        if not isinstance(outputs, Tensor):
            what = (
                f"{type(outputs).__name__} of {len(outputs)}" if hasattr(outputs, "__len__") else type(outputs).__name__
            )
            raise ModelError(
                f'model.kind = "{kind}" gave a {what} for {wanted}: forward has to return one tensor of shape '
                f"({n}, {self.model.outputs})"
            )
        if outputs.shape != (n, self.model.outputs):
            raise ModelError(f'model.kind = "{kind}" gave outputs of shape {tuple(outputs.shape)} for {wanted}')
        if outputs.is_complex():
            raise ModelError(f'model.kind = "{kind}" gave complex numbers: give their real part, or their modulus')
        return outputs.to(torch.float32)

    def _by_own(self, outputs: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        """Return the module's own loss as one number. Raises ModelError where it is none, or cannot be weighted."""
        assert self._own is not None  # noqa: S101 -- the caller has looked
        kind, weighs = self.model.kind, takes_weights(self._own)
        loss = self._own(outputs, y, weights=weights) if weighs else self._own(outputs, y)
        if not isinstance(loss, Tensor) or loss.shape not in ((), (len(outputs),)):
            what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ModelError(
                f'model.kind = "{kind}": its own loss gave {what}: it has to give one number, or one for each row'
            )
        if loss.dim():
            return (loss if weights is None or weighs else loss * weights).mean().to(torch.float32)
        if weights is not None and not weighs:
            raise ModelError(f'model.kind = "{kind}": {NO_WEIGHTS}')
        return loss.to(torch.float32)


Shapes = tuple[tuple[int, ...], ...]
"""Of each tensor that a module's forward takes, without the batch."""


def shapes_of(module: nn.Module, model: ModelSpec) -> Shapes | None:
    """Return the shapes that a module wants a row in; None where it says nothing. Raises ModelError."""
    one, many = getattr(module, "input_shape", None), getattr(module, "input_shapes", None)
    if one is None and many is None:
        return None
    name, said = ("input_shape", one) if many is None else ("input_shapes", many)
    said_of_each: Any = (one,) if many is None else many
    try:
        shapes = tuple(tuple(int(side) for side in shape) for shape in said_of_each)
        if many is None:
            shapes = (tuple(torch.empty((1, model.inputs), device="meta").reshape(1, *shapes[0]).shape[1:]),)
    except (TypeError, ValueError, RuntimeError):
        shapes = ()
    if not shapes or sum(map(math.prod, shapes)) != model.inputs or min(map(min, filter(None, shapes)), default=1) < 1:
        raise ModelError(
            f'model.kind = "{model.kind}" has {name} = {str(said)[:100]}, which a row of inputs = {model.inputs} '
            "cannot be cut into"
        )
    return shapes


def cut(X: Tensor, shapes: Shapes | None) -> tuple[Tensor, ...]:
    """Return rows as a module's forward takes them: as they are, or cut into these shapes, in their order."""
    if shapes is None:
        return (X,)
    if len(shapes) == 1:
        return (X.reshape(-1, *shapes[0]),)
    flat, at, found = X.flatten(1), 0, []
    for shape in shapes:
        found.append(flat[:, at : at + math.prod(shape)].reshape(-1, *shape))
        at += math.prod(shape)
    return tuple(found)


def own_loss(module: nn.Module) -> Callable[..., Any] | None:
    """Return the loss that a module brings along, of (outputs, y) or (outputs, y, weights); None where it has none."""
    found: Any = getattr(module, "loss", None)
    return found if callable(found) else None


def takes_weights(loss: Callable[..., Any]) -> bool:
    """Return whether a module's own loss takes the weights of rows, by that name."""
    try:
        return "weights" in inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters
    except (TypeError, ValueError):  # of C
        return False


def in_float32(module: nn.Module, kind: str) -> nn.Module:
    """Return the module with its numbers in float32. Raises ModelError where they cannot be, or are not there yet."""
    for name, value in module.named_parameters():
        if is_lazy(value):
            raise ModelError(
                f'model.kind = "{kind}": the size of {name} is not known before the first row (a lazy layer): say it, '
                "or let the factory call its module once, with a row of zeros"
            )
        if not value.is_floating_point():
            raise ModelError(
                f'model.kind = "{kind}": its parameter {name} is {value.dtype}, where only floats can be trained'
            )
    try:
        return module.to("cpu").float()  # not .to(torch.float32), which takes complex constants for real ones
    except NotImplementedError as error:
        raise ModelError(
            f'model.kind = "{kind}": its parameters have shapes and no numbers (the meta device)'
        ) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Have Torch draw by this seed within a block, and go on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def tensor(values: np.ndarray[Any, Any]) -> Tensor:
    """Share the array's memory; a read-only one is copied, since Torch knows no such thing."""
    values = np.asarray(values)
    return torch.from_numpy(values if values.flags.writeable else values.copy())
