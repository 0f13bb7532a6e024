from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.params import spec_of
from models.training.checkpoint import CheckpointError, TrainingState, copy, from_bytes, to_bytes

PARAMS = {
    "0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "0.bias": np.array([np.inf, -0.0], np.float32),
}
STATE = TrainingState(PARAMS, {k: v * 2 for k, v in PARAMS.items()}, bytes(range(32)), 3, 7, 0.1 + 0.2, 70)
SPEC = spec_of(PARAMS)


def seal(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


ADAM = STATE._replace(squares={k: v * 3 for k, v in PARAMS.items()})


@pytest.mark.parametrize("state", [STATE, STATE._replace(momentum={}), ADAM])
def test_a_state_comes_back_to_the_bit(state: TrainingState) -> None:
    back = from_bytes(to_bytes(state), SPEC)
    assert back[2:7] == state[2:7]
    pairs = ((back.params, state.params), (back.momentum, state.momentum), (back.squares, state.squares))
    for mine, theirs in pairs:
        assert [(k, v.tobytes(), v.shape) for k, v in mine.items()] == [
            (k, v.tobytes(), v.shape) for k, v in theirs.items()
        ]
    assert all(value.flags.writeable for value in back.params.values())


def test_a_copy_shares_nothing() -> None:
    twin = copy(STATE)
    twin.params["0.weight"][0, 0] = 9
    assert STATE.params["0.weight"][0, 0] == 0


def test_the_layout_is_the_one_described() -> None:
    body = to_bytes(STATE._replace(momentum={}, params={"a": np.ones(1, np.float32)}, seed=b"\0" * 32))
    n = int.from_bytes(body[8:12], "little")
    assert body[:8] == b"fedgeck1"
    assert body[12 + n : -4] == b"\x00\x00\x80\x3f"
    assert seal(body[:-4]) == body


def test_what_has_no_squares_is_written_in_the_first_format_and_read_by_every_fedge() -> None:
    assert to_bytes(STATE)[:8] == b"fedgeck1"
    assert b"squares" not in to_bytes(STATE)
    assert to_bytes(ADAM)[:8] == b"fedgeck2"


GOLDEN = {
    1: STATE._replace(params={"a": np.array([1.5], np.float32)}, momentum={"a": np.array([-2], np.float32)}),
    2: STATE._replace(
        params={"a": np.array([1.5], np.float32)},
        momentum={"a": np.array([-2], np.float32)},
        squares={"a": np.array([4], np.float32)},
    ),
}
BYTES = {
    1: (
        "6665646765636b319a0000007b2273656564223a223030303130323033303430353036303730383039306130623063306430"
        "6530663130313131323133313431353136313731383139316131623163316431653166222c2265706f6368223a332c226261"
        "746368223a372c226c6f73735f73756d223a302e33303030303030303030303030303030342c226e5f7365656e223a37302c"
        "226d6f6d656e74756d223a747275657d0000c03f000000c0ff4af366"
    ),
    2: (
        "6665646765636b32a90000007b2273656564223a223030303130323033303430353036303730383039306130623063306430"
        "6530663130313131323133313431353136313731383139316131623163316431653166222c2265706f6368223a332c226261"
        "746368223a372c226c6f73735f73756d223a302e33303030303030303030303030303030342c226e5f7365656e223a37302c"
        "226d6f6d656e74756d223a747275652c2273717561726573223a747275657d0000c03f000000c00000804028b77f08"
    ),
}


@pytest.mark.parametrize("number", GOLDEN)
def test_the_bytes_of_every_format_are_what_they_were(number: int) -> None:
    state, body = GOLDEN[number], bytes.fromhex(BYTES[number])
    assert to_bytes(state) == body
    assert from_bytes(body, spec_of(state.params)) == state


def test_a_checkpoint_of_another_net_is_refused() -> None:
    with pytest.raises(CheckpointError, match="another net"):
        from_bytes(to_bytes(STATE), SPEC[:1])
    with pytest.raises(CheckpointError, match="format 3, where this fedge reads 1 to 2"):
        from_bytes(seal(b"fedgeck3" + to_bytes(STATE)[8:-4]), SPEC)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_one_flipped_bit_is_noticed(at: int, bit: int) -> None:
    body = bytearray(to_bytes(STATE))
    body[at % len(body)] ^= 1 << bit
    with pytest.raises(CheckpointError):
        from_bytes(bytes(body), SPEC)


@given(
    header=st.binary(max_size=60)
    | st.sampled_from(
        [
            b'{"seed":"00","epoch":0,"batch":0,"loss_sum":0.0,"n_seen":0,"momentum":false}',
            b'{"seed":"xy","epoch":0,"batch":0,"loss_sum":0.0,"n_seen":0,"momentum":false}',
            b'{"seed":"'
            + b"00" * 32
            + b'","epoch":0,"batch":0,"loss_sum":0.0,"n_seen":0,"momentum":false,"squares":true}',
            b'{"seed":"' + b"00" * 32 + b'","epoch":-1,"batch":0,"loss_sum":0.0,"n_seen":0,"momentum":false}',
        ]
    ),
    length=st.integers(0, 2**32 - 1) | st.none(),
)
@settings(max_examples=100, deadline=None)
def test_well_sealed_nonsense_raises_nothing_but_a_checkpoint_error(header: bytes, length: int | None) -> None:
    n = len(header) if length is None else length
    body = b"fedgeck1" + n.to_bytes(4, "little") + header + bytes(32)
    with pytest.raises(CheckpointError):
        from_bytes(seal(body), SPEC)


@given(st.binary(max_size=40))
def test_any_bytes_raise_nothing_but_a_checkpoint_error(body: bytes) -> None:
    with pytest.raises(CheckpointError):
        from_bytes(body, SPEC)


BESIDE = {"mean": np.array([1.5, -2], np.float32), "n": np.array(2**40, np.int64), "table": np.zeros((0, 2), np.uint8)}


def test_buffers_come_back_to_the_bit_each_in_its_own_kind() -> None:
    state = STATE._replace(buffers=BESIDE)
    body = to_bytes(state)
    back = from_bytes(body, SPEC)
    assert body[:8] == b"fedgeck2"
    assert state.has_as_much(back)
    assert not STATE.has_as_much(back)
    for name, value in BESIDE.items():
        np.testing.assert_array_equal(back.buffers[name], value)
        assert back.buffers[name].flags.writeable
    assert back.all_params.keys() == PARAMS.keys() | BESIDE.keys()
    twin = copy(state)
    twin.buffers["mean"][0] = 9
    assert state.buffers["mean"][0] == 1.5


@pytest.mark.parametrize("said", [b'["n","|O8",[]]', b'["n","<i8",[-1]]', b'["n","<i8",[9999999999999999]]'])
def test_buffers_of_no_kind_are_refused_before_anything_is_allocated(said: bytes) -> None:
    body = to_bytes(STATE._replace(buffers={"n": BESIDE["n"]}))
    n = int.from_bytes(body[8:12], "little")
    header = body[12 : 12 + n].replace(b'["n","<i8",[]]', said)
    assert header != body[12 : 12 + n]
    with pytest.raises(CheckpointError):
        from_bytes(seal(body[:8] + len(header).to_bytes(4, "little") + header + body[12 + n : -4]), SPEC)
