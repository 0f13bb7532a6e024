"""What an operator, or whoever only looks on, signs and checks. See seal.py for the law."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, cast, get_args

from msgspec import structs

from broker import canonical
from broker.envelope import Envelope
from broker.messages import Beacon, Command, Message, Submit
from broker.seal import OF_THE_AGGREGATOR, M, Order, Seal, Signing, signer_of, tag_of
from identity.keys import Signer, key_of
from identity.trust import Trust


class OperatorSeal(Seal):
    """Of an operator. trust: pinned keys. key: its own; None: it only looks on."""

    def __init__(self, fleet: str, trust: Trust, key: Signer | None = None) -> None:
        self.fleet = fleet
        self.leader = ""
        """Names the present life of the aggregator, which commands are said to; "" as long as none was heard."""
        self._keys = trust.aggregator_keys
        self._signing = None if key is None else Signing(key)
        self._order = Order()
        self._wants_signatures = bool(trust.operators)
        pinned = (*trust.operator_keys.items(), *trust.steward_keys.items())
        names = (name for name, public in pinned if key is not None and public == key.public)
        self.name = next(names, "")
        """Under which its key is pinned; "" where it is not."""
        self.is_steward = key is not None and key.public in trust.steward_keys.values()
        """Whether that is good for commands to what is there alone."""

    @property
    def only_looks(self) -> bool:
        """Whether the fleet takes signed commands alone, and there is no key to sign one with."""
        return self._wants_signatures and self._signing is None

    @property
    def signs(self) -> bool:  # type: ignore[override]  # of others it is always so, or never
        """Whether it gives commands under a key."""
        return self._signing is not None

    def signed(self, submit: Submit, name: str, incarnation: str) -> Submit:
        """Return a job that is submitted, with the end of its id and the signature over its specification.

        name: of the job. incarnation: eight hexadecimal digits, drawn for this job.
        """
        signature = self.sign_spec(f"{name}-{incarnation}", submit.spec)
        return structs.replace(submit, incarnation=incarnation, operator=self.name, signature=signature)

    def sign_spec(self, job: str, spec: dict[str, Any]) -> str:
        """Return the signature, as text, over a specification and the id that the job is to have."""
        assert self._signing is not None  # noqa: S101 -- callers have looked
        return base64.b64encode(self._signing.sign(canonical.of_spec(job, spec, self.fleet))).decode()

    def complete(self, message: M) -> M:
        """See `Seal`: a command says which life of the aggregator it is said to."""
        if self.signs and isinstance(message, get_args(Command)):
            return cast(M, structs.replace(message, to=self.leader))
        return message

    def close(self, message: Message, said: Callable[[], bytes]) -> Envelope | None:
        """See `Seal`."""
        if self._signing is not None and isinstance(message, get_args(Command)):
            return self._signing.close(said())
        return None

    def check(self, message: Message, envelope: Envelope | None, said: Callable[[], bytes]) -> None:
        """See `Seal`."""
        if not isinstance(message, OF_THE_AGGREGATOR):
            return
        signer_of(self._keys, message, envelope, said)
        if isinstance(message, Beacon) and self._order.follow(message, envelope.count if envelope else 0):
            self.leader = tag_of(key_of(message.exchange)) if message.exchange else self.leader
