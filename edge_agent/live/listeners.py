"""All live sources of a device: started with the agent, and stopped with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from broker.connection import BrokerSettings
from broker.wire import Wire
from edge_agent.live.listener import Connect, Listener
from edge_agent.live.settings import LiveSettings


class Live(Protocol):
    """What an agent asks of its live sources."""

    def start(self) -> None:
        """Begin to listen. Returns at once."""

    def stop(self) -> None:
        """Put the last rows on disk and end."""

    def trouble(self) -> Mapping[str, str]:
        """Return source to what an operator should know of it: the very object of last time where nothing is new."""


class Listeners:
    """The sources of one device, each with a thread. See `Listener`."""

    def __init__(
        self, sources: Sequence[LiveSettings], wire: Wire, device: str, fleet: BrokerSettings, connect: Connect
    ) -> None:
        self._listeners = [Listener(source, wire, device, fleet, connect) for source in sources]
        self._said: dict[str, str] = {}

    def start(self) -> None:
        """See `Live`."""
        for listener in self._listeners:
            listener.start()

    def stop(self) -> None:
        """See `Live`."""
        for listener in self._listeners:
            listener.ask_to_stop()
        for listener in self._listeners:
            listener.wait()

    def trouble(self) -> Mapping[str, str]:
        """See `Live`."""
        said = {listener.name: text for listener in self._listeners if (text := listener.trouble)}
        if said != self._said:
            self._said = said
        return self._said
