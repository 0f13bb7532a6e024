from __future__ import annotations

import numpy as np
import pytest

from models.nets.layers.activation import Activation
from models.nets.layers.dropout import Dropout, fill_mask
from models.nets.layers.layer import Place, Scratch
from models.nets.layers.residual import Residual
from models.params import Float32
from tests.models.nets.twins import hold_layer


def mask(draw: int, name: str = "2", p: float = 0.3) -> Float32:
    found = np.empty((100, 50), np.float32)
    fill_mask(found, draw, name, p)
    return found


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_numpy_and_torch_drop_the_same(shape: tuple[int, ...], p: float) -> None:
    hold_layer(Dropout(p, shape), shape, seed=3)
    hold_layer(Residual(shape, [Dropout(p, shape), Activation("tanh", shape), Dropout(p, shape)]), shape, seed=3)


def test_a_mask_follows_from_the_draw_and_the_name_alone() -> None:
    np.testing.assert_array_equal(mask(2**62), mask(2**62))
    assert (mask(1) != mask(2)).mean() > 0.3
    assert (mask(1) != mask(1, "4")).mean() > 0.3


def test_so_many_are_dropped_and_the_mean_stays() -> None:
    found = mask(5)
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.7)}
    assert (found == 0).mean() == pytest.approx(0.3, abs=0.03)


def test_who_does_not_train_drops_nothing_and_rows_stay_as_they_are() -> None:
    X = np.ones((3, 4), np.float32)
    layer = Dropout(0.5, (4,))
    assert layer.forward(Place(Scratch(), "0", draw=None, free=False), (), X) is X
    layer.forward(Place(Scratch(), "0", draw=1, free=False), (), X)
    np.testing.assert_array_equal(X, 1)


@pytest.mark.parametrize("p", [0.0, -0.1, 0.91, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"is not above 0 and at most 0\.9"):
        Dropout(p, (4,))
