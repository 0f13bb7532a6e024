"""What becomes of the buffers of a Torch module: which travel, which stay, and which no fleet can have.

    float, persistent          travels: the mean of the devices' (models/buffers.py), as BatchNorm's statistics
    whole numbers              stay on the device: each training begins with what the code gives them, as BatchNorm's
                               count of batches does with 0
    persistent = False         a constant of the code, on every device the same; refused where a step changes it
    bool, complex, sparse,     refused, by name: no mean can be formed of them. Constants of these kinds are registered
    quantised, not finite      with persistent = False

A module changes its buffers in place, or puts others in their place. Either way nothing of it stays in the module: it
is given what it is to work on, so that a step follows from what it is given alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer

from models.nets.net import ModelError
from models.params import Beside, Spec, TensorSpec

if TYPE_CHECKING:
    from models.params import Params

_CONSTANT = "a constant, the same on every device, is registered with persistent=False"


class TorchBuffers:
    """The buffers of one module. name: what the module is called in messages."""

    def __init__(self, module: nn.Module, name: str) -> None:
        """Sort them out. Raises ModelError, which names the buffer, for one that no fleet can have."""
        self._name = name
        lasting = module.state_dict(keep_vars=True).keys()
        there = {key: value for key, value in module.named_buffers() if key in lasting}
        for key, value in there.items():
            if (why := _why_not(value)) is not None:
                raise ModelError(f'{name} has a buffer "{key}" {why}')
        _apart(module)
        there = {key: value for key, value in module.named_buffers() if key in lasting}
        floats = {key: value for key, value in there.items() if value.is_floating_point()}
        self.spec: Spec = tuple(TensorSpec(key, tuple(value.shape)) for key, value in floats.items())
        """Those that travel."""
        self.first: Beside = {key: _array(value) for key, value in there.items()}
        """What the code gives those, and those of whole numbers."""

    def given(self, params: Mapping[str, np.ndarray[Any, Any]], *, training: bool) -> dict[str, Tensor]:
        """Return what the module is to work on: in training the very memory of what is in `params`, else copies."""
        return {key: _tensor(params.get(key), first, shared=training) for key, first in self.first.items()}

    def take(self, worked_on: Mapping[str, Tensor], params: Params) -> None:
        """Write what a step of training has left of them into the arrays of `params`, as far as it has them.

        Raises ModelError where one has another shape, or numbers of another kind.
        """
        for key in self.first.keys() & params.keys():
            left, mine = worked_on[key].detach(), params[key]
            if tuple(left.shape) != mine.shape or left.is_floating_point() != (mine.dtype.kind == "f"):
                raise ModelError(f'{self._name} has made of its buffer "{key}" one of another shape or kind')
            np.copyto(mine, left.numpy(), casting="same_kind")

    @contextlib.contextmanager
    def constants_of(self, module: nn.Module) -> Iterator[None]:
        """Raise ModelError, at the end, where a constant of the module was changed: that would stay behind."""
        before = {key: (value, value._version) for key, value in module.named_buffers() if key not in self.first}
        yield
        after = {key: value for key, value in module.named_buffers() if key not in self.first}
        for key in {*before, *after}:
            value, version = before.get(key, (None, 0))
            if after.get(key) is not value or (value is not None and value._version != version):
                raise ModelError(
                    f'{self._name} changes its buffer "{key}" as it trains, but has it with persistent=False, so that '
                    "it would stay behind: register it without that"
                )


def check_exported(module: nn.Module, name: str) -> None:
    """Raise ModelError for a module whose answer to a row hangs on the rows beside it, which no ONNX is of."""
    for key, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise ModelError(
                f'{name} cannot be written as ONNX: "{key}" has track_running_stats=False, so that its answer to a row '
                "hangs on the rows beside it: leave that out, or take a GroupNorm or a LayerNorm"
            )


def _apart(module: nn.Module) -> None:
    """Copy each buffer that is a view (of another one, or of one number many times) into a memory of its own.

    A step is given them apart anyway, and in one memory they could not be written.
    """
    own: dict[int, tuple[Tensor, Tensor]] = {}
    for part in module.modules():
        for key, value in part._buffers.items():
            if value is not None and value._is_view():
                part._buffers[key] = own.setdefault(id(value), (value, value.detach().clone()))[1]


def _why_not(value: Tensor) -> str | None:
    """Return why no fleet can have a buffer; None where it can."""
    if isinstance(value, UninitializedBuffer):
        return "of a lazy module, which has no shape yet: give its sizes"
    if value.is_quantized:
        return f"that is quantised, of which no mean can be formed: {_CONSTANT}"
    if value.layout != torch.strided:
        return f"that is sparse, of which no mean can be formed: {_CONSTANT}"
    if value.dtype == torch.bool or value.is_complex():
        return f"of {value.dtype}, of which no mean can be formed: {_CONSTANT}"
    if not value.is_meta and value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
        return f"with numbers that are not finite (in float32), of which no mean can be formed: {_CONSTANT}"
    return None


def _array(value: Tensor) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = (value.detach().float() if value.is_floating_point() else value.detach()).numpy()
    found = found.copy()
    found.flags.writeable = False
    return found


def _tensor(mine: np.ndarray[Any, Any] | None, first: np.ndarray[Any, Any], *, shared: bool) -> Tensor:
    if mine is not None and shared and mine.flags.writeable:
        return torch.from_numpy(mine)
    return torch.from_numpy((first if mine is None else mine).copy())
