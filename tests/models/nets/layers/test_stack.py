from __future__ import annotations

import numpy as np

from models.nets.layers.activation import Activation
from models.nets.layers.dense import Dense
from models.nets.layers.dropout import Dropout
from models.nets.layers.layer import Layer, Place, Scratch
from models.nets.layers.rows import Flatten, Rows
from models.nets.layers.stack import Stack


def run(layers: list[Layer], x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    tensors = [np.ones(t.shape, np.float32) for t in Stack(layers).tensors]
    return Stack(layers).run(Place(Scratch(), "", draw=None, free=False), tensors, x, free=False).free


def test_rows_are_not_overwritten_through_any_number_of_views() -> None:
    X = -np.ones((2, 4), np.float32)
    views: list[Layer] = [Dropout(0.5, (4,)), Rows((2, 2)), Flatten((2, 2)), Dropout(0.5, (4,))]
    assert not run(views, X)
    run([*views, Activation("relu", (4,))], X)
    np.testing.assert_array_equal(X, -1)


def test_what_a_layer_looks_at_again_is_not_free_and_all_else_is() -> None:
    X = np.ones((2, 4), np.float32)
    assert run([Dense(4, 4)], X)
    assert run([Dense(4, 4), Rows((2, 2))], X)
    assert not run([Dense(4, 4), Activation("relu", (4,))], X)
    assert not run([Dense(4, 4), Activation("relu", (4,)), Rows((2, 2)), Flatten((2, 2))], X)


def test_only_layers_behind_the_first_tensor_that_moves_go_backward() -> None:
    stack = Stack([Dense(2, 2), Activation("relu", (2,)), Dense(2, 2), Dense(2, 1)])
    tensors = [np.ones(t.shape, np.float32) for t in stack.tensors]
    place, X = Place(Scratch(), "", draw=None, free=False), np.ones((3, 2), np.float32)
    stack.forward(place, tensors, X)
    place.kept[1].kept = place.kept[0].kept = None  # whoever looks at it fails
    moving = [None, None, None, np.empty(2, np.float32), None, None]
    assert stack.backward(place, tensors, moving, np.ones((3, 1), np.float32), first=True) is None
    np.testing.assert_array_equal(moving[3], [3, 3])
    assert stack.backward(place, tensors, [None] * 6, np.ones((3, 1), np.float32), first=True) is None
