"""Somebody who listens to what a fleet's aggregator says, and can have one lost on its way."""

from __future__ import annotations

import secrets

from broker import topics
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.errors import WireError
from broker.messages import Beacon, Head
from broker.transport import Packet


class Lookout:
    """A connection to one fleet's broker, for the length of a block."""

    def __init__(self, broker: BrokerSettings, fleet: str) -> None:
        self.heads: dict[str, Head] = {}
        self.led = False
        """An aggregator is at work."""
        self._fleet = fleet
        self._transport = MqttTransport(broker, f"lookout-{secrets.token_hex(4)}", first_retry_s=0.1, last_retry_s=1.0)
        self._hidden: Packet | None = None

    def __enter__(self) -> Lookout:
        """Start connecting."""
        self._transport.subscribe(topics.filter_for(self._fleet, "head"), topics.filter_for(self._fleet, "aggregator"))
        self._transport.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Say goodbye."""
        self._transport.close()

    def listen(self) -> None:
        """Take in what has been said since the last time."""
        while (event := self._transport.take()) is not None:
            if isinstance(event, Packet) and event.payload:
                self._hear(event)

    def head(self, name: str) -> Head | None:
        """Give the last head of the job of this name."""
        return next((head for job, head in self.heads.items() if job.startswith(f"{name}-")), None)

    def hide(self, name: str) -> None:
        """Take the retained head of a job from the broker, as if it had been lost."""
        head = self.head(name)
        if head is not None and self._hidden is None:
            self._hidden = topics.pack(head, self._fleet)
            self._transport.publish(topics.clear(head, self._fleet))

    def give_back(self) -> None:
        """Put back what is hidden, unless the aggregator has said it again."""
        if self._hidden is not None:
            self._transport.publish(self._hidden)
            self._hidden = None

    def _hear(self, packet: Packet) -> None:
        try:
            message = topics.unpack(packet, self._fleet)
        except WireError:
            return
        match message:
            case Beacon():
                self.led = message.online
            case Head():
                self.heads[message.job] = message
                if self._hidden is not None and packet.topic == self._hidden.topic:
                    self._hidden = None
