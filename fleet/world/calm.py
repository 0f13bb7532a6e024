"""What a fleet owes when the weather is good: laws 6 and 9, and the rest of 7.

 6. From 30 s after the network is whole: exactly one process answers offers, the beacon that lies at the broker is its
    own and says online; and never are two that are connected at work for longer than 5 s. Who was replaced by one with
    jobs leads again only when an operator says so; where all who are left were replaced, he does.
 7. Nothing is left of jobs that were deleted: on disks, in the store, among subscriptions.
 9. Within PATIENCE_S every job that is not ended has a new version, or says why it waits or rests; every update that
    waited when the sky cleared has its verdict, or its base was left; who asks again for a verdict that was written
    down is answered; who was drawn and is free does something; and nobody who is alive, wanted and able goes without a
    verdict while FAIR versions are made by rounds that draw everybody; and rounds do not go on to wait for who is no
    more. A clone is named.

A job is *owed* a version when enough devices are there that are able: with its data, not gone, neither diverging nor
refused, not in quarantine, fast enough for its deadline. Otherwise it is owed a reason. A device in quarantine is as
good as gone: who waits for all does not wait for it. Who is released, and was refused for the quarantine on the base
that is to be left, is able from the next one on; a job that needs him for this one waits, and so do updates to it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, Protocol

from broker.errors import WireError
from broker.messages import Beacon
from broker.wire import levels
from fleet.world import insides
from fleet.world.agenda import Agenda
from fleet.world.jobs import BATCH
from fleet.world.laws import Laws
from fleet.world.network import WorldBroker
from fleet.world.nodes import WIRE, Device, Server
from fleet.world.record import Update
from models.job import JobSpec

WHOLE_S = 40.0
"""30 s after the network is whole; and what is dead may take ten to come back."""
BOTH_S = 5.0
SLACK_S = 1.0
PATIENCE_S = 900.0
PATIENT_ROUNDS = {"target": 2, "all": 5}
"""Deadlines of rounds on top: who waits for all leaves those behind who were absent from three attempts."""
FAIR, FAIR_S = 3, 60.0
"""Versions, and seconds, that may pass without a verdict for somebody who is drawn each time."""
WAITS = 4
"""Rounds one after the other that may last as long as they can, though all who are there are quick."""
IDLE_S = 12.0
"""Who was drawn and is free begins within this; a fetch that failed is tried again after ten seconds."""
ANSWER_S = 10.0
"""Who asks again is answered within this."""
FILES, FILES_A_JOB = 6, 6
"""What a device may have on its disk."""
RESTS_S = 120.0
"""A job that is owed no version is given so long until it says why."""


class World(Protocol):
    """What is looked at."""

    agenda: Agenda
    broker: WorldBroker
    laws: Laws
    servers: list[Server]
    devices: list[Device]
    clones: list[Device]


def bodies_at(broker: WorldBroker) -> set[tuple[str, str]]:
    """Return the bodies that lie at the broker: job and name."""
    lying = (levels(packet.topic) for packet in broker.lying(WIRE.filter_for("body")))
    return {(job, name) for _, job, name, _ in lying}


class Leadership:
    """Law 6, whenever somebody looks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._both_since: float | None = None
        self._nobody_since: float | None = None
        self._beacon_since: float | None = None

    def inspect(self, whole_since: float | None) -> None:
        """Look at who leads. whole_since: when the network became whole; None while it is not."""
        world, now = self._world, self._world.agenda.now
        leading = [server for server in world.servers if server.connected and insides.leads(server)]
        for server in leading:
            if server.record.replaced:
                world.laws.broken(6, "a replaced aggregator leads by itself", server.name)
        for server in world.servers:
            server.record.replaced |= insides.was_replaced(server)
        slow = any(now < server.excused_until for server in world.servers)
        self._both_since = (self._both_since or now) if len(leading) > 1 and not slow else None
        if self._both_since is not None and now > self._both_since + BOTH_S + SLACK_S:
            world.laws.broken(6, "two aggregators lead", ", ".join(server.name for server in leading))
        if whole_since is None or now < whole_since + WHOLE_S:
            self._nobody_since = self._beacon_since = None
            return
        self._nobody_since = None if leading else self._nobody_since or now
        if self._nobody_since is not None and now > self._nobody_since + BOTH_S + SLACK_S:
            up = [server.name for server in world.servers if server.up]
            world.laws.broken(6, "nobody leads", f"up: {up}")
        good = len(leading) == 1 and _beacon_of(world.broker) == (insides.nonce(leading[0]), True)
        self._beacon_since = None if good or len(leading) != 1 else self._beacon_since or now
        if self._beacon_since is not None and now > self._beacon_since + BOTH_S + SLACK_S:
            words = f"{_beacon_of(world.broker)}, {leading[0].name} leads"
            world.laws.broken(6, "the beacon at the broker is not the leader's", words)


