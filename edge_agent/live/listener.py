"""A live source at work: a thread that listens to the site's broker and fills the ring. The agent's loop never waits.

   transport (its own network thread) ──take──▶ Session ──rows──▶ Ring ──▶ the card
                                                   └──▶ `trouble`, which the agent's loop looks at

1. The inbox of the transport is small, and what does not fit stays in the connection and at the broker: a flood costs
   no memory. Where it would cost a processor the connection is left for a while, ever longer (PAUSES_S).
2. A ring that cannot be opened, a broker that is the fleet's, and a fault of this program are said, and tried again
   after LONG_S; a disk that does not take rows has them wait (ring.py). Nothing of it reaches a job but as a word.
3. `stop` has the last rows put on disk, and ends the thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from broker.connection import BrokerSettings
from broker.mailbox import ClientLimits
from broker.transport import Transport
from broker.wire import Wire
from edge_agent.live import refusal
from edge_agent.live.decoding import MOST_BYTES
from edge_agent.live.ring import Ring
from edge_agent.live.session import Session
from edge_agent.live.settings import LiveSettings
from runtime.faults import Fault, contain
from runtime.formats import FormatError
from runtime.words import clean

log = logging.getLogger(__name__)

LIMITS = ClientLimits(
    outbound_packets=1,
    outbound_bytes=4096,
    inbox_packets=256,
    inbox_bytes=1_048_576,
    unread_bytes=262_144,
    packet_bytes=MOST_BYTES + 4096,
    receive_maximum=32,
)
"""Of a connection to a site's broker."""
PAUSES_S = (60.0, 3600.0)
"""How long a topic that floods is not listened to: at first, and at most."""
LONG_S = 600.0
LOOK_S = 1.0
"""How long the thread waits at most, and how old `trouble` may be."""
STOP_S = 5.0

Connect = Callable[[BrokerSettings, str, ClientLimits], Transport]
"""Make a transport to this broker under this client id, which is not opened yet."""


class Listener:
    """One live source. fleet: the fleet's own broker, which is refused. connect: makes a transport."""

    def __init__(self, source: LiveSettings, wire: Wire, device: str, fleet: BrokerSettings, connect: Connect) -> None:
        self._source, self._fleet, self._connect = source, fleet, connect
        self._client_id = source.mqtt.client_id or f"{wire.fleet}-{device}-{source.name}"
        self._proofs = refusal.proofs(wire, device)
        self._stopping = threading.Event()
        self._transport: Transport | None = None
        self._thread = threading.Thread(target=self._run, name=f"live-{source.name}", daemon=True)
        self._pause_s = PAUSES_S[0]
        self._disk = ""
        self.trouble = ""
        """What an operator should know; "" where all is well. Written by the thread, read by anybody."""

    @property
    def name(self) -> str:
        """Return the name of the source."""
        return self._source.name

    def start(self) -> None:
        """Begin to listen. Returns at once."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Ask the thread to end, and return at once."""
        self._stopping.set()
        if (transport := self._transport) is not None:
            transport.wake()

    def wait(self, timeout_s: float = STOP_S) -> None:
        """Return when the last rows are on disk, or the time is over."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    # The thread.

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._stopping.wait(self._listened())

    def _listened(self) -> float:
        """Listen until there is a reason not to; return for how long."""
        try:
            pause_s = contain(self._listen, OSError, FormatError)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            self._say(f"its ring cannot be written{where}: {error.strerror or error}")
        except FormatError as error:
            self._say(str(error))
        else:
            if not isinstance(pause_s, Fault):
                return pause_s
            self._say(f"a fault of this program: {pause_s.why}")
        return LONG_S

    def _listen(self) -> float:
        """Open the ring and the connection, and listen; return how long to pause when it is over."""
        mqtt = self._source.mqtt
        if why := refusal.same_as_found(mqtt, self._fleet):
            self._say(why)
            return LONG_S
        folder, columns = Path(self._source.folder), self._source.columns
        ring = Ring(folder, columns, keep_bytes=mqtt.keep_bytes, keep_s=mqtt.keep_s, sync_s=mqtt.sync_s)
        transport = self._connect(mqtt, self._client_id, LIMITS)
        self._transport = transport
        try:
            return self._hear(transport, ring)
        finally:
            self._transport = None
            ring.close()
            transport.close()

    def _hear(self, transport: Transport, ring: Ring) -> float:
        now = time.monotonic()
        session = Session(self._source, self._proofs, lambda row: ring.append(row, time.monotonic()), now, time.time())
        transport.subscribe(*session.filters)
        transport.open()
        looked_at = began = now
        kept = False
        while not self._stopping.is_set():
            wait_s = max(0.0, min(LOOK_S, ring.due_at - now, session.due_in(time.time())))
            event = transport.take(wait_s)
            now = time.monotonic()
            if event is not None:
                session.receive(event, now, time.time())
            session.tick(now, time.time())
            if session.is_trusted(now) != kept:
                kept = not kept
                what = "rows are kept" if kept else "no rows are kept"
                log.info("live data=%s: %s from %s:%d", self.name, what, self._source.mqtt.host, self._source.mqtt.port)
            if session.refused:
                ring.drop_waiting()
                self._say(session.refused)
                return LONG_S
            if session.taken_over:
                self._say(session.said(now))
                return LONG_S
            if now >= ring.due_at:
                self._flush(ring)
            if session.floods:
                self._flush(ring)
                return self._leave_flood(session.said(now))
            if now - looked_at >= LOOK_S:
                looked_at = now
                self._say("; ".join(filter(None, (session.said(now), self._disk))))
                if now - began > LONG_S:
                    self._pause_s = PAUSES_S[0]
        return 0.0

    def _flush(self, ring: Ring) -> None:
        try:
            ring.flush()
        except OSError as error:
            self._disk = f"its ring cannot be written: {error.strerror or error}; the oldest rows that wait are lost"
            ring.put_off(time.monotonic())
        else:
            if self._disk and ring.n_lost:
                log.warning("live data=%s: %d rows were lost while the disk took none", self.name, ring.n_lost)
            self._disk = ""

    def _leave_flood(self, said: str) -> float:
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, PAUSES_S[1])
        self._say(f"it is not listened to for {pause_s:g} s: {said}")
        return pause_s

    def _say(self, trouble: str) -> None:
        trouble = clean(trouble, 450)
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                log.warning("live data=%s: %s", self.name, trouble)
            else:
                log.info("live data=%s: all is well", self.name)
