"""One job on this device: carries out what its participant wants, between the disk, the numbers and the wire.

Training is an iterator of steps that the service advances in slices, so the loop that hears the broker never waits for
it and no thread is needed. Each training has the rows as they are when it begins. They are read beside the loop
(reading.py), but where the file's stamp says that they are those of last time: then nothing is read, and the stamp
is asked for in the loop, if the file lies on the file system of the state directory, which the loop waits for anyway.
What is durable is so before its message is given.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from msgspec import Struct, structs

from broker import chunks
from broker.errors import WireError
from broker.messages import CHUNK_BYTES, Body, Chunk, Failure, Head, Message, Offer, Verdict, Version, Want
from broker.wire import Wire
from edge_agent.afterword import Afterword
from edge_agent.config import AgentConfig
from edge_agent.deployment import policy
from edge_agent.effects import (
    Connected,
    Deploy,
    Disconnected,
    Drop,
    Effect,
    FetchFailed,
    Halt,
    Installed,
    ParticipantEvent,
    Ready,
    RequestHead,
    Send,
    Settle,
    Setup,
    Train,
    Trained,
    TrainingFailed,
    UpdateLost,
    Upload,
)
from edge_agent.effects import FetchVersion as FetchEffect
from edge_agent.evaluating import Scoring
from edge_agent.fetch import Fetch, FetchError
from edge_agent.home import Home
from edge_agent.outbox import Outbox, OutboxFullError
from edge_agent.participant import Participant, without_body
from edge_agent.reading import Readings
from edge_agent.report import Reporter, rng_of
from edge_agent.resources import Resources
from edge_agent.slot import Release
from edge_agent.slots import Install
from models import sections, statistic
from models.agreement import Agreed
from models.chain import max_way_bytes_of
from models.codec import CodecError, Coding, Terms
from models.data.dataset import Dataset, fit
from models.data.source import Source, kept, scratch_of
from models.job import JobSpec
from models.lattice import Model
from models.nets.net import Net
from models.nets.normalised import normalised
from models.params import Float32, Params
from models.trail import Trail
from models.training import train
from models.training.train import TrainingError, TrainingState, TrainingStep
from models.training.weights import WeightError, weights_of
from runtime.failpoints import reach
from runtime.faults import Marks

log = logging.getLogger(__name__)


STALL_S = 60.0
"""Chunks that have not come for this long are asked for again: 100 kB at 20 kbit/s take 40 s."""
FLUSH_S = 60.0
"""After an update is settled that is durable by then, if no later one has said so."""
FITTED_AT_ONCE = 50_000
"""Rows that are given the form that the model takes while the loop waits; more are, beside it."""
ENVELOPE_BYTES = 1024
"""What a packet has beside its piece of a body, at most: topic, JSON and MQTT's own header."""


class Subscribe(Struct, frozen=True):
    """Listen to these topics."""

    filters: tuple[str, ...]


class Unsubscribe(Struct, frozen=True):
    """Listen to them no more."""

    filters: tuple[str, ...]


Out = Message | Subscribe | Unsubscribe | Install


class Rows(Struct, frozen=True):
    """A device's rows as the job's model takes them, and their fingerprint."""

    data: Dataset
    fingerprint: int
    statistic: bytes = b""
    """What is said of them, where the fleet has to agree first."""


class _Asked(Struct, frozen=True):
    """A training that begins as soon as the rows are there. model: its base, whatever is installed meanwhile.

    agreed: what the fleet has agreed on.
    """

    effect: Train
    model: Model
    agreed: Agreed | None


class _Training(Struct):
    """A training under way."""

    effect: Train
    net: Net
    """Which takes the rows as they are."""
    rows: Rows
    start: Params
    steps: Iterator[TrainingStep]
    state: TrainingState
    loss: float | None
    """Mean loss of the epoch so far; None before the first step."""
    saved_at: float
    scoring: Scoring
    """Of its base, once it is trained."""
    entered: bool = False
    """Whether it has its turn."""


