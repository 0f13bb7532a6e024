"""The numbers of a job on the server: the version, the sum of the round, and how the next round is coded.

`next` computes what the sum makes of the version and changes nothing; once that is durable, `take` goes on from it. So
a learner is always what its last durable blob and the updates since then make of it.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
from msgspec import structs

from aggregator import agreeing, gates
from aggregator.agreeing import NAMED, Agreeing
from aggregator.intake import DAMAGE, Counted, Intake, LateUpdate
from aggregator.record import MOST_LEFT, Next, Record, RecordError, RecordFormatError, beside, opened
from aggregator.rows import AMONG_BODIES, Kept
from models import chain, sections, steering, sums
from models.buffers import Buffers, first_of
from models.chain import SPAN, WHOLE, Chain, Grids, Held, Late, Step
from models.codec import CodecError
from models.codec.levels import ADDED
from models.codec.plan import Float64
from models.codec.steps import step_near
from models.codec.terms import FLOAT32, INT8, Terms
from models.fold import FoldError
from models.job import JobSpec
from models.lattice import LatticeError
from models.nets.net import Net
from models.steering import Choice, Report, RoundSummary
from models.strategies.state import State
from models.strategies.strategy import Gains
from models.strategies.table import STRATEGIES

log = logging.getLogger(__name__)

LONGEST_IN_GROUP = 8192
"""Steps beyond this length are not worth grouping: their envelopes weigh nothing."""
GRID_SHARE = 0.5
"""Energy of a snapshot's rounding, as a share of the noise of its round."""
MOST_STEPS = 320
"""Steps between two snapshots, however light they are: each is a topic at the broker, or an eighth of one."""
EDGE = 3
"""Bits that the grid of a snapshot lies above the lattice of its model, at least."""
SWALLOWED = "the updates are finer than the numbers of the model can tell apart: it stands still"
"""The alarm of a version that its updates did not move."""
MOST_BEHIND = 64
"""Steps from the last version that was stored whole, however light they are."""
STATE_SHARE = 0.5
"""Of the bytes of a model: so heavy the steps are at most before a version is stored whole again."""
SNAPSHOT_BITS = 3
"""Bits a coordinate that a first snapshot is expected to take."""


class LearnerError(ValueError):
    """A stored state that is damaged, or a step that the model cannot take."""


class StateFormatError(LearnerError):
    """A stored state in a format that this fedge does not read: it is no damage, and no backup helps."""


