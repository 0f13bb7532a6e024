"""Every message there is: frozen structs, a closed set, equal by value. WIRE.md is their prose.

Fields that stand in the topic (see topics.py) are not repeated in the payload: the topic is what the broker's access
list vouches for, so a device cannot say in JSON that it is another.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from broker.ceilings import (
    FAR,
    MOST_NUMBER,
    BodyBytes,
    Buckets,
    ChunkBytes,
    Claim,
    Count,
    Generation,
    Index,
    Number,
    Rows,
    SomeRows,
    Spread,
    Term,
)

Id = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,80}\Z")]
"""What may stand as one level of a topic. A job id is a job's name (up to 64) and its incarnation."""
Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16,64}\Z")]
"""The beginning of a SHA-256 in hex: 64 bits name a body, 128 prove a version."""
Echo = Annotated[str, Meta(pattern=r"\A[0-9a-f]{8,32}\Z")]
"""The beginning of a digest, eight digits at least: enough to tell the updates of one device to one base apart."""
Short = Annotated[str, Meta(max_length=500)]
Key = Annotated[str, Meta(pattern=r"\A([A-Za-z0-9+/]{43}=)?\Z")]
"""A public key as text, or nothing."""
Tag = Annotated[str, Meta(pattern=r"\A([A-Za-z0-9+/]{16})?\Z")]
"""The beginning of an exchange key: the life of an aggregator that a word is said to; or nothing."""
Signature = Annotated[str, Meta(pattern=r"\A([A-Za-z0-9+/]{86}==)?\Z")]
"""A signature of 64 bytes as text, or nothing."""
Words = str
"""What somebody says for people: cleaned and cut where it comes in (`runtime.words`), never refused for its length."""
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Moment = Annotated[float, Meta(ge=0, le=1e11)]
Metrics = Annotated[dict[Annotated[str, Meta(max_length=40)], float], Meta(max_length=16)]


PROOF_BYTES = 8
"""As many bytes of a version's SHA-256 prove a way that comes along with a round."""
CHUNK_BYTES = 100_000
"""How a body is cut where nothing else is said: below the 128 kB that the strictest known broker takes."""
MAX_TICKET = 2**48 - 1
"""The largest ticket in the lottery of a round (WIRE.md; models/draw.py): this threshold draws everybody."""
MOST_WAYS = 1024
"""Bodies that a head names."""
MOST_SETTLED = 1000
"""Devices that a round names as done with its base."""


class Version(Struct, frozen=True, array_like=True, order=True):
    """A version of a job's global model: [generation, number].

    A restored backup raises the generation, so that a number is never given out twice with another meaning.
    """

    generation: Generation
    number: Number

    def __str__(self) -> str:
        return f"{self.generation}.{self.number}"

    def following(self) -> Version:
        """Return the version that the next committed round makes."""
        return Version(self.generation, self.number + 1)

    def is_far_above(self, other: Version, by: int = FAR) -> bool:
        """Return whether this lies so much further than another that nobody who knows that one can honestly say it."""
        return max(self.generation - other.generation, self.number - other.number) > by


class DeltaAt(Struct, frozen=True, array_like=True):
    """A body that leads from one version to another of its generation; from 0 for anybody: [start, number, n_bytes].

    It lies at the topics body/<job>/<generation>-<number>-<start>/0 … n-1.
    """

    start: Number
    number: Number
    n_bytes: BodyBytes


# From the aggregator.


class Beacon(Struct, frozen=True, omit_defaults=True):
    """Who leads the fleet. Retained, with a last will that says it is gone; only who leads sends one."""

    term: Term
    nonce: Short
    online: bool
    spread_s: Spread = 2.0
    """Window over which devices spread what they send at a reconnect."""
    roll: Count = 0
    """A roll call: devices answer each new pair of nonce and roll with their presence."""
    store: Short = ""
    """Identity of the state directory that it leads from."""
    since: Term = 0
    """The term that its leadership began with: of two leaders the one that began earlier goes on."""
    claim: Claim = 0
    """How often operators have said `--take-over`, as far as it knows: the higher claim leads."""
    empty: bool = False
    """It has no job yet, and gives way to whoever has some."""
    asks: Short = ""
    """A word drawn just now, where it doubts that another leader which it has heard is there."""
    answers: Short = ""
    """The word of another that this one answers: a beacon's `asks`, or a candidate's nonce."""
    exchange: Key = ""
    """In a fleet with keys, the public key that this life agrees on sessions with."""