class Work:
    """A job of this device, once its data have been looked at.

    source: its rows. readings: where they are read. Raises ModelError, OSError or NewerFormatError when it cannot be
    begun.
    """

    __slots__ = (
        "_afterword",
        "_asked",
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
        "_wire",
        "failure",
        "job",
        "n_examples",
        "net",
        "participant",
        "spec",
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
    ) -> None:
        resources = resources or Resources()
        self.job = job
        self.spec = spec
        self.net, self._chain = resources.chain(job, spec, config.models)
        self._source = source
        self._file_system = home.file_system
        self._readings = readings
        self._pending: Future[Rows] | None = None
        """The first look at the data, or the rows of the training that was asked for."""
        self._asked: _Asked | None = None
        self._last: tuple[weakref.ref[Float32], int] | None = None
        """The last rows that were read, which their source holds and the training on them, and their fingerprint."""
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
        self._deploys = policy(spec, has_slot=config.models.inference).last
        self._fetch: Fetch | None = None
        self._head_topic = (wire.filter_for("head", job=job),)
        self._reading = False
        """Whether the head is subscribed to."""
        self._stalls_at: float | None = None
        self._stalled = False
        """Whether the chunks that are missing have been asked for again."""
        self._training: _Training | None = None
        self._afterword: Afterword | None = None
        """What is said of the version that the job has ended with."""
        self._flush_at = now
        """When what is settled is to be on disk, if no update says it before."""
        setup = Setup(
            device=home.device,
            job=job,
            spec=spec,
            has_slot=config.models.inference,
            online=False,
            offer=self._outbox.offer and self._with_body(self._named(self._outbox.offer)),
            names=self._outbox.names,
            trained=self._outbox.trained,
            deployed=deployed,
        )
        rng = resources.jitter(f"{job}/{home.device}/{home.boot}/{home.nonce}")
        self.participant = Participant(setup, rng, now)

    # What the service asks.

    @property
    def busy(self) -> bool:
        """Whether there are steps to take, of a training or of a scoring."""
        return self._training is not None or (self._afterword is not None and self._afterword.scoring is not None)

    @property
    def reads(self) -> bool:
        """Whether it waits for its data to be read."""
        return self._pending is not None and not self._pending.done()

    @property
    def subscribed(self) -> tuple[str, ...]:
        """The chunk topics that this job listens to now."""
        return () if self._fetch is None else tuple(self._fetch.filters(self._wire))

    @property
    def deadline(self) -> float | None:
        """When `tick` wants to be called."""
        flush_at = None if self._outbox.is_flushed else self._flush_at
        again_at = None if self._afterword is None else self._afterword.deadline
        times = (self.participant.deadline, self._stalls_at, flush_at, again_at)
        return min((at for at in times if at is not None), default=None)

    def handle(self, event: ParticipantEvent, now: float) -> list[Out]:
        """Tell the participant of an event, and return what follows. Raises OSError when the disk does not take it."""
        if isinstance(event, Verdict) and self._afterword is not None and self._afterword.settle(event):
            return []
        messages = list(self._carry_out(self.participant.receive(event, now), now))
        self._score_last(event, now)
        if self.participant.over:
            self._flush_at = min(self._flush_at, now)  # no later update will say it
        if self._reading and isinstance(event, Head) and not self.participant.follows:
            self._reading = False
            messages.append(Unsubscribe(self._head_topic))
        return messages

    def tick(self, now: float) -> list[Out]:
        """Return what follows from the time alone. Raises OSError when the disk does not take it."""
        if now >= self._flush_at:
            self._outbox.flush()
        again = self._stall(now) if self._stalls_at is not None and now >= self._stalls_at else []
        last = None if self._afterword is None else self._afterword.take_due(now)
        said = [] if last is None else [last]
        return [*again, *said, *self._carry_out(self.participant.tick(now), now)]

    def take(self, chunk: Body, now: float) -> list[Out]:
        """Take a chunk of the version that is being fetched. Raises WireError for a wrong one."""
        fetch = self._fetch
        if fetch is None or fetch.done:
            return []
        try:
            came = fetch.add(chunk)
        except WireError:
            failed = FetchFailed(fetch.version)
            return [*self._end_fetch(), *self.handle(failed, now)]
        self._stalls_at, self._stalled = now + STALL_S, False
        # What has come must not come again at the next connect.
        come = [Unsubscribe((fetch.filter(self._wire, chunk.name, chunk.index),))] if came else []
        return [*come, *self._install(fetch, now)] if fetch.done else [*come]

    def look(self) -> None:
        """Begin to read the data for the first time: is there something to train on?"""
        self._pending = self._readings.ask(self.job, self._read)

    def note_look(self) -> None:
        """Note what the first look has found. Raises DatasetError, and whatever else reading has thrown."""
        if (pending := self._pending) is not None:
            self._pending = None
            rows = pending.result()
            self.n_examples, self.told = len(rows.data.y), rows.data.told

    def begin(self, now: float) -> list[Out]:
        """Say that the data are there, and return what follows: an update from before may wait to be offered."""
        return self.handle(Ready(), now)

    def connected(self, spread_s: float, packet_bytes: int | None, now: float) -> list[Out]:
        """Say that the broker is reachable again, and the largest packet that it takes, if that is known."""
        room = CHUNK_BYTES if packet_bytes is None else packet_bytes - ENVELOPE_BYTES
        self._chunk_bytes = max(1, min(CHUNK_BYTES, room))
        return self.handle(Connected(spread_s), now)

    def train_for(self, slice_s: float, now: float, clock: Callable[[], float] = time.monotonic) -> list[Out]:
        """Take training steps for about this long; at the end of training, give the offer."""
        training = self._training
        until = clock() + slice_s
        if training is None:
            self._score_for(until, now, clock)
            return []
        if not training.entered:
            state, training.entered = training.state, True
            at = f"epoch {state.epoch}, batch {state.batch}"
            self._marks.enter(self.job, "train", f"training on version {training.effect.base} from {at}")
        try:
            for step in training.steps:
                training.state, training.loss = step.state, step.loss
                here, ended = clock(), step.state.epoch == step.n_epochs
                through = step.batch + 1 == step.n_batches
                due = here - training.saved_at >= self._checkpoint_s
                # Who has died here may die again before one is due, and an epoch is a gain all the same.
                due = due or (through and self._marks.has_deaths(self.job, "train"))
                if due and not ended:  # then the update says it
                    self._checkpoint(training, here)
                if through and not ended:
                    reach("training.epoch", (self.job, training.effect.base, step.epoch))
                if here >= until:
                    return []
            for _ in training.scoring.steps():
                if clock() >= until:
                    return []
            return self._finish(training, now)
        except (TrainingError, CodecError, OutboxFullError) as error:
            return self._fail(training.effect.base, str(error), now)

    def pause(self, now: float) -> list[Out]:
        """Write down where everything stands, so that the next start goes on from there. Raises OSError."""
        self._outbox.flush()
        if self._training is not None:
            self._checkpoint(self._training, now)
            self.step_out()
        return []

    # Effects.

    def _carry_out(self, effects: Sequence[Effect], now: float) -> Iterator[Out]:
        queue = deque(effects)
        while queue:
            effect = queue.popleft()
            reach(f"agent.{type(effect).__name__}.before", effect)
            match effect:
                case RequestHead():
                    if self._reading:
                        yield Unsubscribe(self._head_topic)
                    self._reading = True
                    yield Subscribe(self._head_topic)
                case FetchEffect():
                    yield from self._begin_fetch(effect, now)
                case Drop():
                    yield from self._end_fetch()
                case Train():
                    yield from self._begin_training(effect, now)
                case Halt(base, goes_on):
                    log.info("training halted job=%s base=%s: the base has been left", self.job, base)
                    if goes_on and self._training is not None:
                        self._checkpoint(self._training, now)
                    self.step_out()
                    self._training = self._asked = self._pending = None
                    self._readings.forget(self.job)
                case Send(offer, with_body):
                    yield self._cut(offer) if with_body else without_body(self._cut(offer))
                case Upload(want):
                    yield from self._chunks(want, now)
                case Settle() as settle:
                    self._outbox.settle(settle.renamed or settle.base)
                    self._flush_at = now + FLUSH_S
                    log.info("update job=%s base=%s %s", self.job, settle.base, _outcome(settle))
                case Deploy(version):
                    if self._trail is not None:
                        yield self._deployed(version, self._trail)
            reach(f"agent.{type(effect).__name__}.after", effect)

    # Fetching.

    def _begin_fetch(self, effect: FetchEffect, now: float) -> Iterator[Out]:
        yield from self._end_fetch()
        try:
            since = None if self._trail is None else self._trail.since
            self._fetch = Fetch(
                *(effect.version, effect.source, self.net.spec, self._version),
                held_since=since,
                since=effect.since,
                most_bytes=max_way_bytes_of(self.spec, self.net.spec),
            )
        except FetchError as error:
            log.warning("fetch refused job=%s: %s", self.job, error)
            yield from self.handle(FetchFailed(effect.version), now)
            return
        if self._fetch.done:
            yield from self._install(self._fetch, now)
        else:
            self._stalls_at, self._stalled = now + STALL_S, False
            yield Subscribe(self.subscribed)

    def _stall(self, now: float) -> list[Out]:
        """Subscribe again to the chunks that have not come: the broker may have dropped them.

        Where that does not help, go by a new head: the bodies may have other names by now, or be cut otherwise.
        """
        if self._fetch is None:
            return []
        if self._stalled:
            failed = FetchFailed(self._fetch.version)
            return [*self._end_fetch(), *self.handle(failed, now)]
        self._stalled = True
        missing = tuple(self._fetch.filters(self._wire))
        self._stalls_at = now + STALL_S
        log.warning("fetch stalled job=%s version=%s chunks=%d", self.job, self._fetch.version, len(missing))
        return [Unsubscribe(missing), Subscribe(missing)]

    def _end_fetch(self) -> list[Out]:
        filters, self._fetch, self._stalls_at = self.subscribed, None, None
        return [Unsubscribe(filters)] if filters else []

    def _install(self, fetch: Fetch, now: float) -> list[Out]:
        version = fetch.version
        messages = self._end_fetch()
        first = self.spec.averaged_from(version.number) if self._deploys else version.number
        try:
            self._trail = fetch.install(self._chain, self._trail, first)
        except FetchError as error:
            log.warning("version refused job=%s version=%s: %s", self.job, version, error)
            self._version = self._trail = None  # the next way is from version 0, which needs nothing of what is here
            return [*messages, *self.handle(FetchFailed(version), now)]
        self._version = version
        log.info("version installed job=%s version=%s sha256=%s", self.job, version, fetch.sha256[:16])
        return [*messages, *self.handle(Installed(version, self._trail.since), now)]

    def _deployed(self, version: Version, trail: Trail) -> Install:
        """Return what is put into the slot: the mean of the last versions if they are here, else the version itself."""
        model, since, why = trail.served(self.spec.averaged_from(version.number))
        if why:
            log.warning("version deployed by itself, not averaged job=%s version=%s: %s", self.job, version, why)
        release = Release(self.job, version.generation, version.number, model.sha256(), since)
        params = model.params(self.net.spec)
        return Install(self.spec.name, release, self.spec.model, params, self.spec.contract, trail.now.agreed)

    # Training.

    def _begin_training(self, effect: Train, now: float) -> list[Out]:
        """Begin, or go on where it stood; give what follows where its update could not be coded in the end."""
        if self._trail is None:
            return []
        try:
            self._coding(effect)
        except CodecError as error:
            return self._fail(effect.base, str(error), now)
        held = self._trail.now
        asked = _Asked(effect, held.model, held.agreed)
        is_to_agree = self.spec.contract.agrees and held.agreed is None
        rows = None if is_to_agree else self._kept()
        if rows is not None:
            return self._start(asked, rows, now)
        read = self._read_to_agree if is_to_agree else self._read
        self._asked, self._pending = asked, self._readings.ask(self.job, read)
        return self.go_on(now)

    def _kept(self) -> Rows | None:
        """Return the rows of the last reading, if they show to be those of now without waiting. Raises DatasetError."""
        last = self._last
        found = None if last is None else kept(self._source, self._file_system)
        if found is None or last is None or last[0]() is not found.X or len(found.y) > FITTED_AT_ONCE:
            return None
        return Rows(fit(found, self.spec.model), last[1])

    def _read(self) -> Rows:
        """Return the rows as they are now. May run on another thread, one at a time. Raises DatasetError."""
        found = self._source.snapshot()
        data = fit(found, self.spec.model, scratch_of(self._source))
        last = self._last
        if last is None or last[0]() is not found.X:
            last = self._last = weakref.ref(found.X), data.fingerprint
        return Rows(data, last[1])

    def _read_to_agree(self) -> Rows:
        """Return the rows with what is said of them: a large table takes long. As `_read`."""
        rows = self._read()
        said = statistic.of_rows(self.spec, rows.data.X, rows.data.y)
        return structs.replace(rows, statistic=statistic.to_bytes(said))

    def go_on(self, now: float) -> list[Out]:
        """Begin the training that waits for its rows, if they are there by now.

        Raises OSError, DatasetError, and whatever else reading has thrown.
        """
        self._begin_scoring()
        if self._asked is None or self._pending is None or not self._pending.done():
            return []
        asked, pending, self._asked, self._pending = self._asked, self._pending, None, None
        return self._start(asked, pending.result(), now)

    def _start(self, asked: _Asked, rows: Rows, now: float) -> list[Out]:
        """Begin a training, or go on where it stood. Raises OSError."""
        effect = asked.effect
        n, self.told = len(rows.data.y), rows.data.told
        if 10 * abs(n - self.n_examples) > self.n_examples:
            self.n_examples = n
        if rows.statistic:
            return self._tell(asked, rows, now)
        start = asked.model.params(self.net.spec)
        fresh = train.begin(start, train.seed_for(self.spec.seed, effect.base.number, self._device)), None
        known = self._outbox.resume(effect.base, rows.fingerprint, self.spec.train, n, effect.names)
        state, loss = known or fresh
        reach("training.begin", (self.job, effect.base, state.epoch, state.batch))
        counts = () if asked.agreed is None else asked.agreed.class_counts
        try:
            weights = weights_of(rows.data, self.spec.contract, counts)
        except WeightError as error:
            return self._fail(effect.base, str(error), now)
        net = normalised(self.net, self.spec.contract, asked.agreed)
        number, advice = effect.base.number, self.spec.contract.advice
        steps = train.steps(
            net, state, rows.data, self.spec.train, version_number=number, weights=weights, advice=advice
        )
        self.failure = None
        scoring = Scoring(net, start, rows.data.held_out, self.spec)
        self._training = _Training(effect, net, rows, start, steps, state, loss, now, scoring)
        log.info("training job=%s base=%s examples=%d", self.job, effect.base, n)
        return []

    def _tell(self, asked: _Asked, rows: Rows, now: float) -> list[Out]:
        """Say what the rows are like, instead of training: the fleet agrees on how they are normalised first."""
        base, n = asked.effect.base, len(rows.data.y)
        body = sections.join({sections.STATISTICS: rows.statistic})
        offer = self._offer(base, n, body)
        self.failure = None
        try:
            self._outbox.put(offer, body, self._coding(asked.effect).terms, self._outbox.probed, asked.effect.names)
        except OutboxFullError as error:
            return self._fail(base, str(error), now)
        log.info("statistics job=%s base=%s examples=%d bytes=%d", self.job, base, n, len(body))
        return self.handle(Trained(self._with_body(offer, body)), now)

    def _offer(
        self, base: Version, n: int, body: bytes, loss: float | None = None, told: tuple[float, ...] = ()
    ) -> Offer:
        digest = chunks.digest(body, self._wire.seal.digest_digits)
        rounded = None if loss is None else float(f"{loss:.3g}")
        return Offer(self.job, self._device, base, n, digest, len(body), CHUNK_BYTES, rounded, told)

    def _coding(self, effect: Train) -> Coding:
        """Return how the update is coded. Raises CodecError for terms that it cannot have."""
        m, bits, _ = effect.terms
        return self._chain.coding(effect.base.number, Terms(m, bits))

    def _checkpoint(self, training: _Training, now: float) -> None:
        """Write down where training stands, every so often: a checkpoint is as large as the model."""
        base, names = training.effect.base, training.effect.names
        self._outbox.checkpoint(base, training.rows.fingerprint, training.state, training.loss, names)
        training.saved_at = now
        self._marks.gain(self.job, "train")

    def _end_training(self) -> None:
        self._training = None
        self._marks.leave(self.job, "train")

    def step_out(self) -> None:
        """Let another job have its turn: whatever ends this process then is not this job's fault."""
        if self._training is not None and self._training.entered:
            self._training.entered = False
            self._marks.step_out(self.job, "train")

    def _finish(self, training: _Training, now: float) -> list[Out]:
        base, (_, _, octave) = training.effect.base, training.effect.terms
        coding = self._coding(training.effect)
        training.steps = iter(())  # with what a step works in
        delta = training.state.params
        for name, values in delta.items():
            values -= training.start[name]
        if not coding.terms.is_sketch:
            training.start.clear()  # nothing is measured on it
        coded = coding.encode(delta, rng_of(self.spec.seed, base.number, self._device))
        scored = training.scoring.section
        body = sections.join({sections.DELTA: coded} | ({sections.EVALUATION: scored} if scored else {}))
        delta.clear()
        told: tuple[float, ...] = ()
        probed = None
        if coding.terms.is_sketch:
            reporter = Reporter(self._device, self.spec, training.net, self._chain)
            told, probed = reporter.report(base, training.start, training.rows.data, octave, self._outbox.probed)
        offer = self._offer(base, len(training.rows.data.y), body, training.loss, told)
        self._outbox.put(offer, body, coding.terms, probed, training.effect.names)
        self._end_training()
        log.info("trained job=%s base=%s loss=%s bytes=%d", self.job, base, offer.loss, len(body))
        return self.handle(Trained(self._with_body(offer, body)), now)

    def _fail(self, base: Version, why: str, now: float) -> list[Out]:
        log.error("training failed job=%s base=%s: %s", self.job, base, why)
        self._end_training()
        self.failure = Failure(base, why[:500])
        return self.handle(TrainingFailed(base, why), now)

    # The version that the job has ended with.

    def _score_last(self, event: ParticipantEvent, now: float) -> None:
        """Begin to say what the last version is worth, once that is here; and mind the connection."""
        over, said = self.participant.announced.over, self._afterword
        if said is not None and said.version != over:
            self._afterword = said = None  # the job goes on
        if said is not None and isinstance(event, Connected):
            said.connected(event.spread_s, now)
        elif said is not None and isinstance(event, Disconnected):
            said.disconnected()
        is_here = over is not None and over == self._version and self._trail is not None and over.number > 0
        is_free = self._training is None and self._pending is None
        if said is None and over is not None and is_here and is_free and self._scores:
            reading = self._readings.ask(self.job, self._read)
            self._afterword = Afterword(self._device, over, reading, online=self.participant.online)
            self._begin_scoring()

    @property
    def _scores(self) -> bool:
        """Whether devices hold rows back to score versions on."""
        return self.spec.contract.validation > 0

    def _begin_scoring(self) -> None:
        """Begin to score the last version, if the rows are there by now."""
        said = self._afterword
        if said is None or said.reading is None or not said.reading.done() or self._trail is None:
            return
        reading, said.reading = said.reading, None
        if (error := reading.exception()) is not None:
            log.warning("version not scored job=%s version=%s: %s", self.job, said.version, error)
            said.give_up()
            return
        data = reading.result().data
        if data.held_out is None:
            said.give_up()
            return
        self.n_examples = len(data.y)
        held = self._trail.now
        net = normalised(self.net, self.spec.contract, held.agreed)
        said.scoring = Scoring(net, held.model.params(self.net.spec), data.held_out, self.spec)

    def _score_for(self, until: float, now: float, clock: Callable[[], float]) -> None:
        """Take steps of scoring the last version until then; at their end, have it offered."""
        said = self._afterword
        if said is None or said.scoring is None:
            return
        with self._marks.entered(self.job, "train", f"scoring version {said.version}"):
            for _ in said.scoring.steps():
                if clock() >= until:
                    return
        body = sections.join({sections.EVALUATION: said.scoring.section})
        if len(body) > self._chunk_bytes:
            log.warning("version not scored job=%s: the broker takes no packet of %d bytes", self.job, len(body))
            said.give_up()
            return
        digest = chunks.digest(body, self._wire.seal.digest_digits)
        offer = Offer(self.job, self._device, said.version, self.n_examples, digest, len(body), CHUNK_BYTES, body=body)
        log.info("scored job=%s version=%s bytes=%d", self.job, said.version, len(body))
        said.hold(offer, now)

    # The update.

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

    def _cut(self, offer: Offer) -> Offer:
        """Return the offer as this broker takes it: cut finely enough, its body along only where it fits one packet."""
        if offer.n_bytes > self._chunk_bytes:
            return structs.replace(without_body(offer), chunk_bytes=self._chunk_bytes)
        return offer

    def _chunks(self, want: Want, now: float) -> Iterator[Out]:
        body = self._outbox.body()
        if self._outbox.offer is None:
            log.error("update lost job=%s: it is trained again", self.job)
            yield from self.handle(UpdateLost(self._outbox.settled), now)
            return
        pieces = chunks.cut(body, self._chunk_bytes)
        for index in sorted(chunks.from_bitmap(want.missing, len(pieces))):
            yield Chunk(self.job, self._device, want.digest, index, pieces[index])


def _outcome(settle: Settle) -> str:
    """Return what has become of an update, as far as it is known here."""
    if settle.verdict is None:
        return f"is over: version {settle.later} is announced"
    return f"refused: {settle.verdict.refused}" if settle.verdict.refused else "counted"
