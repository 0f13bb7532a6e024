"""What a fedge wrote of a job whose net has buffers is read, and comes to what it came to."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.learner import Learner, LearnerError
from models.training.checkpoint import CheckpointError, format_of, from_bytes
from tests.formats.make_buffered import HERE, JOB, NET, learner, state

STATE, CHECKPOINT = (HERE / name for name in ("state.bin", "checkpoint.bin"))
SHA256 = "904a147b14aa808feccda8ea7cfaa208c69ad157a3f41cfaed2a49eb71379a59"


def test_the_state_of_a_version_with_buffers_is_read() -> None:
    found = Learner(NET, JOB, STATE.read_bytes(), 1, SHA256).now.held
    np.testing.assert_allclose(found.buffers.params()["1.running_var"], [1.5, 0.3, 7e-5], rtol=2.0**-8)
    assert learner().now.sha256 == SHA256  # and it would be the same today


def test_a_training_with_buffers_is_read() -> None:
    content = CHECKPOINT.read_bytes()
    found, today = from_bytes(content, NET.spec), state()
    assert format_of(content) == 2
    assert today.has_as_much(found)
    assert found.buffers["1.num_batches_tracked"] == 3
    np.testing.assert_allclose(found.buffers["1.running_var"], today.buffers["1.running_var"], rtol=1e-4)


@pytest.mark.parametrize("at", range(4, 300, 17))
def test_a_bit_that_has_flipped_is_damage(at: int) -> None:
    state, training = (bytearray(file.read_bytes()) for file in (STATE, CHECKPOINT))
    state[at % len(state)] ^= 4
    training[at % len(training)] ^= 4
    with pytest.raises(LearnerError, match="checksum"):
        Learner(NET, JOB, bytes(state))
    with pytest.raises(CheckpointError):
        from_bytes(bytes(training), NET.spec)
