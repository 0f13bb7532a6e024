"""Messages between a process and its inference child, over a pair of pipes.

    4 bytes   length of the message, little-endian, at most 16 MiB: of a model with a million inputs, how each is scaled
    8 bytes   length of the body, little-endian, at most 4 GiB
    n bytes   the message, JSON
    rest      the body: float32 little-endian, rows one after another

A question (Load, Export, Predict) always gets one answer (Done, Answer, Failed). Both ends are ours and run the same
code; the limits are there so that stray bytes on the pipe end in an error instead of a large allocation.
"""

from __future__ import annotations

from typing import IO

import msgspec

from models.contract import NO_CONTRACT, ContractSpec
from models.job import ModelSpec, Natural

MAX_MESSAGE_BYTES = 1 << 24
MAX_BODY_BYTES = 1 << 32


class PipeError(Exception):
    """The other end is gone, or what came from it is no message."""


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Serve the ONNX file at this path from now on, if it can be loaded; else go on as before."""

    path: str


class Export(msgspec.Struct, frozen=True, tag="export"):
    """Write the params of this NPZ file as ONNX there."""

    model: ModelSpec
    params: str
    target: str
    metadata: dict[str, str]
    contract: ContractSpec = NO_CONTRACT
    agreed: bytes = b""


class Predict(msgspec.Struct, frozen=True, tag="predict"):
    """Answer for the rows x columns float32 of the body."""

    rows: Natural
    columns: Natural


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Loaded."""


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The body holds rows x columns float32."""

    rows: Natural
    columns: Natural


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It could not be done."""

    reason: str


Message = Load | Export | Predict | Done | Answer | Failed


def write(stream: IO[bytes], message: Message, body: bytes = b"") -> None:
    """Write one message. Raises PipeError if nobody reads."""
    head = msgspec.json.encode(message)
    try:
        stream.write(len(head).to_bytes(4, "little") + len(body).to_bytes(8, "little") + head)
        stream.write(body)
        stream.flush()
    except OSError as error:
        raise PipeError(f"the pipe is closed: {error}") from error


def read(stream: IO[bytes]) -> tuple[Message, bytes]:
    """Read one message and its body. Raises PipeError at the end of the stream and on anything malformed."""
    lengths = _take(stream, 12)
    n_head, n_body = int.from_bytes(lengths[:4], "little"), int.from_bytes(lengths[4:], "little")
    if n_head > MAX_MESSAGE_BYTES or n_body > MAX_BODY_BYTES:
        raise PipeError(f"a message of {n_head} and a body of {n_body} bytes")
    try:
        message = msgspec.json.decode(_take(stream, n_head), type=Message)
    except msgspec.MsgspecError as error:
        raise PipeError(f"no message: {error}") from error
    shaped = isinstance(message, Predict | Answer)
    if n_body != (4 * message.rows * message.columns if shaped else 0):
        raise PipeError(f"a body of {n_body} bytes with {message}")
    return message, _take(stream, n_body)


def _take(stream: IO[bytes], n: int) -> bytes:
    body = stream.read(n)
    if len(body) != n:
        raise PipeError("the other end is gone")
    return body
