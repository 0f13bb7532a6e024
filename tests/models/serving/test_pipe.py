from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.serving.pipe import Answer, Done, Failed, Load, Message, PipeError, Predict, read, write


@pytest.mark.parametrize(
    ("message", "body"),
    [(Load("/a/b"), b""), (Predict(1, 2), bytes(8)), (Done(), b""), (Answer(2, 1), bytes(8)), (Failed("no"), b"")],
)
def test_a_message_comes_back(message: Message, body: bytes) -> None:
    stream = io.BytesIO()
    write(stream, message, body)
    write(stream, Done())
    stream.seek(0)
    assert read(stream) == (message, body)
    assert read(stream) == (Done(), b"")


def test_a_body_that_is_not_rows_times_columns_is_refused() -> None:
    for message, body in ((Predict(1, 2), bytes(4)), (Predict(-1, -1), bytes(4)), (Done(), bytes(4))):
        stream = io.BytesIO()
        write(stream, message, body)
        stream.seek(0)
        with pytest.raises(PipeError, match=r"4 bytes with|Expected `int` >= 0"):
            read(stream)


def test_lengths_are_checked_before_anything_is_read() -> None:
    with pytest.raises(PipeError, match="a message of 4294967295"):
        read(io.BytesIO(b"\xff" * 12))


@given(st.binary(max_size=60))
def test_any_bytes_raise_nothing_but_a_pipe_error(body: bytes) -> None:
    with pytest.raises(PipeError):
        read(io.BytesIO(body))
