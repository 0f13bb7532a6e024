"""Gated recurrent units over a sequence, in layers: the torch.nn.GRU of the same sizes, and what it ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from models.nets.layers import recurrence
from models.nets.layers.layer import Place, Shape
from models.nets.layers.recurrence import Cell, Kept
from models.nets.op import Op
from models.params import Float32, Spec, TensorSpec

Head = Literal["last", "mean"]
ROWS_OF_MOMENTS = 4096
"""Rows of one moment that are computed together where nobody trains: bounds their memory, however long a sequence."""


class Gru:
    """See `models.nets.layers.layer.Layer`. x: (n, length * columns), or what has as many numbers in that order.

    head: what it gives of the states after all moments, (n, units): the last one, or their mean. Its tensors are those
    of torch.nn.GRU, in its order: "weight_ih_l0" (3 units, columns), "weight_hh_l0" (3 units, units), "bias_ih_l0",
    "bias_hh_l0", then those of layer 1.
    """

    keeps_output = False

    def __init__(self, length: int, columns: int, units: int, n_layers: int = 1, head: Head = "last") -> None:
        self._length, self._columns, self._units, self._n_layers, self._head = length, columns, units, n_layers, head
        self.shape: Shape = (units,)
        self.tensors: Spec = tuple(
            tensor
            for i in range(n_layers)
            for tensor in (
                TensorSpec(f"weight_ih_l{i}", (3 * units, units if i else columns)),
                TensorSpec(f"weight_hh_l{i}", (3 * units, units)),
                TensorSpec(f"bias_ih_l{i}", (3 * units,)),
                TensorSpec(f"bias_hh_l{i}", (3 * units,)),
            )
        )
        # A layer has seven arrays of all its states, of which two are there on the way back alone.
        self.n_units = 3 * length * units * n_layers + length * columns + units

    def forward(self, place: Place, tensors: Sequence[Float32], x: Float32) -> Float32:
        """See `Layer`."""
        rows = x.reshape(len(x), self._length, self._columns).swapaxes(0, 1)
        a = place.array("a", (len(x), self._units))
        if place.draw is None:
            return self._foretold(place, _cells(tensors), rows, a)
        sequence = place.array("x", rows.shape)
        sequence[...] = rows
        place.kept = []
        for i, cell in enumerate(_cells(tensors)):
            kept = recurrence.forward(place.within(f"l{i}", free=False), sequence, cell)
            place.kept.append(kept)
            sequence = kept.states[1:]
        if self._head == "last":
            a[...] = sequence[-1]
        else:
            np.add.reduce(sequence, axis=0, out=a)
            a /= self._length
        return a

    def _foretold(self, place: Place, cells: Sequence[Cell], rows: Float32, a: Float32) -> Float32:
        """Return what the rows give, in `a`, some moments at a time: nobody goes back through them."""
        within = [place.within(f"l{i}", free=False) for i in range(len(cells))]
        states: list[Float32 | None] = [None] * len(cells)
        step = max(1, ROWS_OF_MOMENTS // len(a))
        a[...] = 0.0
        for at in range(0, self._length, step):
            sequence = np.ascontiguousarray(rows[at : at + step])
            for i, cell in enumerate(cells):
                sequence = recurrence.forward(within[i], sequence, cell, states[i]).states[1:]
                states[i] = sequence[-1]
            if self._head == "last":
                a[...] = sequence[-1]
            else:
                for state in sequence:
                    a += state
        if self._head == "mean":
            a /= self._length
        return a

    def backward(
        self, place: Place, tensors: Sequence[Float32], gradients: Sequence[Float32 | None], da: Float32, *, first: bool
    ) -> Float32 | None:
        """See `Layer`."""
        d, each = da, None
        if self._head == "mean":
            da /= self._length
            d = _zeros(place, da.shape)
            each = np.broadcast_to(da, (self._length, *da.shape))
        for i, cell in reversed(list(enumerate(_cells(tensors)))):
            kept: Kept = place.kept[i]
            within = place.within(f"l{i}", free=False)
            by_gates = recurrence.backward(within, kept, cell, d, each)
            recurrence.gradients_of(within, kept, by_gates, gradients[4 * i : 4 * i + 4])
            if i == 0 and first:
                return None
            each = recurrence.by_input(within, by_gates, cell)
            d = _zeros(place, da.shape)
        assert each is not None, "a layer of units at least"  # noqa: S101
        dx = place.array("x", (len(da), self._length, self._columns))
        dx[...] = each.swapaxes(0, 1)
        return dx.reshape(len(da), -1)

    def module(self, nn: Any) -> Any:
        """See `Layer`."""
        length, columns, head = self._length, self._columns, self._head

        def forward(self: Any, x: Any) -> Any:
            states, _ = nn.GRU.forward(self, x.reshape(len(x), length, columns))
            return states[:, -1] if head == "last" else states.mean(dim=1)

        kind = type("Gru", (nn.GRU,), {"forward": forward})
        return kind(columns, self._units, self._n_layers, batch_first=True)

    def operations(self, name: str, value: str) -> tuple[Op, ...]:
        """See `Layer`. ONNX has moments first, and the gates in the order z, r, n."""
        ops = [
            _constant(f"{name}.order", [1, 0, 2]),
            _constant(f"{name}.shape", [-1, self._length, self._columns]),
            Op("Reshape", (value, f"{name}.shape"), f"{name}.rows"),
            Op("Transpose", (f"{name}.rows",), f"{name}.moments", {"perm": [1, 0, 2]}),
        ]
        value = f"{name}.moments"
        for i in range(self._n_layers):
            ops += self._layer_operations(name, i, value)
            value = f"{name}.l{i}.states"
        if self._head == "last":
            ops += [
                Op("Constant", (), f"{name}.last", {"value_int": -1}),
                Op("Gather", (value, f"{name}.last"), f"{name}.output", {"axis": 0}),
            ]
        else:
            ops.append(Op("ReduceMean", (value,), f"{name}.output", {"axes": [0], "keepdims": 0}))
        return tuple(ops)

    def _layer_operations(self, name: str, i: int, value: str) -> list[Op]:
        units, here = self._units, f"{name}.l{i}"
        ops = []
        for tensor in self.tensors[4 * i : 4 * i + 4]:
            full = f"{name}.{tensor.name}"
            ops += [
                _constant(f"{full}.by_gate", [3, units, *tensor.shape[1:]]),
                Op("Reshape", (full, f"{full}.by_gate"), f"{full}.gates"),
                Op("Gather", (f"{full}.gates", f"{name}.order"), f"{full}.ordered", {"axis": 0}),
                _constant(f"{full}.whole", [1, 3 * units, *tensor.shape[1:]]),
                Op("Reshape", (f"{full}.ordered", f"{full}.whole"), f"{full}.onnx"),
            ]
        weight_ih, weight_hh, bias_ih, bias_hh = (f"{name}.{t.name}.onnx" for t in self.tensors[4 * i : 4 * i + 4])
        attributes = {"hidden_size": units, "linear_before_reset": 1}
        return [
            *ops,
            Op("Concat", (bias_ih, bias_hh), f"{here}.bias", {"axis": 1}),
            Op("GRU", (value, weight_ih, weight_hh, f"{here}.bias"), f"{here}.directed", attributes),
            _constant(f"{here}.direction", [1]),
            Op("Squeeze", (f"{here}.directed", f"{here}.direction"), f"{here}.states"),
        ]


def _cells(tensors: Sequence[Float32]) -> list[Cell]:
    return [Cell(*tensors[at : at + 4]) for at in range(0, len(tensors), 4)]


def _zeros(place: Place, shape: Shape) -> Float32:
    zeros = place.array("d", shape)
    zeros[...] = 0.0
    return zeros


def _constant(name: str, values: list[int]) -> Op:
    return Op("Constant", (), name, {"value_ints": values})
