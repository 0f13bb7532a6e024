"""A connection's socket, shared by two who read and write it: paho, and who carries PUBLISH and PUBACK past it.

paho reads the head of a packet byte by byte and copies a payload several times, as the floor of
`python -m benchmarks.overhead` shows. What is meant for paho is handed on to it, a packet at a time. Neither of the two
writes into the middle of what the other has half written: TCP has taken a part of it, or TLS wants to be given the same
bytes again.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from broker.transport import Counters

READ_BYTES = 400_000
"""That are taken from the socket at once: four chunks of a body, which else are a wait each."""
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Splice:
    """How both reach a connection's socket, which does not block. counters: told of every byte."""

    def __init__(self, sock: Any, counters: Counters) -> None:
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._wakes_at = 1
        self.descriptor = int(sock.fileno())
        """Of the socket, as long as that is open."""
        self._counters = counters
        self._for_paho = bytearray()
        self._ended: OSError | bool = False
        """How the connection has ended, as far as it was read: True for a goodbye."""
        self._refuses: OSError | None = None
        """Why nothing can be written any more: what came before, as why, is still to be read."""
        self._waiting = bytearray()
        """What is not written yet of ours."""
        self._is_theirs = False
        """Whether a packet of paho's is half written."""

    # Ours.

    def read(self) -> bytes:
        """Return what has come, b"" for nothing. That the connection has ended, paho is told as it reads on."""
        if not self._is_tls:
            return self._received(READ_BYTES)
        parts, n = [], 0
        while n < READ_BYTES and (part := self._received(READ_BYTES - n)):  # TLS gives a record at a time
            parts.append(part)
            n += len(part)
        return b"".join(parts)

    def _received(self, most: int) -> bytes:
        try:
            data: bytes = self._sock.recv(most)
        except _NOT_NOW:
            self._ended = self._ended or self._refuses or False
            return b""
        except OSError as error:
            self._ended = error
            return b""
        if not data:
            self._ended = True
        self._counters.wire_received_bytes += len(data)
        return data

    @property
    def ended(self) -> bool:
        """Whether the connection has ended, and paho is to be told."""
        return self._ended is not False

    @property
    def has_pending(self) -> bool:
        """Whether there is something to read that no `poll` shows: in TLS, or what came before writing has failed."""
        return self.is_failing or (self._is_tls and self._sock.pending() > 0)

    @property
    def is_failing(self) -> bool:
        """Whether nothing can be written any more, and what came before that is not all read."""
        return self._refuses is not None and not self.ended

    def wake_at(self, n_bytes: int) -> None:
        """Set from how many bytes on a `poll` shows what has come. In TLS, whose records are longer, it shows all."""
        if n_bytes != self._wakes_at and not self._is_tls and hasattr(socket, "SO_RCVLOWAT"):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, n_bytes)
            self._wakes_at = n_bytes

    @property
    def is_writing(self) -> bool:
        """Whether something of ours waits to be written."""
        return bool(self._waiting)

    def write(self, data: bytes) -> None:
        """Write as much as the connection takes now, behind what waits; the rest is for `flush`."""
        if self._waiting or self._is_theirs:
            self._waiting += data
            self.flush()
        elif (n := self._written(data)) < len(data):
            self._waiting += memoryview(data)[n:]

    def flush(self) -> None:
        """Write of what waits as much as the connection takes now."""
        while self._waiting and not self._is_theirs and (n := self._written(self._waiting)):
            del self._waiting[:n]

    def _written(self, data: bytes | bytearray) -> int:
        try:
            return self._sent(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._refuses = error
            return 0

    def _sent(self, data: bytes | bytearray) -> int:
        try:
            n = int(self._sock.send(data))
        except _NOT_NOW as error:
            raise BlockingIOError from error
        self._counters.wire_sent_bytes += n
        return n

    def hand_on(self, packet: bytes) -> None:
        """Let paho read this."""
        self._for_paho += packet

    # paho's.

    def recv(self, n_bytes: int) -> bytes:
        """Return what was handed on. Raises BlockingIOError where that is all, and whatever ended the connection."""
        if self._for_paho:
            data = bytes(self._for_paho[:n_bytes])
            del self._for_paho[:n_bytes]
            return data
        if isinstance(self._ended, OSError):
            raise self._ended
        if self._ended:
            return b""
        raise BlockingIOError

    def send(self, data: bytes | bytearray) -> int:
        """Write what the connection takes. Raises BlockingIOError where that is nothing, or never will be again."""
        if self._waiting and not self._is_theirs:
            raise BlockingIOError
        self._is_theirs = True
        if not (n := self._written(data)):
            raise BlockingIOError
        self._is_theirs = n < len(data)
        return n
