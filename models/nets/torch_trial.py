"""Trying a factory's module, in a process that may come to harm (size.py): how large it is, and whether it trains.

    refused   what cannot be trained, or would be served wrongly: other outputs than the model's, probabilities where
              the loss takes raw outputs, nothing to train, BatchNorm without statistics
    noted     what is nearly always a mistake and may be none: parameters without a gradient, constant outputs

A few made-up rows show it: normal numbers, small and large, or zeros and ones where a module takes no others (those
that it uses as indices). A module that says no `input_shape` may want its rows in another shape than flat, as files can
have them: what it throws is only noted then, if there is a shape that it takes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from models.buffers import NO_BUFFERS, for_training
from models.nets import losses
from models.nets.losses import LabelError, Labels
from models.nets.net import NO_WEIGHTS, ModelError
from models.nets.op import OPSET
from models.nets.torch_export import export_module
from models.nets.torch_net import TorchNet, cut, in_float32, seeded, shapes_of, takes_weights
from models.params import Float32, Params, Spec, TensorSpec, n_parameters
from runtime.faults import Fault, contain

if TYPE_CHECKING:
    from models.job import ModelSpec

ROWS = 8
LARGE = 100.0
"""How large half of the rows are: a bounded output shows there."""
NAMED = 3
MOST_SHAPES = 100
BYTES_A_PARAMETER = 16
"""Of a module that is tried: its weights, those given to it, and their gradients, twice."""
BYTES_A_UNIT = 24 * ROWS
PASSES = (ModelError, MemoryError)


class Found(NamedTuple):
    """What came of it. refusal: why it cannot be trained. missing: whether its code is not installed here."""

    spec: Spec = ()
    units: int = 0
    refusal: str = ""
    missing: bool = False
    notes: tuple[str, ...] = ()
    least_rows: int = 1
    weighs: bool = True
    """Whether rows may count differently."""
    frozen: tuple[str, ...] = ()
    """The parameters that its own code has frozen."""


def find(model: ModelSpec, make: Callable[[], nn.Module], most_bytes: int, *, exports: bool = False) -> Found:
    """Return what is to be known of the module that is made, whatever its code throws. Raises MemoryError.

    most_bytes: what there is. A net that takes more is counted, and not tried. exports: whether it is written as ONNX,
    too.
    """
    try:
        found = contain(lambda: _found(model, make, most_bytes, exports=exports), *PASSES)
    except ModelError as error:
        return Found(refusal=str(error), missing=isinstance(error.__cause__, ImportError))
    if isinstance(found, Found):
        return found
    _check_memory(found)
    return Found(refusal=f'model.kind = "{model.kind}" throws {found.why}')


def _found(model: ModelSpec, make: Callable[[], nn.Module], most_bytes: int, *, exports: bool) -> Found:
    module = _measured(model, make)
    named = list(module.named_parameters())
    spec = tuple(TensorSpec(name, tuple(p.shape)) for name, p in named)
    frozen = tuple(name for name, p in named if not p.requires_grad)
    left = most_bytes - BYTES_A_PARAMETER * n_parameters(spec)
    if left < 0:
        return Found(spec, _units(module, model), frozen=frozen)
    with seeded(0):
        made = make()
        copied = contain(lambda: deepcopy(made).float(), MemoryError)  # some modules cannot be
        units = _units(module if isinstance(copied, Fault) else copied, model, otherwise=module)
    if BYTES_A_UNIT * units > left:
        return Found(spec, units, frozen=frozen)
    net = TorchNet(model, made, gives_start=True)
    notes = (*tried(net), *(unwritten(net) if exports else ()))
    return Found(spec, units, notes=notes, least_rows=net.least_rows, weighs=_weighs(net), frozen=frozen)


def _check_memory(fault: Fault) -> None:
    """Raise MemoryError for what Torch's allocator throws, which has no type of its own."""
    if "alloc" in fault.why:
        raise MemoryError


# How large it is.


def _measured(model: ModelSpec, make: Callable[[], nn.Module]) -> nn.Module:
    """Return the module that is made on the "meta" device, where nothing is allocated; a factory that cannot be called
    there is called as usual. Raises what the factory throws.
    """
    try:
        with torch.device("meta"):
            module = make()
    except (ModelError, RuntimeError, NotImplementedError):
        module = make()
    if any(is_lazy(parameter) for parameter in module.parameters()):
        in_float32(module, model.kind)  # says which
    return module.float()


