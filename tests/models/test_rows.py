import numpy as np
import pytest

from models.params import TensorSpec
from models.rows import carved, copy_of, params_of, row_of

SPEC = (TensorSpec("w", (2, 3)), TensorSpec("s", ()), TensorSpec("none", (0, 4)), TensorSpec("b", (3,)))


def test_what_was_carved_out_of_a_row_is_that_row_again() -> None:
    row = np.arange(10, dtype=np.float32)
    tensors = carved(row, SPEC)
    assert [tensor.shape for tensor in tensors] == [tensor.shape for tensor in SPEC]
    assert row_of(tensors) is row
    assert row_of(list(params_of(row, SPEC).values())) is row


@pytest.mark.parametrize(
    "some",
    [
        lambda tensors: tensors[:-1],
        lambda tensors: tensors[1:],
        lambda tensors: tensors[::-1],
        lambda tensors: [tensors[0].T, *tensors[1:]],
        lambda tensors: [tensors[0].copy(), *tensors[1:]],
        lambda tensors: [np.zeros((2, 3), np.float32), *tensors[1:]],
    ],
    ids=["the end is missing", "the beginning is missing", "another order", "transposed", "a copy", "of its own"],
)
def test_other_tensors_are_put_into_a_row(some) -> None:  # type: ignore[no-untyped-def]
    row = np.arange(10, dtype=np.float32)
    tensors = some(carved(row, SPEC))
    found = row_of(tensors)
    assert found is not row
    assert found.tolist() == [value for tensor in tensors for value in tensor.reshape(-1).tolist()]


def test_a_row_within_a_longer_one_is_not_taken_for_it() -> None:
    longer = np.arange(12, dtype=np.float32)
    assert row_of(carved(longer[:10], SPEC)).tolist() == list(range(10))


def test_a_copy_shares_nothing_and_lies_in_a_row() -> None:
    params = params_of(np.arange(10, dtype=np.float32), SPEC)
    copy = copy_of(params)
    copy["w"][0, 0] = 99
    assert params["w"][0, 0] == 0
    assert row_of(list(copy.values())) is copy["b"].base
    assert copy_of({}) == {}
