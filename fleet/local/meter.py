"""A counting wire: a TCP proxy in front of a broker that reads MQTT as it passes and changes nothing.

Benchmarks and the demo take their bytes from here, so that everything is counted: control, verdicts, resends and
the protocol's own overhead. A byte is counted before it is passed on: who has seen a packet arrive finds it counted.

    client ──up──> [Meter] ──up──> broker
    client <─down─ [Meter] <─down─ broker
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

from msgspec import Struct, field

from fleet.local.framing import GarbageError, PacketReader

_CLOSING_S = 5.0


class Flow(Struct):
    """What passed in one direction."""

    wire_bytes: int = 0
    """Everything, headers of MQTT included; not those of TCP."""
    payload_bytes: int = 0
    """Payloads of PUBLISH."""
    packets: Counter[str] = field(default_factory=Counter)
    """Kind of packet ("PUBLISH") to how many."""
    words: Counter[str] = field(default_factory=Counter)
    """Word of the topic (fedge/1/<fleet>/<word>/..., else "other") to payload bytes."""
    garbage_bytes: int = 0
    """Bytes that were not MQTT, or came after such."""

    def add(self, other: Flow) -> None:
        """Add another flow to this one."""
        self.wire_bytes += other.wire_bytes
        self.payload_bytes += other.payload_bytes
        self.packets.update(other.packets)
        self.words.update(other.words)
        self.garbage_bytes += other.garbage_bytes


class Traffic(Struct):
    """What passed, client to broker (up) and broker to client (down)."""

    up: Flow = field(default_factory=Flow)
    down: Flow = field(default_factory=Flow)

    def add(self, other: Traffic) -> None:
        """Add another tally to this one."""
        self.up.add(other.up)
        self.down.add(other.down)


class Meter:
    """The proxy: `start` gives the port to connect to; `stop` cuts every connection."""

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        self.upstream = (upstream_host, upstream_port)
        self._clients: dict[str, Traffic] = {}
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self.port = 0
        """Where it listens, once started."""
        self._failure: OSError | None = None

    def start(self, port: int = 0) -> int:
        """Listen on 127.0.0.1, on a free port unless one is given; give the port. Raises OSError."""
        listening = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(port, listening)), name="meter", daemon=True
        )
        self._thread.start()
        listening.wait()
        if self._failure is not None:
            raise self._failure
        return self.port

    def stop(self) -> None:
        """Cut every connection and listen no more; the counts stay."""
        if self._thread is not None and self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_CLOSING_S)
            self._thread = self._loop = None

    def totals(self, prefix: str = "") -> Traffic:
        """Return what passed so far, over all clients whose ids begin so."""
        total = Traffic()
        for client_id, tally in self.by_client().items():
            if client_id.startswith(prefix):
                total.add(tally)
        return total

    def by_client(self) -> dict[str, Traffic]:
        """Return what passed so far for each client id; "" is for connections that never said CONNECT, or not yet.

        Under TLS nobody is heard to say it: all its bytes are there, as garbage.
        """
        with self._lock:
            found: dict[str, Traffic] = {}
            for client_id, tally in (*self._clients.items(), *self._nameless()):
                found.setdefault(client_id, Traffic()).add(tally)
            return found

    def _nameless(self) -> list[tuple[str, Traffic]]:
        tallies = [connection.tally for connection in self._connections.copy() if connection.client_id is None]
        return [("", tally) for tally in tallies if tally.up.wire_bytes or tally.down.wire_bytes]

    async def _serve(self, port: int, listening: threading.Event) -> None:
        self._loop, self._stopping, self._failure = asyncio.get_running_loop(), asyncio.Event(), None
        try:
            server = await self._loop.create_server(lambda: _Connection(self).client, "127.0.0.1", port)
        except OSError as error:
            self._failure = error
            return
        finally:
            if self._failure is not None:
                listening.set()
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        await self._stopping.wait()
        server.close()
        for connection in list(self._connections):
            connection.cut()
        while self._connections:
            await asyncio.sleep(0)


class _Connection:
    """A client's connection, its twin to the broker, and the tally of both."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.client, self.broker = _Side(self), _Side(self)
        self.broker.gone = True  # not there yet
        self.client.peer, self.broker.peer = self.broker, self.client
        self.is_cut = False
        self.tally = Traffic()
        self.client_id: str | None = None
        self._dialling: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The client is here: call the broker; until it answers the client's bytes wait in its socket."""
        self.meter._connections.add(self)
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.broker, *self.meter.upstream)
        except OSError:
            self.cut()
        else:
            self.client.resume()

    def count(self, side: _Side, data: bytes) -> None:
        """Count bytes that are about to pass."""
        with self.meter._lock:
            flow = self._flow(side)
            flow.wire_bytes += len(data)
            try:
                self._count_packets(side, data)
            except GarbageError:
                side.garbage = True
            if side.garbage:
                self._flow(side).garbage_bytes += len(data)

    def _count_packets(self, side: _Side, data: bytes) -> None:
        for seen in () if side.garbage else side.reader.feed(data):
            if seen.client_id is not None and self.client_id is None:
                self._name(seen.client_id)
                self.broker.reader.version = side.reader.version
            flow = self._flow(side)
            flow.packets[seen.kind] += 1
            if seen.word is not None:
                flow.payload_bytes += seen.n_payload
                flow.words[seen.word] += seen.n_payload

    def _flow(self, side: _Side) -> Flow:
        tally = self.tally if self.client_id is None else self.meter._clients[self.client_id]
        return tally.up if side is self.client else tally.down

    def _name(self, client_id: str) -> None:
        self.meter._clients.setdefault(client_id, Traffic()).add(self.tally)
        self.tally, self.client_id = Traffic(), client_id

    def cut(self) -> None:
        """Cut both ends at once, as a pulled cable would."""
        self.is_cut = True
        if self._dialling is not None:
            self._dialling.cancel()
        self.client.abort()
        self.broker.abort()

    def end(self) -> None:
        """One side is gone; when both are, forget the connection."""
        if self.client.gone and self.broker.gone:
            if self.client_id is None:
                with self.meter._lock:
                    self._name("")
            self.meter._connections.discard(self)


class _Side(asyncio.Protocol):
    """One end of a connection: passes what it receives to its peer, no faster than the peer can send it on."""

    peer: _Side

    def __init__(self, connection: _Connection) -> None:
        self.reader = PacketReader()
        self.garbage = self.gone = False
        self._connection = connection
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- asyncio's types are wider than its promise
        self._transport, self.gone = transport, False
        if self._connection.is_cut:
            transport.abort()
        elif self is self._connection.client:
            # Not here: asyncio before Python 3.11.5 begins to read after this, paused or not. What was ready to be read
            # in between is not: the pause comes before it.
            asyncio.get_running_loop().call_soon(transport.pause_reading)
            self._connection.begin()

    def data_received(self, data: bytes) -> None:
        self._connection.count(self, data)
        if self.peer._transport is not None:
            self.peer._transport.write(data)

    def eof_received(self) -> bool:
        if self.peer._transport is not None and not self.peer.gone:
            self.peer._transport.write_eof()
        return True  # the other direction may still have something to say

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self.gone = True
        if self.peer._transport is not None:
            self.peer._transport.close()
        self._connection.end()

    def pause_writing(self) -> None:
        if self.peer._transport is not None:
            self.peer._transport.pause_reading()

    def resume_writing(self) -> None:
        self.peer.resume()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self.gone:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the connection without ceremony."""
        if self._transport is not None:
            self._transport.abort()
