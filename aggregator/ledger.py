"""What becomes of an offer, and what has become of those before it: one job's verdicts, as a pure state machine.

An offer is answered at once (it has its verdict, or is none of the current base's business), collected (it shall
count), recorded (it shall be refused for good), or not answered at all: who has not been drawn to leave the base may be
drawn yet, by another attempt, and offers again until then.

A base may have former names, from before a backup was restored: an update to one of them is an update to it, and is
answered under the name that its device knows.

Who has never had a base gives no verdict on it: of two stores that were one, and lead in turn, the other may have
counted the update, or may be about to. The device goes by the rounds that it hears. The one exception is an update that
might have come late, had it been of this history: its device waits for a verdict, and for nothing else.
"""

from __future__ import annotations

import math

from msgspec import structs

from aggregator import refusals, scale
from aggregator.effects import Attempt, Collect, Effect, SendVerdict, Setup, StoreRefusal
from broker.messages import Offer, Verdict, Version, echo
from models import draw


class Ledger:
    """The verdicts of one job."""

    def __init__(self, setup: Setup) -> None:
        self.base = setup.base
        self._rules = setup.rules
        self._max_examples = setup.max_examples
        self._max_body_bytes = setup.max_body_bytes
        self._stated_rows = setup.stated_rows
        self._verdicts = {verdict.device: verdict for verdict in setup.verdicts}
        self.counted = {verdict.device for verdict in setup.verdicts if verdict.base == self.base and verdict.counted}
        """Devices whose updates count for the current base."""
        if setup.counted is not None:
            self.counted = set(setup.counted)
        self._left = dict(setup.left)
        self._renames = dict(setup.renames)
        self._given: dict[int, int] = {}
        """Former generation to the highest number that is known to have been given out in it."""
        for name in (*self._renames, *self._renames.values()):
            self._given[name.generation] = max(name.number, self._given.get(name.generation, 0))
        self._cohorts: dict[Version, tuple[Attempt, frozenset[str]]] = {}
        """Base to the last attempt that was asked for, and its cohort: looked up at every offer."""
        self._named: dict[str, Version] = {}
        """Device to the former name of the base that it offers its update to."""

    # What can be asked.

    def last_of(self, device: str) -> Verdict | None:
        """Return the last verdict on a device's updates."""
        return self._verdicts.get(device)

    def verdict_on(self, device: str) -> Verdict | None:
        """Return the verdict on a device's update to the current base, if there is one."""
        verdict = self._verdicts.get(device)
        return verdict if verdict is not None and verdict.base == self.base else None

    @property
    def settled(self) -> list[str]:
        """Devices with a verdict on the current base, in the order of their names."""
        return sorted(name for name, verdict in self._verdicts.items() if verdict.base == self.base)

    def present(self, version: Version) -> Version:
        """Return the present name of a version that may have been renamed."""
        return self._renames.get(version, version)

    def knows(self, version: Version) -> bool:
        """Return whether this store has had a version of this name, or is alone in giving out such names.

        The present generation is its own; of a former one it has given out, or found in its copy, so many numbers.
        """
        if version.generation == self.base.generation:
            return True
        return version.number <= self._given.get(version.generation, -1)

    def believed(self, device: str, rows: int) -> int:
        """Return how many rows a device counts as having that claims so many: no more than was stated, or may be."""
        if self._stated_rows is not None:
            rows = min(rows, self._stated_rows.get(device, rows))
        return rows if self._max_examples is None else min(rows, self._max_examples)

    def shift(self, last: Attempt | None) -> int:
        """Return by how many bits rows are shifted to be weights in the sum of the current base.

        last: the last attempt to leave it. Before there is one only late updates can be in the sum: those have the
        shift of the base before, and the first attempt takes it over from them.
        """
        if last is not None:
            return last.shift
        before = (base for base in self._left if base.number < self.base.number)
        newest = max(before, key=lambda base: (base.number, base.generation), default=None)
        return 0 if newest is None else self._left[newest].shift

    # Offers.

    def weigh(self, offer: Offer, last: Attempt | None, ended: str, barred: str = "") -> list[Effect]:
        """Return what becomes of an offer: a SendVerdict, Collect or StoreRefusal, or nothing yet.

        last: the last attempt to leave the base. ended: why the job is over, if it is. barred: why nothing of its
        device is counted, if that is so: what would be welcome is refused, for good like any other.
        """
        named = self.present(offer.base)
        if named != offer.base:
            self._named[offer.device] = offer.base
            offer = structs.replace(offer, base=named)
        known = self._verdicts.get(offer.device)
        if known is not None and known.base == offer.base:
            if offer.digest.startswith(known.digest):
                return [self.answer(known)]
            reason = "this device already has a verdict for this base, on another update"
            return [self.answer(_refusal(offer, reason))]
        if not ended and self._is_of_another_history(offer.base):
            return []
        if reason_ := self._reason_to_turn_away(offer, ended):
            return [self.answer(_refusal(offer, reason_))]
        if offer.base == self.base and not self._takes(last, offer.device):
            return []
        if reason_ := barred or self._reason_to_refuse(offer):
            return [StoreRefusal(_refusal(offer, reason_))]
        return [Collect(offer, self._weight(offer, self.shift(last)))]

    def answer(self, verdict: Verdict) -> SendVerdict:
        """Return the answer with this verdict, under the name that the device knows its base by."""
        named = self._named.get(verdict.device)
        if named is not None and self.present(named) == verdict.base:
            return SendVerdict(structs.replace(verdict, base=named))
        return SendVerdict(verdict)

    def note(self, verdict: Verdict) -> None:
        """Remember a verdict that is durable."""
        self._verdicts[verdict.device] = verdict
        if verdict.counted:
            self.counted.add(verdict.device)

    def leave(self, version: Version, last: Attempt | None) -> None:
        """Go on to the next version. last: the round that has left the base."""
        if last is not None:
            self._left[self.base] = last
        oldest = version.number - self._rules.max_staleness
        self._left = {base: attempt for base, attempt in self._left.items() if base.number >= oldest}
        self._cohorts = {base: known for base, known in self._cohorts.items() if base in self._left}
        self.base = version
        self.counted.clear()
        self._named.clear()

    def _is_of_another_history(self, base: Version) -> bool:
        """Return whether nothing can be said of an update to this base, and its device can do without."""
        might_be_late = self._rules.late == "fold" and base.number < self.base.number
        return not might_be_late and not self.knows(base)

    def _reason_to_turn_away(self, offer: Offer, ended: str) -> str | None:
        """Return why this offer is none of the current base's business; nothing of it needs to be remembered."""
        if ended:
            return "the job has ended"
        if offer.base != self.base and not self._may_come_late(offer):
            return f"stale: it is based on version {offer.base}, the current one is {self.base}"
        return None

    def _may_come_late(self, offer: Offer) -> bool:
        """Return whether an update to a version that has been left still counts, in the sum of the current one."""
        left, known = self._left.get(offer.base), self._verdicts.get(offer.device)
        return (
            self._rules.late == "fold"
            and self._takes(left, offer.device)
            and self.base.number - offer.base.number <= self._rules.max_staleness
            and (known is None or known.base < offer.base)
        )

    def _takes(self, attempt: Attempt | None, device: str) -> bool:
        """Return whether an attempt takes an update of this device."""
        if attempt is None or draw.ticket(attempt.salt, device) > attempt.threshold:
            return False
        return self._rules.wait == "target" or device in self._cohort_of(attempt)

    def _cohort_of(self, attempt: Attempt) -> frozenset[str]:
        known = self._cohorts.get(attempt.base)
        if known is None or known[0] is not attempt:
            known = self._cohorts[attempt.base] = attempt, frozenset(attempt.cohort)
        return known[1]

    def _weight(self, offer: Offer, shift: int) -> int:
        """Return n / sqrt(1 + staleness), at least 1: the polynomial weight of Xie, Koyejo, Gupta (2019), a = 1/2.

        n is what a device claims, and no more than what its operator has stated of it; in units of 2**shift rows.
        """
        staleness = self.base.number - offer.base.number
        n = self.believed(offer.device, offer.n_examples)
        return scale.weight(1000 * n // math.isqrt(1_000_000 * (1 + staleness)), shift)

    def _reason_to_refuse(self, offer: Offer) -> str | None:
        """Return why this offer, though awaited, is refused for what its envelope claims."""
        if self._max_examples is not None and offer.n_examples > self._max_examples:
            limit = f"{offer.n_examples} where max_examples = {self._max_examples}"
            return refusals.reason("it claims more examples than a device of this job may have", limit)
        if offer.n_bytes > self._max_body_bytes:
            limit = f"{offer.n_bytes} bytes where {self._max_body_bytes} are let in"
            return refusals.reason("it is longer than any update of this job", limit)
        return None


def _refusal(offer: Offer, reason: str) -> Verdict:
    return Verdict(offer.device, offer.job, offer.base, echo(offer), refused=reason)
