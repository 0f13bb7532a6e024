"""What must hold in a made-up world at every moment: README's promises, held against what the services do.

 1. An update is in at most one version, once; and whatever was counted is in a version or waits durably for the next.
    Who restores a backup goes on from the copy's history (a *lineage*): nothing is counted twice within that; what
    was counted after the copy went with it. Over all lineages, a number names one model for ever:
    (job, generation, number) → one SHA-256, and the name of a body → its bytes.
 2. Versions go up one by one within a lineage, never beyond max_rounds, and each has a quorum behind it, but for one
    that is an older one again: that has the same SHA-256.
 3. A round ends at its deadline, counted from its announcement or from the last start of the aggregator, whatever dies
    for good; a deadline that is learned has a ceiling.
 4. A device never finishes two trainings for one (job, base), nor an epoch twice, unless its disk was put back; and
    what it has begun on a version goes on, though another leader has another name for that version. Of two stores that
    were one and lead in turn, the second may have led a device away from a base that the first then returns to. A disk
    holds the place of one training, and no update beyond its end: only if the device has begun to train on a version
    of another generation since, in a higher term, and the base was announced again in a term that is higher still,
    may it train an epoch of it again.
 5. What is said was written down before: a verdict that is sent, or that a device settles by, is the one in the
    store, and a version that is announced is there; an update is refused for good only by who knows its job, and its
    base too: of two stores that were one, the other may have counted it. Where late updates are folded one to an older
    base waits for a verdict and for nothing else; there alone, of a base that it has never had, a store may say another
    verdict than the one that another store has written down. A submit that is refused leaves no job behind. A device
    lets an update go without a verdict only when a later version than its base, and not that base under another name,
    or the end of the job, was announced; and where late ones are folded, only if that version is of another generation
    and of no higher number, so that nobody can fold it into that.
 6. One aggregator leads (see calm.py).
 7. Nothing grows without bound: packets that wait within a service, subscriptions, unfinished assemblies, files.
 8. A fault of one job never reaches another: no process ends by it, and none ends by itself again and again.
 9. Everybody is served (see calm.py).
10. Nothing of a device in quarantine is counted, and nobody waits for it (see bars.py).

The laws listen: `heard` at the broker, the rest along `trail.Trail`. They ask the store and never the coordinator what
is true. What a disk is known to hold (record.py) is copied and restored together with it.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from aggregator.database import DamageError
from broker.errors import WireError
from broker.messages import Body, Head, Job, Offer, Quarantine, Release, Reply, Round, Verdict, Version
from broker.transport import Packet
from edge_agent.effects import Settle
from fleet.world import insides
from fleet.world.agenda import Agenda
from fleet.world.bars import Bars
from fleet.world.nodes import WIRE, Device, Server
from fleet.world.process import Process
from fleet.world.record import SHORT_DIGEST, Begun, DeviceRecord, JobRecord, Judged, Update, update_of
from models.job import JobSpec

ROUND_SLACK_S = 5.0
LEARNED_CEILING_S = 3600.0
"""No deadline that is learned from devices which answer within minutes is longer."""
MOST_EXITS_AN_HOUR = 12
CLONED = "ClonedError"
"""How a process ends whose id another one has taken."""
FOREIGN = "belongs to device"
"""Who finds another's state directory has to wait for an operator."""
MOST_DEATHS = 6
"""Times that the code of one job may kill a process before the job rests there."""
CLONE_ENDS = 8
"""Takeovers after which a clone must have been noticed, however many packets are lost."""
MOST_QUEUED = {"offline": 30, "online": 2000}
"""Packets that a service may keep: while offline, a few for each job; at a reconnect, all that is retained."""
MOST_SAID = 12


class Violation(NamedTuple):
    """A law that was broken."""

    at: float
    law: int
    kind: str
    """In which way; the same for all seeds."""
    words: str

    def __str__(self) -> str:
        return f"t={self.at:.1f} law {self.law}: {self.kind}: {self.words}"


