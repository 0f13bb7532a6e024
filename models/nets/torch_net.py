"""Nets that Torch computes: whatever nn.Module the row of a kind makes.

Parameters cross as float32 in the order of named_parameters(), shared ones once. Buffers do not cross: BatchNorm's
statistics and integer counters stay in this object, on this device, and start afresh with the process. A module
that draws random numbers (dropout) or keeps statistics is therefore not repeated bit for bit by a resumed run.

The one file that imports torch. Importing it sets Torch to one thread: small nets are slower on more.
"""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from models.nets import losses
from models.nets.batches import ROWS_AT_ONCE
from models.nets.losses import Labels, Metrics, measure_all
from models.nets.net import ModelError
from models.params import Float32, Params, Spec, TensorSpec, check

if TYPE_CHECKING:
    from models.job import ModelSpec

__all__ = ["TorchNet", "export_module", "measured", "nn"]

torch.set_num_threads(1)


class TorchNet:
    """A module behind the face of `models.nets.net.Net`, in float32. Of its own it keeps only the module's buffers.

    A module may have an attribute `input_shape` (a tuple of ints, without the batch): X is reshaped to it. It must
    give (n, outputs) raw outputs: no softmax at its end.
    """

    def __init__(self, model: ModelSpec, module: nn.Module) -> None:
        self.model = model
        self.module = module.to(torch.float32)
        self.spec = tuple(TensorSpec(name, tuple(p.shape)) for name, p in module.named_parameters())
        self._loss = losses.of(model)
        self._mean_loss = self._loss.torch(nn)
        self.at_once = ROWS_AT_ONCE
        """Rows that go through it together where nobody trains; who knows what it makes of each may lower it."""
        self._drawing: list[Any] = []  # modules whose random numbers NumPy draws, by their names
        for name, part in module.named_modules():
            if hasattr(part, "draws_as"):
                part.draws_as = name
                self._drawing.append(part)

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
    ) -> tuple[float, Params]:
        """See `models.nets.net.Net`. The gradients are always fresh arrays."""
        torch.manual_seed(draw)
        for part in self._drawing:
            part.draw = draw
        leaves = {t.name: _tensor(params[t.name]).requires_grad_() for t in self.spec}
        counts = None if weights is None else _tensor(weights)
        loss = self._mean_loss(self._call(leaves, X, training=True), _tensor(y), counts)
        gradients = torch.autograd.grad(loss, list(leaves.values()), torch.tensor(scale), allow_unused=True)
        named = zip(leaves.items(), gradients, strict=True)
        return float(loss.detach()), {
            name: np.zeros(leaf.shape, np.float32) if gradient is None else gradient.contiguous().numpy()
            for (name, leaf), gradient in named
        }

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`."""
        return self._loss.answer(self._outputs(params, X))

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`."""
        return measure_all(self._loss, lambda some: self._outputs(params, some), X, y)

    def _call(self, tensors: dict[str, Tensor], X: Float32, *, training: bool) -> Tensor:
        """Return the module's raw outputs, (n, outputs) float32. Raises ModelError on another shape."""
        shape = getattr(self.module, "input_shape", X.shape[1:])
        self.module.train(training)
        outputs: Tensor = torch.func.functional_call(self.module, tensors, (_tensor(X).reshape(len(X), *shape),))
        if outputs.shape != (len(X), self.model.outputs):
            raise ModelError(
                f'model.kind = "{self.model.kind}" gave outputs of shape {tuple(outputs.shape)} for {len(X)} '
                f"rows where the model has outputs = {self.model.outputs}"
            )
        return outputs

    def _outputs(self, params: Params, X: Float32) -> Float32:
        tensors = {t.name: _tensor(params[t.name]) for t in self.spec}
        outputs = np.empty((len(X), self.model.outputs), np.float32)
        with torch.no_grad():
            for start in range(0, len(X), self.at_once):
                rows = slice(start, start + self.at_once)
                outputs[rows] = self._call(tensors, X[rows], training=False).numpy()
        return outputs


class _Served(nn.Module):
    """A module as it is served: flat rows in, the answers of `predict` out."""

    def __init__(self, net: TorchNet) -> None:
        super().__init__()
        self.module = net.module
        self.shape = getattr(net.module, "input_shape", (net.model.inputs,))
        self.answer = losses.of(net.model).torch_answer(nn)

    def forward(self, X: Tensor) -> Tensor:
        outputs: Tensor = self.answer(self.module(X.reshape(-1, *self.shape)))
        return outputs


def export_module(net: TorchNet, params: Params, *, opset: int, output: str) -> bytes:
    """Return the net's module, which gets these params, as ONNX: (batch, inputs) float32 in, (batch, outputs) out.

    By the TorchScript exporter, which Torch means to retire but which needs nothing beside Torch; the newer one
    needs onnxscript. Raises ModelError if the module has something that cannot be written, and ParamsError if the
    params are not its own.
    """
    check(params, net.spec)
    net.module.load_state_dict({name: _tensor(value) for name, value in params.items()}, strict=False)
    body = io.BytesIO()
    export: Any = torch.onnx.export  # older versions take other keywords, and all of them a buffer
    chosen = {"dynamo": False} if "dynamo" in inspect.signature(export).parameters else {}
    try:
        with warnings.catch_warnings(action="ignore"):
            export(
                _Served(net).eval(),
                (torch.zeros(1, net.model.inputs),),
                body,
                opset_version=opset,
                input_names=["input"],
                output_names=[output],
                dynamic_axes={"input": {0: "batch"}, output: {0: "batch"}},
                **chosen,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f'model.kind = "{net.model.kind}" cannot be written as ONNX: {error}') from error
    return body.getvalue()


def measured(model: ModelSpec, make: Callable[[], nn.Module]) -> tuple[Spec, int]:
    """Return the parameters of the module that is made, and how many numbers its modules give for one row, about.

    On the "meta" device, where nothing is allocated; a factory that cannot be called there is called as usual. What is
    between two modules (a flattened view, a sum) is not seen. Raises what the factory throws.
    """
    try:
        with torch.device("meta"):
            module = make()
    except (ModelError, RuntimeError, NotImplementedError):
        module = make()
    units = _units(module.to(torch.float32), model)
    return tuple(TensorSpec(name, tuple(p.shape)) for name, p in module.named_parameters()), units


def _units(module: nn.Module, model: ModelSpec) -> int:
    """Return how many numbers the modules within a module give for one row; its outputs where it does not say."""
    given = 0

    def add(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal given
        given += output.numel() if isinstance(output, Tensor) else 0

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    shape = getattr(module, "input_shape", (model.inputs,))
    for part in module.modules():
        if not list(part.children()):
            part.register_forward_hook(add)
    try:
        with torch.no_grad():
            module(torch.empty((2, *shape), device=device))
    except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError):
        return max(given // 2, model.outputs)  # what it throws is heard where it is trained
    return max(given // 2, model.outputs)


def _tensor(values: np.ndarray[Any, Any]) -> Tensor:
    """Share the array's memory; a read-only one is copied, since Torch knows no such thing."""
    return torch.from_numpy(values if values.flags.writeable else values.copy())
