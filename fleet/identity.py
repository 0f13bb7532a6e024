"""How a process comes to its `Wire`: by the keys that its configuration names; and what the log says it trusts.

Each role imports its own seal, where it comes to need it: a device holds no other's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from broker.wire import Wire
from identity.settings import DeviceIdentity, IdentitySettings, ServerIdentity
from identity.trust import TrustError, read_trust, replace_trust
from runtime.settings import SettingsError, load

log = logging.getLogger(__name__)


class _Pinned(Struct):
    """What of a configuration says where the pinned keys lie: of an agent, an aggregator or an operator."""

    fleet: str
    identity: IdentitySettings = IdentitySettings()


class Replaced(Struct, frozen=True):
    """Pinned keys that a later file has replaced."""

    file: str
    fleet: str
    serial: int


def replace_pinned(config: Path, new: Path) -> Replaced:
    """Put a later file in the place of the pinned keys that a configuration names; return what was done.

    Raises SettingsError, or OSError where it cannot be written; nothing is changed then.
    """
    named = load(config, _Pinned)
    if named.identity.trust is None:
        raise SettingsError(f"{config}: [identity] trust: no keys are pinned here, so there is nothing to replace")
    path = Path(named.identity.trust)
    try:
        read_trust(path, named.fleet)
        trust = replace_trust(path, new)
    except TrustError as error:
        raise SettingsError(str(error)) from error
    return Replaced(str(path), trust.fleet, trust.serial)


def wire_of_device(fleet: str, device: str, identity: DeviceIdentity) -> Wire:
    """Return the wire of an agent. Raises SettingsError."""
    trust, key = identity.read_trust(fleet), identity.read_key()
    if trust is None:
        log.warning("no keys are pinned ([identity] trust): this device trusts its broker, and whoever speaks there")
    if trust is not None and key is None:
        log.warning("there is no message_key ([identity]): nobody can tell this device's words from another's")
    if trust is None and key is None:
        return Wire(fleet)
    from broker.device_seal import DeviceSeal

    return Wire(fleet, DeviceSeal(fleet, device, trust, key))


def wire_of_aggregator(fleet: str, identity: ServerIdentity, *, clock: Callable[[], float] = time.monotonic) -> Wire:
    """Return the wire of an aggregator. Raises SettingsError."""
    from broker.server_seal import ServerSeal
    from identity.registry import RegistryError, WatchedRegistry

    trust, key = identity.read_trust(fleet), identity.read_key()
    if key is None:
        named = " and ".join(name for name in ("trust", "registry") if getattr(identity, name) is not None)
        if named:
            raise SettingsError(f"[identity] {named}: is of no use without message_key, the aggregator's own key")
        log.warning(
            "no key is set ([identity] message_key): the aggregator trusts its broker, and whoever speaks there"
        )
        return Wire(fleet)
    if trust is not None and key.public not in trust.aggregator_keys:
        raise SettingsError(
            f"[identity] message_key: {identity.message_key} is no key of the aggregator in {identity.trust}: no "
            "device would believe what it signs"
        )
    devices = None
    if identity.registry is not None:
        try:
            devices = WatchedRegistry(identity.registry, fleet, clock)
        except RegistryError as error:
            raise SettingsError(f"[identity] registry: {error}") from error
    unknown = [
        what
        for what, known in (
            ("devices ([identity] registry)", devices),
            ("operators ([identity] trust)", trust.operators if trust else None),
        )
        if not known
    ]
    if unknown:
        log.warning("the aggregator trusts its broker on %s", " and ".join(unknown))
    return Wire(fleet, ServerSeal(fleet, key, trust, devices))


def wire_of_operator(fleet: str, identity: IdentitySettings) -> Wire:
    """Return the wire of an operator, or of an observer, who has no key. Raises SettingsError."""
    from broker.operator_seal import OperatorSeal

    trust, key = identity.read_trust(fleet), identity.read_key()
    if trust is None:
        if key is not None:
            raise SettingsError("[identity] message_key: is of no use without trust, the pinned keys of the fleet")
        return Wire(fleet)
    seal = OperatorSeal(fleet, trust, key)  # without a key it looks on, as observers do
    if trust.operators and key is not None and not seal.name:
        raise SettingsError(
            f"[identity]: {identity.message_key} is no operator's key in {identity.trust}, and this fleet takes signed "
            "commands alone: name the operator.toml that has yours with --config"
        )
    return Wire(fleet, seal if trust.operators else OperatorSeal(fleet, trust))
