import numpy as np
import pytest

from models.codec import CodecError, Pending, State
from models.params import TensorSpec

SPEC = (TensorSpec("w", (2, 3)), TensorSpec("s", ()))
RESIDUAL = (np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(7) * np.ones((), np.float32))


def test_a_state_survives_its_bytes() -> None:
    state = State.from_bytes(State(RESIDUAL).to_bytes(), SPEC)
    assert all(map(np.array_equal, state.residual, RESIDUAL))
    assert [r.dtype for r in state.residual] == [np.float32, np.float32]
    assert State.from_bytes(State().to_bytes(), SPEC) == State()


def test_a_pending_update_survives_its_bytes() -> None:
    pending = Pending.from_bytes(Pending(RESIDUAL, b"body").to_bytes(), SPEC)
    assert pending.body == b"body"
    assert all(map(np.array_equal, pending.whole, RESIDUAL))


def test_damage_is_refused() -> None:
    stored = State(RESIDUAL).to_bytes()
    flipped = bytes([*stored[:9], stored[9] ^ 4, *stored[10:]])
    for data in (b"", stored[:-1], flipped, Pending(RESIDUAL, b"").to_bytes()):
        with pytest.raises(CodecError, match="damaged"):
            State.from_bytes(data, SPEC)


def test_a_state_of_another_net_is_refused() -> None:
    with pytest.raises(CodecError, match="shapes"):
        State.from_bytes(State(RESIDUAL).to_bytes(), SPEC[:1])
