"""What a job at work has on this device: its net, its data, the version that is here, its update, its training."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

from msgspec import Struct, structs

from broker import chunks
from broker.messages import CHUNK_BYTES, Failure, Message, Offer, Version
from broker.wire import Wire
from edge_agent.afterword import Afterword
from edge_agent.config import AgentConfig
from edge_agent.deployment import policy
from edge_agent.effects import Connected, ParticipantEvent, Setup, Train
from edge_agent.evaluating import Scoring
from edge_agent.fetch import Fetch
from edge_agent.home import Home
from edge_agent.outbox import Outbox
from edge_agent.participant import Participant
from edge_agent.reading import Readings
from edge_agent.resources import Resources
from edge_agent.slots import Calibrate, Install
from models.chain import Held
from models.codec import Coding, Terms
from models.data.dataset import Dataset
from models.data.source import Source
from models.frozen import Find
from models.job import JobSpec
from models.nets.net import Net
from models.params import Float32
from models.trail import Trail
from models.training.train import TrainingState, TrainingStep
from runtime.faults import Marks

ENVELOPE_BYTES = 1024
"""What a packet has beside its piece of a body, at most: topic, JSON and MQTT's own header."""


class Subscribe(Struct, frozen=True):
    """Listen to these topics. again: have what is retained there sent once more, where they are listened to already:
    once a connection, whichever job wants it.
    """

    filters: tuple[str, ...]
    again: bool = False


class Unsubscribe(Struct, frozen=True):
    """Listen to them no more."""

    filters: tuple[str, ...]


Out = Message | Subscribe | Unsubscribe | Install | Calibrate


class Rows(Struct, frozen=True):
    """A device's rows as the job's model takes them, and their fingerprint."""

    data: Dataset
    fingerprint: int
    statistic: bytes = b""
    """What is said of them, where the fleet has to agree first."""


class Waiting(Struct, frozen=True):
    """A version, or a threshold for it, that waits for rows before it goes into the slot."""

    install: Install | Calibrate
    reading: Future[Rows]


class Asked(Struct, frozen=True):
    """A training that begins as soon as the rows are there. held: its base, whatever is installed meanwhile."""

    effect: Train
    held: Held


class Training(Struct):
    """A training under way."""

    effect: Train
    net: Net
    """Which takes the rows as they are, and has the buffers of its base."""
    rows: Rows
    held: Held
    """Its base."""
    steps: Iterator[TrainingStep]
    state: TrainingState
    loss: float | None
    """Mean loss of the epoch so far; None before the first step."""
    saved_at: float
    scoring: Scoring
    """Of its base, once it is trained."""
    entered: bool = False
    """Whether it has its turn."""
    progress: float | None = None
    """How far it is, 0 to 1; None before the first step."""


