"""How a job says what the version is worth that it has ended with (afterword.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from edge_agent.afterword import Afterword
from edge_agent.effects import Connected, Disconnected, ParticipantEvent
from edge_agent.evaluating import Scoring, rows_of
from edge_agent.rows import RowReader
from models import sections
from models.nets.buffered import buffered
from models.nets.normalised import normalised

log = logging.getLogger("edge_agent.work")  # a job at work speaks under one name


class LastVersion(RowReader):
    """A job that scores its last version."""

    __slots__ = ()

    def _score_last(self, event: ParticipantEvent, now: float) -> None:
        """Begin to say what the last version is worth, once that is here; and mind the connection."""
        over, said = self.participant.announced.over, self._afterword
        if said is not None and said.version != over:
            self._afterword = said = None  # the job goes on
        if over is None:
            return
        if said is not None and isinstance(event, Connected):
            said.connected(event.spread_s, now)
        elif said is not None and isinstance(event, Disconnected):
            said.disconnected()
        is_here = over == self._version and self._trail is not None and over.number > 0
        is_free = self._training is None and self._pending is None
        if said is None and is_here and is_free and self._scores:
            reading = self._readings.ask(self.job, self._read)
            self._afterword = Afterword(self._device, over, reading, online=self.participant.online)
            self._begin_scoring()

    @property
    def _scores(self) -> bool:
        """Whether devices score versions on rows of theirs."""
        return sections.scores_versions(self.spec)

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
        scored = rows_of(data, self.spec)
        if scored is None:
            said.give_up()
            return
        self.n_examples = len(data.y)
        held = self._trail.now
        net = normalised(buffered(self.net, held.buffers), self.spec.contract, held.agreed)
        said.scoring = Scoring(net, partial(held.model.params, self.net.spec), scored, self.spec)

    def _score_for(self, until: float, now: float, clock: Callable[[], float]) -> None:
        """Take steps of scoring the last version until then; at their end, have it offered."""
        said = self._afterword
        if said is None or said.scoring is None:
            return
        with self._marks.entered(self.job, "train", f"scoring version {said.version}"):
            for _ in said.scoring.steps():
                if clock() >= until:
                    return
        if not (section := said.scoring.section):
            said.give_up()  # of too few rows
            return
        body = sections.join({sections.EVALUATION: section})
        if len(body) > self._chunk_bytes:
            log.warning("version not scored job=%s: the broker takes no packet of %d bytes", self.job, len(body))
            said.give_up()
            return
        offer = self._with_body(self._offer(said.version, self.n_examples, body), body)
        log.info("scored job=%s version=%s bytes=%d", self.job, said.version, len(body))
        said.hold(offer, now)
