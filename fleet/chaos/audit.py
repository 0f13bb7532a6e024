"""What is checked when a run is over: the models, and the books of everybody against each other.

The books are the traces (what each process passed) and the aggregator's store (what it holds to be true).

 identical    every version's SHA-256, that of the model in a device's slot, and the last base that each device is done
              with, are those of the undisturbed run
 retrained    epochs that a device had finished, and trained again for the same base
 lost         updates that are in no version, though they were made durable as counted, or their device was told so, or
              let them go at the next version of a job that waits for all without their having been refused
 duplicated   updates that are in a version twice, or will be: judged twice, settled twice, more than a round had
              members, or counted and yet refused to their device
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from aggregator.store import JobRow, Store
from edge_agent import files
from edge_agent.card import SlotError
from edge_agent.slot import open_slot
from fleet.chaos.fleet import BROKER, Kill
from fleet.chaos.stage import ChaosStage
from fleet.chaos.trace import Line, Trace


class AuditOutcome(Struct, frozen=True):
    """What a run has left behind."""

    sha256: dict[str, list[str]]
    """Compared job to the SHA-256 of each of its versions."""
    settled: dict[str, str]
    """"job/device" to the SHA-256 of what the device remembers of the last base that it is done with."""
    retrained_epochs: int
    lost_updates: int
    duplicated_updates: int
    problems: list[str]
    """Whatever else is not as it should be, in words."""
    served: str = ""
    """SHA-256 of the model that the first device serves in the end."""


class _Update(NamedTuple):
    """One device's update to one base of one job."""

    job: str
    base: tuple[int, int]
    device: str


def audit(stage: ChaosStage, traces: Mapping[str, Trace]) -> AuditOutcome:
    """Look at what a run has left. Nobody of the fleet runs any more. Raises StoreError."""
    devices = {role.name: traces[role.name] for role in stage.devices}
    aggregator = traces[stage.aggregator.name]
    store = Store(stage.aggregator.state)
    try:
        rows = {row.name: row for row in store.jobs()}
        compared = {spec.name: rows[spec.name] for spec in stage.compared}
        counted, crowded = _counted(store, rows.values())
        refused = _refused(store, compared.values())
        versions = {name: [sha256 for _, sha256 in store.versions(row.job)] for name, row in compared.items()}
        problems = [*_ends(rows, versions, stage), *_members(store, compared.values(), stage)]
    finally:
        store.close()
    judged = _judged(aggregator)
    told = {*judged, *_settlements(devices, "agent.Settle.before", "counted")}
    jobs = {row.job for row in compared.values()}
    told |= {one for one in _settlements(devices, "agent.Settle.before", "let go") if one.job in jobs} - refused
    denied = set(_settlements(devices, "agent.Settle.before", "refused")) & counted
    twice = _again(judged) + sum(_settled_again(trace.lines) for trace in devices.values()) + len(denied)
    return AuditOutcome(
        versions,
        {
            f"{name}/{role.name}": _settled(role.state / "jobs" / row.job)
            for name, row in compared.items()
            for role in stage.devices
        },
        sum(_retrained(trace.lines) for trace in devices.values()),
        len(told - counted),
        twice + crowded,
        [*problems, *_slot(stage, rows[stage.steady.name].job, versions[stage.steady.name])],
        _served(stage),
    )


# The aggregator's side.


def _counted(store: Store, rows: Iterable[JobRow]) -> tuple[set[_Update], int]:
    """Return the updates that are in a version or will be, and how many more a version claims than its round
    counted.
    """
    counted: set[_Update] = set()
    crowded = 0
    for row in rows:
        versions = [version for version, _ in store.versions(row.job)]
        for base, metrics in zip(versions, store.history(row.job)[1:], strict=False):
            fates = next(a.fates for a in store.attempts(row.job, base) if a.outcome == "committed")
            members = {name for name, fate in fates.items() if fate.partition(";")[0] == "counted"}
            counted |= {_Update(row.job, (base.generation, base.number), name) for name in members}
            crowded += max(0, round(metrics["participants"]) - len(members))
        last = (versions[-1].generation, versions[-1].number)
        counted |= {_Update(row.job, last, update.device) for update in store.updates(row.job)}
    return counted, crowded


def _refused(store: Store, rows: Iterable[JobRow]) -> set[_Update]:
    """Return the updates that were refused, by the fates of the rounds that have left their bases."""
    return {
        _Update(row.job, (base.generation, base.number), name)
        for row in rows
        for base, _ in store.versions(row.job)
        for attempt in store.attempts(row.job, base)
        for name, fate in attempt.fates.items()
        if fate.startswith("refused")
    }


def _judged(aggregator: Trace) -> list[_Update]:
    """Return the updates that were made durable as counted, as often as that was done."""
    return [_update(line.what) for line in aggregator.at("store.add_verdict.after") if "refused" not in line.what]


def _members(store: Store, rows: Iterable[JobRow], stage: ChaosStage) -> list[str]:
    """Hold every version against the membership, which was to be fixed."""
    n_devices = len(stage.devices) - 1
    history = [metrics for row in rows for metrics in store.history(row.job)[1:]]
    wrong = [f"{m['participants']:g}" for m in history if m["participants"] != n_devices]
    return [f"versions were made of {', '.join(wrong)} updates where all {n_devices} belong"] if wrong else []


def _ends(rows: Mapping[str, JobRow], versions: Mapping[str, Sequence[str]], stage: ChaosStage) -> list[str]:
    """Hold the ends of the jobs against what they were to be."""
    short = [
        f"job {spec.name} is {rows[spec.name].ended or 'not finished'} at version {len(versions[spec.name]) - 1}"
        for spec in stage.compared
        if (rows[spec.name].ended, len(versions[spec.name])) != ("finished", spec.rounds.max_rounds + 1)
    ]
    return short + ([] if rows[stage.loose.name].ended == "stopped" else [f"job {stage.loose.name} was not stopped"])


