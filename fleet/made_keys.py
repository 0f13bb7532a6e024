"""The keys of a fleet in one process, made up: they follow from the names of who has them.

For what is to be the same at each run: the made-up world, where deaths, restored backups and restarts are tried with
signatures and sessions, and the simulation. What the real fleet draws at random when a process starts is given here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

from broker.device_seal import DeviceSeal
from broker.operator_seal import OperatorSeal
from broker.server_seal import ServerSeal
from broker.wire import Wire
from identity.keys import ExchangeKey, SigningKey, text_of
from identity.trust import Trust

OPERATOR = "operator"


@cache
def key_of(name: str) -> SigningKey:
    """Return the key of this name."""
    return SigningKey(hashlib.sha256(name.encode()).digest())


class Everybody:
    """A registry in which every device is enrolled, and may claim what it likes."""

    rows: Mapping[str, int] = MappingProxyType({})

    def key_of(self, device: str) -> bytes | None:
        """See `Devices`."""
        return key_of(f"device {device}").public

    def look(self) -> tuple[str, ...]:
        """See `Devices`."""
        return ()


def trust_of(fleet: str, *, operator: bool = True) -> Trust:
    """Return the pinned keys. operator: whether there is one, who signs the jobs."""
    named = {OPERATOR: text_of(key_of(OPERATOR).public)} if operator else {}
    return Trust(fleet, text_of(key_of("root").public), (text_of(key_of("aggregator").public),), named)


def wire_of_server(trust: Trust, roll: Callable[[], int]) -> Wire:
    """Return the wire of an aggregator in a new life. roll: gives 32 random bits."""
    seal = ServerSeal(trust.fleet, key_of("aggregator"), trust, Everybody(), exchange=_drawn(roll))
    return Wire(trust.fleet, seal)


def wire_of_device(trust: Trust, device: str, roll: Callable[[], int]) -> Wire:
    """Return the wire of a device in a new life. roll: gives 32 random bits."""
    seal = DeviceSeal(trust.fleet, device, trust, key_of(f"device {device}"), exchange=_drawn(roll))
    return Wire(trust.fleet, seal)


def wire_of_operator(trust: Trust) -> Wire:
    """Return the wire of the operator."""
    return Wire(trust.fleet, OperatorSeal(trust.fleet, trust, key_of(OPERATOR)))


def _drawn(roll: Callable[[], int]) -> ExchangeKey:
    return ExchangeKey(b"".join(roll().to_bytes(4, "little") for _ in range(8)))
