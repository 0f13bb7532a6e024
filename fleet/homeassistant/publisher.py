"""The thread that speaks to Home Assistant through the broker, over a connection of its own: its topics are not ours.

    lookout.view ──▶ Publication ──devices written down──▶ broker        Home Assistant has started ──▶ all of it again

Where discovery was switched off, or has another prefix now, what was published is cleared, and that is all it does.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver, TransportEvent
from fleet.homeassistant.discovery import IS_LEVEL, status_topic
from fleet.homeassistant.publication import Publication, cleared
from fleet.homeassistant.published import FILE, read, write
from fleet.sight.lookout import Lookout
from runtime.formats import FormatError
from runtime.settings import SettingsError

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""From one look at the fleet to the next."""
AT_ONCE = 100
"""Packets from one look to the next, at most."""
RETRY_S = (0.5, 60.0)


class Publisher:
    """See `fleet.sight.process.Thing`. prefix: "" to clear what was published, and no more.

    Raises SettingsError.
    """

    def __init__(
        self,
        lookout: Lookout,
        broker: BrokerSettings,
        prefix: str,
        folder: Path,
        software: str,
    ) -> None:
        fleet = lookout.view.fleet
        if not IS_LEVEL.match(fleet):
            raise SettingsError(f"[homeassistant] fleet: {fleet!r} cannot stand in a topic")
        try:
            self._known = read(folder)
        except OSError as error:
            raise SettingsError(f"{folder / FILE}: {error.strerror}") from error
        except FormatError as error:
            raise SettingsError(str(error)) from error
        self._lookout, self._prefix, self._fleet, self._folder = lookout, prefix, fleet, folder
        self._former = tuple(before for before in self._known if before != prefix)
        self._farewell = deque(self._of_former())
        self._publication = None
        if prefix:
            devices = self._known.setdefault(prefix, set())
            self._publication = Publication(prefix, fleet, software, devices)
            self._written = frozenset(devices)
        self._status = status_topic(prefix, fleet)
        will = Packet(self._status, b"offline", retain=True) if prefix else None
        client = f"homeassistant-{secrets.token_hex(4)}"
        self._transport = MqttTransport(broker, client, will, first_retry_s=RETRY_S[0], last_retry_s=RETRY_S[1])
        self._is_online = self._is_denied = self._stopping = False
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._run, name="homeassistant", daemon=True)

    def start(self) -> None:
        """See `Thing`."""
        if self._prefix:
            self._transport.subscribe(f"{self._prefix}/status")
        self._thread.start()

    def stop(self) -> None:
        """See `Thing`."""
        self._stopping = True
        self._transport.wake()
        if self._thread.is_alive():
            self._thread.join(2.0)

    # The thread.

    def _run(self) -> None:
        self._transport.open()
        while not self._stopping:
            event = self._transport.take(max(0.0, self._look_at - time.monotonic()))
            if isinstance(event, SessionTakenOver):
                log.error("another client has the id of who speaks to Home Assistant: nothing more is said there")
                return
            if event is not None:
                self._hear(event)
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                self._look(now)
        if self._prefix:
            self._transport.publish(Packet(self._status, b"offline", retain=True))
        self._transport.close(1.0)

    def _hear(self, event: TransportEvent) -> None:
        match event:
            case Online():
                self._is_online, self._look_at = True, 0.0
                if self._publication is not None:
                    self._publication.again(time.monotonic())
                    self._transport.publish(Packet(self._status, b"online", retain=True))
            case Offline():
                self._is_online = False
            case Denied(topic, reason) if not self._is_denied:
                self._is_denied = True
                log.error(
                    "Home Assistant hears nothing: %s: %s; [observer] config must name an operator", topic, reason
                )
            case Packet(payload=b"online") if self._publication is not None:
                self._publication.again(time.monotonic(), is_urgent=False)
            case _:
                pass

    def _look(self, now: float) -> None:
        if not self._is_online:
            return
        if self._former:
            self._forget()
        if self._publication is None or not self._lookout.has_read:
            return
        self._publication.look(self._lookout.view, now)
        if not self._remember():
            return
        for packet in self._publication.due(now, min(AT_ONCE, self._transport.room)):
            self._transport.publish(packet)

    def _forget(self) -> None:
        """Clear what was published under other prefixes; it is forgotten a look after the last of it was sent."""
        if not self._farewell:
            for prefix in self._former:
                self._known.pop(prefix, None)
            if self._write():
                self._former = ()
        while self._farewell and self._transport.publish(self._farewell[0]):
            self._farewell.popleft()

    def _of_former(self) -> Iterator[Packet]:
        for prefix in self._former:
            for device in sorted(self._known[prefix]):
                yield from cleared(prefix, self._fleet, device)
            yield Packet(status_topic(prefix, self._fleet), b"", retain=True)

    def _remember(self) -> bool:
        """Write down who is made known, where that has changed; return whether it stands there."""
        devices = frozenset(self._known[self._prefix])
        if devices != self._written:
            if not self._write():
                return False
            self._written = devices
        return True

    def _write(self) -> bool:
        try:
            write(self._folder, self._known)
        except OSError as error:
            log.error("%s cannot be written: %s; new devices wait for it", self._folder / FILE, error.strerror)
            return False
        return True
