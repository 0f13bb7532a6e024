"""The server of the page: a thread with a loop of its own, in the process that looks on.

It listens as soon as it can: where the port is taken it says so once and tries again, now and then. Whoever connects
and asks nothing is cut off, and so is whoever does not take what was asked for; connections are bounded in number.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 1500
MOST_SOCKETS = 2000
"""Connections, with those whose TLS has not begun; fewer where the process may not open so many files."""
OTHER_FILES = 100
"""Of the files that a process may open, these are for all else."""
MOST_HEADERS = 16_384
"""Bytes of a request before its body, that come in pieces; guard.py counts again."""
SEND_BYTES = 65_536
"""That the kernel keeps for who does not take them."""
SILENT_S = 10.0
"""Who has connected asks something within this time; a question that was begun has ended within twice as long."""
UNTAKEN_MS = 30_000
"""Bytes that nobody has acknowledged for so long end a connection (tcp(7), TCP_USER_TIMEOUT)."""
STOPS_S = 1.0
"""How long answers that are under way may take once the server is to stop."""
AGAIN_S = (1.0, 60.0)
"""How soon a port that is taken is tried again, at first and at most."""


Pair = tuple[str, str]
"""Files of a certificate and of its key."""


class Connection(H11Protocol):
    """A connection that asks something soon, and to the end, of a bounded number, and that an answer may cut."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, unless there are too many."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- of a stream
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self.loop.call_later(SILENT_S, self._look, transport, None)
        app: Any = self.app

        async def with_a_cut(scope: Scope, receive: Receive, send: Send) -> None:
            scope["fedge.cut"] = transport.abort
            await app(scope, receive, send)

        self.app = with_a_cut

    def _look(self, transport: asyncio.Transport, begun: object) -> None:
        """Cut it where it has asked nothing, or where what it had begun to ask at the last look has not ended."""
        if transport.is_closing():
            return
        asked = self.cycle
        is_begun = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        if not asked or (is_begun and begun is asked):
            transport.abort()
            return
        self.loop.call_later(SILENT_S, self._look, transport, asked if is_begun else None)


class Listener(socket.socket):
    """Listens, and closes at once what is beyond a number of open connections.

    Else who connects and says nothing has the process open all the files that it may; asyncio then writes thousands of
    errors a second (CPython's selector_events.py goes on accepting after EMFILE).
    """

    def listen(self, backlog: int = 256) -> None:
        """Begin."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(1, min(MOST_SOCKETS, soft - OTHER_FILES))
        self._taken: set[socket.socket] = set()
        super().listen(backlog)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return a connection and its address. Raises ConnectionAbortedError where there are too many."""
        made, address = super().accept()
        if len(self._taken) >= self._most:
            self._taken = {one for one in self._taken if one.fileno() >= 0}
        if len(self._taken) >= self._most:
            made.close()
            raise ConnectionAbortedError
        self._taken.add(made)
        return made, address


class WebServer:
    """Serves an app until it is stopped. failed: called where it ends by itself. closing: ends what does not end."""

    def __init__(
        self,
        app: ASGIApp,
        bind: str,
        failed: Callable[[], None],
        closing: Callable[[], None],
        certificate: Pair | None = None,
    ) -> None:
        self._bind = bind
        self._failed = failed
        self._closing = closing
        self._stopping = threading.Event()
        self.port: int | None = None
        """Where it listens, once it does."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=Connection,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=MOST_HEADERS,
                ssl_certfile=None if certificate is None else certificate[0],
                ssl_keyfile=None if certificate is None else certificate[1],
                ssl_context_factory=None if certificate is None else _of_today,
            )
        )
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Begin; the thread listens as soon as the port is free."""
        for name in ("uvicorn", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._thread.start()

    def stop(self) -> None:
        """End within about two seconds, whoever looks on."""
        self._stopping.set()
        self._closing()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOPS_S + 1.0)

    def _run(self) -> None:
        try:
            listener = self._listen()
            if listener is not None:
                self._server.run(sockets=[listener])
        except (Exception, SystemExit):
            log.exception("web=failed")
        if not self._stopping.is_set():
            self._failed()

    def _listen(self) -> socket.socket | None:
        """Return a socket that listens, as soon as there can be one; None where it is to stop before."""
        wait_s, told = AGAIN_S[0], ""
        while not self._stopping.is_set():
            try:
                listener = listening(self._bind)
            except OSError as error:
                if (why := error.strerror or str(error)) != told:
                    log.error("web=waiting bind=%s why=%s; it is tried again, everything else goes on", self._bind, why)
                    told = why
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, AGAIN_S[1])
            else:
                self.port = listener.getsockname()[1]
                scheme = "https" if self._server.config.is_ssl else "http"
                host = self._bind.rpartition(":")[0]
                log.info("web=listening address=%s://%s:%d/", scheme, host, self.port)
                return listener
        return None


def _of_today(_config: uvicorn.Config, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return the TLS of a server, of version 1.2 at least, whatever this machine's OpenSSL would take."""
    context = make()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def listening(bind: str) -> socket.socket:
    """Return a socket that listens at HOST:PORT. Raises OSError."""
    host, _, port = bind.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = Listener(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_MS)
        listener.bind(address)
        listener.listen(256)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def readable(certificate: str, key: str) -> None:
    """Raise OSError, with what is wrong, where a certificate and its key do not open a TLS server."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise OSError(0, f"{certificate} and {key} are no certificate with its key in PEM: {error.reason}") from error
