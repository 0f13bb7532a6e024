"""Faults to plant in the aggregator: each takes one fix out. See plants.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import structs

from aggregator import coordinator, generations, leadership, schema
from aggregator.absences import Absences
from aggregator.bodies import Bodies, Place
from aggregator.coordinator import COMMITTING, OPEN, TABLE, Coordinator
from aggregator.effects import Close, Effect, SendVerdict, VerdictPending
from aggregator.gates import Admitted
from aggregator.jobs import Jobs
from aggregator.leadership import Leadership
from aggregator.learner import Learner
from aggregator.ledger import Ledger
from aggregator.litter import Litter
from aggregator.members import Member, Members
from aggregator.pace import Pace
from aggregator.progress import Progress
from aggregator.roster import Part, Roster, Sight
from aggregator.rounds import Rounds
from aggregator.service import Aggregator
from aggregator.store import Judgement, Store
from broker.messages import Offer, Presence, Version
from fleet.world.patches import Patches


def fold_twice(patches: Patches) -> None:
    """Add every update to the sum twice."""
    admit = Learner.admit

    def admit_twice(self: Learner, body: bytes, *rest: Any) -> Admitted:
        admitted = admit(self, body, *rest)
        number = self.now.held.number
        self.intake.sum.add(self.intake._decode(body, number), admitted.weight)
        return admitted

    patches.set(Learner, "admit", admit_twice)


def write_verdicts_later(patches: Patches) -> None:
    """Make a verdict durable, and its body with it, when the next one comes."""
    add, waiting = Store.add_verdicts, dict[int, Callable[[], None]]()

    def add_later(self: Store, *args: Any, **more: Any) -> None:
        before = waiting.pop(id(self), None)
        waiting[id(self)] = lambda: add(self, *args, **more)
        if before is not None:
            before()

    patches.set(Store, "add_verdicts", add_later)
    patches.set(Store, "place", lambda _self, _job, one: one)  # else that is written over by then


def give_a_place_twice(patches: Patches) -> None:
    """Write the body of every update over the one before, though a row names that."""
    put = Bodies.put

    def put_over(self: Bodies, job: str, body: bytes) -> Place:
        end = self.end(job)
        placed = put(self, job, body)
        self.rewind(job, end)
        return placed

    patches.set(Bodies, "put", put_over)


def end_while_judging(patches: Patches) -> None:
    """End rounds, and begin them, while updates are judged whose verdicts are not durable."""
    advance = Coordinator._advance

    def advance_anyway(self: Coordinator, now: float) -> list[Effect]:
        judging, self._judging = self._judging, set()
        try:
            return advance(self, now)
        finally:
            self._judging = judging

    patches.set(Coordinator, "_advance", advance_anyway)


def collect_while_making(patches: Patches) -> None:
    """Take updates in for a base that is being left."""
    take = Coordinator._take

    def take_anyway(self: Coordinator, offer: Offer, now: float) -> list[Effect]:
        state = self._state
        self._state = OPEN if state is COMMITTING else state
        try:
            return take(self, offer, now)
        finally:
            self._state = state

    patches.set(Coordinator, "_take", take_anyway)
    patches.set(coordinator, "TABLE", TABLE.but(VerdictPending, COMMITTING, COMMITTING))


def write_versions_later(patches: Patches) -> None:
    """Make a version durable when the next one comes."""
    commit, waiting = Store.commit, dict[tuple[int, str], Callable[[], None]]()

    def commit_later(self: Store, job: str, *args: Any) -> None:
        before = waiting.pop((id(self), job), None)
        waiting[id(self), job] = lambda: commit(self, job, *args)
        if before is not None:
            before()

    patches.set(Store, "commit", commit_later)


def answer_once(patches: Patches) -> None:
    """Say nothing to who offers again what was counted."""
    weigh = Ledger.weigh

    def weigh_silently(self: Ledger, offer: Offer, *rest: Any) -> list[Effect]:
        effects = weigh(self, offer, *rest)
        return [effect for effect in effects if not (isinstance(effect, SendVerdict) and effect.verdict.counted)]

    patches.set(Ledger, "weigh", weigh_silently)


def drop_what_was_accepted(patches: Patches) -> None:
    """Forget what was counted when a round is abandoned."""
    close_attempt = Store.close_attempt

    def close_and_drop(self: Store, job: str, close: Close) -> None:
        close_attempt(self, job, close)
        if close.outcome == "abandoned":
            self._write("UPDATE updates SET body = NULL WHERE job = ?", (job,))

    patches.set(Store, "close_attempt", close_and_drop)


def forget_the_ledger(patches: Patches) -> None:
    """Judge every offer anew."""

    def weigh(self: Ledger, offer: Offer, *rest: Any) -> Any:
        self._verdicts.pop(offer.device, None)
        return _weigh(self, offer, *rest)

    def add(self: Store, job: str, judgements: Sequence[Judgement]) -> None:
        for one in judgements:
            self._write("DELETE FROM updates WHERE job = ? AND device = ?", (job, one.verdict.device))
        _add(self, job, judgements)

    _weigh, _add = Ledger.weigh, Store.add_verdicts
    patches.set(Ledger, "weigh", weigh)
    patches.set(Store, "add_verdicts", add)


def count_stale_updates(patches: Patches) -> None:
    """Count updates to bases that have been left."""
    turn_away, admit = Ledger._reason_to_turn_away, Learner.admit

    def never_for_its_base(self: Ledger, offer: Offer, ended: str) -> str | None:
        late = offer.base < self.base and self.base.number - offer.base.number <= 3
        return turn_away(self, structs.replace(offer, base=self.base) if late else offer, ended)

    def admit_as_if_current(
        self: Learner, body: bytes, weight: int, report: Any = None, _number: Any = None, device: str = ""
    ) -> Admitted:
        return admit(self, body, weight, report, device=device)

    patches.set(Ledger, "_reason_to_turn_away", never_for_its_base)
    patches.set(Learner, "admit", admit_as_if_current)


def have_no_deadline(patches: Patches) -> None:
    """Give rounds no end."""
    patches.set(Rounds, "_time_for", lambda _self, _attempt: 1e6)


def forget_max_rounds(patches: Patches) -> None:
    """Go on beyond `max_rounds`."""
    patches.set(Progress, "reason_to_end", lambda _self: "")


def forget_versions(patches: Patches) -> None:
    """Leave an update in the sum that has been counted."""
    commit = Store.commit

    def commit_and_lose(self: Store, job: str, version: Version, *args: Any) -> None:
        query = (
            "SELECT crc, device, generation, number FROM updates WHERE job = ? AND refused = '' AND body IS NOT NULL"
            " ORDER BY device, generation, number LIMIT 1"
        )
        keys = list(self._db.rows("updates", query, (job,)))
        sums = [update.body for update in self.updates(job)]
        commit(self, job, version, *args)
        for body, key in zip(sums, keys, strict=False):
            self._write(
                "UPDATE updates SET body = ?, at = NULL, crc = ?"
                " WHERE device = ? AND generation = ? AND number = ? AND job = ?",
                (body, *key, job),
            )

    patches.set(Store, "commit", commit_and_lose)


def answer_nobody(patches: Patches) -> None:
    """Let the late last will of a former life, and the goodbye of another, lie."""
    patches.set(Leadership, "_answer", lambda _self, _now: [])


def lead_at_once(patches: Patches) -> None:
    """Lead without having listened, and stand down for nobody."""
    patches.set(leadership, "QUIET_S", 0.0)
    patches.set(Leadership, "_listen_to", lambda _self, *_heard, **_how: [])
    patches.set(Leadership, "_meet", lambda _self, *_heard, **_how: [])


def keep_the_generation(patches: Patches) -> None:
    """Take a store that was copied, moved or restored for what it was, whatever devices say."""
    patches.set(generations, "place", lambda _file: "here")
    believe_no_device(patches)


def believe_no_device(patches: Patches) -> None:
    """Notice nothing of what devices know and the store has lost."""
    patches.set(Jobs, "look_back", lambda *_what, **_how: None)


def refuse_for_unknown_bases(patches: Patches) -> None:
    """End updates to bases that this store has never had."""
    patches.set(Ledger, "knows", lambda _self, _version: True)


def refuse_for_unknown_jobs(patches: Patches) -> None:
    """End updates to jobs that are not known here."""
    weigh = Aggregator._weigh

    def weigh_or_refuse(self: Aggregator, offer: Offer) -> None:
        if offer.job in self.runs:
            weigh(self, offer)
        else:
            self._send([self._commands.refusal_of_deleted(offer)])

    patches.set(Aggregator, "_weigh", weigh_or_refuse)


def drop_nobody(patches: Patches) -> None:
    """Wait for all, for ever."""
    patches.set(Absences, "dropped", lambda _self: set())


def hold_a_failure_for_lasting(patches: Patches) -> None:
    """Take a device whose last training failed for one that cannot take part."""
    part_in = Roster.part_in

    def unready(self: Roster, job: str, device: str) -> Part:
        part = part_in(self, job, device)
        return structs.replace(part, ready=part.ready and part.failure is None)

    patches.set(Roster, "part_in", unready)


def double_the_deadline(patches: Patches) -> None:
    """Measure how long devices take from the last attempt's end, without a ceiling."""
    learned: dict[int, float] = {}

    def deadline_s(self: Pace, _cohort: Iterable[str]) -> float:
        learned[id(self)] = 2.0 * learned.get(id(self), self.ceiling_s / 2.0)
        return learned[id(self)]

    patches.set(Pace, "deadline_s", deadline_s)


