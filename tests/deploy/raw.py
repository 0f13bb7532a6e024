"""A client of MQTT that sends whatever it is told to, and waits for the broker's answer to it: nothing here sleeps.

It is made of bytes and one socket, since libraries refuse to send what an attacker would: a will with a wildcard, the
client id of another, a packet that never ends.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14
WAIT_S = 120.0
"""Longest wait for an answer that must come."""


class Refused(Exception):  # noqa: N818 -- of this test's client, it is an answer and no error
    """The broker would not speak, or hung up."""


class Heard(NamedTuple):
    topic: str
    payload: bytes
    retained: bool


class Raw:
    """One connection. tls: None for plain TCP. Raises Refused wherever the broker hangs up."""

    def __init__(self, port: int, tls: ssl.SSLContext | None, *, version: int = 5) -> None:
        self.version = version
        self.heard: list[Heard] = []
        self.acknowledges = True
        self.unacknowledged: list[bytes] = []
        self._read = b""
        plain = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = plain
        if tls is not None:
            try:
                self._socket = tls.wrap_socket(plain, server_hostname="localhost")
            except OSError as error:
                plain.close()
                raise Refused(str(error)) from error

    def connect(
        self,
        client_id: str = "",
        *,
        user: str | None = None,
        password: str | None = None,
        will: tuple[str, bytes] | None = None,
        keepalive_s: int = 60,
        clean: bool = True,
    ) -> bytes:
        """Return the CONNACK behind its two bytes of length; raises Refused for one that says no."""
        flags = 2 * clean | (0x2C if will else 0) | (0x80 if user is not None else 0) | (0x40 if password else 0)
        body = _text("MQTT") + bytes([self.version, flags]) + struct.pack(">H", keepalive_s) + self._no_properties
        body += _text(client_id)
        if will is not None:
            body += self._no_properties + _text(will[0]) + struct.pack(">H", len(will[1])) + will[1]
        body += b"".join(_text(each) for each in (user, password) if each is not None)
        self.send(CONNECT << 4, body)
        answer = self._await(CONNACK)
        if answer[1]:
            raise Refused(f"CONNACK {answer[1]}")
        return answer

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Return the reason code of the broker's answer at QoS 1; 3.1.1 has none, and it is 0."""
        self.send(PUBLISH << 4 | 2 | retain, _text(topic) + b"\0\1" + self._no_properties + payload)
        answer = self._await(PUBACK)
        return answer[2] if len(answer) > 2 else 0

    def subscribe(self, topic: str) -> None:
        """Subscribe at QoS 1, and have what is retained there in `heard`."""
        self.send(SUBSCRIBE << 4 | 2, b"\0\2" + self._no_properties + _text(topic) + b"\1")
        self._await(SUBACK)
        self.ping()

    def ping(self) -> None:
        """Return once the broker has read everything sent before, and everything it sent before is in `heard`."""
        self.send(PINGREQ << 4, b"")
        self._await(PINGRESP)

    def acknowledge(self) -> None:
        """Acknowledge all that was heard at QoS 1."""
        while self.unacknowledged:
            self.send(PUBACK << 4, self.unacknowledged.pop())

    def send(self, head: int, body: bytes) -> None:
        self.send_bytes(bytes([head]) + _length(len(body)) + body)

    def send_bytes(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Refused(str(error)) from error

    def is_hung_up_on(self) -> bool:
        """Wait until the broker has hung up, or answers a ping."""
        try:
            self.ping()
        except Refused:
            return True
        return False

    def die(self) -> None:
        """Break the connection without a DISCONNECT, as a power cut does."""
        self._socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye, so that no will is published."""
        with suppress(Refused):
            self.send(DISCONNECT << 4, b"")
        self._socket.close()

    @property
    def _no_properties(self) -> bytes:
        return b"\0" if self.version == 5 else b""

    def _await(self, kind: int) -> bytes:
        for head, body in self._packets():
            if head >> 4 == kind:
                return body
            if head >> 4 == DISCONNECT:
                raise Refused(f"DISCONNECT {body[0] if body else 0}")
            if head >> 4 == PUBLISH:
                self._hear(head, body)
        raise AssertionError("unreachable")

    def _hear(self, head: int, body: bytes) -> None:
        n = struct.unpack_from(">H", body)[0]
        topic, rest = body[2 : 2 + n].decode(), body[2 + n :]
        if head >> 1 & 3:
            self.unacknowledged.append(rest[:2])
            if self.acknowledges:
                self.acknowledge()
            rest = rest[2:]
        if self.version == 5:
            rest = rest[1 + rest[0] :]
        self.heard.append(Heard(topic, rest, bool(head & 1)))

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        while True:
            head = self._take(1)[0]
            n = shift = 0
            while True:
                byte = self._take(1)[0]
                n |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            yield head, self._take(n)

    def _take(self, n: int) -> bytes:
        while len(self._read) < n:
            try:
                more = self._socket.recv(65536)
            except TimeoutError:
                raise AssertionError(f"no answer within {WAIT_S} s") from None
            except OSError as error:
                raise Refused(str(error)) from error
            if not more:
                raise Refused("the broker hung up")
            self._read += more
        taken, self._read = self._read[:n], self._read[n:]
        return taken


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _length(n: int) -> bytes:
    found = b""
    while True:
        n, byte = n >> 7, n & 127
        found += bytes([byte | (128 if n else 0)])
        if not n:
            return found
