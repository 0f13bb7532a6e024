from __future__ import annotations

import threading

import numpy as np

from models.nets.scratch import MOST_VIEWS, Scratch, scratch_of


class Owner:
    """Some net."""


def test_a_name_has_the_same_memory_for_every_shape_that_fits() -> None:
    scratch = Scratch()
    large, small = scratch.array("a", shape=(10, 4)), scratch.array("a", shape=(3, 4))
    assert np.shares_memory(large, small)
    assert scratch.array("a", shape=(10, 4)) is large
    assert not np.shares_memory(large, scratch.array("b", shape=(10, 4)))
    assert not np.shares_memory(large, scratch.array("a", shape=(10, 4), dtype=np.bool_))
    assert scratch.n_bytes == 160 + 160 + 40


def test_a_larger_batch_gets_new_memory_and_the_old_one_goes() -> None:
    scratch = Scratch()
    small = scratch.array("a", shape=(3, 4))
    large = scratch.array("a", shape=(30, 4))
    assert not np.shares_memory(small, large)
    assert scratch.n_bytes == 480
    assert np.shares_memory(scratch.array("a", shape=(3, 4)), large)


def test_any_number_of_shapes_is_remembered_only_so_far() -> None:
    scratch = Scratch()
    scratch.array("a", shape=(2 * MOST_VIEWS,))
    for n in range(2 * MOST_VIEWS):
        assert scratch.array("a", shape=(n,)).size == n
    assert len(scratch._views) <= MOST_VIEWS


def test_a_thread_has_the_memory_of_the_net_that_trained_last() -> None:
    one, other = Owner(), Owner()
    first = scratch_of(one)
    assert scratch_of(one) is first
    seen: list[Scratch] = []
    thread = threading.Thread(target=lambda: seen.append(scratch_of(one)))
    thread.start()
    thread.join()
    assert seen[0] is not first
    assert scratch_of(other) is not first
    assert scratch_of(one) is not first, "it has none while another one trains"
