"""What a fedge wrote of a job whose fleet has agreed is read, and comes to what it came to."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from aggregator.learner import Learner, LearnerError, StateFormatError
from edge_agent.slot import open_slot
from models.nets.normalised import normalised
from tests.formats.make_agreed import CONTRACT, HERE, JOB, NET, RELEASE, ROWS, learner

STATE = (HERE / "state.bin").read_bytes()
SHA256 = "338f7e8b1d3766ec0c9d9f787c283c46dc959b06b47238e49f29e3f7f9e66b24"


def test_the_state_of_a_version_on_which_a_fleet_agreed_is_read() -> None:
    found = Learner(NET, JOB, STATE, 1, SHA256)
    agreed = found.now.held.agreed
    assert agreed is not None
    assert agreed.class_counts == (12, 12)
    np.testing.assert_allclose(agreed.offset, ROWS.astype(np.float64).mean(axis=0), rtol=1e-6, atol=1e-9)
    assert learner().now.sha256 == SHA256  # and it would be the same today


def test_a_newer_one_is_refused_by_its_number() -> None:
    tree = msgspec.msgpack.decode(STATE[4:])
    assert tree[0] == 3
    packed = msgspec.msgpack.encode([5, *tree[1:], "more"])
    with pytest.raises(StateFormatError, match="has format 5, of a newer fedge, where this one reads 2 to 4"):
        Learner(NET, JOB, zlib.crc32(packed).to_bytes(4, "little") + packed)


@pytest.mark.parametrize("at", range(4, len(STATE), 7))
def test_a_bit_that_has_flipped_is_damage(at: int) -> None:
    damaged = bytearray(STATE)
    damaged[at] ^= 4
    with pytest.raises(LearnerError, match="checksum"):
        Learner(NET, JOB, bytes(damaged))


def test_a_slot_with_a_contract_is_served(tmp_path: Path) -> None:
    shutil.copytree(HERE / "slot", tmp_path / "slot", symlinks=True)
    slot = open_slot(tmp_path / "slot")
    assert slot.card is not None
    assert (slot.card.format, slot.card.contract, slot.card.release) == (3, CONTRACT, RELEASE)
    now = learner().now
    right = normalised(NET, CONTRACT, now.held.agreed).predict(now.model.params(NET.spec), ROWS)
    np.testing.assert_allclose(slot.predict(ROWS), right, rtol=1e-6)
