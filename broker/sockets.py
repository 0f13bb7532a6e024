"""What a connection asks of its socket besides bytes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

_UNSENT_BYTES = 131_072  # what the kernel may hold unsent: at 20 kbit/s, under a keepalive interval
_SLICE_S = 0.05


def tune(sock: Any) -> None:
    """Send small packets at once, and let few bytes wait in the kernel, where no control packet can pass them."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def linger(sock: Any, left_s: Callable[[], float]) -> None:
    """After our last word, let the other side hang up first.

    Closing with bytes unread would reset the connection, the broker might never see our DISCONNECT, and a will would be
    published for a clean departure. left_s: the seconds that are left for that, asked again and again.
    """
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while (wait_s := left_s()) > 0:
            sock.settimeout(min(wait_s, _SLICE_S))
            with contextlib.suppress(TimeoutError):
                if not sock.recv(65_536):
                    return
