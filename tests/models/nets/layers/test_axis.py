from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.nets.layers.axis import Axis


def test_a_kernel_that_is_longer_than_the_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="a kernel of 4 is longer than the 3 that are there"):
        Axis.of(3, 4, 1, "same")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@given(size=st.integers(1, 40), kernel=st.integers(1, 9))
def test_same_padding_with_a_stride_of_1_has_torchs_zeros(size: int, kernel: int) -> None:
    axis = Axis.of(size, min(size, kernel), 1, "same")
    conv = torch.nn.Conv1d(1, 1, axis.kernel, padding="same", bias=False)
    weight = np.arange(1, axis.kernel + 1, dtype=np.float32)
    x = np.arange(1, size + 1, dtype=np.float32)
    with torch.no_grad():
        conv.weight[...] = torch.from_numpy(weight)
        wanted = conv(torch.from_numpy(x).reshape(1, 1, -1)).numpy().reshape(-1)
    padded = np.zeros(axis.padded, np.float32)
    padded[axis.inside] = x
    assert axis.outputs == size
    np.testing.assert_array_equal(sum(weight[tap] * padded[axis.at(tap)] for tap in range(axis.kernel)), wanted)


@given(size=st.integers(1, 40), kernel=st.integers(1, 9), stride=st.integers(1, 5))
def test_every_place_lies_within_what_is_padded(size: int, kernel: int, stride: int) -> None:
    for padding in ("same", "valid"):
        axis = Axis.of(size, min(size, kernel), stride, padding)  # type: ignore[arg-type]
        padded = np.arange(axis.padded)
        assert all(len(padded[axis.at(tap)]) == axis.outputs for tap in range(axis.kernel))
        assert padded[axis.at(axis.kernel - 1)][-1] + stride > axis.padded - 1  # there is no room for one more
