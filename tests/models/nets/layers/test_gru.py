"""The units against torch.nn.GRU: names, order, states, gradients."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nets.batches import quietly
from models.nets.layers.gru import Gru, Head
from models.nets.layers.layer import Place, Scratch
from models.params import Float32

RNG = np.random.default_rng(0)


def tensors_of(layer: Gru, scale: float = 1.0) -> list[Float32]:
    return [(scale * RNG.standard_normal(t.shape)).astype(np.float32) for t in layer.tensors]


def torch_of(layer: Gru, tensors: list[Float32]) -> torch.nn.GRU:
    module: torch.nn.GRU = layer.module(torch.nn)
    assert [(name, tuple(p.shape)) for name, p in module.named_parameters()] == list(layer.tensors)
    module.load_state_dict({t.name: torch.tensor(values) for t, values in zip(layer.tensors, tensors, strict=True)})
    return module


def place_of(scratch: Scratch, draw: int | None = 1) -> Place:
    return Place(scratch, "0", draw=draw, free=False)


@given(
    length=st.integers(1, 9),
    columns=st.integers(1, 5),
    units=st.integers(1, 6),
    n_layers=st.integers(1, 4),
    n=st.integers(1, 7),
    head=st.sampled_from(["last", "mean"]),
    scale=st.sampled_from([0.1, 0.5, 1.0]),  # beyond, Torch is as far from float64 as this is
)
@settings(max_examples=25, deadline=None)
def test_what_it_gives_and_every_gradient_are_those_of_torch(
    length: int, columns: int, units: int, n_layers: int, n: int, head: Head, scale: float
) -> None:
    layer = Gru(length, columns, units, n_layers, head)
    tensors, scratch = tensors_of(layer, scale), Scratch()
    module = torch_of(layer, tensors)
    x, da = (RNG.standard_normal((n, k)).astype(np.float32) for k in (length * columns, units))
    given_x = torch.tensor(x, requires_grad=True)
    theirs = module(given_x)
    torch.autograd.backward(theirs, torch.tensor(da))
    place = place_of(scratch)
    gradients = [np.empty_like(values) for values in tensors]
    with quietly():  # products of a few columns may raise flags for what lies behind them, and count nothing of it
        ours = layer.forward(place, tensors, x)
        again = layer.forward(place_of(Scratch(), None), tensors, x)
        dx = layer.backward(place, tensors, gradients, da.copy(), first=False)
    np.testing.assert_allclose(ours, theirs.detach(), atol=1e-5)
    np.testing.assert_allclose(again, ours, atol=1e-6)
    assert dx is not None
    assert given_x.grad is not None
    assert dx.shape == x.shape
    np.testing.assert_allclose(dx, given_x.grad, rtol=1e-4, atol=1e-5)
    for values, (name, parameter) in zip(gradients, module.named_parameters(), strict=True):
        assert parameter.grad is not None
        np.testing.assert_allclose(values, parameter.grad, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_long_sequence_that_nobody_trains_on_is_computed_in_pieces_of_little_memory() -> None:
    layer, n = Gru(500, 2, 16), 1000
    tensors, x = tensors_of(layer), RNG.standard_normal((n, 1000)).astype(np.float32)
    tracemalloc.start()
    found = layer.forward(place_of(Scratch(), None), tensors, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000, "32 MB are the states alone"
    np.testing.assert_allclose(found[-3:], layer.forward(place_of(Scratch()), tensors, x[-3:]), atol=1e-5)


def test_a_second_batch_is_computed_in_the_memory_of_the_first() -> None:
    layer, scratch = Gru(64, 6, 32, 2), Scratch()
    tensors, x = tensors_of(layer), RNG.standard_normal((10, 384)).astype(np.float32)
    gradients = [np.empty_like(values) for values in tensors]

    def step(rows: Float32) -> None:
        place = place_of(scratch)
        da = layer.forward(place, tensors, rows)
        layer.backward(place, tensors, gradients, da, first=True)

    step(x)
    tracemalloc.start()
    step(x)
    step(x[:7])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000, "a moment's views; an array of all moments has 82 kB and there would be dozens"


@pytest.mark.parametrize("still", range(4))
def test_a_tensor_that_does_not_move_gets_no_gradient_and_changes_no_other(still: int) -> None:
    layer, x = Gru(5, 2, 3), RNG.standard_normal((4, 10)).astype(np.float32)
    tensors, da = tensors_of(layer), RNG.standard_normal((4, 3)).astype(np.float32)
    found = []
    for frozen in (None, still):
        place, gradients = (
            place_of(Scratch()),
            [None if i == frozen else np.empty_like(t) for i, t in enumerate(tensors)],
        )
        layer.forward(place, tensors, x)
        assert layer.backward(place, tensors, gradients, da.copy(), first=True) is None
        found.append(gradients)
    for i, (all_move, some) in enumerate(zip(*found, strict=True)):
        assert i == still or (all_move is not None and some is not None and all_move.tobytes() == some.tobytes())


def test_states_that_are_saturated_have_finite_gradients() -> None:
    layer, x = Gru(6, 2, 3), 1e4 * RNG.standard_normal((4, 12)).astype(np.float32)
    tensors, place = tensors_of(layer, 100.0), place_of(Scratch())
    a = layer.forward(place, tensors, x)
    gradients = [np.empty_like(values) for values in tensors]
    layer.backward(place, tensors, gradients, np.ones_like(a), first=True)
    assert np.isfinite(a).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