# The devices' side.


def _settlements(devices: Mapping[str, Trace], point: str, word: str = "") -> list[_Update]:
    """Return the updates with whose end a device came to this point, as often as it did.

    word: how they ended: counted, refused or let go; in any way when not given.
    """
    return [
        _Update(line.what["job"], tuple(line.what["base"]), device)
        for device, trace in devices.items()
        for line in trace.at(point)
        if word in ("", _word(line.what["verdict"]))
    ]


def _settled_again(lines: Iterable[Line]) -> int:
    """Count the updates that one device settled once more after that was on disk: with the next update of their job."""
    settled: dict[str, set[tuple[int, ...]]] = {}
    durable: dict[str, set[tuple[int, ...]]] = {}
    n = 0
    for line in lines:
        if line.point == "agent.Settle.after":
            job, base = line.what["job"], tuple(line.what["base"])
            n += base in durable.get(job, ())
            settled.setdefault(job, set()).add(base)
        elif line.point == "outbox.put.between":
            durable.setdefault(line.what[0], set()).update(settled.get(line.what[0], ()))
    return n


def _word(verdict: Mapping[str, Any] | None) -> str:
    return "let go" if verdict is None else "refused" if "refused" in verdict else "counted"


def _retrained(lines: Sequence[Line]) -> int:
    """Count the epochs that one device finished again."""
    return _again((*line.what[:1], tuple(line.what[1]), line.what[2]) for line in lines if line.point == _EPOCH)


_EPOCH = "training.epoch"


def _settled(folder: Path) -> str:
    """Return the SHA-256 of what a device remembers of the last base that it is done with."""
    return hashlib.sha256(files.unseal(folder / "settled.bin") or b"").hexdigest()


def _slot(stage: ChaosStage, job: str, versions: Sequence[str]) -> list[str]:
    """Hold the model that the first device serves against the last version, or its number where it is a mean."""
    try:
        card = open_slot(stage.slot).card
    except SlotError as error:
        return [str(error)]
    number = len(versions) - 1
    if card is None or (card.release.job, card.release.number) != (job, number):
        return [f"{stage.slot} does not serve the last version"]
    since = card.release.averaged_since
    if (number if since is None else since) != stage.steady.averaged_from(number):
        return [f"{stage.slot} serves the last version, and not as the mean that the job deploys"]
    if since is None and card.release.sha256 != versions[-1]:
        return [f"{stage.slot} serves another model than the last version"]
    return []


def _served(stage: ChaosStage) -> str:
    try:
        card = open_slot(stage.slot).card
    except SlotError:
        return ""
    return "" if card is None else card.release.sha256


def _update(verdict: Mapping[str, Any]) -> _Update:
    return _Update(verdict["job"], tuple(verdict["base"]), verdict["device"])


def _again(events: Iterable[Hashable]) -> int:
    """Count the events that are not the first of their kind."""
    return sum(n - 1 for n in Counter(events).values())


# The kills.


class Recovery(Struct, frozen=True):
    """One row of the table. Seconds; None where nothing was measured."""

    who: str
    kills: int
    at_points: int
    """Of these, the ones at failpoints."""
    work_p50_s: float | None
    """From the restart to the first effect that the process carried out."""
    work_max_s: float | None
    version_p50_s: float | None
    """From the restart to the next version of the steady job."""
    version_max_s: float | None


def recoveries(kills: Sequence[Kill], traces: Mapping[str, Trace], versions_at: Sequence[float]) -> list[Recovery]:
    """Sum up the kills of each process, and of all at the end.

    versions_at: when each version appeared. A broker has no trace: it counts as back at work when anybody receives.
    """
    names = sorted({kill.who for kill in kills})
    rows = [_recovery(name, [kill for kill in kills if kill.who == name], traces, versions_at) for name in names]
    return [*rows, _recovery("all", kills, traces, versions_at)]


def _recovery(who: str, kills: Sequence[Kill], traces: Mapping[str, Trace], versions_at: Sequence[float]) -> Recovery:
    work = [wait for kill in kills if (wait := _wait(kill, _work_of(kill, traces))) is not None]
    version = [wait for kill in kills if (wait := _wait(kill, versions_at)) is not None]
    return Recovery(
        who,
        len(kills),
        sum("." in kill.point for kill in kills),
        *(_quantile(work, 0.5), _quantile(work, 1.0)),
        *(_quantile(version, 0.5), _quantile(version, 1.0)),
    )


def _work_of(kill: Kill, traces: Mapping[str, Trace]) -> list[float]:
    """Return the moments at which a process did something of use."""
    if kill.who == BROKER:
        return sorted(line.at for trace in traces.values() for line in trace.lines if line.point in _HEARD)
    return [line.at for line in traces[kill.who].lines if line.point.startswith(_EFFECTS)]


_EFFECTS = ("aggregator.", "agent.")
_HEARD = ("aggregator.Collect.before", "agent.Settle.before", "agent.FetchVersion.before")
"""Effects that only a message can cause."""


def _wait(kill: Kill, moments: Sequence[float]) -> float | None:
    since = kill.restarted_at
    if since is None:
        return None
    return next((at - since for at in moments if at > since), None)


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(sorted(values)[round(share * (len(values) - 1))], 2) if values else None


def as_json(value: object) -> str:
    """Return a value as JSON for people and scripts."""
    return msgspec.json.format(msgspec.json.encode(value)).decode() + "\n"
