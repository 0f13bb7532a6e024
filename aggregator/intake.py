"""The updates to one base on the server: held against the gate, added up, and what one device may weigh of them.

An update goes through `admit` once, and after a start again through `restore`, which comes to the same sum: whatever
the gate does to an update follows from its norm and the version alone. What a device weighs beyond its share is taken
out when all have come (`cap`), exactly, so that it does not show who came when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct, structs

from aggregator import federated, gates, shares, streaks
from aggregator.gates import RefusedError
from aggregator.peers import Peers
from aggregator.record import Next
from models import buffers, sections, sums
from models.buffers import Buffers, BuffersError
from models.chain import Chain
from models.clip import Factor, clipped
from models.codec import CodecError
from models.codec.coding import Coding, Update
from models.codec.terms import Terms
from models.fold import FoldError
from models.job import JobSpec
from models.steering import Report
from models.strategies.table import STRATEGIES
from models.voices import Heard, Outcome

MOST_LATE = 2
"""Late updates that a version relays: each is a body of its own, under the hash of its own base."""
LEAST_LATE = 0.02
"""Share of a round's weight below which a late update is not worth its bytes."""
DAMAGE = (sections.SectionError, CodecError, FoldError, RefusedError)
"""What comes of an update that was counted, and is not what it was."""


class Counted(Struct, frozen=True):
    """What the sum's numbers need to know of an update in it."""

    weight: int
    norm: float
    """As it came."""
    report: Report | None = None
    number: int | None = None
    """Of its base, where that is not the current one."""
    device: str = ""
    factor: Factor | None = None
    """What it was scaled by; who restores it does not say so: it follows from the norm."""

    @property
    def moved(self) -> float:
        """Its norm in the sum."""
        return self.norm if self.factor is None else self.norm * self.factor.value


class LateUpdate(NamedTuple):
    """An update that lies under the hash of another base, and is passed on by itself."""

    number: int
    """Of that base."""
    weight: int
    terms: Terms
    delta: bytes
    factor: Factor | None

    def share_of(self, total: int) -> float:
        """Return what it is multiplied by in a mean of this weight."""
        share = self.weight / total
        return share if self.factor is None else share * self.factor.value

    def by_value(self) -> tuple[int, int, Terms, bytes]:
        """Return what puts it in an order that does not hang on who came first."""
        return self.number, self.weight, self.terms, self.delta


