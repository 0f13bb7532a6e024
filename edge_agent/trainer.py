"""How a job trains on this device: from the rows that it asks for to the update that is offered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from broker.messages import Failure, Version
from edge_agent.effects import Train, Trained, TrainingFailed
from edge_agent.evaluating import Scoring, rows_of
from edge_agent.last_version import LastVersion
from edge_agent.outbox import OutboxFullError
from edge_agent.report import Reporter, rng_of
from edge_agent.workspace import Asked, Out, Rows, Training
from models import buffers, sections
from models.buffers import for_training
from models.codec import CodecError, Terms
from models.nets.buffered import buffered
from models.nets.normalised import normalised
from models.params import Params
from models.training import train
from models.training.train import TrainingError
from models.training.weights import WeightError, weights_of
from runtime.failpoints import reach

log = logging.getLogger("edge_agent.work")  # a job at work speaks under one name


class Trainer(LastVersion):
    """A job that trains, or says what its rows are like where the fleet has to agree first."""

    __slots__ = ()

    def _begin_training(self, effect: Train, now: float) -> list[Out]:
        """Begin, or go on where it stood; give what follows where its update could not be coded in the end."""
        if self._trail is None:
            return []
        try:
            self._coding(effect)
        except CodecError as error:
            return self._fail(effect.base, str(error), now)
        held = self._trail.now
        asked = Asked(effect, held)
        is_to_agree = self.spec.contract.agrees and held.agreed is None
        rows = None if is_to_agree else self._kept()
        if rows is not None:
            return self._start(asked, rows, now)
        read = self._read_to_agree if is_to_agree else self._read
        self._asked, self._pending = asked, self._readings.ask(self.job, read)
        return self.go_on(now)

    def go_on(self, now: float) -> list[Out]:
        """Begin the training that waits for its rows, if they are there by now.

        Raises OSError, DatasetError, and whatever else reading has thrown.
        """
        self._begin_scoring()
        if self._asked is None or self._pending is None or not self._pending.done():
            return []
        asked, pending, self._asked, self._pending = self._asked, self._pending, None, None
        return self._start(asked, pending.result(), now)

    def _start(self, asked: Asked, rows: Rows, now: float) -> list[Out]:
        """Begin a training, or go on where it stood. Raises OSError."""
        effect = asked.effect
        n, self.told = len(rows.data.y), rows.data.told
        if 10 * abs(n - self.n_examples) > self.n_examples:
            self.n_examples = n
        if rows.statistic:
            return self._tell(asked, rows, now)
        held = asked.held
        start, beside = held.model.params(self.net.spec), for_training(self.net, held.buffers)
        fresh = train.begin(start, train.seed_for(self.spec.seed, effect.base.number, self._device), beside)
        known = self._outbox.resume(effect.base, rows.fingerprint, self.spec.train, n, effect.names)
        state, loss = known if known is not None and fresh.has_as_much(known[0]) else (fresh, None)
        reach("training.begin", (self.job, effect.base, state.epoch, state.batch))
        counts = () if held.agreed is None else held.agreed.class_counts
        try:
            weights = weights_of(rows.data, self.spec.contract, counts)
        except WeightError as error:
            return self._fail(effect.base, str(error), now)
        net = normalised(buffered(self.net, held.buffers), self.spec.contract, held.agreed)
        number, advice = effect.base.number, self.spec.contract.advice
        steps = train.steps(
            *(net, state, rows.data, self.spec.train),
            version_number=number,
            weights=weights,
            in_place=True,
            advice=advice,
        )
        self.failure = None
        # Those of the base are made again where they are wanted: there is no room for them beside the training.
        made = partial(held.model.params, self.net.spec)
        scoring = Scoring(net, made, rows_of(rows.data, self.spec), self.spec)
        self._training = Training(effect, net, rows, held, steps, state, loss, now, scoring)
        log.info("training job=%s base=%s examples=%d", self.job, effect.base, n)
        return []

    def _tell(self, asked: Asked, rows: Rows, now: float) -> list[Out]:
        """Return the offer that says what the rows are like: a fleet agrees on how to normalise before it trains."""
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
                training.progress = (step.epoch + (step.batch + 1) / step.n_batches) / step.n_epochs
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

    def _checkpoint(self, training: Training, now: float) -> None:
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

    def _finish(self, training: Training, now: float) -> list[Out]:
        """Code and store the update: what a step of that has worked in is let go of before the next one begins."""
        base, (m, bits, octave) = training.effect.base, training.effect.terms
        terms = Terms(m, bits)
        training.steps = iter(())  # with what a step works in
        start = training.held.model.params(self.net.spec)
        delta = _without(training.state.params, start)
        told: tuple[float, ...] = ()
        probed = None
        if terms.is_sketch:
            reporter = Reporter(self._device, self.spec, training.net, self._chain)
            told, probed = reporter.report(base, start, training.rows.data, octave, self._outbox.probed)
        start.clear()  # nothing more is measured on it
        coding = self._coding(training.effect)  # which holds a hash of all coordinates
        rng = rng_of(self.spec.seed, base.number, self._device) if coding.is_random else None
        coded = coding.encode(delta, rng)
        found = {sections.DELTA: coded, sections.BUFFERS: self._buffers(training)}
        found[sections.EVALUATION] = training.scoring.section
        body = sections.join({name: content for name, content in found.items() if content})
        delta.clear()
        offer = self._offer(base, len(training.rows.data.y), body, training.loss, told)
        self._outbox.put(offer, body, terms, probed, training.effect.names)
        self._end_training()
        log.info("trained job=%s base=%s loss=%s bytes=%d", self.job, base, offer.loss, len(body))
        return self.handle(Trained(self._with_body(offer, body)), now)

    def _buffers(self, training: Training) -> bytes:
        """Return what training has made of the buffers; empty where the net has none. Raises CodecError."""
        now = buffers.named(training.state.buffers, self.net.buffers)
        return buffers.encode(now, training.held.buffers, whole=self.spec.coding.codec == "float32")

    def _fail(self, base: Version, why: str, now: float) -> list[Out]:
        log.error("training failed job=%s base=%s: %s", self.job, base, why)
        self._end_training()
        self.failure = Failure(base, why[:500])
        return self.handle(TrainingFailed(base, why), now)


def _without(params: Params, start: Params) -> Params:
    """Return what training has added to its start, in the memory of the params. In a function of its own: a loop's last
    array would hold that memory for as long as the loop's function goes on.
    """
    for name, values in params.items():
        values -= start[name]
    return params