class Candidate(Struct, frozen=True, omit_defaults=True):
    """An aggregator that would lead asks who does. Whoever leads answers with its beacon."""

    nonce: Short
    term: Term
    """The highest term that it has led with."""
    claim: Claim = 0
    empty: bool = False


BASE = "base-"
"""What the name of a body begins with that says frozen tensors; no version's does."""


class BaseAt(Struct, frozen=True, array_like=True):
    """The frozen tensors of a job's net, where devices cannot make them: [sha256, n_bytes, chunk_bytes].

    They lie at the topics body/<job>/base-<sha256>/0 … n-1, as models/frozen.py says them.
    """

    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    n_bytes: BodyBytes
    chunk_bytes: ChunkBytes

    @property
    def name(self) -> str:
        """The name of the body that says them."""
        return f"{BASE}{self.sha256}"

    @property
    def n_chunks(self) -> int:
        """In how many pieces it lies there."""
        return -(-self.n_bytes // self.chunk_bytes)


class Job(Struct, frozen=True, omit_defaults=True):
    """A job's specification, or its tombstone when `spec` is absent. Retained.

    last: the version that the job has ended with; absent while it goes on.
    """

    job: Id
    term: Term
    spec: dict[str, Any] | None = None
    last: Version | None = None
    operator: Short = ""
    """Who has signed the specification, in a fleet with keys."""
    signature: Signature = ""
    base: BaseAt | None = None
    """The frozen tensors of its net, where they are not what every device makes itself from the seed."""


class Head(Struct, frozen=True, omit_defaults=True):
    """The current version of a job. Retained, published last: what it names is already at the broker.

    Devices do not follow it: a round names the version, and who needs it reads its head.

    ways: the bodies that lie at the broker: from one version to a later one, and so, one after another, to this one.
    sha256: the first 128 bits of the SHA-256 of the model, in hex.
    """

    job: Id
    term: Term
    version: Version
    sha256: Digest
    state: Literal["waiting", "running", "finished", "stopped"] = "running"
    ways: Annotated[tuple[DeltaAt, ...], Meta(max_length=MOST_WAYS)] = ()
    chunk_bytes: ChunkBytes = CHUNK_BYTES
    threshold: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    """Of a job that finds anomalies, the score above which a row is one: by what the fleet has said of this version, or
    while it has said nothing, of an earlier one. The head is said again when that is known."""


class Status(Struct, frozen=True, omit_defaults=True):
    """How a job does, for people: retained, and read by no device."""

    job: Id
    version: Version
    state: Literal["waiting", "running", "resting", "finished", "stopped"]
    reason: Words = ""
    """Why it has ended, rests, or what it waits for."""
    metrics: Metrics = {}


class Round(Struct, frozen=True, omit_defaults=True):
    """An attempt to leave a base version. Retained with an expiry, repeated as a heartbeat.

    A device takes part when ticket(salt(seed, base), device) <= threshold.

    along: in the first announcement of a base that most devices are drawn to leave, when it is short, the way to it
    from the version before, behind what proves it (see `along`): who holds that version needs no head. For version 0,
    which comes from the seed, the proof is enough, and every announcement has it.
    """

    job: Id
    term: Term
    base: Version
    seconds_left: Seconds = field(name="left_s")
    terms: tuple[Buckets, Annotated[int, Meta(ge=1, le=32)], Annotated[int, Meta(ge=-200, le=200)]] = (0, 32, 0)
    """How updates to this base are coded, the same in every attempt: [buckets, bits, octave]. The noise of the base had
    an energy of about 2**octave, which is what devices ask the price of; 0: nobody need ask."""
    attempt: Count = 1
    threshold: Annotated[int, Meta(ge=0, le=MAX_TICKET)] = MAX_TICKET
    aliases: Annotated[tuple[Version, ...], Meta(max_length=8)] = ()
    """Former names of the base, where a restored backup has given it another: an update to one is an update to it."""
    settled: Annotated[tuple[Id, ...], Meta(max_length=MOST_SETTLED)] = ()
    """Where the base has former names, the devices whose updates to it have their verdicts: they are done with it."""
    along: bytes = b""

    @property
    def sha256(self) -> str:
        """The first 64 bits of the SHA-256 of the base, in hex, where a way comes along."""
        return self.along[:PROOF_BYTES].hex()

    @property
    def way(self) -> bytes:
        """The body that leads to the base from the version before; empty if none comes along."""
        return self.along[PROOF_BYTES:]


def along(sha256: str, way: bytes) -> bytes:
    """Return what comes along with a round: the beginning of the SHA-256 of its base (in hex), and the way to it."""
    return bytes.fromhex(sha256)[:PROOF_BYTES] + way


class Body(Struct, frozen=True):
    """One chunk of an immutable body. Retained while its version or the one before it is current."""

    job: Id
    name: Id
    index: Index
    data: bytes


def start_of(name: str) -> int:
    """Return the number of the version that a body of this name leads from; 0 for a name that is none."""
    last = name.rpartition("-")[2]
    return int(last) if last.isascii() and last.isdigit() and len(last) <= len(str(MOST_NUMBER)) else 0


def body_name(version: Version, start: int) -> str:
    """Return the name of the body that leads to a version from the one of number `start`."""
    return f"{version.generation}-{version.number}-{start}"


class Want(Struct, frozen=True, omit_defaults=True):
    """Which chunks of an offered update are missing: a bitmap in hex, lowest bit of the first byte is chunk 0."""

    device: Id
    job: Id
    digest: Digest
    missing: Annotated[str, Meta(pattern=r"\A([0-9a-f]{2}){1,4096}\Z")]


class Verdict(Struct, frozen=True, omit_defaults=True):
    """What became of an update: counted, or refused with the reason. It is durable before it is sent.

    It is sent where a device needs it: for what is refused, for what is offered again, and for every update to a job
    that folds late ones. Else the next version says that its base has been left.
    """

    device: Id
    job: Id
    base: Version
    digest: Echo
    refused: Words = ""
    """Why it was refused; empty when it was counted."""

    @property
    def counted(self) -> bool:
        """Whether the update is in the sum, or will be."""
        return not self.refused


class Reply(Struct, frozen=True, omit_defaults=True):
    """The answer to an operator's command."""

    client: Id
    request: Short
    ok: bool
    text: Words = ""
    data: dict[str, Any] = {}
    """What was asked for, as plain values."""
    more: Short = ""
    """Where the next page begins: ask again with this as `after`. Empty on the last one."""


class Notice(Struct, frozen=True, omit_defaults=True):
    """Something that somebody should look at, for people and their tools: said once, by who looks on for the server."""

    at: Moment
    kind: Short
    text: Words
    job: Short = ""
    device: Short = ""


# From a device.


class Failure(Struct, frozen=True, array_like=True):
    """A training that came to nothing: [base, why]. The device takes part again from the next base on."""

    base: Version
    why: Words


class Int8(Struct, frozen=True, array_like=True):
    """What has come of a model that was to be served in int8: [version, lost, speedup, why].

    lost: of the measure that its card names, on rows of the device. speedup: how many times as fast a row is answered.
    why: float32 is served; empty where int8 is.
    """

    version: Version
    lost: Annotated[float, Meta(ge=-1e9, le=1e9)]
    speedup: Annotated[float, Meta(ge=0, le=1e9)]
    why: Words


class Presence(Struct, frozen=True, omit_defaults=True):
    """What a device is and does. Retained, with a last will that says it is offline.

    incarnation names the state directory, boot counts its starts, nonce is drawn at each of them. So one boot with two
    nonces is two devices that share an id, and a new incarnation is a card that was written anew.
    """

    device: Id
    boot: Count
    online: bool
    labels: Annotated[dict[Id, Id], Meta(max_length=64)] = {}
    ready: Annotated[dict[Id, Rows], Meta(max_length=256)] = {}
    """Job id to number of examples, for every job the device can take part in."""
    unready: Annotated[dict[Id, Words], Meta(max_length=256)] = {}
    """Job id to the reason why not."""
    software: Words = ""
    incarnation: Short = ""
    nonce: Short = ""
    failed: Annotated[dict[Id, Failure], Meta(max_length=256)] = {}
    """Job id to the last training, where that failed."""
    done: Annotated[dict[Id, Version], Meta(max_length=256)] = {}
    ahead: Annotated[dict[Id, Version], Meta(max_length=256)] = {}
    """Job id to the last version trained on: an aggregator that has not come so far works from an old backup."""
    trouble: Annotated[dict[Id, Words], Meta(max_length=256)] = {}
    """Job id to what goes wrong though the device takes part: a model that cannot be installed, a packet refused."""
    term: Term = 0
    """The highest term heard, where the aggregator's own is lower."""
    exchange: Key = ""
    """In a fleet with keys, the public key that this life agrees on sessions with."""
    to: Tag = ""
    """The life of the aggregator that it is said to, as far as that was heard."""
    int8: Annotated[dict[Id, Int8], Meta(max_length=256)] = {}
    """Job id to what has come of int8 in its model slot, where the job wants that. It goes along: only that it is
    another way by now, or for another reason, is news."""

    @property
    def life(self) -> str:
        """Name the process that speaks: its nonce, or its boot where an older agent draws none."""
        return self.nonce or f"boot-{self.boot}"


class Vitals(Struct, frozen=True, omit_defaults=True):
    """How a device is, for people: retained, said on change and rarely. Nothing is decided by it.

    No seal stands in front of it: the broker vouches for the device in its topic.
    """

    device: Id
    boot: Count
    doing: Literal["idle", "reading", "fetching", "training", "sending", "waiting"] = "idle"
    job: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,80}\Z")] = ""
    """Whose work it does; "" where it does nothing."""
    progress: Annotated[float, Meta(ge=0, le=1)] | None = None
    """How far that is, where it is known."""
    why: Words = ""
    """What it waits for."""
    disk_free: Annotated[int, Meta(ge=0, le=2**49)] | None = None
    """Bytes where its state lies."""
    heat: Annotated[float, Meta(ge=-100, le=250)] | None = None
    """Of its processor, in degrees Celsius."""
    load: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    """Processes that run or wait to, the mean of a minute, over its processors."""
    bytes_today: Annotated[int, Meta(ge=0, le=2**49)] = 0
    """Sent and received over MQTT since its own midnight, UTC."""
    clock: Annotated[float, Meta(ge=0, le=1e11)] = 0.0
    """Its own clock as it says this: seconds since 1970."""
    uptime_s: Seconds = 0.0
    """How long the agent has run."""
    serves: Annotated[dict[Id, Version], Meta(max_length=64)] = {}
    """Job id to the version that its applications are answered by."""