class World(Protocol):
    """What the laws need to know of the world."""

    agenda: Agenda
    n_devices: int
    """How many there were at the beginning."""
    acting: Process | None
    servers: list[Server]
    devices: list[Device]
    clones: list[Device]

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""


class Laws:
    """The laws of one world, and what was broken of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.bars = Bars(world, self.broken)
        self.violations: list[Violation] = []
        self.made: dict[str, int] = {}
        """How many versions were made of each job."""
        self.made_at: dict[str, list[float]] = {}
        """When each of them was made."""
        self.answered: dict[tuple[str, str], int] = {}
        """(device, job) to how many versions there were when the device last had a verdict."""
        self.named_clones: set[str] = set()
        """Ids of which an operator was told that two devices share them."""
        self.asked: dict[tuple[str, str], float] = {}
        """(device, job) to since when it has asked for a verdict that the leader has, and was given none.

        The same work on a base that only another history knows by that name is another update.
        """
        self._announced: set[tuple[str, Version]] = set()
        self._terms: dict[tuple[str, Version], int] = {}
        """(job, version) to the highest term in which it was announced."""
        self._names: dict[tuple[str, Version], set[Version]] = {}
        """(job, version) to all names of it that its rounds have told."""
        self._foreign: set[tuple[str, Version, Update]] = set()
        """Updates that were refused by a store which never had their base, and had to say so."""
        self._over: set[str] = set()
        """Jobs whose end was announced."""
        self._said: set[tuple[int, str]] = set()
        self._given: dict[tuple[str, Version], str] = {}
        self._bodies: dict[tuple[str, str, int], int] = {}
        self._expected: dict[tuple[str, str], str] = {}
        self._open: dict[tuple[str, str], tuple[object, float]] = {}
        self._takeovers: list[tuple[float, str, str]] = []
        """When a device took the place of another of the same id, and which life of which aggregator has heard it."""
        self._killed: Counter[tuple[str, str]] = Counter()
        self._ends: dict[tuple[str, str], tuple[object, float]] = {}
        """(server, job) to a round, and when it ends as it was first announced."""
        self._lost_at: dict[str, float] = {}
        """Server to when it lost its broker, while it knows of none."""
        self._asked_until: dict[str, float] = {}
        """Until when devices may answer the roll call of its last connection."""
        self._connection: dict[str, tuple[int, int]] = {}

    def broken(self, law: int, kind: str, words: str) -> None:
        """Note that a law was broken, unless one was in this way before."""
        if (law, kind) not in self._said and len(self.violations) < MOST_SAID:
            self._said.add((law, kind))
            self.violations.append(Violation(self._world.agenda.now, law, kind, words))
            self._world.note("LAW", f"{law} broken: {kind}: {words}")

    # What the store is told.

    def writes(self, server: Server, what: Verdict | str) -> None:
        """See `trail.Listener`."""
        server.record.unsure.append(what)

    def has_written(self, server: Server, verdict: Verdict) -> None:
        """See `trail.Listener`."""
        server.record.unsure = [one for one in server.record.unsure if one != verdict]
        run = insides.runs(server).get(verdict.job)
        if run is None:
            self.broken(1, "a verdict without a job", f"{verdict}")
            return
        job = self._job(server, verdict.job, run.spec)
        self._check_base(job, run.version, verdict)
        self._add(job, verdict)
        self.bars.judged(server, verdict)

    def _check_base(self, job: JobRecord, current: Version, verdict: Verdict) -> None:
        staleness = current.number - verdict.base.number
        rounds = job.spec.rounds
        late = rounds.late == "fold" and 0 < staleness <= rounds.max_staleness
        if verdict.base != current and not late and verdict.counted:
            self.broken(1, "a stale update was counted", f"{verdict.base} of {verdict.device} at {current}")

    def _add(self, job: JobRecord, verdict: Verdict) -> None:
        update = update_of(verdict)
        key = (update.device, update.number)
        older = job.judged.get(key)
        if older is not None:
            self.broken(1, "a second verdict on one base", f"{update} after {older.update} ({older.counted=})")
        elif (last := job.last.get(update.device)) is not None and last.update.number > update.number:
            self.broken(1, "a verdict on an older base than the last", f"{update} after {last.update}")
        job.judge(Judged(update, verdict.counted, verdict.base.generation))
        if verdict.counted:
            job.sum.append(update)
        self._was_answered(update.device, verdict.job)

    def makes(self, server: Server) -> None:
        """See `trail.Listener`."""
        before = self._world.acting
        self._world.acting = None
        try:
            for job in insides.committing(server):
                self._expected[server.name, job] = insides.expected_sha256(server, job)
        except ValueError:  # a step that the model cannot take: the job will say so
            pass
        finally:
            self._world.acting = before

    def has_made(self, server: Server, job: str, version: Version, sha256: str) -> None:
        """See `trail.Listener`."""
        server.record.unsure.clear()
        record = self._job(server, job, insides.runs(server)[job].spec)
        expected = self._expected.pop((server.name, job), None)
        if (older := insides.is_again(server, job)) is not None:
            if sha256 != insides.sha256_in_store(server, job, older):
                self.broken(1, "a version is not the one that it is said to be again", f"{job} {version}: {older}")
            self._leave(record, job, version, restored=True)
            return
        if expected is not None and expected != sha256:
            self.broken(1, "a version is not what the store's updates make", f"{job} {version}")
        said = insides.n_participants(server, job)
        if said != len(record.sum):
            self.broken(1, "a version of other updates than were counted", f"{version}: {said}, {record.sum}")
        self._leave(record, job, version)

    def _leave(self, record: JobRecord, job: str, version: Version, *, restored: bool = False) -> None:
        before, rounds = record.version, record.spec.rounds
        if version.number != before.number + 1 or version.generation < before.generation:
            self.broken(2, "versions do not go up one by one", f"{job}: {before} → {version}")
        if version.number > rounds.max_rounds:
            self.broken(2, "a version beyond max_rounds", f"{job}: {version} > {rounds.max_rounds}")
        if restored and record.sum:  # patience restores one when the round before has ended, so nothing waits
            self.broken(1, "an older version again takes updates with it", f"{job} {version}: {record.sum}")
        if not restored and len({update.device for update in record.sum}) < rounds.quorum:
            self.broken(2, "a version without a quorum", f"{job} {version}: {record.sum}, quorum {rounds.quorum}")
        record.members[version.number], record.sum, record.version = record.sum, [], version
        self.made[job] = self.made.get(job, 0) + 1
        self.made_at.setdefault(job, []).append(self._world.agenda.now)

    # What devices do.

    def begins(self, device: Device, job: str, base: Version) -> None:
        """See `trail.Listener`."""
        record, names = device.record, self._names_of(job, base)
        begun = record.begun.get(job)
        if begun is not None and not names.isdisjoint(begun.names):
            begun.names |= names
        else:
            record.begun[job] = Begun(set(names))
        for of, other, _ in record.epochs:
            if of == job and other.generation != base.generation:
                record.away[job, other] = self._terms.get((job, base), 0)

    def _names_of(self, job: str, version: Version) -> set[Version]:
        return self._names.get((job, version), {version})

    def has_finished(self, device: Device, job: str, base: Version) -> None:
        """See `trail.Listener`."""
        device.record.begun.pop(job, None)
        device.record.finished[job, base] += 1
        device.record.owner = device.record.owner or device.device
        if device.record.owner != device.device:
            self.broken(4, "a state directory serves two devices", f"{device.record.owner} and {device.device}")
        if device.record.finished[job, base] > 1:
            self.broken(4, "a base was trained twice", f"{device.name} {job} {base}")

    def has_trained(self, device: Device, job: str, base: Version, epoch: int) -> None:
        """See `trail.Listener`."""
        record, words = device.record, f"{device.name} {job} {base} epoch {epoch}"
        record.epochs[job, base, epoch] += 1
        if record.epochs[job, base, epoch] > 1 and self._came_back(record, job, base):
            record.epochs[job, base, epoch] = 1
        begun = record.begun.get(job)
        before = begun.epochs.get(epoch) if begun is not None and base in begun.names else None
        if record.epochs[job, base, epoch] > 1 or before == base:
            self.broken(4, "an epoch was trained twice", words)
        elif before is not None:
            self.broken(4, "an epoch was trained again under another name of its base", f"{words}, before as {before}")
        if begun is not None:
            begun.epochs[epoch] = base

    def _came_back(self, record: DeviceRecord, job: str, base: Version) -> bool:
        """Return whether a base was announced again after another history had led a device away from it.

        What it has trained of it then counts anew.
        """
        left = record.away.get((job, base))
        if left is None or self._terms.get((job, base), 0) <= left:
            return False
        del record.away[job, base]
        for key in [key for key in record.epochs if key[:2] == (job, base)]:
            record.epochs[key] = 0
        return True

    def settles(self, device: Device, settle: Settle) -> None:
        """See `trail.Listener`."""
        if settle.verdict is None:
            self._check_letting_go(device, settle)
        else:
            self._check_verdict(device, settle.verdict)

    def _check_letting_go(self, device: Device, settle: Settle) -> None:
        """Hold it against the laws that a device forgets an update without a verdict."""
        job, base, later = settle.job, settle.base, settle.later
        self.asked.pop((device.device, job), None)
        words = f"{device.name} {job} {base} by {later}"
        foreign = later is not None and later.generation != base.generation and later.number <= base.number
        if insides.folds_late(device, job) and not foreign:
            self.broken(5, "an update was let go that may come late", words)
        if job in self._over:
            return
        if later is None or later <= base or (job, later) not in self._announced:
            self.broken(5, "an update was let go though nothing later was announced", words)
        elif not self._names_of(job, base).isdisjoint(self._names_of(job, later)) or any(
            insides.are_one(server, job, base, later) for server in self._world.servers if server.up
        ):
            self.broken(5, "an update was let go at another name of its base", words)

    def _check_verdict(self, device: Device, verdict: Verdict) -> None:
        """Hold the verdict that a device settles an update by against the stores."""
        offered = insides.offered(device, verdict.job)
        if offered != update_of(verdict):
            self.broken(5, "settled by a verdict on another update", f"{device.name}: {offered} by {verdict}")
        for server in self._world.servers:
            if not insides.leads(server):
                continue  # an operator has put another lineage in the place of its own
            job = server.record.jobs.get(verdict.job)
            last = job.last.get(device.device) if job is not None else None
            if last is None or last.generation != verdict.base.generation:
                continue  # the same work in another lineage is another update
            if (verdict.job, verdict.base, last.update) in self._foreign and not verdict.counted:
                continue  # so says another history, which never had that base
            if last.update == update_of(verdict) and last.counted != verdict.counted:
                self.broken(
                    5,
                    "settled by another verdict than the one written down",
                    f"{device.name} settles {last.update} by {verdict.refused or 'counted'!r}, {server.name} has "
                    f"{last.counted=}",
                )

    # What is heard at the broker.

    def heard(self, packet: Packet) -> None:
        """Hold everything that is published against the laws."""
        if not packet.payload:
            return
        try:
            message = WIRE.unpack(packet)
        except WireError as error:
            self.broken(5, "a packet that nobody understands", f"{packet.topic}: {error}")
            return
        sender = self._world.acting
        match message:
            case Head(job, term, version, sha256) as head:
                self._give(job, version, sha256)
                if head.state in ("finished", "stopped"):
                    self._over.add(job)
                if isinstance(sender, Server):
                    self._announce(sender, job, version, term)
            case Round(job, term, base) as round_:
                if round_.along:
                    self._give(job, base, round_.sha256)
                self._names.setdefault((job, base), {base}).update(round_.aliases)
                if isinstance(sender, Server):
                    self._announce(sender, job, base, term)
                    self._hear_round(sender, round_)
            case Offer() if isinstance(sender, Device):
                self._hear_offer(message)
            case Body(job, name, index, data):
                self._give_body((job, name, index), data)
            case Verdict() if isinstance(sender, Server):
                self._check_answer(sender, message)
            case Job(job, _, None) if isinstance(sender, Server):
                sender.record.jobs.pop(job, None)
                sender.record.deleted.add(job)
            case Job(job) if isinstance(sender, Server) and job in insides.runs(sender):
                self._job(sender, job, insides.runs(sender)[job].spec)
                if message.last is not None:
                    self._over.add(job)
            case Reply(ok=False) if isinstance(sender, Server):
                self._check_refusal(sender, message)
            case Reply() if isinstance(sender, Server):
                self.bars.answers(sender, message)
            case Quarantine() | Release():
                self.bars.asks(message)

    def _announce(self, server: Server, job: str, version: Version, term: int) -> None:
        self._announced.add((job, version))
        self._terms[job, version] = max(term, self._terms.get((job, version), 0))
        last = insides.last_name_in_store(server, job)
        if last is not None and version > last:
            self.broken(5, "a version is announced that is not durable", f"{server.name} {job}: {version} after {last}")

    def _hear_offer(self, offer: Offer) -> None:
        """Note who asks for a verdict that was written down."""
        update = Update(offer.device, offer.base.number, offer.digest[:SHORT_DIGEST])
        for server in self._world.servers:
            job = server.record.jobs.get(offer.job)
            if job is not None and server.connected and insides.leads(server) and offer.job in insides.runs(server):
                written = job.judged.get((offer.device, offer.base.number))
                if written is not None and written.update == update and insides.knows(server, offer.job, offer.base):
                    self.asked.setdefault((offer.device, offer.job), self._world.agenda.now)

    def _hear_round(self, server: Server, round_: Round) -> None:
        job, left_s = round_.job, round_.seconds_left
        key, set_s = next(
            ((key, set_s) for name, key, set_s in insides.open_rounds(server) if name == job), (None, None)
        )
        known, _ = self._ends.get((server.name, job), (None, 0.0))
        if key is not None and key != known and key[1:] == (round_.base, round_.attempt):
            self._ends[server.name, job] = key, self._world.agenda.now + left_s
            if set_s is None and left_s > LEARNED_CEILING_S + 1.0:
                self.broken(3, "a deadline was learned without end", f"{server.name} {job}: {left_s:.0f} s")

    def _give(self, job: str, version: Version, sha256: str) -> None:
        known = self._given.setdefault((job, version), sha256)
        n = min(len(known), len(sha256))
        if known[:n] != sha256[:n]:
            self.broken(1, "a number was given out twice", f"{job} {version}: {known[:12]} and {sha256[:12]}")
        if len(sha256) > len(known):
            self._given[job, version] = sha256

    def _give_body(self, name: tuple[str, str, int], data: bytes) -> None:
        crc = zlib.crc32(data)
        if self._bodies.setdefault(name, crc) != crc:
            self.broken(1, "the name of a body has other bytes than before", "/".join(map(str, name)))

    def _check_answer(self, server: Server, verdict: Verdict) -> None:
        job = server.record.jobs.get(verdict.job)
        self._was_answered(verdict.device, verdict.job)
        self.asked.pop((verdict.device, verdict.job), None)
        if verdict.job in server.record.deleted:
            return  # whoever has an update to it may forget it
        if job is None:
            if any(verdict.job in other.record.jobs for other in self._world.servers):
                self.broken(5, "a job's update is refused by who does not know the job", f"{server.name}: {verdict}")
            return
        written = job.judged.get((verdict.device, verdict.base.number))
        same = written is not None and written.update == update_of(verdict)
        if verdict.counted and insides.has_scored(server, verdict):
            self.bars.scores(server, verdict)
            return  # of the last version of a job that has ended: no update, and as durable
        if verdict.counted and not (same and written is not None and written.counted):
            self.broken(5, "a verdict is sent that is not durable", f"{server.name}: {verdict}")
        if not (verdict.counted or insides.knows(server, verdict.job, verdict.base)):
            self._check_foreign(server, job, verdict)
        last = job.last.get(verdict.device)
        same_lineage = written is not None and written.generation == verdict.base.generation
        if not verdict.counted and same and same_lineage and last == written and last is not None and last.counted:
            self.broken(5, "another verdict than the first", f"{server.name}: {verdict}")

    def _check_foreign(self, server: Server, job: JobRecord, verdict: Verdict) -> None:
        """Hold it against the laws that an update is refused to a base which the store has never had."""
        current, (_, ended) = insides.version_in_store(server, verdict.job), insides.jobs_in_store(server)[verdict.job]
        if job.spec.rounds.late == "fold" and verdict.base.number < current.number:
            self._foreign.add((verdict.job, verdict.base, update_of(verdict)))
        elif not ended:
            words = f"{server.name} at {current}: {verdict}"
            self.broken(5, "an update is refused by who does not know its base", words)

    def _check_refusal(self, server: Server, reply: Reply) -> None:
        known = {*server.record.jobs, *insides.runs(server), *insides.resting(server)}
        fresh = [job for job, (_, ended) in insides.jobs_in_store(server).items() if job not in known and not ended]
        if fresh:
            self.broken(5, "a submit was refused, and its job is in the store", f"{fresh}: {reply.text}")

    def _was_answered(self, device: str, job: str) -> None:
        self.answered[device, job] = self.made.get(job, 0)

    # Lives.

    def started(self, process: Process) -> None:
        """Hold what a store has after a start against what it was known to hold."""
        if not isinstance(process, Server):
            return
        self._open = {key: since for key, since in self._open.items() if key[0] != process.name}
        self._lost_at.pop(process.name, None)
        self.bars.started(process)
        unsure, process.record.unsure = process.record.unsure, []
        for job, (spec, ended) in insides.jobs_in_store(process).items():
            if ended != "deleted" and job not in process.record.deleted:  # one that rested when it was stopped is both
                self._compare(process, job, self._job(process, job, spec), unsure)

    def _compare(self, server: Server, job: str, record: JobRecord, unsure: Sequence[Verdict | str]) -> None:
        version = insides.version_in_store(server, job)
        for one in unsure:
            if isinstance(one, Verdict) and one.job == job:
                if any(update_of(each) == update_of(one) for each in insides.verdicts_in_store(server, job)):
                    self._add(record, one)
            elif one == job and version.number > record.version.number:
                self._leave(record, job, version, restored=insides.is_again(server, job) is not None)
        if version.number != record.version.number:
            self.broken(1, "a version is not in the store", f"{job}: {record.version}, the store has {version}")
        known = sorted(update.device for update in record.sum)
        try:
            held = insides.sum_in_store(server, job)
        except DamageError as error:  # another was written over it
            self.broken(1, "an update that was counted is damaged", f"{job} {version}: {error}")
            return
        if held != known:
            self.broken(1, "what was counted is not in the store", f"{job} {version}: {known}, the store has {held}")

    def stopped(self, process: Process, error: Exception | None) -> None:
        """Hold the end of a process against the laws."""
        if error is None:
            return
        if process.tasted:
            self.broken(8, "a process ended by a job's fault", f"{process.name}: {type(error).__name__}: {error}")
        now = self._world.agenda.now
        if isinstance(process, Device) and type(error).__name__ == CLONED:
            for server in self._world.servers:
                if server.connected and insides.leads(server) and now >= server.excused_until:
                    self._takeovers.append((now, process.device, f"{server.name} {server.life}"))
        recent = [why for at, why in process.exits if at > now - 3600.0 and FOREIGN not in why]
        if len(recent) > MOST_EXITS_AN_HOUR and not self._is_cloned(process):
            self.broken(8, "a process ends again and again", f"{process.name}, {len(recent)} times: {recent[-1]}")

    def was_killed(self, process: Process, poison: str) -> None:
        """Note that a job's own code has killed a process, as by taking all its memory."""
        self._killed[process.name, poison] += 1
        if self._killed[process.name, poison] > MOST_DEATHS:
            self.broken(8, "a job kills its process again and again", f"{process.name}: {poison}")

    def _is_cloned(self, process: Process) -> bool:
        ids = {clone.device for clone in self._world.clones}
        return isinstance(process, Device) and process.device in ids

    def was_cloned(self, clone: Device, twin: Device | None) -> None:
        """Note that a clone is no more: it should have been named, when the two have taken each other's place often."""
        ends = Counter(by for at, device, by in self._takeovers if at >= clone.since and device == clone.device)
        most = max(ends.values(), default=0)
        if twin is not None and most >= CLONE_ENDS and clone.device not in self.named_clones:
            self.broken(9, "a clone is not named", f"{clone.device}, after {most} takeovers")

    # Now and then.

    def inspect(self) -> None:
        """Look at everybody who runs: rounds that do not end, and what grows."""
        for server in self._world.servers:
            if server.up:
                self._inspect_rounds(server)
                self.bars.inspect(server)
                n_devices = self._world.n_devices + len(self._world.clones)
                if insides.n_assemblies(server) > n_devices * max(1, len(server.record.jobs)):
                    self.broken(7, "assemblies pile up", f"{server.name}: {insides.n_assemblies(server)}")
            self.named_clones.update(insides.named_clones(server))
        for device in self._world.devices:
            most = 6 + 6 * max(1, len(insides.works_on(device))) + 8
            if insides.n_filters(device) > most:
                self.broken(7, "subscriptions pile up", f"{device.name}: {insides.n_filters(device)}")

    def _inspect_rounds(self, server: Server) -> None:
        now = self._world.agenda.now
        fresh = {}
        not_before = max(server.excused_until, self._asked_until.get(server.name, 0.0))
        for job, key, set_s in insides.open_rounds(server):
            what, since = self._open.get((server.name, job), (None, now))
            fresh[server.name, job] = (key, since if what == key else now)
            announced, ends_at = self._ends.get((server.name, job), (None, math.inf))
            if set_s is not None:
                ends_at = fresh[server.name, job][1] + set_s
            elif announced != key:
                continue
            if server.name not in self._lost_at and now > max(ends_at, not_before) + ROUND_SLACK_S:
                self.broken(3, "a round did not end at its deadline", f"{server.name} {job} {key[1]} attempt {key[2]}")
        self._open = {key: one for key, one in self._open.items() if key[0] != server.name} | fresh

    def acted(self, process: Process) -> None:
        """Look at what waits within a service."""
        if isinstance(process, Server):
            self._note_outages(process)
        n, online = insides.n_queued(process), insides.is_online(process)
        if n > MOST_QUEUED["online" if online else "offline"]:
            self.broken(7, "packets pile up", f"{process.name} {online=}: {n}")

    def _note_outages(self, server: Server) -> None:
        """Note when a server that knows of no broker has one again: rounds have stood still meanwhile."""
        now, connection = self._world.agenda.now, insides.connections(server)
        if not insides.knows_a_broker(server):
            self._lost_at.setdefault(server.name, now)
            return
        if self._connection.get(server.name) == (server.life, connection):
            return
        self._connection[server.name] = server.life, connection
        lost_at = self._lost_at.pop(server.name, now)
        self._asked_until[server.name] = now + insides.hint_s(server)
        for known in (self._open, self._ends):
            for key, (round_, at) in known.items():
                if key[0] == server.name:
                    known[key] = round_, at + now - lost_at

    def _job(self, server: Server, job: str, spec: JobSpec) -> JobRecord:
        if job not in server.record.jobs:
            server.record.jobs[job] = JobRecord(spec)
        return server.record.jobs[job]
