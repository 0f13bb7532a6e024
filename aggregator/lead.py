"""What goes into leadership and what comes out of it: plain values, carried out by `aggregator/service.py` in order."""

from __future__ import annotations

from msgspec import Struct

from broker.messages import Beacon, Candidate


class Me(Struct):
    """What this aggregator knows of itself when it starts.

    term: the highest that its store has led with. claim: of operators, likewise. empty: it has no job. former: nonce of
    its last life that led from this very directory; "" where there is none, or the directory was copied or restored.
    replaced: nonce of an aggregator with jobs that has outranked it; "" where none has. restored: an operator has put a
    backup in place, which may be older than a take-over: only who is alive stands against it.
    """

    nonce: str
    store: str
    term: int = 0
    claim: int = 0
    empty: bool = True
    former: str = ""
    replaced: str = ""
    restored: bool = False


class Connected(Struct, frozen=True):
    """The broker is reachable, and what it has retained is on its way."""


class Lost(Struct, frozen=True):
    """The broker is not reachable."""


class Heard(Struct, frozen=True):
    """A beacon has come. live: said now, not retained from before."""

    beacon: Beacon
    live: bool


LeadershipEvent = Connected | Lost | Heard | Candidate


class AskWhoLeads(Struct, frozen=True):
    """Ask who leads."""


class Lead(Struct, frozen=True):
    """Make term and claim durable and connect again with a last will; from the next `Online` on this one leads."""

    term: int
    claim: int


class Rise(Struct, frozen=True):
    """Make a higher term durable, and say everything again under it."""

    term: int


class Speak(Struct, frozen=True):
    """Publish the beacon."""


class StandDown(Struct, frozen=True):
    """Stop leading, or do not begin: drop what was to be said, have no last will any more.

    replaced: nonce of the leader, where this one must not lead again by itself.
    """

    leader: Beacon
    replaced: str


Effect = AskWhoLeads | Lead | Rise | Speak | StandDown
