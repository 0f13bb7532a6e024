"""The keys of a made-up fleet, so that deaths, restored backups and restarts are tried with signatures and sessions.

What the real fleet draws at random when a process starts is drawn by the world here, and the other keys follow from the
names of who has them: a world stays a pure function of its seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

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
    """A registry in which every device is enrolled."""

    def key_of(self, device: str) -> bytes | None:
        """See `Devices`."""
        return key_of(f"device {device}").public

    def look(self) -> tuple[str, ...]:
        """See `Devices`."""
        return ()


def trust_of(fleet: str) -> Trust:
    """Return the pinned keys."""
    named = {OPERATOR: text_of(key_of(OPERATOR).public)}
    return Trust(fleet, text_of(key_of("root").public), (text_of(key_of("aggregator").public),), named)


def wire_of_server(fleet: str, roll: Callable[[], int]) -> Wire:
    """Return the wire of an aggregator in a new life. roll: gives 32 random bits."""
    return Wire(fleet, ServerSeal(fleet, key_of("aggregator"), trust_of(fleet), Everybody(), exchange=_drawn(roll)))


def wire_of_device(fleet: str, device: str, roll: Callable[[], int]) -> Wire:
    """Return the wire of a device in a new life. roll: gives 32 random bits."""
    key = key_of(f"device {device}")
    return Wire(fleet, DeviceSeal(fleet, device, trust_of(fleet), key, exchange=_drawn(roll)))


def wire_of_operator(fleet: str) -> Wire:
    """Return the wire of the operator."""
    return Wire(fleet, OperatorSeal(fleet, trust_of(fleet), key_of(OPERATOR)))


def _drawn(roll: Callable[[], int]) -> ExchangeKey:
    return ExchangeKey(b"".join(roll().to_bytes(4, "little") for _ in range(8)))