class Offer(Struct, frozen=True, omit_defaults=True):
    """An update that waits for the aggregator's word.

    A body of one chunk travels with it; digest and length then follow from the body and are not written down. The
    number of examples stands in the topic, though it is a claim like the rest: it hardly ever changes, and what stands
    for the topic on the wire, an alias, then stands for it too.
    """

    job: Id
    device: Id
    base: Version
    n_examples: SomeRows
    digest: Digest
    n_bytes: BodyBytes
    chunk_bytes: ChunkBytes = CHUNK_BYTES
    loss: float | None = None
    """Mean training loss of the last epoch, if the device tells."""
    report: Annotated[tuple[float, ...], Meta(max_length=2)] = ()
    """What the device measured for the steering of the coding: [curvature], or [curvature, gain]."""
    body: bytes = b""


def echo(offer: Offer) -> str:
    """Return what a verdict says of the update it is on."""
    return offer.digest[:8]


class Chunk(Struct, frozen=True):
    """One chunk of an offered update that the aggregator wants."""

    job: Id
    device: Id
    digest: Digest
    index: Index
    data: bytes


# From an operator. A command is repeated until it is answered, and done once. In a fleet with keys it names the life of
# the aggregator that it is said to (`to`), so that nobody has it done again by the next.


class Submit(Struct, frozen=True, tag="submit", tag_field="command"):
    """Start this job."""

    client: Id
    request: Short
    spec: dict[str, Any]
    to: Tag = ""
    incarnation: Annotated[str, Meta(pattern=r"\A([0-9a-f]{8})?\Z")] = ""
    """The end of the job's id, where the operator draws it, who has signed the specification under that id."""
    operator: Short = ""
    signature: Signature = ""
    start: Short = ""
    """What it starts from: NAME, NAME@VERSION (a number, "best" or "last"), upload:DIGEST, or
    base:DIGEST: its frozen tensors (models/frozen.py), and a body behind them, or none; else from its seed."""


