"""How a kernel goes along one axis of a window or an image: where it stands, and what lies beyond the edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

Padding = Literal["same", "valid"]


class Axis(NamedTuple):
    """size: numbers along the axis. before, after: zeros that are put to them. stride: from one place to the next."""

    size: int
    kernel: int
    stride: int = 1
    before: int = 0
    after: int = 0

    @classmethod
    def of(cls, size: int, kernel: int, stride: int, padding: Padding) -> Self:
        """Return the axis of a layer. "same": so many zeros that a stride of 1 keeps the size, one more of them after
        than before where the kernel is even (as torch.nn.Conv1d has it); "valid": none.

        Raises ValueError for a kernel longer than the axis.
        """
        if kernel > size:
            raise ValueError(f"a kernel of {kernel} is longer than the {size} that are there")
        before, after = ((kernel - 1) // 2, kernel // 2) if padding == "same" else (0, 0)
        return cls(size, kernel, stride, before, after)

    @property
    def padded(self) -> int:
        """The size with the zeros."""
        return self.before + self.size + self.after

    @property
    def outputs(self) -> int:
        """How many places there are."""
        return (self.padded - self.kernel) // self.stride + 1

    @property
    def inside(self) -> slice:
        """Where the numbers are among the zeros."""
        return slice(self.before, self.before + self.size)

    def at(self, tap: int) -> slice:
        """Return which of the padded numbers a tap of the kernel meets, place by place."""
        return slice(tap, tap + (self.outputs - 1) * self.stride + 1, self.stride)

    @property
    def back(self) -> Axis:
        """The axis along which the turned kernel goes over the gradient, for a stride of 1."""
        beyond = self.kernel - 1
        return Axis(self.outputs, self.kernel, 1, beyond - self.before, beyond - self.after)


def module_of(axes: Sequence[Axis], channels: int, outputs: int, nn: Any, **keywords: Any) -> Any:
    """Return the torch.nn.Conv1d or Conv2d whose kernel goes along these axes alike. keywords: groups, bias."""
    first, kind = axes[0], nn.Conv1d if len(axes) == 1 else nn.Conv2d
    if first.before == first.after:
        return kind(channels, outputs, first.kernel, stride=first.stride, padding=first.before, **keywords)
    conv = kind(channels, outputs, first.kernel, stride=first.stride, **keywords)
    pads = [zeros for axis in axes for zeros in (axis.before, axis.after)]  # Torch's own is the same on both sides
    conv.register_forward_pre_hook(lambda _, given: (nn.functional.pad(given[0], pads),))
    return conv


def attributes_of(axes: Sequence[Axis]) -> dict[str, Any]:
    """Return how ONNX says the same, as the attributes of a Conv."""
    return {
        "kernel_shape": [axis.kernel for axis in axes],
        "strides": [axis.stride for axis in axes],
        "pads": [*(axis.before for axis in axes), *(axis.after for axis in axes)],
    }