def take_hints_for_facts(patches: Patches) -> None:
    """Believe for ever what the broker remembers, and give everybody for ever to answer a roll call."""
    before = Members.__init__

    def init(self: Members, _hint_s: float, grace_s: float, *, patient: bool = False) -> None:
        before(self, math.inf, grace_s, patient=patient)

    patches.set(Members, "__init__", init)


def ask_once(patches: Patches) -> None:
    """Ask a device that does not answer the roll call for a sign of life once, and never again."""

    def ask(self: Members, device: str, member: Member, now: float) -> None:
        before(self, device, member, now)
        member.ask_s = math.inf

    before = Members._ask
    patches.set(Members, "_ask", ask)


def believe_presences(patches: Patches) -> None:
    """Take it that a device which is there has said of which jobs it is a part."""
    hear = Roster.hear
    patches.set(Roster, "hear", lambda self, device, now, _job="": hear(self, device, now))


def forget_litter(patches: Patches) -> None:
    """Hold bodies for gone from the broker, though the connection was lost since they were cleared, or before."""

    def doubt(self: Litter) -> None:
        self._store.forget_litter(self._store.litter())
        before(self)

    before = Litter.doubt
    patches.set(Litter, "doubt", doubt)


def ignore_new_cards(patches: Patches) -> None:
    """Ignore a card that was written anew until its boot count passes the old one."""
    judge = Roster._judge

    def by_boots(self: Roster, known: Any, presence: Presence, live: bool, now: float) -> Sight:
        older = presence.boot <= known.presence.boot and presence.life != known.presence.life
        return Sight("stale") if older else judge(self, known, presence, live, now)

    patches.set(Roster, "_judge", by_boots)


def see_no_clone(patches: Patches) -> None:
    """Raise no alarm about two devices of one id."""
    judge = Roster._judge

    def quietly(self: Roster, *args: Any) -> Sight:
        return structs.replace(judge(self, *args), alarm=False)

    patches.set(Roster, "_judge", quietly)


def keep_rows_of_deleted_jobs(patches: Patches) -> None:
    """Delete a job by name only."""
    patches.set(schema, "_FORGET", ("DELETE FROM jobs WHERE job = ?",))
