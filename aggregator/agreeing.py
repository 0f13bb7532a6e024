"""The round in which a fleet agrees on how its rows are normalised, on the server: the updates are statistics.

    base without an agreement, of a job that wants one
        devices ──an update: the section "statistics" alone──▶ Agreeing, kept as they came
        at the round's end ──models/agreement.py──▶ the next version: the same numbers, and `Held.agreed` for good

To the coordinator it is a round as any other: who is drawn, what a quorum is, deadlines, verdicts, what is durable and
when, all that is as it always is. So whoever is drawn is asked (with `fraction` below 1 not everybody), and a late
statistic is refused as its base has been left. What steers the coding, and what the gate holds usual, stays as it was:
nobody has trained.

A device weighs what its update would, and half of all at most whatever the job says: what is agreed on holds for the
life of a job, and a mean of rows that one device claims to have would be no other one's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from msgspec import structs

from aggregator import gates, shares
from aggregator.convergence import AGREEING
from aggregator.gates import RefusedError
from aggregator.intake import Counted, Intake
from aggregator.record import MOST_LEFT, Next, Record
from models import agreement, sections, statistic
from models.agreement import MOST_VOICES, Outcome, Voice
from models.chain import SPAN, Chain, Held
from models.codec.terms import FLOAT32, Terms
from models.job import JobSpec
from models.statistic import Statistic, StatisticError

log = logging.getLogger(__name__)

NAMED = 3
"""Columns that an alarm names, and devices that a line of the log does."""
NOBODY = (
    f"no device that was drawn has {statistic.FEWEST} examples or more, so that nothing is normalised or "
    "balanced by what the fleet has, for the rest of this job: submit it again when more rows are there"
)


def is_due(spec: JobSpec, held: Held) -> bool:
    """Return whether the round that leaves a version is one in which the fleet agrees."""
    return spec.contract.agrees and held.agreed is None


class Agreeing(Intake):
    """What has come for the next version, where that is the one on which the fleet agrees."""

    def __init__(
        self,
        chain: Chain,
        spec: JobSpec,
        now: Next,
        allowed: Mapping[str, int],
        terms_of: Callable[[int], Terms | None],
    ) -> None:
        """See `Intake`."""
        super().__init__(chain, spec, now, allowed, terms_of)
        self._said: dict[str, Statistic] = {}
        """By device: of the MOST_VOICES that are heard, or of all where they are fewer."""
        self._outcome: Outcome | None = None

    @property
    def weight(self) -> int:
        """Of all that has come."""
        return sum(one.weight for one in self.counted)

    @property
    def weights(self) -> dict[str, list[int]]:
        """See `Intake`. A statistic has a weight whatever the strategy is."""
        return {one.device: [one.weight] for one in self.counted}

    @property
    def alarm(self) -> str:
        """What an operator should know of what they have come to; "" where nothing is amiss."""
        outcome = self.outcome()
        if not outcome.n_voices:
            return NOBODY
        names = self._spec.contract.columns
        if outcome.apart:
            said = [str(names[column] if names else column) for column in outcome.apart[:NAMED]]
            more = f" and {len(outcome.apart) - NAMED} more" if len(outcome.apart) > NAMED else ""
            return (
                f"the two devices that the fleet's agreement is of have very different values in column(s) "
                f"{', '.join(said)}{more}, and nothing shows which one is right: has one of them other units? What is "
                "agreed on holds for the life of a job: if one is wrong, mend it and submit the job again"
            )
        if not outcome.far:
            return ""
        said = [f"column {names[column] if names else column} of {len(who)}" for column, who in outcome.far[:NAMED]]
        more = f" and {len(outcome.far) - NAMED} more columns" if len(outcome.far) > NAMED else ""
        return (
            "values far from all others' are left out of what the fleet agreed on "
            f"({', '.join(said)} device(s){more}): have these other units?"
        )

    def restore(self, body: bytes, counted: Counted) -> None:
        """See `Intake`."""
        self._keep(self._read(body), counted)

    def admit(self, body: bytes, counted: Counted) -> gates.Admitted:
        """Take what a device says of its rows. Raises RefusedError."""
        if counted.number is not None:
            raise RefusedError("its base has been left, and the fleet has to agree before anybody trains")
        try:
            found = self._read(body)
        except sections.SectionError as error:
            raise RefusedError(f"its body is not as the job has it: {error}") from error
        self._keep(found, counted)
        return gates.Admitted(0.0, counted.weight)

    def _read(self, body: bytes) -> Statistic:
        """Return what is in the body of an update. Raises SectionError."""
        found = sections.split(body, self._sections)
        if found.keys() != {sections.STATISTICS}:
            raise sections.SectionError('it has other sections than "statistics", on which its fleet is to agree first')
        try:
            return statistic.from_bytes(found[sections.STATISTICS], self._spec)
        except StatisticError as error:
            raise sections.SectionError(f'section "statistics": {error}') from error

    def _keep(self, found: Statistic, counted: Counted) -> None:
        self.counted.append(structs.replace(counted, norm=0.0, factor=None))
        self._outcome = None
        if found.n:
            self._said[counted.device] = found
        if len(self._said) > MOST_VOICES:
            del self._said[max(self._said, key=lambda device: (agreement.precedence(device), device))]

    def cap(self, share: float, body_of: Callable[[Counted], bytes]) -> dict[str, tuple[int, int]]:  # noqa: ARG002 -- as Intake has it
        """See `Intake`."""
        weights = self.weights
        changed = shares.lightened(weights, share) if weights else {}
        self.counted = [
            structs.replace(one, weight=changed[one.device][0]) if one.device in changed else one
            for one in self.counted
        ]
        self._outcome = None
        return {device: (sum(weights[device]), sum(of_one)) for device, of_one in changed.items()}

    def outcome(self) -> Outcome:
        """Return what the fleet agrees on, by what has come."""
        if self._outcome is None:
            weights = {one.device: one.weight for one in self.counted if self._is_heard(one)}
            cap = shares.cap_for(weights.values(), shares.USUAL) if weights else 0
            voices = [Voice(device, min(weight, cap), self._said[device]) for device, weight in weights.items()]
            self._outcome = agreement.agreed_of(self._spec, voices)
        return self._outcome

    def _is_heard(self, one: Counted) -> bool:
        return one.device in self._said

    def next(self) -> Next:
        """Return the version on which the fleet agrees. Raises CodecError, or FoldError where nobody has answered."""
        now, outcome = self._now, self.outcome()
        for column, who in outcome.far:
            log.warning(
                "column=%d of %d device(s) is far from all others' and left out of what the fleet agrees on: %s",
                *(column, len(who), ", ".join(who[:NAMED]) + (", …" if len(who) > NAMED else "")),
            )
        body = self._chain.agreement(now.held, outcome.agreed)
        held = self._chain.take(now.held, now.held.number + 1, body)
        told = ((AGREEING, float(outcome.n_voices)),)
        return Next(held, self._record(held, body), ((now.held.number, body),), told, self.alarm)

    def _record(self, held: Held, body: bytes) -> Record:
        """Return what lies beside it: the coding of the rounds as it was, and one more body on the way."""
        before = self._now.record
        after = structs.replace(
            before,
            streaks=tuple(self.streaks.items()),
            left=(*before.left, before.terms)[-MOST_LEFT:] if self._spec.rounds.late == "fold" else (),
        )
        if before.choice.terms == FLOAT32:  # whose bodies begin from nothing
            return after
        recent = () if held.number % SPAN == 0 else (*before.recent, body)[1 - SPAN :]
        return structs.replace(after, recent=recent, since=before.since + len(body), steps=before.steps + 1)
