"""Two who write into one socket. The sockets are real; the other end reads when the test says so."""

import contextlib
import select
import socket
from collections.abc import Iterator

import pytest

from broker.splice import READ_BYTES, Splice
from broker.transport import Counters

ROUNDS = 1000
"""Enough for a few hundred kilobytes to leave."""


class Pair:
    """Our end, and that of the broker."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.setblocking(False)
        self.theirs.setblocking(False)
        self.ours = ours
        self.counters = Counters()
        self.splice = Splice(ours, self.counters)
        self.got = b""

    def drain(self) -> None:
        """Read what lies in the connection."""
        with contextlib.suppress(BlockingIOError):
            while data := self.theirs.recv(65_536):
                self.got += data


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.ours.close()
    pair.theirs.close()


def test_paho_reads_what_is_handed_on_and_nothing_else(pair: Pair) -> None:
    pair.theirs.send(b"for us")
    assert pair.splice.read() == b"for us"
    with pytest.raises(BlockingIOError):
        pair.splice.recv(1)
    pair.splice.hand_on(b"abc")
    assert (pair.splice.recv(1), pair.splice.recv(9)) == (b"a", b"bc")
    with pytest.raises(BlockingIOError):
        pair.splice.recv(1)


def test_an_end_is_told_to_paho_behind_what_was_handed_on(pair: Pair) -> None:
    pair.theirs.send(b"last")
    pair.theirs.close()
    assert pair.splice.read() == b"last"
    assert not pair.splice.ended
    assert pair.splice.read() == b""
    assert pair.splice.ended
    pair.splice.hand_on(b"last")
    assert (pair.splice.recv(4), pair.splice.recv(4)) == (b"last", b"")


def test_a_write_that_fails_is_an_end_that_paho_is_told_of(pair: Pair) -> None:
    pair.theirs.close()
    pair.splice.write(b"x")
    assert pair.splice.has_pending
    assert pair.splice.read() == b""
    assert (pair.splice.ended, pair.splice.has_pending) == (True, False)
    assert pair.splice.recv(1) == b""


@pytest.mark.parametrize("whose", ["ours", "paho's"])
def test_what_came_before_a_write_failed_is_read_first(pair: Pair, whose: str) -> None:
    """A broker says why it hangs up; whoever is writing then must hear it."""
    pair.theirs.send(b"why")
    pair.theirs.close()
    if whose == "ours":
        pair.splice.write(b"x")
    else:
        with pytest.raises(BlockingIOError):
            pair.splice.send(b"x")
    assert not pair.splice.ended
    assert pair.splice.read() == b"why"
    assert pair.splice.read() == b""
    assert pair.splice.ended


def test_where_nothing_can_be_written_and_nothing_comes_the_connection_has_ended(pair: Pair) -> None:
    pair.ours.shutdown(socket.SHUT_WR)
    pair.splice.write(b"x")
    assert pair.splice.has_pending
    assert pair.splice.read() == b""
    assert pair.splice.ended
    with pytest.raises(OSError):
        pair.splice.recv(1)


def test_what_is_short_wakes_nobody_until_it_is_as_long_as_was_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours, (theirs, _) = socket.create_connection(server.getsockname()), server.accept()
    with ours, theirs:
        ours.setblocking(False)
        splice, poller = Splice(ours, Counters()), select.poll()
        poller.register(splice.descriptor, select.POLLIN)
        splice.wake_at(8)
        theirs.send(b"1234")
        assert poller.poll(50) == []
        theirs.send(b"5678")
        assert poller.poll(5000)
        assert splice.read() == b"12345678"
        theirs.send(b"9")
        assert poller.poll(50) == []
        splice.wake_at(1)
        assert poller.poll(5000)
        splice.wake_at(8)
        theirs.close()
        assert poller.poll(5000), "an end is heard at once"


def test_what_the_connection_does_not_take_waits_and_paho_waits_for_that(pair: Pair) -> None:
    ours = bytes(range(256)) * 1000
    pair.splice.write(ours)
    assert pair.splice.is_writing
    with pytest.raises(BlockingIOError):
        pair.splice.send(b"ping")
    for _ in range(ROUNDS):
        pair.drain()
        pair.splice.flush()
    assert not pair.splice.is_writing
    pair.drain()
    assert pair.splice.send(b"ping") == 4
    pair.drain()
    assert pair.got == ours + b"ping"


def test_nothing_of_ours_goes_into_the_middle_of_a_packet_of_pahos(pair: Pair) -> None:
    theirs = bytes(range(256)) * 1000
    at = pair.splice.send(theirs)
    assert at < len(theirs)
    pair.splice.write(b"ours")
    assert pair.splice.is_writing
    for _ in range(ROUNDS):
        pair.drain()
        pair.splice.flush()
        with contextlib.suppress(BlockingIOError):
            at += pair.splice.send(theirs[at:]) if at < len(theirs) else 0
    assert at == len(theirs)
    pair.drain()
    pair.splice.flush()
    assert not pair.splice.is_writing
    pair.drain()
    assert pair.got == theirs + b"ours"


def test_a_packet_of_pahos_that_the_connection_took_nothing_of_comes_first_too(pair: Pair) -> None:
    filler = b"f" * 1_000_000
    at = pair.splice.send(filler)
    with pytest.raises(BlockingIOError):
        pair.splice.send(filler[at:])
    pair.splice.write(b"ours")
    pair.drain()
    for _ in range(ROUNDS):
        with contextlib.suppress(BlockingIOError):
            at += pair.splice.send(filler[at:]) if at < len(filler) else 0
        pair.drain()
    assert at == len(filler)
    pair.splice.flush()
    pair.drain()
    assert pair.got == filler + b"ours"


def test_no_more_is_read_at_once_than_is_asked_for(pair: Pair) -> None:
    pair.theirs.setblocking(True)
    pair.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ_BYTES)
    pair.theirs.setblocking(False)
    sent = pair.theirs.send(bytes(READ_BYTES + 1))
    assert 0 < len(pair.splice.read()) <= min(sent, READ_BYTES)
