"""What a device signs and checks. See seal.py for the law, session.py for what it agrees on with the aggregator.

trust            pinned keys of aggregator and operators; None: it believes its broker
key              its own, for its presence; None: it has none
exchange         drawn at its start; said in each presence
leader           the exchange key of the aggregator's present life, from its beacon: what a session is agreed on with
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import cast

from msgspec import structs

from broker import canonical
from broker.envelope import Envelope
from broker.errors import WireError
from broker.messages import Beacon, Head, Job, Message, Offer, Presence, Round, Verdict, Want
from broker.seal import OF_THE_AGGREGATOR, ForgedError, M, Order, Seal, Signing, signer_of, tag_of
from broker.session import Session
from identity.keys import ExchangeKey, Signer, key_of, text_of, verify
from identity.trust import Trust

DIGEST_DIGITS = 32


class DeviceSeal(Seal):
    """Of an agent."""

    digest_digits = DIGEST_DIGITS

    def __init__(
        self,
        fleet: str,
        device: str,
        trust: Trust | None,
        key: Signer | None,
        *,
        exchange: ExchangeKey | None = None,
    ) -> None:
        self.fleet = fleet
        self.device = device
        self.trusts = trust is not None
        self.leader = b""
        self.session_with = ""
        self.order = Order()
        self._aggregator = trust.aggregator_keys if trust is not None else ()
        self.pinned = hashlib.sha256(b"".join(self._aggregator)).hexdigest()[:16] if self.trusts else ""
        self._operators = trust.operator_keys if trust is not None else {}
        self._signing = None if key is None else Signing(key)
        self._exchange = ExchangeKey() if exchange is None else exchange
        self._public = text_of(self._exchange.public)
        self._session: Session | None = None
        self._introduced = b""
        """The life of the aggregator that a presence was said to last."""

    @property
    def is_met(self) -> bool:  # type: ignore[override]  # of others it is always so
        """Whether there is a session, or nobody asks for one."""
        return self._session is not None or not self.trusts

    @property
    def is_introduced(self) -> bool:  # type: ignore[override]  # of others it is always so
        """Whether a presence was said to the present life of the aggregator, as far as that is known."""
        return self._session is None or self._introduced == self.leader

    @property
    def term(self) -> int:
        """See `Seal`."""
        return self.order.term

    def start_from(self, term: int) -> None:
        """See `Seal`."""
        self.order.term = max(self.order.term, term)

    # Saying.

    def complete(self, message: M) -> M:
        """See `Seal`: a presence says what to agree on a session with."""
        if not isinstance(message, Presence) or message.device != self.device:
            return message
        if message.online and self.leader:
            self._introduced = self.leader
        return cast(M, structs.replace(message, exchange=self._public, to=self.session_with))

    def close(self, message: Message, said: Callable[[], bytes]) -> Envelope | None:
        """See `Seal`."""
        match message:
            case Presence() if self._signing is not None:
                return self._signing.close(said())
            case Offer() if self._session is not None:
                return self._session.close(said())
        return None

    # Hearing.

    def check(self, message: Message, envelope: Envelope | None, said: Callable[[], bytes]) -> None:
        """See `Seal`."""
        match message:
            case Want() | Verdict() if self.trusts:
                self._check_session(message, envelope, said)
            case Presence() if self.trusts:
                self._check_own(message, envelope, said)
            case Beacon() | Job() | Head() | Round():
                is_followed = True
                if self.trusts:
                    signer_of(self._aggregator, message, envelope, said)
                    is_followed = self.order.follow(message, envelope.count if envelope else 0)
                if isinstance(message, Beacon) and is_followed:
                    self._meet(message)
            case _ if isinstance(message, OF_THE_AGGREGATOR) and self.trusts:
                signer_of(self._aggregator, message, envelope, said)

    def _meet(self, beacon: Beacon) -> None:
        """Note which life of the aggregator sessions are agreed on with. Another under that term has to rise first."""
        if not (beacon.online and beacon.exchange):
            return
        leader = key_of(beacon.exchange)
        if leader == self.leader:
            return
        try:
            self._session = Session(self._exchange, leader, self.fleet, self.device, of_device=True)
        except ValueError as error:
            raise WireError(f"aggregator: exchange: {error}") from error
        self.leader, self.session_with = leader, tag_of(leader)

    def goes_by(self, beacon: Beacon) -> bool:
        """See `Seal`."""
        return not self.trusts or not beacon.exchange or tag_of(key_of(beacon.exchange)) == self.session_with

    def _check_session(self, message: Want | Verdict, envelope: Envelope | None, said: Callable[[], bytes]) -> None:
        if envelope is None or envelope.is_signature:
            raise ForgedError("unsigned", message)
        if self._session is None or not self._session.opens(said(), envelope):
            raise ForgedError("forged", message)
        if not self._session.is_new(envelope):
            raise ForgedError("repeated", message)

    def _check_own(self, message: Presence, envelope: Envelope | None, said: Callable[[], bytes]) -> None:
        """Hear of itself from whoever has its key; or from the aggregator, which asks whether it is there."""
        if message.exchange and self._signing is None:
            return  # without a key nobody can tell
        own = self._signing.public if self._signing is not None else b""
        signer_of((own,) if message.exchange else self._aggregator, message, envelope, said)

    def is_signed_spec(self, job: Job) -> bool:
        """See `Seal`: where operators are pinned, one of them has to have signed it."""
        if job.spec is None or not self._operators:
            return True
        key = self._operators.get(job.operator)
        if key is None or not job.signature:
            return False
        try:
            return verify(key, canonical.of_spec(job.job, job.spec, self.fleet), signature_of(job.signature))
        except WireError:
            return False


def signature_of(text: str) -> bytes:
    """Return the bytes of a signature's text, whose form was checked."""
    return base64.b64decode(text)
