"""What the laws of a made-up world ask of its running services and of their stores.

The one file that knows their insides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from aggregator import generations, notes, restoring
from aggregator.coordinator import COMMITTING, Coordinator
from aggregator.database import DamageError
from aggregator.effects import Attempt
from aggregator.intake import Counted
from aggregator.learner import Learner
from aggregator.refusals import BARRED
from aggregator.run import Run
from aggregator.standing import HINT_MARGIN_S
from broker import chunks
from broker.messages import Verdict, Version
from broker.wire import levels
from edge_agent.home import _read_mark
from edge_agent.work import Work
from fleet.world.nodes import Device, Server
from fleet.world.process import Process
from fleet.world.record import SHORT_DIGEST, Update
from models import draw, sections
from models.job import JobSpec
from models.nets import table as nets

# What can be asked of a running aggregator.


def leads(server: Server) -> bool:
    """Return whether it believes that it leads: it answers offers."""
    service = server.service
    return service is not None and service.leads and service._out.online and math.isinf(service._settled_at)


def stands_by_for_good(server: Server) -> bool:
    """Return whether it has been replaced, and leads no more until an operator says so."""
    return server.service is not None and server.service.leadership.stays


def was_replaced(server: Server) -> bool:
    """Return whether it stands by because one with jobs leads in its place."""
    leadership = server.service.leadership if server.service is not None else None
    return leadership is not None and leadership.state == "standby" and leadership.me.replaced != ""


def doing(process: Server | Device) -> str:
    """Return what a process says of itself and of its jobs, for people."""
    if process.service is None:
        return "is down"
    if isinstance(process, Server):
        jobs = [f"{job} at {run.version}: {reason(process, job)}" for job, run in runs(process).items()]
    else:
        parts = {job: work.participant for job, work in process.service.works.items()}
        jobs = [f"{job}: done with {part.done}, knows {part.announced.latest()}" for job, part in parts.items()]
        jobs += [f"{job}: {why}" for job, why in process.service.jobs.unready.items()]
    return f"({process.service.doing}; {'; '.join(jobs)})"


def nonce(server: Server) -> str:
    """Return the nonce of its beacon."""
    return server.service.nonce if server.service is not None else ""


def runs(server: Server) -> dict[str, Run]:
    """Return the jobs that it runs."""
    return server.service.runs if server.service is not None else {}


def resting(server: Server) -> set[str]:
    """Return the jobs of its store that it does not run now, and has not deleted."""
    return set(server.service.resting) if server.service is not None else set()


def rest_for_deaths(servers: Iterable[Server]) -> set[str]:
    """Return the jobs that rest since processes died while they were at it, but for those whose own code kills."""
    found = set()
    for server in servers:
        rests = server.service.resting if server.service is not None else {}
        specs = jobs_in_store(server) if rests else {}
        deadly = {job for job, (spec, _) in specs.items() if spec.model.options.get("poison")}
        found |= {job for job, rest in rests.items() if DEATHS in rest.why} - deadly
    return found


def reason(server: Server, job: str) -> str:
    """Return why a job waits or rests, as an operator can read it; "" where nothing says it."""
    service = server.service
    if service is None:
        return ""
    if job in service.resting:
        return service.resting[job].why
    run = service.runs.get(job)
    return "" if run is None else notes.waits_of(run, service.roster, service.clock()).text


def knows_a_broker(server: Server) -> bool:
    """Return whether the service holds its connection for a live one."""
    return server.service is not None and server.service._out.online


def connections(server: Server) -> int:
    """Return how often the service has been connected."""
    return server.service._roll if server.service is not None else 0


def hint_s(server: Server) -> float:
    """Return how long devices may take to answer its roll call."""
    return HINT_MARGIN_S + (server.service.config.limits.spread_s if server.service is not None else 0.0)


def open_rounds(server: Server) -> list[tuple[str, tuple[Coordinator, Version, int], float | None]]:
    """Return the open rounds: job, what tells one round of one run from another, and the deadline that the job sets."""
    found = []
    for job, run in runs(server).items():
        attempt = run.coordinator.attempt
        if attempt is not None:
            set_ = run.spec.rounds.deadline_s
            key = (run.coordinator, attempt.base, attempt.number)
            found.append((job, key, None if set_ == "learned" else float(set_)))
    return found


def committing(server: Server) -> list[str]:
    """Return the jobs whose sum is being turned into a version now."""
    return [job for job, run in runs(server).items() if run.coordinator._state is COMMITTING]


def expected_sha256(server: Server, job: str) -> str:
    """Return the version that a start from the store would make of what is counted there."""
    run, store = runs(server)[job], server.store
    assert store is not None  # noqa: S101 -- a running server has one
    last = store.last_version(job)
    version, net = last.version, nets.of_job(run.spec)
    learner = Learner(*(net, run.spec, last.state, version.number, last.sha256), steps=last.steps, record=last.record)
    for update in store.updates(job):
        number = None if update.number == version.number else update.number
        learner.restore(update.body, Counted(update.weight, update.norm, update.report, number, update.device))
    return learner.next().sha256


def n_participants(server: Server, job: str) -> int:
    """Return how many updates the last version of a job says that it was made of."""
    return int(server.store.history(job)[-1].get("participants", 0)) if server.store is not None else 0


def is_again(server: Server, job: str) -> int | None:
    """Return the number of the version that the last one of a job is again; None where it is one of its own."""
    return restoring.is_again(server.store.history(job)) if server.store is not None else None


def sha256_in_store(server: Server, job: str, number: int) -> str | None:
    """Return what the version of this number goes by."""
    found = server.store.versions(job) if server.store is not None else []
    return next((sha256 for version, sha256 in found if version.number == number), None)


def has_scored(server: Server, verdict: Verdict) -> bool:
    """Return whether a verdict is on what its device says of a version, and that is durable."""
    if server.store is None:
        return False
    said = server.store.evaluations(verdict.job, verdict.base, verdict.device)
    bodies = (sections.join({sections.EVALUATION: one.content}) for one in said)
    return any(chunks.digest(body, len(verdict.digest)) == verdict.digest for body in bodies)


def sum_in_store(server: Server, job: str) -> list[str]:
    """Return the devices whose updates are in the sum that will make the next version, once for each update."""
    return sorted(update.device for update in server.store.updates(job)) if server.store is not None else []


def version_in_store(server: Server, job: str) -> Version:
    """Return the last version of a job."""
    assert server.store is not None  # noqa: S101 -- a running server has one
    return server.store.last_version(job).version


def last_name_in_store(server: Server, job: str) -> Version | None:
    """Return the name of the last version of a job, read on the quick; None where there is no such job."""
    try:
        return generations.current(server.store._db, job) if server.store is not None else None
    except DamageError:
        return None


def are_one(server: Server, job: str, one: Version, other: Version) -> bool:
    """Return whether two names are of one version, as a store has renamed it."""
    renames = server.store.renames(job) if server.store is not None else {}
    return renames.get(one, one) == renames.get(other, other)


def knows(server: Server, job: str, version: Version) -> bool:
    """Return whether a store has had a version of this name, or is alone in giving out names of its generation."""
    current = last_name_in_store(server, job)
    if server.store is None or current is None:
        return False
    names = [name for pair in server.store.renames(job).items() for name in pair]
    former = any(name.generation == version.generation and name.number >= version.number for name in names)
    return former or version.generation == current.generation


def verdicts_in_store(server: Server, job: str) -> list[Verdict]:
    """Return the last verdict of every device."""
    return server.store.verdicts(job) if server.store is not None else []


def jobs_in_store(server: Server) -> dict[str, tuple[JobSpec, str]]:
    """Return every job there is, with how it ended."""
    rows = server.store.jobs() if server.store is not None else []
    return {row.job: (row.spec, row.ended) for row in rows if row.spec is not None}


def rows_of_deleted_jobs(server: Server) -> int:
    """Count what the store still holds of jobs that were deleted, beside that there was such a job."""
    store = server.store
    if store is None:
        return 0
    return sum(len(store.verdicts(job)) + len(store.bodies(job)) for job in deleted(server))


def deleted(server: Server) -> list[str]:
    """Return the jobs that the store knows to be deleted."""
    return server.store.deleted(1000) if server.store is not None else []


def bodies_in_store(server: Server) -> set[tuple[str, str]]:
    """Return the bodies that its store knows of: those that should lie at the broker, and those that still may."""
    store = server.store
    if store is None:
        return set()
    named = {(job, row.name) for job in jobs_in_store(server) for row in store.bodies(job)}
    return named | {(row.job, row.name) for row in store.litter()}


def is_online(process: Process) -> bool:
    """Return whether a process is connected, or has not been told yet that it is not."""
    service = process.service if isinstance(process, Server | Device) else None
    told = service is not None and service._out.online
    return told or (process.transport is not None and process.transport.online)


def n_queued(process: Process) -> int:
    """Return how many packets wait within a service, not yet taken by its transport."""
    service = process.service if isinstance(process, Server | Device) else None
    return len(service._out) if service is not None else 0


DEATHS = "processes running have died"
"""Of the reason why a job rests."""


def quarantined(server: Server) -> set[str]:
    """Return the devices in quarantine that it goes by."""
    return set(server.service.roster.quarantined) if server.service is not None else set()


def quarantined_in_store(server: Server) -> dict[str, str]:
    """Return the devices in quarantine, and why."""
    return server.store.quarantined() if server.store is not None else {}


def refused_for_quarantine(server: Server, job: str) -> set[str]:
    """Return the devices whose updates to the current version were refused for that: they are in with the next one."""
    base = version_in_store(server, job)
    return {one.device for one in verdicts_in_store(server, job) if one.base == base and one.refused.startswith(BARRED)}


def awaited(server: Server) -> dict[str, set[str]]:
    """Return the devices that open rounds wait for, by job."""
    return {job: run.coordinator.awaited for job, run in runs(server).items() if run.coordinator.attempt is not None}


def counted_in(server: Server, attempt: Attempt) -> set[str]:
    """Return the devices that have contributed to leave the base of the last attempt of a job."""
    cores = (run.coordinator for run in runs(server).values())
    return next((core.ledger.counted for core in cores if core.rounds.last is attempt), set())


def scored_by(server: Server, device: str) -> set[tuple[str, Version]]:
    """Return the jobs of whose last version a device has said how good it is, with that version."""
    store = server.store
    if store is None:
        return set()
    last = {(job, version_in_store(server, job)) for job, (_, ended) in jobs_in_store(server).items() if ended}
    return {(job, version) for job, version in last if store.evaluations(job, version, device)}


def n_assemblies(server: Server) -> int:
    """Return how many updates are being put together from chunks."""
    return len(server.service.jobs.inbox._waiting) if server.service is not None else 0


def named_clones(server: Server) -> list[str]:
    """Return the ids of which the operator was told that two devices share them."""
    known = server.service.roster.devices if server.service is not None else {}
    return [device for device, one in known.items() if one.alarm]


# What can be asked of a running agent.


def held(device: Device) -> dict[str, Update]:
    """Return the updates that are offered, by job."""
    works = device.service.works if device.service is not None else {}
    offers = {job: one.participant.offer for job, one in works.items()}
    return {job: Update(o.device, o.base.number, o.digest[:SHORT_DIGEST]) for job, o in offers.items() if o is not None}


def offered(device: Device, job: str) -> Update | None:
    """Return the update of a job that is on the disk to be offered."""
    one = device.service.works.get(job) if device.service is not None else None
    offer = one._outbox.offer if one is not None else None
    return None if offer is None else Update(offer.device, offer.base.number, offer.digest[:SHORT_DIGEST])


def folds_late(device: Device, job: str) -> bool:
    """Return whether a job folds late updates, as a device knows it."""
    one = device.service.works.get(job) if device.service is not None else None
    return one is not None and one.spec.rounds.late == "fold"


def idle_though_drawn(device: Device) -> list[str]:
    """Return the jobs whose live round has drawn this device, and on which it does nothing."""
    service = device.service
    if service is None:
        return []
    now = device.clock()
    return [job for job, one in service.works.items() if _should_train(one, now) and not one.participant.doing]


def _should_train(one: Work, now: float) -> bool:
    core, told = one.participant, one.participant.announced
    round_, trained = told.round, core.trained
    return (
        round_ is not None
        and not core.why
        and told.over is None
        and now + 1.0 < told.round_ends_at
        and draw.ticket(draw.salt(one.spec.seed, round_.base.number), core.device) <= round_.threshold
        and (trained is None or trained < round_.base)
        and core.device not in round_.settled
        and round_.base >= (told.latest() or round_.base)
    )


def failed_on(device: Device, job: str) -> Version | None:
    """Return the base on which the last training of a job failed here; it need not be tried again."""
    one = device.service.works.get(job) if device.service is not None else None
    return one.participant.trained if one is not None and one.failure else None


def owner(device: Device) -> str:
    """Return the device that a state directory is marked with; "" where there is no mark."""
    mark = _read_mark(device.disk.folder)
    return mark.device if mark is not None else ""


def job_folders(device: Device) -> list[str]:
    """Return the jobs of which something is on a device's disk."""
    folder = device.disk.folder / "jobs"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def works_on(device: Device) -> list[str]:
    """Return the jobs that a device takes part in."""
    return list(device.service.works) if device.service is not None else []


def n_filters(process: Process) -> int:
    """Return how many topics a process listens to."""
    return len(process.transport.filters) if process.transport is not None else 0


OF_A_JOB = ("head", "round", "body")
"""Words of the topics that a device listens to for one job."""


def jobs_listened_to(process: Process) -> set[str]:
    """Return the jobs that a process's subscriptions name."""
    filters = process.transport.filters if process.transport is not None else []
    found = (levels(name) for name in filters)
    return {job for word, job, *_ in (level for level in found if len(level) > 1) if word in OF_A_JOB and job != "+"}