def _units(module: nn.Module, model: ModelSpec, otherwise: nn.Module | None = None) -> int:
    """Return how many numbers the modules within a module give for one row, about; its outputs where it does not say.

    What is between two modules (a flattened view, a sum) is not seen. otherwise: the same on the "meta" device, which
    is asked where there is no memory for that of two rows: for its first operation there Torch loads its compiler.
    """
    given = 0

    def add(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal given
        given += output.numel() if isinstance(output, Tensor) else 0

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    hooks = [part.register_forward_hook(add) for part in module.modules() if not list(part.children())]
    with torch.no_grad():  # what it throws is heard when it is tried
        rows = torch.zeros((2, model.inputs), device=device)
        found = contain(lambda: module(*cut(rows, shapes_of(module, model))))
    for hook in hooks:
        hook.remove()
    if otherwise is not None and isinstance(found, Fault) and "alloc" in found.why:
        return _units(otherwise, model)
    return max(given // 2, model.outputs)


# Whether it trains.


def tried(net: TorchNet) -> Iterator[str]:
    """Yield what the author of a module should know. Raises ModelError where it cannot be trained."""
    kind = f'model.kind = "{net.model.kind}"'
    _check_parameters(net, kind)
    params = (net.start or {}) | for_training(net, NO_BUFFERS)
    modes = {name: part.training for name, part in net.module.train().named_modules()}
    found = _step(net, params)
    if isinstance(found, Fault):
        yield _other_rows(net, params, found, kind)
        return
    X, gradients = found
    for name in (name for name, value in params.items() if not np.isfinite(value).all()):
        yield f"{kind}: after one step its buffer {name} has numbers that are not finite"
    changed = [name or "the module itself" for name, part in net.module.named_modules() if part.training != modes[name]]
    if changed:
        yield f"{kind} puts {_some(changed)} into eval() within forward: it stays there for the rest of the step"
    if unused := [t.name for t, gradient in zip(net.spec, gradients, strict=True) if gradient is None]:
        yield f"{kind}: the loss does not hang on {_some(unused)}, which is sent and never trained"
    yield from _in_use(net, {tensor.name: params[tensor.name] for tensor in net.spec}, X, kind)


def _check_parameters(net: TorchNet, kind: str) -> None:
    if not net.spec:
        raise ModelError(f"{kind} has no parameters to train")
    for name, value in net.module.named_parameters():
        if not torch.isfinite(value).all():
            raise ModelError(f"{kind} begins with weights that are not finite: {name}")
    for name, part in net.module.named_modules():
        if isinstance(part, _BatchNorm) and part.running_mean is None:
            raise ModelError(
                f"{kind}: {name or 'it'} has track_running_stats = False, so that an answer hangs on the rows that are "
                "asked with it: leave it out, or take a LayerNorm or GroupNorm"
            )


def _step(net: TorchNet, params: Params) -> tuple[Float32, tuple[Tensor | None, ...]] | Fault:
    """Return rows that the module takes, and the gradients of a step on them; or what it throws at rows of numbers.

    Raises ModelError or MemoryError.
    """
    X, faults = _rows(net.model.inputs), list[Fault]()
    for rows in (X, (X > 0).astype(np.float32)):
        y = _labels(net.model, len(rows))
        found = contain(partial(net.differentiated, params, rows, y), *PASSES)
        if not isinstance(found, Fault):
            return rows, tuple(found[1].values())
        _check_memory(found)
        faults.append(found)
    return faults[0]


def _other_rows(net: TorchNet, params: Params, fault: Fault, kind: str) -> str:
    """Return in words that a module wants rows that are not flat. Raises ModelError where no shape is right."""
    n = net.model.inputs
    for shape in () if shapes_of(net.module, net.model) else itertools.islice(_shapes(n), MOST_SHAPES):
        if not isinstance(contain(partial(net.outputs, params, _rows(n)[:2].reshape(2, *shape))), Fault):
            return (
                f"{kind} takes no flat rows of {n:,} numbers, as tables and windows have them ({fault.why}); it takes "
                f"them as {shape}: give the module input_shape = {shape}, to which they are then reshaped"
            )
    raise ModelError(f"{kind} throws {fault.why}")


def _shapes(n: int) -> Iterator[tuple[int, ...]]:
    """Return shapes of n numbers that images and windows may have: channels first, and squares before others."""
    sides = [side for side in range(1, min(n, 2000) + 1) if n % side == 0]
    for channels in (1, 3, 2, 4):
        side = math.isqrt(n // channels)
        if side * side * channels == n:
            yield channels, side, side
    for side in sides:
        yield from {(side, n // side): None, (n // side, side): None}
    for side in sides:
        yield 1, side, n // side


def _rows(inputs: int) -> Float32:
    """Return (ROWS, inputs) normal numbers, half of the rows large."""
    rows = np.random.default_rng(0).standard_normal((ROWS, inputs), np.float32)
    rows[ROWS // 2 :] *= LARGE
    return rows


def _labels(model: ModelSpec, n: int) -> Labels:
    """Return labels that the loss takes."""
    loss = losses.of(model)
    shape = (n, loss.n_columns)
    try:
        return loss.labels(np.broadcast_to((np.arange(n) % 2).astype(np.float32)[:, None], shape))
    except LabelError:
        return loss.labels(np.zeros(shape, np.float32))


def _in_use(net: TorchNet, params: Params, X: Float32, kind: str) -> Iterator[str]:
    """Yield what its outputs are, in use. Raises ModelError where they are no raw outputs."""
    before = {name: value.copy() for name, value in params.items()}
    outputs = net.outputs(params, X)
    for name in (name for name, value in params.items() if not np.array_equal(value, before[name], equal_nan=True)):
        raise ModelError(
            f"{kind} changes {name} as it answers: forward may use parameters, and only training moves them"
        )
    if not np.isfinite(outputs).all():
        yield f"{kind} gives outputs that are not finite, on rows of numbers up to {np.abs(X).max():.0f}"
        return
    applies = losses.of(net.model).applies
    if _is_answer(net.module, outputs, applies):
        why = f'probabilities, where loss = "{net.model.loss}" makes them of raw outputs itself'
        if net.own_loss is None:
            raise ModelError(f"{kind} gives {why}: leave the {applies} out at its end")
        yield f"{kind} gives {why}: it trains by its own loss, but its answers are made of its outputs once more"
    if (outputs == outputs[0]).all():
        yield f"{kind} gives the same outputs for every row"
    elif not applies and (outputs >= 0).all() and (outputs == 0).any():
        yield f"{kind} gives values that are never below 0: is there a relu at its end?"
    if not np.array_equal(outputs, net.outputs(params, X)):
        yield (
            f"{kind} gives other outputs for the same rows each time: dropout has to be a module, or to be told, "
            "F.dropout(x, training=self.training)"
        )
    elif not _by_row(net, params, X, outputs):
        yield f"{kind} gives a row other outputs beside other rows: what it answers in use is one row at a time"


def unwritten(net: TorchNet) -> Iterator[str]:
    """Yield what its author should know where a net cannot be written as ONNX: what takes longest to find out."""
    if why := _not_written(net):
        yield f"{why}; so nothing can be exported, and a device answers by Torch itself"


def _not_written(net: TorchNet) -> str:
    """Return why a net cannot be written as ONNX; "" where it can, or where there is no memory to see."""
    params = (net.start or {}) | {tensor.name: np.array(net.first_buffers[tensor.name]) for tensor in net.buffers}
    try:
        export_module(net, params, opset=OPSET, output="answers")
    except ModelError as error:
        return "" if "alloc" in str(error) else str(error)
    except MemoryError:
        return ""
    return ""


def _is_answer(module: nn.Module, outputs: Float32, applies: str) -> bool:
    """Return whether outputs are what the loss makes of raw ones: shares that add up to 1, or each between 0 and 1.

    applies: as in `models.nets.losses.Loss`.
    """
    if not applies or not ((outputs >= 0).all() and (outputs <= 1.0001).all()):
        return False
    if applies == "softmax":
        return outputs.shape[1] > 1 and np.allclose(outputs.sum(axis=1), 1, atol=1e-4)
    return float(np.ptp(outputs)) > 0 or _ends_in(module, nn.Sigmoid)


def _ends_in(module: nn.Module, layer: type[nn.Module]) -> bool:
    parts = [part for part in module.modules() if not list(part.children())]
    return isinstance(parts[-1], layer)


def _by_row(net: TorchNet, params: Params, X: Float32, outputs: Float32) -> bool:
    """Return whether a row's outputs are the same without the others."""
    alone = net.outputs(params, X[:1])
    return np.allclose(alone, outputs[:1], rtol=1e-3, atol=1e-3 * float(np.abs(outputs).max() + 1e-9))


def _weighs(net: TorchNet) -> bool:
    """Return whether rows can count differently: a loss of the module's own may give one number for all of them."""
    if net.own_loss is None or takes_weights(net.own_loss):
        return True
    X = (_rows(net.model.inputs) > 0).astype(np.float32)
    step = partial(net.differentiated, net.start or {}, X, _labels(net.model, ROWS), weights=np.ones(ROWS, np.float32))
    found = contain(step)
    return not (isinstance(found, Fault) and NO_WEIGHTS in found.why)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