class Intake:
    """What has come for the next version. Mutable: what raises changes nothing."""

    def __init__(
        self,
        chain: Chain,
        spec: JobSpec,
        now: Next,
        allowed: Mapping[str, int],
        terms_of: Callable[[int], Terms | None],
    ) -> None:
        """Begin with nothing.

        now: the base. allowed: the sections that a body may have. terms_of: how updates to the version of a number are
        coded, if that is known.
        """
        self._chain = chain
        self._spec = spec
        self._rules = spec.aggregate
        self._advice = spec.contract.advice
        self._strategy = STRATEGIES[spec.aggregate.strategy]
        self._sections = allowed
        self._now = now
        self._terms_of = terms_of
        self.sum = self._strategy.combine(chain.coding(now.held.number, now.record.choice.terms), now.model)
        self.late: list[LateUpdate] = []
        self.counted: list[Counted] = []
        self._heard = Heard(now.held.buffers, now.held.number)
        self._refused: set[str] = set()
        self._before = dict(now.record.streaks)
        self.peers = Peers(now.record.norms(now.held.number), now.held.number)
        self.model_norm = now.model.norm
        self._limit = self._limit_of(self.peers.usual)

    @property
    def weight(self) -> int:
        """Of all that has come."""
        return self.sum.weight + sum(late.weight for late in self.late)

    @property
    def streaks(self) -> dict[str, int]:
        """How often in a row each device was refused by now, as far as it was refused when it was heard last."""
        return streaks.now(self._before, self._refused, {one.device for one in self.counted})

    def streak_of(self, device: str) -> int:
        """Return how often in a row a device was refused by now that is not counted."""
        return self._before.get(device, 0) + (device in self._refused)

    @property
    def clipped(self) -> dict[str, float]:
        """The devices whose updates were scaled down, and by what."""
        return {one.device: one.factor.value for one in self.counted if one.factor is not None}

    @property
    def usual(self) -> str:
        """Return what norms are held against: those of "its peers'", or "the model's" where too few are known."""
        return self._limit.whose

    @property
    def alarm(self) -> str:
        """What an operator should know of all of them; "" where nothing is amiss.

        Where peers say what is usual one device alone is nothing to tell of; where the model does, it is.
        """
        done = "were scaled down" if self._rules.gate == "clip" else "were refused at first"
        n_far, n_heard = self.peers.n_far, self.peers.n_heard
        if self._limit.is_of_model and 2 * n_far > n_heard:
            return f"updates far from the model, {n_far} of {n_heard}, {done}: {self._advice}"
        if not self.peers.most_are_far():
            return ""
        return (
            f"{self.peers.n_far} of {self.peers.n_heard} updates are far from what was usual, and {done}: not one "
            "device is to blame, but the fleet has changed, or trains too fast (a lower learning_rate?)"
        )

    # What comes.

    def restore(self, body: bytes, counted: Counted) -> None:
        """Add an update that was counted before. Raises one of DAMAGE where it is not what it was."""
        number = self._now.held.number if counted.number is None else counted.number
        found = self._split(body)
        delta, said = found[sections.DELTA], self._buffers(found, counted)
        factor = self._gate(counted.norm, 1).factor if self._rules.gate == "clip" else None
        self._add(delta, self._decode(delta, number), counted.weight, number, factor)
        self._hear(said, counted)
        self._note(structs.replace(counted, factor=factor))

    def admit(self, body: bytes, counted: Counted) -> gates.Admitted:
        """Hold an update against the gate and add it. Raises RefusedError.

        counted: what is claimed of it; its norm is found here.
        Its peers are the updates of earlier versions: those of its own would make the verdict depend on who came first.
        As a job converges most norms shrink and some do not: what is far from its peers', and smaller than the model
        itself, is no explosion, and weighs less. Refused for good it would leave too few devices on the base.
        """
        base = self._now.held.number if counted.number is None else counted.number
        try:
            found = self._split(body)
            delta, evaluation = found[sections.DELTA], self._evaluation(found)
            said = self._buffers(found, counted)  # it is all as the job has it, or nothing of it counts
            update = self._decode(delta, base)
            norm = sums.norm(update, self._coding_of(base))
            admitted = self._gate(norm, counted.weight, counted.device)
            self._add(delta, update, admitted.weight, base, admitted.factor)
        except sections.SectionError as error:
            raise RefusedError(f"its body is not as the job has it: {error}") from error
        except CodecError as error:
            raise RefusedError(f"its body does not decode: {error}") from error
        except FoldError as error:
            far = f"its norm is far from the model's: {self._advice}; "
            raise RefusedError(f"{far if norm > self.model_norm else ''}it does not fit the sum", str(error)) from error
        self._hear(said, counted)
        self._note(structs.replace(counted, weight=admitted.weight, norm=norm, factor=admitted.factor))
        return admitted._replace(evaluation=evaluation)

    def refuse(self, device: str, norm: float = 0.0) -> None:
        """Note that an update to the current base is refused: once, when it is, and after a start again.

        norm: 0 where it was not refused for that.
        """
        self._refused.add(device)
        if norm:
            self.peers.note(norm, device, far=self._is_far(norm))

    def _note(self, counted: Counted) -> None:
        self.counted.append(counted)
        self.peers.note(counted.norm, counted.device, far=self._is_far(counted.norm))

    # The gate.

    def _gate(self, norm: float, weight: int, device: str = "") -> gates.Admitted:
        limit, gate = self._limit, self._rules.gate
        if gate == "refuse" and self._is_far(norm):  # for good: so it is asked whether others are as far by now
            by_now = self._limit_of(self.peers.usual_by_now(norm, device))
            limit = limit if gates.is_far(norm, by_now, self.model_norm) else by_now
        return gates.weighed(
            *(norm, weight, limit, self.model_norm, gate), with_most=self.peers.most_are_far(), advice=self._advice
        )

    def _limit_of(self, norms: Sequence[float]) -> gates.Limit:
        return gates.limit_of_norm(norms, self.model_norm, self._rules.max_norm_ratio)

    def _is_far(self, norm: float) -> bool:
        return gates.is_far(norm, self._limit, self.model_norm)

    # The sum.

    def _coding_of(self, number: int) -> Coding:
        if number == self._now.held.number:
            return self.sum.coding
        terms = self._terms_of(number)
        if terms is None:
            raise RefusedError(f"how updates to version {number} are coded is not known any more")
        return self._chain.coding(number, terms)

    def _split(self, body: bytes) -> Mapping[str, bytes]:
        """Return the sections of an update, a delta among them. Raises SectionError."""
        found = sections.split(body, self._sections)
        if sections.DELTA not in found:
            raise sections.SectionError('section "delta" is missing')
        if sections.STATISTICS in found:
            raise sections.SectionError('section "statistics" comes too late: its fleet has agreed')
        return found

    def _evaluation(self, found: Mapping[str, bytes]) -> bytes:
        """Return how the device of an update scores its base; empty where it does not say. Raises SectionError."""
        said = found.get(sections.EVALUATION, b"")
        if said:
            try:
                federated.heard(self._spec, "", 1, said)
            except federated.TallyError as error:
                raise sections.SectionError(f'section "{sections.EVALUATION}" is no scoring: {error}') from error
        return said

    # What a net has beside its parameters.

    def buffers(self) -> Outcome:
        """Return the buffers of the next version: the mean of what has come to the current one. No late update has a
        say in it: what that says is of another version.
        """
        weights = {one.device: one.weight for one in self.counted if one.number is None}
        return self._heard.mean(weights, median=not self._strategy.weighs)

    def _buffers(self, found: Mapping[str, bytes], counted: Counted) -> Buffers | None:
        """Return the buffers of an update; None of one to an earlier base. Raises SectionError."""
        base, content = self._now.held.buffers, found.get(sections.BUFFERS)
        if (content is None) == bool(base):
            raise sections.SectionError(f'section "{sections.BUFFERS}" is missing')
        if content is None or counted.number is not None:
            return None
        try:
            said = buffers.decode(content, base.spec, base)
            buffers.check_statistics(said)
        except BuffersError as error:
            raise sections.SectionError(f'section "{sections.BUFFERS}": {error}') from error
        return said

    def _hear(self, said: Buffers | None, counted: Counted) -> None:
        if said is not None:
            self._heard.add(counted.device, said)

    def _decode(self, delta: bytes, number: int) -> Update:
        return self._coding_of(number).decode(delta)

    def _add(self, delta: bytes, update: Update, weight: int, number: int, factor: Factor | None) -> None:
        """Add an update to the sum; one that lies under another base's hash is kept apart. Raises RefusedError."""
        terms = self._terms_of(number)
        if number == self._now.held.number or terms is None or not terms.is_sketch:
            self.sum.add(update if factor is None else clipped(update, factor), weight)
            return
        if len(self.late) == MOST_LATE:
            raise RefusedError(
                "it is late, as others were", f"{MOST_LATE} late updates are in the next version already"
            )
        if weight < LEAST_LATE * self._now.record.weight:
            raise RefusedError("it is late, and weighs too little", f"less than {LEAST_LATE:.0%} of a round")
        self.late.append(LateUpdate(number, weight, terms, delta, factor))

    # What one device may weigh.

    @property
    def weights(self) -> dict[str, list[int]]:
        """What each device's updates weigh: one of each, but where late ones count. Empty where no weight has a say."""
        found: dict[str, list[int]] = {}
        for one in self.counted if self._strategy.weighs else ():
            found.setdefault(one.device, []).append(one.weight)
        return found

    def cap(self, share: float, body_of: Callable[[Counted], bytes]) -> dict[str, tuple[int, int]]:
        """Take what devices weigh beyond a share of the mean out of the sum again, once all have come.

        Return who was capped: what it weighed, and what it weighs. It is as if they had come with less; doing it again
        changes nothing. body_of: gives the body of an update in the sum; it is asked for those of fewer than 1 / share
        devices. Raises one of DAMAGE where a body is not what it was.
        """
        weights = self.weights
        changed = shares.lightened(weights, share) if weights else {}
        left = {device: iter(of_one) for device, of_one in changed.items()}
        for at, one in enumerate(self.counted):
            if one.device in left and (weight := next(left[one.device])) < one.weight:
                self._lighten(one, body_of(one), one.weight - weight)
                self.counted[at] = structs.replace(one, weight=weight)
        return {device: (sum(weights[device]), sum(of_one)) for device, of_one in changed.items()}

    def _lighten(self, one: Counted, body: bytes, by: int) -> None:
        """Lighten an update that is in the sum by so much weight."""
        number, delta = self._now.held.number if one.number is None else one.number, self._split(body)[sections.DELTA]
        for at, late in enumerate(self.late):
            if (late.number, late.weight, late.delta) == (number, one.weight, delta):
                self.late[at] = late._replace(weight=late.weight - by)
                return
        update = self._decode(delta, number)
        self.sum.take_out(update if one.factor is None else clipped(update, one.factor), by)
