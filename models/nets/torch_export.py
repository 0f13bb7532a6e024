"""A module of Torch as ONNX, by Torch's own exporter: answers of `predict`, of as many rows as are asked."""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.nets import losses
from models.nets.net import ModelError
from models.nets.torch_buffers import check_exported
from models.nets.torch_net import TorchNet, cut, shapes_of, tensor
from models.params import Params, check

SOME = 3
"""Rows that an exported module is tried on."""


class _Served(nn.Module):
    """A module as it is served: flat rows in, the answers of `predict` out."""

    def __init__(self, net: TorchNet, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.shapes = shapes_of(net.module, net.model) or ((net.model.inputs,),)
        self.answer = losses.of(net.model).torch_answer(nn)

    def forward(self, X: Tensor) -> Tensor:
        outputs: Tensor = self.answer(self.module(*cut(X, self.shapes)))
        return outputs


def export_module(net: TorchNet, params: Params, *, opset: int, output: str) -> bytes:
    """Return the net's module as ONNX: (batch, inputs) float32 in, (batch, outputs) out. params: with the buffers.

    By the TorchScript exporter, which Torch means to retire but which needs nothing beside Torch; the newer one
    needs onnxscript. Raises ModelError if the module has something that cannot be written, and ParamsError if the
    params are not its own.
    """
    check(params, net.spec + net.buffers)
    name = f'model.kind = "{net.model.kind}"'
    check_exported(net.module, name)
    body = io.BytesIO()
    export: Any = torch.onnx.export  # older versions take other keywords, and all of them a buffer
    chosen = {"dynamo": False} if "dynamo" in inspect.signature(export).parameters else {}
    try:
        net.module.load_state_dict({name: tensor(value) for name, value in params.items()}, strict=False)
        with _by_its_operations():
            served = _Served(net, _plain(net.module)).eval()
            _check_rows_apart(served, net.model.inputs)
            export(
                served,
                (torch.zeros(1, net.model.inputs),),
                body,
                opset_version=opset,
                input_names=["input"],
                output_names=[output],
                dynamic_axes={"input": {0: "batch"}, output: {0: "batch"}},
                **chosen,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"{name} cannot be written as ONNX: {_first_line(error)}") from error
    return body.getvalue()


def _plain(module: nn.Module) -> nn.Module:
    """Return a module in use whose parametrisations (a spectral norm, an orthogonal matrix) are worked out: numbers
    alone, since most of what makes them has no ONNX. It is the module itself where it has none.
    """
    module.eval()
    if not any(parametrize.is_parametrized(part) for part in module.modules()):
        return module
    plain = copy.deepcopy(module)
    parametrised: list[Any] = [part for part in plain.modules() if parametrize.is_parametrized(part)]
    for part in parametrised:
        found = {name: getattr(part, name).detach() for name in part.parametrizations}
        # not remove_parametrizations, which takes them out of the class, and so out of what was copied too
        object.__setattr__(part, "__class__", parametrize.type_before_parametrizations(part))
        del part.parametrizations
        for name, value in found.items():
            part.register_parameter(name, nn.Parameter(value))
    return plain


@contextmanager
def _by_its_operations() -> Iterator[None]:
    """Have Torch compute a transformer by the operations that it is made of: in use, where all of one is frozen, it
    takes one for all of them, which has no ONNX. What it prints of a graph is no result: it goes to stderr.
    """
    mha: Any = torch.backends.mha
    fast = mha.get_fastpath_enabled()
    torch._C._jit_set_onnx_log_output_stream("stderr")
    mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        mha.set_fastpath_enabled(fast)


def _check_rows_apart(served: nn.Module, inputs: int) -> None:
    """Raise ValueError where code that was written down with one row answers others wrongly: it has taken something of
    that row for a constant, such as how many rows there are.
    """
    rows = torch.from_numpy((np.random.default_rng(0).standard_normal((SOME, inputs)) > 0).astype(np.float32))
    right: Tensor = served(rows)
    trace: Any = torch.jit.trace
    traced = trace(served, (torch.zeros(1, inputs),), check_trace=False)
    try:
        found: Tensor = traced(rows)
    except RuntimeError:
        found = torch.empty(0)
    if found.shape != right.shape or not torch.allclose(found, right, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise ValueError(
            "as it is written down with one row it answers several wrongly: of X use X.shape[0] in forward, or "
            "flatten(1), and not len(X); no loop over rows, no if, float() or numpy() of what is in them"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
