"""Activations, element by element: what NumPy does, and what Torch and ONNX call the same.

    relu         max(z, 0)
    tanh
    sigmoid      s(z) = 1 / (1 + exp(-z))
    leaky_relu   z, and z / 100 where z < 0
    silu         z s(z)   (Elfwing et al. 2018)
    gelu         z / 2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3)))   (Hendrycks and Gimpel 2016, as approximated there)

The slope of the first three follows from what they give, so that they may overwrite what they get (`IN_PLACE`); that of
the others follows from what they got, which is then kept (`KEEPING`). All arrays are float32, of any shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from models.nets.op import Op
from models.params import Float32

Name = Literal["relu", "tanh", "gelu", "silu", "sigmoid", "leaky_relu"]
ZEROS = np.zeros(4096, np.float32)
LEAK = 0.01
"""The slope of leaky_relu below zero, as Torch has it."""
GELU_RATE, GELU_CUBE = math.sqrt(2.0 / math.pi), 0.044715


class InPlace(NamedTuple):
    """forward: overwrites z with a(z). backward: multiplies the gradient in place by a'(z), given a = a(z) and a place
    for bytes or numbers of its shape, whose content is anything.

    torch: torch.nn -> the module. onnx: the operator.
    """

    forward: Callable[[Float32], None]
    backward: Callable[[Float32, Float32, npt.NDArray[Any]], None]
    dtype: npt.DTypeLike
    """Of the place that backward wants."""
    torch: Callable[[Any], Any]
    onnx: str

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """Return the one operation, which gives f"{name}.output"."""
        return (Op(self.onnx, (value,), f"{name}.output"),)


class Keeping(NamedTuple):
    """forward: (z, a, t) writes a(z), and to t what backward finds again; z stays. backward: (gradient, z, t, spare)
    multiplies the gradient in place by a'(z); t and spare are overwritten.

    torch: torch.nn -> the module. operations: (name, value) -> the same as ONNX, which gives f"{name}.output".
    """

    forward: Callable[[Float32, Float32, Float32], None]
    backward: Callable[[Float32, Float32, Float32, Float32], None]
    torch: Callable[[Any], Any]
    operations: Callable[[str, str], tuple[Op, ...]]


def _relu(z: Float32) -> None:
    """By arrays of zeros: NumPy's maximum with a number takes one at a time, three times as long."""
    flat = z.reshape(-1)
    whole = flat.size - flat.size % len(ZEROS)
    for part in (flat[:whole].reshape(-1, len(ZEROS)), flat[whole:]):
        np.maximum(part, ZEROS[: part.shape[-1]], out=part)


def _relu_backward(gradient: Float32, a: Float32, positive: npt.NDArray[Any]) -> None:
    np.greater(a, 0.0, out=positive)
    gradient *= positive


def _tanh(z: Float32) -> None:
    np.tanh(z, out=z)


def _tanh_backward(gradient: Float32, a: Float32, slope: npt.NDArray[Any]) -> None:
    np.multiply(a, a, out=slope)
    np.subtract(1.0, slope, out=slope)
    gradient *= slope


def sigmoid(z: Float32, out: Float32) -> None:
    """Write 1 / (1 + exp(-z)), as (1 + tanh(z / 2)) / 2: no exponential overflows."""
    np.multiply(z, np.float32(0.5), out=out)
    np.tanh(out, out=out)
    out += np.float32(1.0)
    out *= np.float32(0.5)


def _sigmoid(z: Float32) -> None:
    sigmoid(z, z)


def _sigmoid_backward(gradient: Float32, a: Float32, slope: npt.NDArray[Any]) -> None:
    np.subtract(1.0, a, out=slope)
    slope *= a
    gradient *= slope


def _leaky_relu(z: Float32, a: Float32, t: Float32) -> None:  # noqa: ARG001  (its slope follows from z)
    np.multiply(z, np.float32(LEAK), out=a)
    np.maximum(a, z, out=a)


def _leaky_relu_backward(gradient: Float32, z: Float32, t: Float32, spare: Float32) -> None:  # noqa: ARG001
    np.greater(z, 0.0, out=t)
    np.maximum(t, np.float32(LEAK), out=t)
    gradient *= t