class Workspace:
    """A job of this device; what is done about it stands in classes of its own (work.py).

    source: its rows. readings: where they are read. find: gives what is frozen of its net. Raises ModelError,
    OSError or NewerFormatError when it cannot be begun, and what `find` raises.
    """

    __slots__ = (
        "_afterword",
        "_asked",
        "_calibrated",
        "_chain",
        "_checkpoint_s",
        "_chunk_bytes",
        "_deploys",
        "_device",
        "_fetch",
        "_file_system",
        "_flush_at",
        "_head_topic",
        "_last",
        "_marks",
        "_outbox",
        "_pending",
        "_reading",
        "_readings",
        "_source",
        "_stalled",
        "_stalls_at",
        "_trail",
        "_training",
        "_version",
        "_waiting",
        "_wire",
        "failure",
        "job",
        "n_examples",
        "net",
        "participant",
        "spec",
        "takes_bodies",
        "told",
        "turn",
    )  # else it would weigh four times as much: more attributes than Python shares the names of

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        config: AgentConfig,
        home: Home,
        folder: Path,
        now: float,
        deployed: Version | None,
        *,
        wire: Wire,
        marks: Marks,
        source: Source,
        readings: Readings,
        resources: Resources | None = None,
        find: Find | None = None,
    ) -> None:
        resources = resources or Resources()
        self.job = job
        self.spec = spec
        self.net, self._chain = resources.chain(job, spec, config.models, find)
        self._source = source
        self._file_system = home.file_system
        self._readings = readings
        self._pending: Future[Rows] | None = None
        """The first look at the data, or the rows of the training that was asked for."""
        self._asked: Asked | None = None
        self._last: tuple[weakref.ref[Float32], int, bool] | None = None
        """The last rows that were read, which their source holds and the training on them; their fingerprint; whether
        the model takes them as they are."""
        self.n_examples = 0
        """About how many rows this device trains on, as it tells people; an offer says it exactly."""
        self.told = ""
        """What an operator should know of the rows that this device trains on."""
        self.turn = 0
        """When it had its last turn of training, as the service counts them."""
        self.failure: Failure | None = None
        """The last training, where it failed."""
        self._wire = wire
        self._device = home.device
        self._marks = marks
        self._chunk_bytes = CHUNK_BYTES
        """How updates are cut: as the broker takes them."""
        self._checkpoint_s = config.limits.checkpoint_s
        self._outbox = Outbox(
            folder, self.net.spec, config.limits.outbox_bytes, job=job, device=home.device, disk=home.disk
        )
        self._version: Version | None = None
        """The version that is here."""
        self._trail: Trail | None = None
        """The same in numbers, and the way there from the first of the versions that it is averaged with."""
        self._calibrated: Calibrate | None = None
        """The threshold that was last put into the slot."""
        self._deploys = policy(spec, has_slot=config.models.inference).last
        self._fetch: Fetch | None = None
        self.takes_bodies = False
        """Whether this connection brings what is retained on a wildcard: then one filter a body will do."""
        self._head_topic = (wire.filter_for("head", job=job),)
        self._reading = False
        """Whether the head is subscribed to."""
        self._stalls_at: float | None = None
        self._stalled = False
        """Whether the chunks that are missing have been asked for again."""
        self._training: Training | None = None
        self._afterword: Afterword | None = None
        """What is said of the version that the job has ended with."""
        self._waiting: Waiting | None = None
        """A version that goes into the slot once there are rows."""
        self._flush_at = now
        """When what is settled is to be on disk, if no update says it before."""
        setup = Setup(
            device=home.device,
            job=job,
            spec=spec,
            has_slot=config.models.inference,
            online=False,
            knows_wholes=self._chain.whole_bytes > 0,
            offer=self._outbox.offer and self._with_body(self._named(self._outbox.offer)),
            names=self._outbox.names,
            trained=self._outbox.trained,
            deployed=deployed,
        )
        rng = resources.jitter(f"{job}/{home.device}/{home.boot}/{home.nonce}")
        self.participant = Participant(setup, rng, now)

    @property
    def subscribed(self) -> tuple[str, ...]:
        """The chunk topics that this job listens to now."""
        return () if self._fetch is None else tuple(self._fetch.filters(self._wire))

    def handle(self, event: ParticipantEvent, now: float) -> list[Out]:
        """Tell the participant of an event, and return what follows: `Work.handle`."""
        raise NotImplementedError

    def connected(self, spread_s: float, packet_bytes: int | None, now: float) -> list[Out]:
        """Return what follows now that the broker is reachable again. packet_bytes: what it takes, if that is known."""
        room = CHUNK_BYTES if packet_bytes is None else packet_bytes - ENVELOPE_BYTES
        self._chunk_bytes = max(1, min(CHUNK_BYTES, room))
        return self.handle(Connected(spread_s), now)

    # The update.

    def _coding(self, effect: Train) -> Coding:
        """Return how the update is coded. Raises CodecError for terms that it cannot have."""
        m, bits, _ = effect.terms
        return self._chain.coding(effect.base.number, Terms(m, bits))

    def _offer(
        self, base: Version, n: int, body: bytes, loss: float | None = None, told: tuple[float, ...] = ()
    ) -> Offer:
        digest = chunks.digest(body, self._wire.seal.digest_digits)
        rounded = None if loss is None else float(f"{loss:.3g}")
        return Offer(self.job, self._device, base, n, digest, len(body), CHUNK_BYTES, rounded, told)

    def _with_body(self, offer: Offer, body: bytes | None = None) -> Offer:
        """Put the body of a one-chunk update into its offer."""
        if offer.n_bytes > offer.chunk_bytes:
            return offer
        return structs.replace(offer, body=self._outbox.body() if body is None else body)

    def _named(self, offer: Offer) -> Offer:
        """Return an offer of a former life under a digest that is long enough for this one."""
        digits = self._wire.seal.digest_digits
        if len(offer.digest) >= digits:
            return offer
        return structs.replace(offer, digest=chunks.digest(self._outbox.body(), digits))
