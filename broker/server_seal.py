"""What an aggregator signs and checks. See seal.py for the law, session.py for what it agrees on with each device.

key         signs what it says to all
trust       pins operators, whose commands it then takes signed only; and its own former and other keys. Who only asks
            need not sign: observers have no key, and what is answered lies at the broker for all who may listen.
            And stewards, whose key is good for commands to what is there: a job of theirs is nobody's
devices     whose words it takes: enrolled and not revoked; None: it believes its broker about them
exchange    drawn at its start; said in each beacon
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, cast

from msgspec import structs

from broker.device_seal import DIGEST_DIGITS
from broker.envelope import Envelope
from broker.errors import WireError
from broker.messages import (
    Beacon,
    Candidate,
    Command,
    Head,
    Message,
    Offer,
    Presence,
    Query,
    ToWhatIsThere,
    Verdict,
    Want,
)
from broker.seal import OF_THE_AGGREGATOR, ForgedError, M, Seal, Signing, signer_of, tag_of
from broker.session import Session
from identity.keys import ExchangeKey, Signer, key_of, text_of
from identity.trust import Trust

FORMER = 8
"""Former lives of a device whose sessions are kept: none of them comes back by a word that was heard before."""
MOST = 100_000
"""Devices that sessions are agreed on with where anybody may be one."""


class Devices(Protocol):
    """Whose words are taken."""

    def key_of(self, device: str) -> bytes | None:
        """Return the public key of a device; None for one that is not enrolled, or revoked."""

    @property
    def rows(self) -> Mapping[str, int]:
        """Device to the most examples that are believed of it, where that was stated; changes as it is stated."""

    def look(self) -> Collection[str]:
        """Look whether anything has changed; return who is revoked since, or was enrolled anew."""


class ServerSeal(Seal):
    """Of an aggregator."""

    signs = True
    digest_digits = DIGEST_DIGITS
    head_digits = 64

    def __init__(
        self,
        fleet: str,
        key: Signer,
        trust: Trust | None = None,
        devices: Devices | None = None,
        *,
        exchange: ExchangeKey | None = None,
    ) -> None:
        self.fleet = fleet
        self.devices = devices
        self._signing = Signing(key)
        self._keys = tuple(dict.fromkeys((key.public, *(trust.aggregator_keys if trust is not None else ()))))
        self._operators = tuple(trust.operator_keys.values()) if trust is not None else ()
        stewards = tuple(trust.steward_keys.values()) if trust is not None else ()
        self._commanders = self._operators + stewards
        self._exchange = ExchangeKey() if exchange is None else exchange
        self._public = text_of(self._exchange.public)
        self._tag = tag_of(self._exchange.public)
        self._sessions: dict[str, Session] = {}
        self._former: dict[str, dict[bytes, Session]] = {}
        """Those that have made way, by the exchange key of the device, the latest last."""

    # Saying.

    def complete(self, message: M) -> M:
        """See `Seal`: a beacon says what to agree on sessions with."""
        if isinstance(message, Beacon) and message.online:
            return cast(M, structs.replace(message, exchange=self._public))
        return message

    def close(self, message: Message, said: Callable[[], bytes]) -> Envelope | None:
        """See `Seal`."""
        if isinstance(message, Want | Verdict):
            session = self._sessions.get(message.device)
            return None if session is None else session.close(said())
        if isinstance(message, OF_THE_AGGREGATOR | Presence):
            return self._signing.close(said())
        return None

    # Hearing.

    def check(self, message: Message, envelope: Envelope | None, said: Callable[[], bytes]) -> None:
        """See `Seal`."""
        match message:
            case Beacon() | Candidate() | Head():
                signer_of(self._keys, message, envelope, said)
            case Presence():
                self._check_presence(message, envelope, said)
            case Offer():
                self._check_offer(message, envelope, said)
            case _ if isinstance(message, Command):
                # Who only looks has no key (an observer): whom it answers says the broker's access list.
                if self._operators and not (envelope is None and isinstance(message, Query)):
                    is_for_all = isinstance(message, ToWhatIsThere | Query)
                    signer_of(self._commanders if is_for_all else self._operators, message, envelope, said)
                    if message.to != self._tag:
                        raise ForgedError("repeated", message)

    def _check_presence(self, message: Presence, envelope: Envelope | None, said: Callable[[], bytes]) -> None:
        if self.devices is not None:
            if not (message.online or message.exchange):
                signer_of(self._keys, message, envelope, said)  # its own question
                return
            key = self.devices.key_of(message.device)
            signer_of(() if key is None else (key,), message, envelope, said)
        if message.online and message.exchange and message.to == self._tag:
            self._agree(message, envelope.count if envelope else 0)

    def _agree(self, message: Presence, count: int) -> None:
        """Agree on a session with a device that knows this life. Raises WireError for a key that is none."""
        device, before = message.device, self._sessions.get(message.device)
        if before is None and self.devices is None and len(self._sessions) >= MOST:
            return
        theirs = key_of(message.exchange)
        if before is not None and before.theirs == theirs:
            if count < before.presence:
                raise ForgedError("repeated", message)
            before.presence = count
            return
        # A life that has made way comes back by a word that it had not said before: it may have made way to a recording
        # of a life that is not remembered any more. Its session goes on where it was, so no count is used twice.
        former = self._former.get(device, {})
        session = former.get(theirs)
        if session is not None and count <= session.presence:
            raise ForgedError("repeated", message)
        if session is None:
            try:
                session = Session(self._exchange, theirs, self.fleet, device, of_device=False)
            except ValueError as error:
                raise WireError(f"device: exchange: {error}") from error
        former.pop(theirs, None)
        if before is not None:
            former[before.theirs] = before
            while len(former) > FORMER:
                del former[next(iter(former))]
            self._former[device] = former
        session.presence = count
        self._sessions[device] = session

    def _check_offer(self, message: Offer, envelope: Envelope | None, said: Callable[[], bytes]) -> None:
        if self.devices is None:
            return
        if self.devices.key_of(message.device) is None:
            raise ForgedError("forged", message)
        if envelope is None or envelope.is_signature:
            raise ForgedError("unsigned", message)
        session = self._sessions.get(message.device)
        if session is None or not session.opens(said(), envelope):
            raise ForgedError("stranger", message)
        if not session.is_new(envelope):
            raise ForgedError("repeated", message)
        if not message.body and len(message.digest) < DIGEST_DIGITS:
            raise WireError(
                f"offer: its body is named by {len(message.digest)} digits where {DIGEST_DIGITS} are needed"
            )

    def is_fresh(self, presence: Presence) -> bool:
        """See `Seal`. A last will is of the life that is agreed with, or says nothing."""
        if presence.online:
            return self.devices is None or presence.to == self._tag
        session = self._sessions.get(presence.device)
        return not presence.exchange or session is None or key_of(presence.exchange) == session.theirs

    @property
    def stated_rows(self) -> Mapping[str, int] | None:
        """See `Seal`. It may be empty: what is stated later is believed of jobs that are at work, too."""
        return self.devices.rows if self.devices is not None else None

    # Revocation.

    def revoked(self) -> Collection[str]:
        """Return whose words are not taken any more, since the last time; their sessions are over."""
        if self.devices is None:
            return ()
        gone = self.devices.look()
        for device in gone:
            self._sessions.pop(device, None)
            self._former.pop(device, None)
        return gone
