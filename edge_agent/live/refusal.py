"""The fleet's own broker is no source: what is published there has left the device already.

It is known by its address (host and port, as written and as resolved), by its credentials, and, since one broker may
have many addresses, by what lies there: the beacon of the fleet's aggregator, or what this device has said itself
(`proofs`). Where a connection shows one of those, nothing that came over it is kept.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from broker.connection import BrokerSettings
from broker.wire import Wire

WHY = "readings there have left this device already. Name the site's own broker"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def same_as_written(one: BrokerSettings, fleet: BrokerSettings) -> str:
    """Return why a broker is the fleet's, as far as its settings say that; "" where they do not. Looks nothing up."""
    host, other = (broker.host.lower().rstrip(".") for broker in (one, fleet))
    if one.port == fleet.port and (host == other or {host, other} <= LOOPBACK):
        return f"{one.host}:{one.port} is the broker of the fleet itself, and {WHY}"
    for key in ("password_file", "key_file", "certificate_file"):
        name = getattr(one, key)
        if name is not None and name == getattr(fleet, key):
            return f"{key} is that of the fleet's broker, {name}: the site's own broker needs credentials of its own"
    return ""


def same_as_found(one: BrokerSettings, fleet: BrokerSettings) -> str:
    """Return why a broker is the fleet's, once its name is resolved and its files are read; "" where it is not.

    A name that cannot be resolved now is nobody's. May wait for a name server.
    """
    if why := same_as_written(one, fleet):
        return why
    if one.port == fleet.port and (shared := _addresses(one.host) & _addresses(fleet.host)):
        return f"{one.host} is {min(shared)}, as {fleet.host} is: the broker of the fleet itself, and {WHY}"
    if one.username is not None and one.username == fleet.username and _password(one) == _password(fleet) is not None:
        return (
            f"username and password are those of the fleet's broker ({one.password_file}): the site's own broker needs"
            " credentials of its own"
        )
    return ""


def proofs(wire: Wire, device: str) -> tuple[str, ...]:
    """Return the topics that only the broker of this fleet has something on."""
    return wire.filter_for("aggregator"), wire.filter_for("device", device=device)


def recognised(broker: BrokerSettings, topic: str) -> str:
    """Return what is said of a broker that has something on one of `proofs`."""
    return f"{broker.host}:{broker.port} has {topic}, so it is the broker of the fleet itself, and {WHY}"


def _addresses(host: str) -> set[str]:
    found: set[str] = set()
    with contextlib.suppress(OSError, UnicodeError):
        found = {
            str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        }
    if any(address.startswith("127.") or address in ("::1", "0.0.0.0", "::") for address in found):  # noqa: S104 -- compared, not bound
        found.add("127.0.0.1")
    return found


def _password(broker: BrokerSettings) -> bytes | None:
    with contextlib.suppress(OSError):
        return None if broker.password_file is None else Path(broker.password_file).read_bytes().partition(b"\n")[0]
    return None
