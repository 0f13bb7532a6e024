"""The whole state of a training run between two steps, and its bytes.

Nothing is hidden: the order of the examples follows from `seed` and the epoch, so a position is two numbers, and a
run that is resumed from these bytes ends in the very bits of one that was never disturbed.

    8 bytes   "fedgeck1": the last one is the number of the format, a digit; 2 where there are squares or buffers
    4 bytes   length of the header, little-endian
    n bytes   the header, JSON
    rest      params, then momentum and squares if the header says so: float32 little-endian, in the order of the spec;
              then the buffers that the header names, as it says
    4 bytes   CRC-32 of everything before it (bit rot; whoever can write the file can write this too)

Its first eight bytes and its last four are the same in every format.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.params import Beside, Params, Spec, n_parameters
from models.rows import copy_of, params_of

FORMAT = 1
NEWEST = 2
MAGIC = b"fedgeck"
_KINDS = ("<f4", "<i8", "<i4", "<i2", "|i1", "|u1", "<u2", "<u4", "<u8")
"""Of the numbers of a buffer."""


class CheckpointError(ValueError):
    """Bytes that are no checkpoint of this net. Training then starts its version afresh."""


_NONE: Params = {}


class TrainingState(NamedTuple):
    """Where a training run stands: the next batch to do is `batch` of `epoch`, both counted from 0."""

    params: Params
    momentum: Params
    """What the optimizer keeps (`models.training.optimizers.Kept`), in the order of the params: SGD's velocity times
    the learning rate, or Adam's sum of gradients; empty when the run uses none."""
    seed: bytes
    """32 bytes from which every epoch's order is derived (`models.training.train.seed_for`)."""
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    """Sum over the examples of this epoch so far of the loss that each had in its step."""
    n_seen: int = 0
    """Examples of this epoch so far."""
    squares: Params = _NONE
    """Adam's sum of their squares, in the order of the params; empty when the run uses none."""
    buffers: Mapping[str, npt.NDArray[np.generic]] = MappingProxyType({})
    """What the net has beside its params and training changes, by name: float32, or whole numbers."""

    @property
    def all_params(self) -> Params:
        """The params with the buffers beside them, as a net takes them."""
        return {**self.params, **self.buffers} if self.buffers else self.params  # type: ignore[dict-item]  # counts are no floats

    def has_as_much(self, other: TrainingState) -> bool:
        """Return whether another state has the buffers that this one has: the same names, kinds and shapes."""
        return _kinds_of(self.buffers) == _kinds_of(other.buffers)


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    seed: str
    epoch: int
    batch: int
    loss_sum: float
    n_seen: int
    momentum: bool
    squares: bool = False
    buffers: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    """Of each its name, the kind of its numbers and its shape."""


def format_of(body: bytes) -> int:
    """Return the number of the format that these bytes say they have; 0 for what is no checkpoint, or a damaged one."""
    if body[:7] != MAGIC or not body[7:8].isdigit() or zlib.crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
        return 0
    return int(body[7:8])


def copy(state: TrainingState) -> TrainingState:
    """Return a state that shares no array with this one."""
    params, momentum, squares = map(copy_of, (state.params, state.momentum, state.squares))
    buffers = {name: np.array(value) for name, value in state.buffers.items()}
    return state._replace(params=params, momentum=momentum, squares=squares, buffers=buffers)


def to_bytes(state: TrainingState) -> bytes:
    """Write the state down."""
    where, beside = (state.epoch, state.batch, state.loss_sum, state.n_seen), _kinds_of(state.buffers)
    header = msgspec.json.encode(_Header(state.seed.hex(), *where, bool(state.momentum), bool(state.squares), beside))
    arrays = (*state.params.values(), *state.momentum.values(), *state.squares.values())
    magic = MAGIC + str(NEWEST if state.squares or beside else FORMAT).encode()
    parts = (magic, len(header).to_bytes(4, "little"), header, *(a.astype("<f4").tobytes() for a in arrays))
    body = b"".join((*parts, *(state.buffers[name].astype(kind).tobytes() for name, kind, _ in beside)))
    return body + zlib.crc32(body).to_bytes(4, "little")


def _kinds_of(buffers: Mapping[str, npt.NDArray[np.generic]]) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((name, value.dtype.newbyteorder("<").str, value.shape) for name, value in buffers.items())


def from_bytes(body: bytes, spec: Spec) -> TrainingState:
    """Read a state of a net of this spec; its arrays are fresh. Raises CheckpointError, whatever the bytes."""
    found = format_of(body)
    if not found:
        raise CheckpointError("not a checkpoint, or a damaged one")
    if not FORMAT <= found <= NEWEST:
        raise CheckpointError(f"the checkpoint has format {found}, where this fedge reads {FORMAT} to {NEWEST}")
    end = 12 + int.from_bytes(body[8:12], "little")
    try:
        header = msgspec.json.decode(body[12:end], type=_Header)
        seed = bytes.fromhex(header.seed)
    except ValueError as error:  # msgspec's errors are ValueErrors
        raise CheckpointError(f"the header of the checkpoint: {error}") from error
    n_arrays = 1 + header.momentum + header.squares
    if len(body) != end + 4 * n_parameters(spec) * n_arrays + _n_bytes(header) + 4:
        raise CheckpointError("the checkpoint belongs to another net")
    if len(seed) != 32 or min(header.epoch, header.batch, header.n_seen) < 0:
        raise CheckpointError("the checkpoint stands nowhere")
    params, rest = _arrays(body, end, spec)
    momentum, rest = _arrays(body, rest, spec) if header.momentum else ({}, rest)
    squares, rest = _arrays(body, rest, spec) if header.squares else ({}, rest)
    where = header.epoch, header.batch, header.loss_sum, header.n_seen
    return TrainingState(params, momentum, seed, *where, squares=squares, buffers=_beside(body, rest, header))


def _n_bytes(header: _Header) -> int:
    """Return how many bytes the buffers take that a header names. Raises CheckpointError for kinds of no net."""
    if any(kind not in _KINDS or min(shape, default=0) < 0 for _, kind, shape in header.buffers):
        raise CheckpointError("the checkpoint has buffers of no kind that a net has")
    return sum(int(kind[2:]) * math.prod(shape) for _, kind, shape in header.buffers)


def _beside(body: bytes, offset: int, header: _Header) -> Beside:
    """Read the buffers that a header names."""
    found: Beside = {}
    for name, kind, shape in header.buffers:
        n = math.prod(shape)
        value = np.frombuffer(body, kind, n, offset).reshape(shape)
        found[name] = value.astype(value.dtype.newbyteorder("="))
        offset += value.nbytes
    return found


def _arrays(body: bytes, offset: int, spec: Spec) -> tuple[Params, int]:
    """Read the arrays of a net, in a row, and say where they end."""
    n = n_parameters(spec)
    row = np.frombuffer(body, "<f4", n, offset).astype(np.float32)
    return params_of(row, spec), offset + 4 * n