class Stop(Struct, frozen=True, tag="stop", tag_field="command"):
    """Stop the job of this name; its last version stays."""

    client: Id
    request: Short
    name: Id
    to: Tag = ""


class Resume(Struct, frozen=True, tag="resume", tag_field="command"):
    """Try a job again that was put at rest, or let rounds open again of one that is paused."""

    client: Id
    request: Short
    name: Id
    to: Tag = ""


class Pause(Struct, frozen=True, tag="pause", tag_field="command"):
    """Open no round of this job until it is resumed."""

    client: Id
    request: Short
    name: Id
    to: Tag = ""


class RollBack(Struct, frozen=True, tag="rollback", tag_field="command"):
    """Make an older version of this job the next one again: a number, or "best"."""

    client: Id
    request: Short
    name: Id
    version: Short
    to: Tag = ""


class Delete(Struct, frozen=True, tag="delete", tag_field="command"):
    """Forget a job that has ended, or was replaced, with its versions."""

    client: Id
    request: Short
    name: Id
    to: Tag = ""


class Upload(Struct, frozen=True, tag="upload", tag_field="command"):
    """A piece of the weights that a job will start from: the body of a version, said exactly. Pieces come in order."""

    client: Id
    request: Short
    digest: Digest
    """Of all of it."""
    n_bytes: BodyBytes
    at: Annotated[int, Meta(ge=0, le=2**40)]
    """Where the piece begins."""
    data: Annotated[str, Meta(max_length=65_536)]
    """The piece, in base64."""
    to: Tag = ""


