"""Somebody who listens to what a fleet's aggregator says."""

from __future__ import annotations

import secrets

from broker import topics
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.errors import WireError
from broker.messages import Beacon, Head, Round
from broker.transport import Packet


class Lookout:
    """A connection to one fleet's broker, for the length of a block."""

    def __init__(self, broker: BrokerSettings, fleet: str) -> None:
        self.heads: dict[str, Head] = {}
        self.rounds: dict[str, Round] = {}
        """The last round of each job that was announced."""
        self.led = False
        """An aggregator is at work."""
        self._fleet = fleet
        self._transport = MqttTransport(broker, f"lookout-{secrets.token_hex(4)}", first_retry_s=0.1, last_retry_s=1.0)

    def __enter__(self) -> Lookout:
        """Start connecting."""
        self._transport.subscribe(*(topics.filter_for(self._fleet, word) for word in ("aggregator", "head", "round")))
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
        """Return the last head of the job of this name."""
        return next((head for job, head in self.heads.items() if job.startswith(f"{name}-")), None)

    def round(self, name: str) -> Round | None:
        """Return the last round of the job of this name."""
        return next((round_ for job, round_ in self.rounds.items() if job.startswith(f"{name}-")), None)

    def _hear(self, packet: Packet) -> None:
        try:
            message = topics.unpack(packet, self._fleet)
        except WireError:
            return
        match message:
            case Beacon():
                self.led = message.online
            case Round():
                self.rounds[message.job] = message
            case Head():
                self.heads[message.job] = message
