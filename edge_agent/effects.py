"""What goes into a participant and what comes out of it: plain values, carried out by `edge_agent/work.py` in order."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from broker.messages import Head, Offer, Round, Verdict, Version, Want
from models.job import JobSpec

# Events: what the participant is told.


class Connected(Struct, frozen=True):
    """The broker is reachable again; answers may be spread over this window."""

    spread_s: float = 0.0


class Disconnected(Struct, frozen=True):
    """The broker is not reachable: nothing that is sent would arrive."""


class JobEnded(Struct, frozen=True):
    """The job has ended, with this version."""

    last: Version
    term: int


class Ready(Struct, frozen=True):
    """The data are there and fit the job; or `why` says why this device cannot take part."""

    why: str = ""


class Installed(Struct, frozen=True):
    """The integers of this version are here, with the SHA-256 that was announced."""

    version: Version
    since: int | None = None
    """Number of the first version from which on every one can be had again; only this one when not given."""


class FetchFailed(Struct, frozen=True):
    """The body of this version came, and was not what was announced."""

    version: Version


class Trained(Struct, frozen=True):
    """Training is done and the update is safely on disk."""

    offer: Offer


class TrainingFailed(Struct, frozen=True):
    """Training on this base cannot be done; it will not be tried again."""

    base: Version
    why: str


class UpdateLost(Struct, frozen=True):
    """The update that is offered is not on disk any more, or has rotted: its base may be trained on again.

    settled: the base of the last update that was settled.
    """

    settled: Version | None


class Deployed(Struct, frozen=True):
    """Applications on this device have this version now."""

    version: Version


class DeployFailed(Struct, frozen=True):
    """A version could not be put into the model slot; the one before it stays, and it is tried again."""

    version: Version
    why: str


class Tick(Struct, frozen=True):
    """Nothing has happened but that time has passed: what `tick` stands for in the table of states."""


ParticipantEvent = (
    Head
    | Round
    | JobEnded
    | Want
    | Verdict
    | Connected
    | Disconnected
    | Ready
    | Installed
    | FetchFailed
    | Trained
    | TrainingFailed
    | UpdateLost
    | Deployed
    | DeployFailed
)


# Effects: what the participant wants done.


class FetchVersion(Struct, frozen=True):
    """Get this version as its head, or the round that carries the way to it, says, in place of any other.

    Then say `Installed` or `FetchFailed`.
    """

    version: Version
    source: Head | Round
    since: int | None = None
    """Number of the first version that is wanted on the way, with all after it, if they can be had."""


class Drop(Struct, frozen=True):
    """Fetch no more: nobody needs that version here now."""


class Train(Struct, frozen=True):
    """Train on the installed base, make the update durable, then say `Trained` or `TrainingFailed`."""

    base: Version
    terms: tuple[int, int, int]
    """How the update is coded, as the round says it."""
    names: tuple[Version, ...] = ()
    """Former names of the base, as the round says them: what was begun under one of them goes on."""


class Halt(Struct, frozen=True):
    """Stop this training: its update would be refused.

    goes_on: it is trained on at once under another name, from where it stands.
    """

    base: Version
    goes_on: bool = False


class Send(Struct, frozen=True):
    """Publish the offer, with its body if that fits one message and is wanted now."""

    offer: Offer
    with_body: bool


class Upload(Struct, frozen=True):
    """Publish these chunks of the offered update."""

    want: Want


class RequestHead(Struct, frozen=True):
    """Ask the broker for the retained head."""


class Settle(Struct, frozen=True):
    """Nothing more becomes of the update: note that its base is done with, and forget it, in one durable step."""

    job: str
    base: Version
    """That it was offered to."""
    verdict: Verdict | None = None
    """The aggregator's word on it, if it has come."""
    renamed: Version | None = None
    """With a verdict, the present name of its base, where that has another by now."""
    later: Version | None = None
    """Without one, what was announced: a version that came after its base, or the last one of a job that is over."""


class Deploy(Struct, frozen=True):
    """Put the installed version into the model slot, then say `Deployed` or `DeployFailed`."""

    version: Version


Effect = RequestHead | FetchVersion | Drop | Train | Halt | Send | Upload | Settle | Deploy


# What it begins with.


class Setup(Struct, frozen=True, kw_only=True):
    """What a participant is made from: who takes part in what, and what is on this device's disk of it."""

    device: str
    job: str
    spec: JobSpec
    has_slot: bool = True
    """Whether models are deployed on this device."""
    online: bool = True
    """Whether the broker is reachable now."""
    knows_wholes: bool = False
    """Whether it is known how long the body of a version is that is fetched whole."""

    offer: Offer | None = None
    """The update that waits for its end."""
    names: Collection[Version] = ()
    """Former names of its base."""
    trained: Version | None = None
    """The last base trained, to its end or to a failure."""
    deployed: Version | None = None
    """The version in the model slot."""
