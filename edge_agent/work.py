"""One job on this device: carries out what its participant wants, between the disk, the numbers and the wire.

Training is an iterator of steps that the service advances in slices, so the loop that hears the broker never waits for
it and no thread is needed. Each training has the rows as they are when it begins. They are read beside the loop
(reading.py), but where the file's stamp says that they are those of last time: then nothing is read, and the stamp
is asked for in the loop, if the file lies on the file system of the state directory, which the loop waits for anyway.
What is durable is so before its message is given.

    workspace.py      what the job has on this device
    rows.py           its rows, read
    fetcher.py        how it comes to a version
    deployer.py       how that goes into service
    trainer.py        how it trains, or helps its fleet to agree
    last_version.py   what it says of the version that it has ended with
    work.py           what the service tells it, and the effects of its participant
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence

from msgspec import structs

from broker import chunks
from broker.messages import Chunk, Head, Offer, Verdict, Want
from edge_agent.activity import FOR_A_LEADER, FOR_A_ROUND, FOR_A_WORD, IDLE, Activity
from edge_agent.deployer import Deployer
from edge_agent.effects import (
    Deploy,
    Deployed,
    Disconnected,
    Drop,
    Effect,
    Halt,
    ParticipantEvent,
    Ready,
    RequestHead,
    Send,
    Settle,
    Train,
    UpdateLost,
    Upload,
)
from edge_agent.effects import FetchVersion as FetchEffect
from edge_agent.participant import without_body
from edge_agent.trainer import Trainer
from edge_agent.workspace import Out, Subscribe, Unsubscribe
from runtime.failpoints import reach

log = logging.getLogger(__name__)

FLUSH_S = 60.0
"""After an update is settled that is durable by then, if no later one has said so."""


class Work(Deployer, Trainer):
    """A job of this device, once its data have been looked at."""

    __slots__ = ()

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
    def deadline(self) -> float | None:
        """When `tick` wants to be called."""
        earliest = self.participant.deadline
        if self._stalls_at is not None and (earliest is None or self._stalls_at < earliest):
            earliest = self._stalls_at
        if not self._outbox.is_flushed and (earliest is None or self._flush_at < earliest):
            earliest = self._flush_at
        again_at = None if self._afterword is None else self._afterword.deadline
        if again_at is not None and (earliest is None or again_at < earliest):
            earliest = again_at
        return earliest

    def activity(self, *, is_led: bool, sends: bool) -> Activity:
        """Return what it does. is_led: an aggregator leads. sends: packets wait to be sent."""
        part, job = self.participant, self.job
        if self._training is not None:
            return Activity("training", job, self._training.progress)
        if self._pending is not None or self._waiting is not None:
            return Activity("reading", job)
        if part.offer is not None:
            if sends or not part.resend.has_sent_body:
                return Activity("sending", job)
            return Activity("waiting", job, why=FOR_A_WORD if is_led else FOR_A_LEADER)
        if self._fetch is not None:
            return Activity("fetching", job)
        if part.over:
            return IDLE
        return Activity("waiting", job, why=part.why or (FOR_A_ROUND if is_led else FOR_A_LEADER))

    def handle(self, event: ParticipantEvent, now: float) -> list[Out]:
        """Tell the participant of an event, and return what follows. Raises OSError when the disk does not take it."""
        if isinstance(event, Verdict) and self._afterword is not None and self._afterword.settle(event):
            return []
        effects = self.participant.receive(event, now)
        messages = list(self._carry_out(effects, now)) if effects else []
        if isinstance(event, Disconnected):
            messages += self._lose_connection()
        self._score_last(event, now)
        if isinstance(event, Head | Deployed):
            messages += self._calibrate()
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

    def look(self) -> None:
        """Begin to read the data for the first time: is there something to train on?"""
        self._pending = self._readings.ask(self.job, self._read)

    def note_look(self) -> None:
        """Note what the first look has found. Raises DatasetError, and whatever else reading has thrown."""
        if (pending := self._pending) is not None:
            self._pending = None
            rows = pending.result()
            self.n_examples, self.told = len(rows.data.y), rows.data.told

    def go_on(self, now: float) -> list[Out]:
        """Go on with what waited for rows, if they are there by now: a version to deploy, or a training.

        Raises OSError, DatasetError, and whatever else reading has thrown.
        """
        return [*self._deploy_waiting(), *super().go_on(now)]

    def begin(self, now: float) -> list[Out]:
        """Say that the data are there, and return what follows: an update from before may wait to be offered."""
        return self.handle(Ready(), now)

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
                    self._ask_again()
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
                        yield from self._deploy(version, self._trail)
            reach(f"agent.{type(effect).__name__}.after", effect)

    # The update.

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
