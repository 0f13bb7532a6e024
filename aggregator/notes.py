"""What an operator should know of a job, from all that is known here: what it waits for, what will not come, alarms."""

from __future__ import annotations

from msgspec import structs

from aggregator import evaluation, streaks, waits
from aggregator.roster import Known, Roster
from aggregator.run import Run
from aggregator.waits import Waits
from models.measures import table as measures


def waits_of(run: Run, roster: Roster, now: float) -> Waits:
    """Return what a job waits for; where no device takes part, why."""
    wait = waits.of(run.coordinator, now)
    if now < run.loaded_at + run.coordinator.members.hint_s:
        return wait  # who has not said anything of it may do so yet
    if wait.text and run.coordinator.attempt is None and not len(run.coordinator.members):
        return structs.replace(wait, text=_nobody(run, roster))
    return wait


def of(run: Run) -> list[str]:
    """Return what will never come of a job as it is set up, and what is wrong with its current version."""
    stop = run.spec.rounds.stop
    told = [run.alarm] if run.alarm else []
    if run.no_better:
        told.append(f"version {run.version} is {run.no_better}")
    elif run.version.number and (unseen := _never_found(run)):
        told.append(f"version {run.version} finds no row of {unseen}")
    told += _refused_again_and_again(run)
    if not stop.is_set:
        return told
    measured = any(stop.metric in metrics for metrics in run.coordinator.history)
    if not evaluation.is_measured(run.spec, has_test=run.has_test):
        told.append(
            f"nobody measures {stop.metric}: there is no [tests.{run.spec.data_name}] in aggregator.toml, so its stop "
            f"rule never holds and it goes on to max_rounds = {run.spec.rounds.max_rounds}"
        )
    elif run.version.number > evaluation.is_by_devices(run.spec, has_test=run.has_test) and not measured:
        alone = (
            ""
            if stop.metric != "loss" or run.has_test or run.metrics.get("participants", 0.0) > 1
            else " (one device's own word is not enough)"
        )
        told.append(f"nobody measures {stop.metric}{alone}: its stop rule never holds")
    return told


def _never_found(run: Run) -> str:
    """Return the classes of the test split of which not one row is found, as words; empty where there are none."""
    classes = [
        measures.split(name)[1] for name, value in run.metrics.items() if not value and name.startswith("recall:")
    ]
    return _some([f"'{of}'" for of in classes])


def _some(names: list[str]) -> str:
    more = f" and {len(names) - waits.NAMED} more" if len(names) > waits.NAMED else ""
    return ", ".join(names[: waits.NAMED]) + more


def _refused_again_and_again(run: Run) -> list[str]:
    found = list(streaks.named(run.streaks).items())
    if not found:
        return []
    names = _some([f"{device} ({n} times)" for device, n in found])
    return [f"refused {streaks.MANY} times in a row or more: {names}: see fedge round explain"]


def at_submit(run: Run, roster: Roster) -> list[str]:
    """Return what can be said of a job as soon as it is there."""
    told = of(run)
    there = _there(roster)
    labels = run.spec.rounds.labels.items()
    fitting = [known for known in there if labels <= known.presence.labels.items()]
    needed = run.coordinator.rounds.needed
    if labels and not fitting:
        told.append(f"none of the {len(there)} devices that are there has the labels {dict(labels)}")
    elif len(fitting) < needed:
        told.append(f"a round needs {needed} devices, and {len(fitting)} are there")
    return told


def _nobody(run: Run, roster: Roster) -> str:
    there = _there(roster)
    if not there:
        return "no device is there"
    labels = run.spec.rounds.labels
    wanted = f"[data.{run.spec.data_name}] in its agent.toml" + (f" and the labels {dict(labels)}" if labels else "")
    return f"none of the {len(there)} devices that are there has {wanted}"


def _there(roster: Roster) -> list[Known]:
    return [known for known in roster.devices.values() if known.presence.online]