class Learner:
    """One job's numbers, from the blob of its last version; or of an earlier one, with the steps from there on.

    number, sha256: what it must come to, where that is known. steps: bodies, each to the next version. record: what
    lies beside the last one, where there are steps. Raises LearnerError when it is damaged, or another's.
    """

    _intake: Intake | None = None

    def __init__(
        self,
        net: Net,
        spec: JobSpec,
        blob: bytes,
        number: int | None = None,
        sha256: str | None = None,
        *,
        steps: Sequence[bytes] = (),
        record: bytes = b"",
    ) -> None:
        self._net = net
        self._spec = spec
        self._chain = Chain(net.spec, spec, first_of(net))
        self._sections = sections.allowed(spec, net.spec, net.buffers)
        """What an update's body may have, and how much of each."""
        self._strategy = STRATEGIES[spec.aggregate.strategy]
        try:
            now = self._gone_on(blob, steps, number or 0, record) if steps else self._opened(blob)
        except RecordFormatError as error:
            raise StateFormatError(str(error)) from error
        except (RecordError, CodecError) as error:
            raise LearnerError(str(error)) from error
        self._behind = [len(step) for step in steps if not _is_whole(step)]
        """Bytes of the steps since the last version that was stored whole."""
        if number is not None and now.held.number != number:
            raise LearnerError(f"it is version {now.held.number}, not {number}")
        if sha256 is not None and now.sha256 != sha256:
            raise LearnerError("its model has another SHA-256")
        self._take(now)
        _ = self.intake  # so that damage to what it begins with shows here

    def _gone_on(self, blob: bytes, steps: Sequence[bytes], number: int, record: bytes) -> Next:
        held = self._opened(blob).held if blob else self._chain.first()._replace(number=number - len(steps))
        for step in steps:
            held = self._chain.take(held, held.number + 1, step)
        return Next(held, beside(record, held.number, self._net.spec))

    def _opened(self, blob: bytes) -> Next:
        return opened(blob, self._net.spec, self._spec, self._chain.buffers)

    @property
    def now(self) -> Next:
        """The current version."""
        return self._now

    @property
    def max_body_bytes(self) -> int:
        """The most bytes that the body of an update may have."""
        return sections.most_bytes(self._sections)

    @property
    def terms(self) -> Terms:
        """How updates are coded that leave it."""
        return self._terms

    def terms_of(self, number: int) -> Terms | None:
        """Return how updates are coded that leave the version of this number; None where that is forgotten."""
        back = self._now.held.number - number
        if back == 0:
            return self.terms
        left = self._now.record.left
        return Terms(*left[-back]) if 0 < back <= len(left) else None

    def restore(self, body: bytes, counted: Counted) -> None:
        """Add an update that was counted before to the sum. Raises LearnerError when it is damaged."""
        try:
            self.intake.restore(body, counted)
        except DAMAGE as error:
            raise LearnerError(f"a stored update: {error}") from error

    def admit(
        self, body: bytes, weight: int, report: Report | None = None, number: int | None = None, device: str = ""
    ) -> gates.Admitted:
        """Hold an update against the gates and add it to the sum. Raises gates.RefusedError.

        number: of its base, where that is not the current one.
        """
        return self.intake.admit(body, Counted(weight, 0.0, report, number, device))

    def refuse(self, device: str, norm: float = 0.0) -> None:
        """Note that an update to the current base is refused, now or before a start. norm: where it was for that."""
        self.intake.refuse(device, norm)

    @property
    def intake(self) -> Intake:
        """What has come for the next version; begun when it is asked for first: no round waits for its memory."""
        if self._intake is None:
            kind = Agreeing if agreeing.is_due(self._spec, self._now.held) else Intake
            self._intake = kind(self._chain, self._spec, self._now, self._sections, self.terms_of)
        return self._intake

    def cap(self, share: float, body_of: Callable[[Counted], bytes]) -> dict[str, tuple[int, int]]:
        """Let no device weigh more than this share of the mean; return who was capped, from what to what.

        As `Intake.cap`, to be called when all have come. Raises LearnerError where a body is not what it was.
        """
        try:
            return self.intake.cap(share, body_of)
        except DAMAGE as error:
            raise LearnerError(f"a stored update: {error}") from error

    def prepare(self) -> None:
        """Begin the sum of the next version, and make the hash of the base, which that takes; once."""
        self.is_prepared = True
        if self.terms.is_sketch and not isinstance(self.intake, Agreeing):
            _ = self.intake.sum.coding.hash

    def next(self) -> Next:
        """Return what the sum makes of the model; nothing is changed. Raises LearnerError when it cannot be made."""
        try:
            return self._next()
        except (CodecError, FoldError, LatticeError) as error:
            number = self._now.held.number + 1
            raise LearnerError(f"version {number} cannot be made: {error}") from error

    def jump(self, held: Held) -> Next:
        """Return the next version with the weights, and the optimizer's state, of any other; nothing is changed.

        The body begins from nothing: this version is no step from the one before. What rounds have told of how the
        training goes is forgotten, and so is what late updates before it would be added to; what devices' norms and
        streaks say of them stays.
        """
        held = held._replace(number=self._now.held.number + 1)
        body = self._given(held)
        record = structs.replace(
            self._now.record, octave=0, history=(), recent=(), since=0, steps=0, snapshot_bytes=len(body), left=()
        )
        return Next(held, record, ((0, body),), self._told(held))

    def _given(self, held: Held) -> bytes:
        """Return the body that leads to a version from nothing; in float32 without the state, which stays here."""
        if self.terms != FLOAT32:
            return self._chain.exact(held)
        bare = held._replace(state=State())
        try:
            body = self._chain.whole(held.model, held.agreed, held.buffers)
            if self._chain.take(bare, held.number, body).model == held.model:
                return body
        except (CodecError, LatticeError):
            pass  # it is far from version 0
        return self._chain.exact(bare)

    def first(self) -> Held:
        """Return version 0."""
        return self._chain.first()

    def exact(self, held: Held | None = None) -> bytes:
        """Return the body that says a version exactly, from nothing, with the optimizer's state.

        held: the current one when not given.
        """
        return self._chain.exact(self._now.held if held is None else held)

    def read_exact(self, body: bytes) -> Held:
        """Return the version that such a body says. Raises LearnerError where it is none of such a net."""
        try:
            return self._chain.take(self._chain.first(), self._now.held.number, body)
        except CodecError as error:
            raise LearnerError(f"a kept state: {error}") from error

    def kept(self, following: Next) -> Kept:
        """Return what is to be stored of the next version: a state now and then, else how it follows.

        As often as the steps weigh as much as half a state: from there on a start goes along them.
        """
        if not self._is_state_due(following):
            return Kept(step=following.step, record=following.beside())
        if _is_whole(following.step) and not following.held.state:  # which the server alone keeps
            return Kept(AMONG_BODIES, record=following.beside())
        return Kept(following.to_bytes())

    def _is_state_due(self, following: Next) -> bool:
        step, n_behind = following.step, len(self._behind)
        is_far = n_behind >= MOST_BEHIND or sum(self._behind) + len(step) > STATE_SHARE * 4 * self._chain.d
        return not step or _is_whole(step) or is_far

    def take(self, following: Next) -> None:
        """Go on from a version that is durable, with an empty sum."""
        if self._is_state_due(following):
            self._behind.clear()
        else:
            self._behind.append(len(following.step))
        self._take(following)

    # The version.

    def _next(self) -> Next:
        now, gains = self._now, self._gains(self._now.held)
        total = self.intake.weight
        if not total:
            raise FoldError("there is no update in its sum")
        if isinstance(self.intake, Agreeing):
            return self.intake.next()
        mean = self.intake.sum.mean() if self.intake.sum.weight else self.intake.sum.zero()
        rate = gains.published * self.intake.sum.weight / total
        seen = self._seen(total)
        if self.terms == FLOAT32:
            held, body = self._whole(mean.values * rate, self._buffers())
            record = self._record(now.record.choice, seen, total)
            return Next(held, record, ((0, body),), self._told(held), self.intake.alarm)
        # of a sketch nothing is rounded at random
        rng = None if self.terms.is_sketch else np.random.default_rng(_seed(mean.values.tobytes()))
        body = sums.published(mean, self.intake.sum.coding, now.record.down, rate, rng)
        down = Terms(self.terms.m, now.record.down) if self.terms.is_sketch else INT8
        late = tuple(
            Late(now.held.number - one.number, step_near(gains.published * one.share_of(total)), one.terms, one.delta)
            for one in sorted(self.intake.late, key=LateUpdate.by_value)  # whoever came first
        )
        noise = self._noise(mean, body, down, seen, rate) * gains.at_once**2
        return self._following(Step(down, body, late), seen, total, noise)

    def _following(self, step: Step, seen: RoundSummary, total: int, noise: float) -> Next:
        now, record = self._now, self._now.record
        said = self._chain.say(self._buffers(), now.held.buffers)
        base = now.held._replace(buffers=self._chain.hear(said, now.held.buffers))
        rounded = self._rounded(base, step, self._grids(noise)) if self._is_due(len(step.sum), noise) else None
        step, held, snapshot = rounded or (step, self._chain.step(base, step), b"")
        written = self._chain.buffered(chain.write(step), said)
        ways = [(now.held.number, written)]
        recent = (*record.recent, written)
        if max(map(len, recent)) > LONGEST_IN_GROUP:
            recent = ()
        since, steps, snapshot_bytes = record.since + len(written), record.steps + 1, record.snapshot_bytes
        if snapshot:
            ways.append((0, snapshot))
            since, steps, snapshot_bytes = 0, 0, len(snapshot)
        if held.number % SPAN == 0:
            if len(recent) == SPAN and not (snapshot and held.number == SPAN):
                ways.append((held.number - SPAN, chain.grouped(recent)))
            recent = ()
        elif len(recent) >= SPAN:
            recent = recent[1 - SPAN :]
        choice = self._choose(seen, held)
        after = self._record(choice, seen, total)
        after = structs.replace(
            after, octave=_octave(noise), recent=recent, since=since, steps=steps, snapshot_bytes=snapshot_bytes
        )
        same = held.model.sha256() == now.model.sha256()  # both are hashed for their heads anyway, and once
        stands_still = same and any(norm.norm > 0 for norm in self.intake.counted)
        alarm = SWALLOWED if stands_still else self.intake.alarm
        return Next(held, after, tuple(ways), self._told(held, noise), alarm)

    def _told(self, held: Held, noise: float = 0.0) -> tuple[tuple[str, float], ...]:
        terms, of_state = self.terms, self._strategy.metrics(self._chain.state(held), self._spec.aggregate)
        coded = (("buckets", float(terms.m)), ("bits", float(terms.bits)), ("noise", noise)) if terms.is_sketch else ()
        return (*coded, *of_state)

    def _gains(self, held: Held) -> Gains:
        return self._strategy.gains(self._chain.state(held), self._spec.aggregate)

    def _buffers(self) -> Buffers:
        """Return the mean of what devices say of the net's buffers."""
        outcome = self.intake.buffers()
        for name, who in outcome.far:
            log.warning(
                "buffer=%s of %d device(s) is far from all others' and left out of the mean: %s",
                *(name, len(who), ", ".join(who[:NAMED]) + (", …" if len(who) > NAMED else "")),
            )
        return outcome.buffers

    def _whole(self, step: Float64, buffers: Buffers) -> tuple[Held, bytes]:
        """Return the next version of a job that publishes every one of them whole, in float32, and its body."""
        now = self._now.held
        if not max(float(step.max()), -float(step.min())) < 2.0**100:
            raise CodecError("a step is not finite or far too large")
        model, state = self._chain.moved(now, step)
        body = self._chain.whole(model, now.agreed, buffers)
        return self._chain.take(now, now.number + 1, body)._replace(state=state), body

    def _seen(self, total: int) -> RoundSummary:
        """Sum the round up for the steering. Neither order nor machine matters: by fsum, over what is sorted."""
        current = [counted for counted in self.intake.counted if counted.number is None]
        single = math.fsum(sorted((c.weight / total) ** 2 * (c.moved * c.moved) for c in current))
        reports = sorted((c.report for c in current if c.report is not None), key=_by_value)
        if len(reports) > steering.MOST_REPORTS:
            middle = len(reports) / steering.MOST_REPORTS
            reports = [reports[int((i + 0.5) * middle)] for i in range(steering.MOST_REPORTS)]
        coded = 0.0
        if self.intake.sum.weight and self.terms != FLOAT32:  # which steers nothing
            coded = self.intake.sum.mean_energy() * (self.intake.sum.weight / total) ** 2
        added = ADDED[self.terms.bits] * single if self.terms.is_sketch else 0.0
        return RoundSummary(_bounded(coded - added), _bounded(single), tuple(reports))

    def _noise(self, mean: sums.Mean, body: bytes, down: Terms, seen: RoundSummary, rate: float) -> float:
        """Return the energy of the noise in the next version, in units of its weights."""
        d = self.intake.sum.coding.d
        if self.terms.is_sketch:
            return rate * rate * steering.noise(d, self.terms, down.bits, seen)
        coding = self._chain.coding(self._now.held.number, down)
        said = np.concatenate([t.values().reshape(-1) for t in coding.tensors(coding.decode(body))])
        return float(np.square(said - mean.values * rate).sum())

    def _is_due(self, n_bytes: int, noise: float) -> bool:
        """Return whether the steps since the last snapshot weigh as much as it does; the first that is trained needs
        none: a grid may be so coarse that nothing is left of it.
        """
        record, d = self._now.record, self.intake.sum.coding.d
        heavy = record.since + n_bytes >= max(record.snapshot_bytes, SNAPSHOT_BITS * d // 8)
        is_first = not self._now.held.number or (self._now.held.agreed is not None and not record.weight)
        return not is_first and ((heavy and noise > 0) or record.steps >= MOST_STEPS)

    def _rounded(self, base: Held, step: Step, grids: Grids) -> tuple[Step, Held, bytes] | None:
        """Return the step that rounds its version to these grids as well, that version, and its snapshot.

        base: the version that is left, with the buffers of the next.
        None where the snapshot would lead elsewhere, as at the very edge of the lattice: the next round tries again.
        """
        step = step._replace(grids=grids)
        try:
            held = self._chain.step(base, step)
            snapshot = self._chain.snapshot(held, grids)
            found = self._chain.take(self._chain.first(), held.number, snapshot)
        except (CodecError, LatticeError) as error:
            log.warning("no snapshot of version %d: %s", self._now.held.number + 1, error)
            return None
        same = (found.model, found.state, found.buffers) == (held.model, held.state, held.buffers)
        return (step, held, snapshot) if same else None

    def _grids(self, noise: float) -> Grids:
        """Return grids whose rounding adds at most GRID_SHARE of a round's noise, and are no finer than the lattice.

        EDGE bits above it, so that the step of this very round may move it.
        """
        step = 0.99 * math.sqrt(12 * GRID_SHARE * noise / self.intake.sum.coding.d)
        of_state = self._strategy.grid(step, self._chain.state(self._now.held), self._spec.aggregate)
        return Grids(step_near(max(step, 2.0 ** (max(self._now.model.exponents) + EDGE))), of_state)

    def _choose(self, seen: RoundSummary, held: Held) -> Choice:
        """Return how the round is coded that leaves the next version."""
        coding, choice = self._spec.coding, self._now.record.choice
        if coding.buckets is not None or not choice.terms.is_sketch:
            return choice
        history = (*self._now.record.history, seen)
        rate = self._gains(held).in_all
        return steering.choose(
            self.intake.sum.coding.d, choice, history, coding.tolerance / (rate * rate), (held.model.norm / rate) ** 2
        )

    def _record(self, choice: Choice, seen: RoundSummary, total: int) -> Record:
        before, following = self._now.record, self.intake.peers.following()
        return Record(
            terms=(choice.terms.m, choice.terms.bits),
            down=choice.down,
            allowed=None if math.isinf(choice.allowed) else choice.allowed,
            history=(*before.history, seen)[-max(steering.WINDOWS) :],
            peers=tuple(peer.norm for peer in following),
            whose=tuple((peer.device, peer.number) for peer in following),
            streaks=tuple(self.intake.streaks.items()),
            weight=total,
            left=(*before.left, before.terms)[-MOST_LEFT:] if self._spec.rounds.late == "fold" else (),
        )

    def _take(self, now: Next) -> None:
        self._now = now._replace(ways=(), metrics=(), alarm="")
        self._terms = now.record.choice.terms
        self._intake = None
        self.is_prepared = False
        """Whether `prepare` has been called for this version."""


def _is_whole(step: bytes) -> bool:
    return chain.kind_of(step) == WHOLE


def _octave(energy: float) -> int:
    """Return the power of two next to an energy; 0 for none, and 1 for what is closest to 1."""
    if not 2.0**-200 < energy < 2.0**200:
        return 0
    return round(math.log2(energy)) or 1


def _bounded(energy: float) -> float:
    """Return an energy as the record has room for it."""
    return min(max(0.0, energy), steering.LARGEST)


def _by_value(report: Report) -> tuple[float, float, int]:
    return report.curvature, -math.inf if report.gain is None else report.gain, report.who


def _seed(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:16], "little")
