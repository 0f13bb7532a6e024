"""A client that has an id and does nothing with it: whoever had it is hung up on, and whoever takes it back is noticed.

MQTT 3.1.1 by hand, which every broker speaks: a CONNECT, pings, no subscription, no will. It has no thread, and comes
back within a millisecond: who is to be kept out has no longer than that.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from broker import reasons
from broker.connection import BrokerSettings
from broker.credentials import Context, read_password, tls_context

ANSWER_S = 5.0
KEEPALIVE_S = 60
PING_S = 20.0
_CONNECT, _CONNACK, _PINGREQ, _DISCONNECT = 0x10, 0x20, b"\xc0\x00", b"\xe0\x00"
_CLEAN, _PASSWORD, _USERNAME = 0x02, 0x40, 0x80
_REASONS = {1: 132, 2: 133, 3: 136, 4: 134, 5: 135}
"""Return code of a CONNACK (3.1.1, section 3.2.2.3) to the same in MQTT 5."""


class Occupant:
    """One client id at a broker, taken with our own credentials."""

    def __init__(self, broker: BrokerSettings, client_id: str) -> None:
        self._broker = broker
        self._client_id = client_id
        self._tls: Context | None = None
        self._link: socket.socket | None = None
        self._pings_at = 0.0

    def enter(self) -> None:
        """Take the id over. Raises OSError that says why that cannot be done."""
        self.close()
        where = self._broker.host, self._broker.port
        try:
            if self._tls is None:
                self._tls = tls_context(self._broker)
            link = socket.create_connection(where, ANSWER_S)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._link = link if self._tls is None else self._tls.wrap_socket(link, server_hostname=where[0])
            self._link.settimeout(ANSWER_S)
            self._link.sendall(connect_packet(self._broker, self._client_id))
            answer = self._link.recv(4)
        except TimeoutError:
            self.close()
            raise OSError(reasons.silent(*where, ANSWER_S)) from None
        except OSError as error:
            self.close()
            raise OSError(reasons.unreachable(error, *where)) from error
        if len(answer) < 4 or answer[0] != _CONNACK or answer[3]:
            self.close()
            if not answer:
                raise OSError(reasons.hung_up(*where))
            if len(answer) < 4 or answer[0] != _CONNACK:
                raise OSError(reasons.not_mqtt(*where))
            raise OSError(reasons.refused(_REASONS.get(answer[3], 128), f"code {answer[3]}"))
        self._pings_at = time.monotonic() + PING_S

    def is_out(self, timeout_s: float) -> bool:
        """Return whether the id was taken back, or the connection lost, within so long."""
        if self._link is None:
            return True
        try:
            if time.monotonic() >= self._pings_at:
                self._pings_at = time.monotonic() + PING_S
                self._link.sendall(_PINGREQ)
            self._link.settimeout(max(timeout_s, 0.001))
            return not self._link.recv(64)  # the answers to pings
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Release the id."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.settimeout(0.1)
                self._link.sendall(_DISCONNECT)
            with contextlib.suppress(OSError):
                self._link.close()
            self._link = None


def connect_packet(broker: BrokerSettings, client_id: str) -> bytes:
    """Return the CONNECT of this id with these credentials. Raises OSError for a password that cannot be read."""
    flags, texts, password = _CLEAN, [client_id], read_password(broker)
    if broker.username is not None:
        flags |= _USERNAME
        texts.append(broker.username)
        if password is not None:
            flags |= _PASSWORD
            texts.append(password)
    body = _text("MQTT") + bytes([4, flags]) + KEEPALIVE_S.to_bytes(2, "big") + b"".join(map(_text, texts))
    head, left = bytearray([_CONNECT]), len(body)
    while True:
        left, digit = left >> 7, left & 127
        head.append(digit | (128 if left else 0))
        if not left:
            return bytes(head) + body


def _text(text: str) -> bytes:
    coded = text.encode()
    return len(coded).to_bytes(2, "big") + coded