class Jobs(Struct, frozen=True, omit_defaults=True, tag="jobs", tag_field="command"):
    """Say of every job how it is and what it waits for. past: also of those that were replaced."""

    client: Id
    request: Short
    after: Short = ""
    to: Tag = ""
    past: bool = False


class Show(Struct, frozen=True, omit_defaults=True, tag="show", tag_field="command"):
    """Say all there is to know of one job, its devices included."""

    client: Id
    request: Short
    name: Id
    after: Short = ""
    to: Tag = ""


class Explain(Struct, frozen=True, omit_defaults=True, tag="explain", tag_field="command"):
    """Say of every attempt to make this version of a job how it ended and what became of each device."""

    client: Id
    request: Short
    name: Id
    number: Number
    device: Id | None = None
    """Of this device alone."""
    after: Short = ""
    to: Tag = ""


class Curve(Struct, frozen=True, omit_defaults=True, tag="metrics", tag_field="command"):
    """Say of every version of a job how good it is."""

    client: Id
    request: Short
    name: Id
    devices: bool = False
    """What each device brought to each version, instead."""
    after: Short = ""
    to: Tag = ""


class Export(Struct, frozen=True, omit_defaults=True, tag="export", tag_field="command"):
    """Say a version of a job, at work, ended or replaced: its number, "best" or "last". The body comes in pages."""

    client: Id
    request: Short
    name: Id
    version: Short = "last"
    after: Short = ""
    to: Tag = ""


class Devices(Struct, frozen=True, omit_defaults=True, tag="devices", tag_field="command"):
    """Say of every device of the fleet how the aggregator knows it."""

    client: Id
    request: Short
    after: Short = ""
    to: Tag = ""


class History(Struct, frozen=True, omit_defaults=True, tag="history", tag_field="command"):
    """Say what became of one device in the last rounds of every job."""

    client: Id
    request: Short
    device: Id
    after: Short = ""
    to: Tag = ""


class Events(Struct, frozen=True, omit_defaults=True, tag="events", tag_field="command"):
    """Say what has happened: events with a number above `since`, the earliest first; without it the latest ones."""

    client: Id
    request: Short
    since: Annotated[int, Meta(ge=0, le=2**40)] | None = None
    kind: Short = ""
    """Those whose kind begins with this: "device", "device.gone"."""
    job: Short = ""
    device: Short = ""
    after: Short = ""
    to: Tag = ""


class Quarantine(Struct, frozen=True, omit_defaults=True, tag="quarantine", tag_field="command"):
    """Draw a device no more and count nothing of it, in any job, until it is released."""

    client: Id
    request: Short
    device: Id
    why: Short = ""
    to: Tag = ""


class Release(Struct, frozen=True, tag="release", tag_field="command"):
    """Take a device out of quarantine."""

    client: Id
    request: Short
    device: Id
    to: Tag = ""


class Cleared(Struct, frozen=True):
    """A retained topic was cleared: an empty payload."""

    topic: str


Query = Jobs | Show | Explain | Curve | Export | Devices | History | Events
"""The commands that only look."""
Change = Submit | Stop | Resume | Pause | RollBack | Delete | Upload | Quarantine | Release
"""The commands that change something."""
Command = Change | Query
ToWhatIsThere = Stop | Resume | Pause | RollBack | Quarantine | Release
"""The changes that a steward may ask for: they bring no code and no job along, and take nothing away for good."""
Control = (
    Beacon
    | Candidate
    | Job
    | Head
    | Status
    | Round
    | Want
    | Verdict
    | Reply
    | Presence
    | Vitals
    | Offer
    | Notice
    | Command
)
Message = Control | Body | Chunk | Cleared
