"""The table [identity] of agent.toml, aggregator.toml and operator.toml: where the keys of a process lie."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from identity.keys import KeyFileError, Signer
from identity.signers import signer_of
from identity.trust import Trust, TrustError, read_trust
from runtime.settings import SettingsError

KeyPath = Annotated[
    str,
    Meta(
        pattern=r"\A[^\x00-\x1f\x7f]{1,4096}\Z",
        description="a path is 1 to 4,096 characters, none of them a control character",
    ),
]


class IdentitySettings(Struct, frozen=True):
    """Whose words a process believes, and with which key it signs its own. Without any it believes its broker."""

    trust: KeyPath | None = None
    """The pinned keys of aggregator and operators: trust.json."""
    message_key: KeyPath | None = None
    """Its own private key: a file in PEM, or "package.module:factory" for one in hardware (signers.py)."""

    def read_trust(self, fleet: str) -> Trust | None:
        """Return the pinned keys, if there are any. Raises SettingsError."""
        try:
            return None if self.trust is None else read_trust(self.trust, fleet)
        except TrustError as error:
            raise SettingsError(f"[identity] trust: {error}") from error

    def read_key(self) -> Signer | None:
        """Return the private key, if there is one. Raises SettingsError."""
        try:
            return None if self.message_key is None else signer_of(self.message_key)
        except KeyFileError as error:
            raise SettingsError(f"[identity] message_key: {error}") from error


class DeviceIdentity(IdentitySettings, frozen=True, forbid_unknown_fields=True):
    """Of an agent."""


class ServerIdentity(IdentitySettings, frozen=True, forbid_unknown_fields=True):
    """Of an aggregator."""

    registry: KeyPath | None = None
    """The devices whose words are taken: registry.json, which `fedge enroll` writes."""
