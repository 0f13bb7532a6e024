"""Dealing data out: every row to exactly one device, the same way for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.problems.partition import HOW, PartitionError, by_column, deal

LABELS = np.repeat(np.arange(10), 60)


@settings(max_examples=60, deadline=None)
@given(
    how=st.sampled_from(["iid", "shards:1", "shards:2", "dirichlet:0.01", "dirichlet:0.5", "dirichlet:100"]),
    n=st.integers(60, 300),
    n_devices=st.integers(1, 30),
    n_classes=st.integers(1, 10),
    seed=st.integers(0, 2**31),
)
def test_every_row_goes_to_exactly_one_device_and_no_device_goes_without(
    how: str, n: int, n_devices: int, n_classes: int, seed: int
) -> None:
    y = np.random.default_rng(seed).integers(0, n_classes, n)
    shares = deal(how, y, n_devices, seed)
    assert len(shares) == n_devices
    assert all(len(share) for share in shares)
    assert sorted(np.concatenate(shares)) == list(range(n))


def test_the_same_seed_deals_the_same_rows() -> None:
    for how in ("iid", "shards:2", "dirichlet:0.5"):
        first, again, other = (deal(how, LABELS, 10, seed) for seed in (1, 1, 2))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_iid_shares_are_equal() -> None:
    assert {len(share) for share in deal("iid", LABELS, 10, 0)} == {60}


def test_two_shards_leave_a_device_few_classes() -> None:
    shares = deal("shards:2", LABELS, 10, 0)
    assert {len(share) for share in shares} == {60}
    assert max(len(np.unique(LABELS[share])) for share in shares) <= 2


def test_a_small_alpha_makes_devices_less_alike_than_a_large_one() -> None:
    def largest_class(alpha: str) -> float:
        shares = deal(f"dirichlet:{alpha}", LABELS, 5, 3)
        return float(np.mean([np.bincount(LABELS[share]).max() / len(share) for share in shares]))

    assert largest_class("0.05") > 2 * largest_class("1000")


def test_a_column_gives_each_of_its_values_a_device() -> None:
    shares = by_column(np.array(["b", "a", "b", "c"]))
    assert [share.tolist() for share in shares] == [[1], [0, 2], [3]]


def test_a_column_of_rows_is_refused() -> None:
    with pytest.raises(PartitionError, match="shape"):
        by_column(np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("how", "n_devices", "why"),
    [
        ("iid", 601, "601 devices are more than the 600 examples"),
        ("shards:100", 10, "10 devices x 100 shards are more than the 600 examples"),
        ("shards:0", 10, "positive number"),
        ("shards:two", 10, "positive number"),
        ("shards", 10, "positive number"),
        ("dirichlet:0", 10, "from 0.001"),
        ("dirichlet:nan", 10, "from 0.001"),
        ("dirichlet", 10, "from 0.001"),
        ("iid:3", 10, "none of"),
        ("random", 10, HOW),
    ],
)
def test_what_cannot_be_dealt_is_explained(how: str, n_devices: int, why: str) -> None:
    with pytest.raises(PartitionError, match=why):
        deal(how, LABELS, n_devices, 0)


def test_values_have_no_shards() -> None:
    with pytest.raises(PartitionError, match="no classes"):
        deal("shards:2", np.zeros((60, 2), np.float32), 3, 0)
