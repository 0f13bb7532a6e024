"""A net that takes rows as they were read: each column is normalised on the way in, as the job and its fleet have it.

    raw rows ──(x - offset) * scale──▶ the net itself

One place for training, testing, predicting and probing alike; models/serving/export.py writes the same two operations
into the ONNX graph. The difference comes first: an offset of 1e9 and a spread of 100 leave nothing of a product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.agreement import Agreed, by_contract
from models.contract import ContractSpec
from models.nets.around import Around
from models.nets.batches import ROWS_AT_ONCE, quietly
from models.nets.losses import Labels, Metrics
from models.nets.net import Net
from models.params import Float32, Params

if TYPE_CHECKING:
    pass


def numbers(contract: ContractSpec, agreed: Agreed | None, inputs: int) -> tuple[Float32, Float32] | None:
    """Return offset and scale of every input of an example, (inputs,) float32; None where nothing is normalised.

    inputs: of the model. The rows of a window are normalised alike.
    """
    found = by_contract(contract, inputs) or agreed
    if found is None or not len(found.offset):
        return None
    return np.tile(found.offset, contract.n_rows), np.tile(found.scale, contract.n_rows)


def normalised(net: Net, contract: ContractSpec, agreed: Agreed | None) -> Net:
    """Return the net that takes raw rows. It is the net itself where nothing is normalised.

    agreed: what the fleet has agreed on, if it has.
    """
    found = numbers(contract, agreed, net.model.inputs)
    return net if found is None else Normalised(net, *found)


class Normalised(Around):
    """A net behind the face of `models.nets.net.Net`. offset, scale: (inputs,) float32. X is never changed."""

    def __init__(self, net: Net, offset: Float32, scale: Float32) -> None:
        super().__init__(net)
        self._offset = offset
        self._scale = scale

    def rows(self, X: Float32) -> Float32:
        """Return the rows as the net takes them: fresh, in the shape of X."""
        flat = X.reshape(len(X), -1)
        out = np.empty(flat.shape, np.float32)
        with quietly():
            np.subtract(flat, self._offset, out=out)
            out *= self._scale
        return out.reshape(X.shape)

    def loss_and_gradients(self, params: Params, X: Float32, y: Labels, **how: Any) -> tuple[float, Params]:
        """See `models.nets.net.Net`."""
        return self._net.loss_and_gradients(params, self.rows(X), y, **how)

    def predict(self, params: Params, X: Float32) -> Float32:
        """See `models.nets.net.Net`. Of X no more than ROWS_AT_ONCE rows are copied at a time."""
        answers = np.empty((len(X), self.model.outputs), np.float32)
        for at in range(0, len(X), ROWS_AT_ONCE):
            block = slice(at, at + ROWS_AT_ONCE)
            answers[block] = self._net.predict(params, self.rows(X[block]))
        return answers

    def evaluate(self, params: Params, X: Float32, y: Labels) -> Metrics:
        """See `models.nets.net.Net`. Of X no more than ROWS_AT_ONCE rows are copied at a time."""
        loss = right = 0.0
        classifies = False
        for at in range(0, len(X), ROWS_AT_ONCE):
            block = slice(at, at + ROWS_AT_ONCE)
            found = self._net.evaluate(params, self.rows(X[block]), y[block])
            loss += found.loss * found.n
            classifies = found.accuracy is not None
            right += (found.accuracy or 0.0) * found.n
        return Metrics(loss / len(X), right / len(X) if classifies else None, len(X))