def _leaky_relu_operations(name: str, value: str) -> tuple[Op, ...]:
    return (Op("LeakyRelu", (value,), f"{name}.output", {"alpha": LEAK}),)


def _silu(z: Float32, a: Float32, t: Float32) -> None:
    sigmoid(z, t)
    np.multiply(z, t, out=a)


def _silu_backward(gradient: Float32, z: Float32, t: Float32, spare: Float32) -> None:
    """By s (1 + z (1 - s))."""
    np.subtract(1.0, t, out=spare)
    spare *= z
    spare += np.float32(1.0)
    spare *= t
    gradient *= spare


def _gelu(z: Float32, a: Float32, t: Float32) -> None:
    np.multiply(z, z, out=t)
    t *= np.float32(GELU_RATE * GELU_CUBE)
    t += np.float32(GELU_RATE)
    t *= z
    np.tanh(t, out=t)
    np.add(t, np.float32(1.0), out=a)
    a *= z
    a *= np.float32(0.5)


def _gelu_backward(gradient: Float32, z: Float32, t: Float32, spare: Float32) -> None:
    """By (1 + t) / 2 + z / 2 (1 - t^2) u', with u' = sqrt(2 / pi) (1 + 3 * 0.044715 z^2); 1 - t^2 = (1 + t)(1 - t)."""
    np.multiply(z, z, out=spare)
    spare *= np.float32(3 * GELU_RATE * GELU_CUBE)
    spare += np.float32(GELU_RATE)
    spare *= z
    gradient *= np.float32(0.5)
    t += np.float32(1.0)
    gradient *= t  # (1 + t) / 2 of both terms
    np.subtract(2.0, t, out=t)
    spare *= t
    spare += np.float32(1.0)
    gradient *= spare


def _silu_operations(name: str, value: str) -> tuple[Op, ...]:
    return (Op("Sigmoid", (value,), f"{name}.sigmoid"), Op("Mul", (value, f"{name}.sigmoid"), f"{name}.output"))


def _gelu_operations(name: str, value: str) -> tuple[Op, ...]:
    def constant(what: str, number: float) -> Op:
        return Op("Constant", (), f"{name}.{what}", {"value_float": number})

    return (
        constant("cube_rate", GELU_RATE * GELU_CUBE),
        constant("rate", GELU_RATE),
        constant("one", 1.0),
        constant("half", 0.5),
        Op("Mul", (value, value), f"{name}.square"),
        Op("Mul", (f"{name}.square", f"{name}.cube_rate"), f"{name}.scaled"),
        Op("Add", (f"{name}.scaled", f"{name}.rate"), f"{name}.factor"),
        Op("Mul", (f"{name}.factor", value), f"{name}.inner"),
        Op("Tanh", (f"{name}.inner",), f"{name}.tanh"),
        Op("Add", (f"{name}.tanh", f"{name}.one"), f"{name}.raised"),
        Op("Mul", (f"{name}.raised", value), f"{name}.product"),
        Op("Mul", (f"{name}.product", f"{name}.half"), f"{name}.output"),
    )


IN_PLACE: dict[str, InPlace] = {
    "relu": InPlace(_relu, _relu_backward, np.bool_, lambda nn: nn.ReLU(), "Relu"),
    "tanh": InPlace(_tanh, _tanh_backward, np.float32, lambda nn: nn.Tanh(), "Tanh"),
    "sigmoid": InPlace(_sigmoid, _sigmoid_backward, np.float32, lambda nn: nn.Sigmoid(), "Sigmoid"),
}
KEEPING: dict[str, Keeping] = {
    "leaky_relu": Keeping(_leaky_relu, _leaky_relu_backward, lambda nn: nn.LeakyReLU(LEAK), _leaky_relu_operations),
    "silu": Keeping(_silu, _silu_backward, lambda nn: nn.SiLU(), _silu_operations),
    "gelu": Keeping(_gelu, _gelu_backward, lambda nn: nn.GELU(approximate="tanh"), _gelu_operations),
}
