"""Who signs and who checks: what a `Wire` asks at its door, for a process of each kind.

   Seal             the law, and who neither signs nor checks: a fleet without keys
     DeviceSeal     device_seal.py
     ServerSeal     server_seal.py, of an aggregator
     OperatorSeal   operator_seal.py, of whoever reads what lies at the broker or gives commands

1. Who has pinned no key skips an envelope, and hears what is behind it. Who has, refuses what is to be signed and is
   not, with one error (`ForgedError`); nothing follows from such a word, and it is counted.
2. What the aggregator says to all is signed by it: Beacon, Candidate, Job, Head, Round, Status, Reply, and the question
   whether a device is there. What it says to one device, Want and Verdict, is under the MAC of their session.
3. A device signs its Presence; Offers are under the MAC. Chunks and bodies have no envelope: what names them has one,
   and is covered whole, with a digest that withstands whoever looks for two of one.
4. A signed word of the aggregator is followed in the order of its term and count, topic by topic: an older one is a
   replay. The same once more is what a broker has retained, and says nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, TypeVar

from broker.envelope import Envelope, proved
from broker.errors import WireError
from broker.messages import Beacon, Candidate, Head, Job, Message, Presence, Reply, Round, Status
from identity.keys import Signer, text_of, verify

M = TypeVar("M", bound=Message)

OF_THE_AGGREGATOR = Beacon | Candidate | Job | Head | Round | Status | Reply
"""What it signs, for all to check."""
SAY_S = 60.0
"""Refused words are told of no more often."""

Kind = Literal["unsigned", "forged", "repeated", "stranger"]

_TOLD: dict[Kind, str] = {
    "unsigned": "not signed by who should have: somebody else speaks at the broker, or runs without a message_key",
    "forged": "signed by nobody whose key is pinned: somebody else speaks at the broker, or its key has changed",
    "repeated": "said before: somebody plays them again, or a network delivers late",
    "stranger": "of a device with which no session is agreed on yet; it is asked to introduce itself",
}


class ForgedError(WireError):
    """A word that is not proved to be of who should have said it; nothing follows from it."""

    def __init__(self, kind: Kind, message: Message) -> None:
        super().__init__(f"{type(message).__name__} is {_TOLD[kind]}")
        self.kind: Kind = kind
        self.message = message


class Seal:
    """Of a process that has no keys. The others override what they know better."""

    fleet = ""
    digest_digits = 16
    """How many digits of a SHA-256 name an update."""
    head_digits = 32
    """How many prove a version in its head."""
    signs = False
    """Whether it signs what it says."""
    trusts = False
    """Whether it has pinned whose words it believes."""
    pinned = ""
    """Names the keys of the aggregator that are pinned."""
    session_with = ""
    """Names the life of the aggregator that sessions are agreed on with; "" where there is none."""
    is_met = True
    """Whether what it says to that one alone can be proved, where it has to be."""
    is_introduced = True
    """Whether the other side of its session, as far as that is known, was told who speaks."""

    @property
    def stated_rows(self) -> Mapping[str, int] | None:
        """Device to the most examples that are believed of it, as was stated when it was enrolled; changes as it is
        stated. None: nobody states anything here.
        """
        return None

    @property
    def term(self) -> int:
        """The highest term of a word that was proved; 0 where nothing is checked."""
        return 0

    def start_from(self, term: int) -> None:
        """Follow no words of a lower term than this: it was heard in a former life."""

    def complete(self, message: M) -> M:
        """Return a message with what only this one can add to it."""
        return message

    def close(self, message: Message, said: Callable[[], bytes]) -> Envelope | None:  # noqa: ARG002 -- of a law
        """Return the envelope of a message, if it is to have one. said: gives its canonical bytes."""
        return None

    def check(self, message: Message, envelope: Envelope | None, said: Callable[[], bytes]) -> None:
        """Raise ForgedError for what is not proved and has to be."""

    def goes_by(self, beacon: Beacon) -> bool:  # noqa: ARG002 -- of a law
        """Return whether the life of the aggregator that says this is the one whose words are followed."""
        return True

    def is_fresh(self, presence: Presence) -> bool:  # noqa: ARG002 -- of a law
        """Return whether a presence was said to this very aggregator, and not before it was there."""
        return True

    def revoked(self) -> Collection[str]:
        """Return the devices whose words are not taken any more, since the last time."""
        return ()

    def is_signed_spec(self, job: Job) -> bool:  # noqa: ARG002 -- of a law
        """Return whether one whom this process trusts with jobs has signed the specification of this one."""
        return True


class Signing:
    """A key and the count of what it has signed."""

    __slots__ = ("_count", "_key")

    def __init__(self, key: Signer) -> None:
        self._key = key
        self._count = 0

    @property
    def public(self) -> bytes:
        """The public key."""
        return self._key.public

    def close(self, said: bytes) -> Envelope:
        """Return the envelope of what is said next."""
        self._count += 1
        return Envelope(self._count, self._key.sign(proved(said, self._count)))

    def sign(self, bytes_: bytes) -> bytes:
        """Return the signature over what is not a message."""
        return self._key.sign(bytes_)


def signer_of(keys: Iterable[bytes], message: Message, envelope: Envelope | None, said: Callable[[], bytes]) -> bytes:
    """Return which of these keys has signed a message. Raises ForgedError where none has."""
    if envelope is None or not envelope.is_signature:
        raise ForgedError("unsigned", message)
    told = proved(said(), envelope.count)
    for key in keys:
        if verify(key, told, envelope.proof):
            return key
    raise ForgedError("forged", message)


class Order:
    """How far the words of the aggregator were followed, topic by topic. term: the highest that was heard."""

    __slots__ = ("_heard", "_leader", "term")

    def __init__(self) -> None:
        self.term = 0
        self._leader = (0, "")
        """The term of the last beacon that was followed, and its nonce."""
        self._heard: dict[tuple[type, str], tuple[int, int]] = {}

    def follow(self, message: Beacon | Job | Head | Round, count: int) -> bool:
        """Note a word that is proved; return whether to go by it. Raises ForgedError for one that was overtaken.

        A beacon of a lower term is heard all the same, and not gone by: whoever leads under it has to be told. So is
        one of another life under the same term, of a store that was restored, and a last will, which was signed when
        its connection began.
        """
        if isinstance(message, Beacon):
            term, nonce = self._leader
            if not message.online or message.term < self.term or (message.term == term and message.nonce != nonce):
                return False
        said, key = (message.term, count), (type(message), "" if isinstance(message, Beacon) else message.job)
        if said < self._heard.get(key, (0, 0)) or (isinstance(message, Head | Round) and message.term < self.term):
            raise ForgedError("repeated", message)
        self._heard[key] = said
        self.term = max(self.term, message.term)
        if isinstance(message, Beacon):
            self._leader = message.term, message.nonce
        return True


class Refusals:
    """Counts what was refused, and gives a sentence on it once a minute at most."""

    __slots__ = ("_said_at", "_since", "counts")

    def __init__(self) -> None:
        self.counts: dict[Kind, int] = {}
        self._since: dict[Kind, int] = {}
        self._said_at: dict[Kind, float] = {}

    def count(self, error: ForgedError, topic: str, now: float) -> str:
        """Count one; return what an operator should read of it, if it is time."""
        kind = error.kind
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._since[kind] = self._since.get(kind, 0) + 1
        if kind in self._said_at and now < self._said_at[kind] + SAY_S:
            return ""
        self._said_at[kind] = now
        n = self._since.pop(kind)
        words = "1 word that is" if n == 1 else f"{n} words that are"
        return f"refused {words} {_TOLD[kind]} (the last at topic={topic[:120]!r})"


def tag_of(exchange: bytes) -> str:
    """Return how a word names the life of an aggregator that it is said to: the first 96 bits of its exchange key."""
    return text_of(exchange)[:16]
