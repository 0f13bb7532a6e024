"""The factories of the benchmarks make nets that a job can train."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.fleets.catalogue import FLEETS
from models.nets.table import by_torch


@pytest.mark.parametrize("name", [name for name, fleet in FLEETS.items() if fleet.torch])
def test_a_net_of_torch_takes_flat_rows_and_learns(name: str) -> None:
    model = FLEETS[name].net
    net, rng = by_torch(model), np.random.default_rng(0)
    X, y = rng.normal(size=(20, model.inputs)).astype(np.float32), rng.integers(0, model.outputs, 20)
    params = {tensor.name: rng.normal(0, 0.1, tensor.shape).astype(np.float32) for tensor in net.spec}
    before, gradients = net.loss_and_gradients(params, X, y)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients.values())
    after = {tensor: values - 0.01 * gradients[tensor] for tensor, values in params.items()}
    assert net.evaluate(after, X, y).loss < before