def _beacon_of(broker: WorldBroker) -> tuple[str, bool] | None:
    packet = broker.retained(WIRE.filter_for("aggregator"))
    if packet is None:
        return None
    try:
        message = WIRE.unpack(packet)
    except WireError:
        return None
    return (message.nonce, message.online) if isinstance(message, Beacon) else None


class _Job(NamedTuple):
    job: str
    spec: JobSpec
    owed: bool
    fair: bool
    """Whether every device is drawn in every round."""
    held_up: bool
    """Whether it is owed nothing, and devices were refused for a quarantine on the base that is to be left."""


class Recovery:
    """Law 9, from the moment when the sky clears. versions: how many each job is to make before it is believed."""

    def __init__(self, world: World, versions: int) -> None:
        self._world = world
        self._versions = versions
        self._since = world.agenda.now
        self._made = dict(world.laws.made)
        self._held = {device.name: insides.held(device) for device in world.devices}
        self._there: dict[tuple[str, str], tuple[int, float]] = {}
        """(device, job) to how many versions there were when the device was back, and when that was."""
        self._idle: dict[tuple[str, str], float] = {}
        world.laws.asked.clear()  # what was asked before may have been lost

    @property
    def until(self) -> float:
        """When patience ends."""
        rounds_s = [PATIENT_ROUNDS[job.spec.rounds.wait] * _deadline_s(job.spec) for job in self._jobs()]
        return self._since + PATIENCE_S + max(rounds_s, default=0.0)

    def done(self) -> bool:
        """Return whether the fleet has done what it owes."""
        now = self._world.agenda.now
        if self._leader() is None or now < self._since + WHOLE_S + 10.0:
            return False
        if self._waiting_updates():
            return False
        return all(self._is_well(job, now) for job in self._jobs())

    def inspect(self) -> None:
        """Look at who should be doing something."""
        now = self._world.agenda.now
        fresh = {}
        for device in self._world.devices:
            for job in insides.idle_though_drawn(device) if device.connected else []:
                since = fresh[device.name, job] = self._idle.get((device.name, job), now)
                if now > since + IDLE_S and now > self._since + WHOLE_S:
                    self._world.laws.broken(9, "a device idles though it is drawn", f"{device.name} {job}")
        self._idle = fresh
        self._check_answers(now)
        for one in self._jobs():
            if one.owed and one.fair:
                self._check_fair(one)
            if one.owed and one.spec.rounds.wait == "target":
                self._check_pace(one)

    def _check_answers(self, now: float) -> None:
        leader = self._leader()
        for (device, job), asked_at in self._world.laws.asked.items():
            if leader is None or job not in insides.runs(leader) or now < self._since + WHOLE_S:
                continue
            if now > max(asked_at, leader.excused_until) + ANSWER_S:
                self._world.laws.broken(9, "who asks again is not answered", f"{device} {job}, since {asked_at:.1f}")

    def judge(self) -> None:
        """Return what is still owed."""
        broken, now = self._world.laws.broken, self._world.agenda.now
        leader = self._leader()
        if leader is None:
            return  # law 6 has said so
        for name, update in self._waiting_updates():
            broken(9, "an update comes to no end", f"{name}: {update}")
        for job in self._jobs():
            if not self._is_well(job, now):
                why = insides.reason(leader, job.job)
                state = "rests" if job.job in insides.resting(leader) else "waits"
                if job.owed:
                    able = [device.name for device in self._able(job.spec)]
                    words = f"{job.job} {state} ({why or 'without a reason'}); able: {able}; {job.spec.rounds}"
                    broken(9, "a job makes no version", words)
                else:
                    broken(9, "a job waits without a reason", f"{job.job} {state}")

    def tidy(self) -> None:
        """Return what is still there of jobs that are no more."""
        leader = self._leader()
        if leader is None or self._world.agenda.now < self._since + WHOLE_S:
            return
        known = {job for job, (_, ended) in insides.jobs_in_store(leader).items() if ended != "deleted"}
        gone = set.union(set(), *(server.record.deleted for server in self._world.servers)) - known
        broken = self._world.laws.broken
        for device in self._world.devices:
            if device.connected and (left := gone & set(insides.job_folders(device))):
                broken(7, "a deleted job is still on a disk", f"{device.name}: {sorted(left)}")
            if device.connected and (n := device.disk.n_files()) > FILES + FILES_A_JOB * len(
                insides.job_folders(device)
            ):
                broken(7, "files pile up", f"{device.name}: {n}")
            if device.connected and (left := gone & insides.jobs_listened_to(device)):
                broken(7, "a deleted job is still listened to", f"{device.name}: {sorted(left)}")
        if n := insides.rows_of_deleted_jobs(leader):
            broken(7, "a deleted job still has rows in the store", f"{n} rows")
        # What belongs to a lineage that was lost, nobody knows of any more.
        ours = known | set(insides.deleted(leader))
        moved = len(self._world.servers) > 1 or any(
            insides.version_in_store(leader, job).generation > 1 for job in known
        )
        lying = {(job, name) for job, name in bodies_at(self._world.broker) if job in ours and name.startswith("1-")}
        if not moved and (astray := lying - insides.bodies_in_store(leader)):
            broken(7, "bodies that no store knows lie at the broker", f"{sorted(astray)}")

    def _leader(self) -> Server | None:
        leading = [server for server in self._world.servers if server.connected and insides.leads(server)]
        return leading[0] if len(leading) == 1 else None

    def _jobs(self) -> list[_Job]:
        """Return the jobs that are not over, as the leader's store has them."""
        leader = self._leader()
        if leader is None:
            return []
        jobs = insides.jobs_in_store(leader)
        return [self._look_at(job, spec) for job, (spec, ended) in jobs.items() if not ended]

    def _look_at(self, job: str, spec: JobSpec) -> _Job:
        rules, able = spec.rounds, self._able(spec)
        leader = self._leader()
        base = insides.version_in_store(leader, job) if leader is not None else None
        spent = insides.refused_for_quarantine(leader, job) if leader is not None and leader.record.barring else set()
        helping = [
            device
            for device in able
            if device.device not in spent and (base is None or insides.failed_on(device, job) != base)
        ]
        owed = len(able) >= (rules.min_devices or 1) and not spec.model.options.get("poison")
        owed = owed and len(helping) >= rules.quorum
        if rules.wait == "all" and any(not self._is_able(device, spec) for device in self._wanted()):
            owed = False  # it may wait for who is there and cannot
        return _Job(job, spec, owed, rules.fraction == 1.0 and rules.target is None, bool(spent) and not owed)

    def _able(self, spec: JobSpec) -> list[Device]:
        return [device for device in self._wanted() if self._is_able(device, spec)]

    def _wanted(self) -> list[Device]:
        """Return the devices that are not in quarantine."""
        leader = self._leader()
        barred = set() if leader is None else leader.record.barred.keys() | leader.record.unsure_barred
        return [device for device in self._world.devices if device.device not in barred]

    def _is_able(self, device: Device, spec: JobSpec) -> bool:
        rows = device.rows.get(spec.data_name)
        if rows is None or device.diverges > 1 or device.lies:
            return False
        batches = spec.train.epochs * -(-len(rows.y) // BATCH)
        n_jobs = max(1, len(insides.works_on(device)))  # it trains for one job after the other
        return n_jobs * batches * device.step_s < _deadline_s(spec) / 2

    def _is_well(self, job: _Job, now: float) -> bool:
        leader = self._leader()
        if leader is None:
            return False
        if job.owed:
            return self._since_calm(job.job) >= self._versions
        quiet = now > self._since + RESTS_S
        return bool(self._since_calm(job.job)) or (quiet and bool(insides.reason(leader, job.job)))

    def _since_calm(self, job: str) -> int:
        return self._world.laws.made.get(job, 0) - self._made.get(job, 0)

    def _waiting_updates(self) -> list[tuple[str, Update]]:
        """Return the updates that waited when the sky cleared and still do, of jobs that the leader knows."""
        leader = self._leader()
        known = insides.jobs_in_store(leader) if leader is not None else {}
        held_up = {job.job for job in self._jobs() if job.held_up}
        still = []
        for device in self._world.devices:
            now = insides.held(device)
            for job, update in self._held.get(device.name, {}).items():
                if job in known and job not in held_up and now.get(job) == update:
                    still.append((device.name, update))
        return still

    def _check_pace(self, job: _Job) -> None:
        """See whether rounds go on to wait their whole deadline for somebody who is no more."""
        if len(self._able(job.spec)) < len(self._wanted()):
            return
        made_at = [at for at in self._world.laws.made_at.get(job.job, []) if at > self._since + WHOLE_S]
        gaps = [after - before for before, after in pairwise(made_at)]
        if len(gaps) >= WAITS and min(gaps[-WAITS:]) > 0.9 * _deadline_s(job.spec):
            self._world.laws.broken(9, "rounds wait for who is gone", f"{job.job}: {gaps[-WAITS:]}")

    def _check_fair(self, job: _Job) -> None:
        made, able = self._world.laws.made.get(job.job, 0), self._able(job.spec)
        for device in self._world.devices:
            if device not in able:
                self._there.pop((device.name, job.job), None)
        for device in able:
            if not device.connected or self._world.agenda.now < self._since + WHOLE_S:
                self._there.pop((device.name, job.job), None)
                continue
            there, since_s = self._there.setdefault((device.name, job.job), (made + 1, self._world.agenda.now))
            since = max(there, self._world.laws.answered.get((device.device, job.job), 0))
            # Late updates count towards the target: who is slower than the others may have to begin anew.
            outrun = job.spec.rounds.max_staleness if job.spec.rounds.late == "fold" else 0
            if made > since + FAIR * (1 + outrun) and self._world.agenda.now > since_s + FAIR_S:
                words = f"{device.name}: {made - since} versions of {job.job} without a verdict"
                self._world.laws.broken(9, "a device is starved", words)


def _deadline_s(spec: JobSpec) -> float:
    set_s = spec.rounds.deadline_s
    return 3600.0 if set_s == "learned" else float(set_s)
