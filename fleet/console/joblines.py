"""How a job has gone, as small curves behind `fedge job show`, and as it goes on with --follow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec
from msgspec import structs

from fleet.console import by_devices, int8, metrics, operator, scores
from fleet.console.display import duration
from fleet.console.ink import cell
from fleet.console.metrics import VersionLine
from fleet.console.screen import QUIT, Screen
from fleet.console.sparks import BLOCKS, can_show, sparkline
from fleet.console.watching import is_terminal
from fleet.local.processes import interruptible
from models.measures import table as measures

log = logging.getLogger(__name__)

WIDTH = 32
"""Bars of one curve."""
FOLLOW_S = 2.0
ENDED = ("finished", "stopped")
T = TypeVar("T")


def curves(lines: Sequence[VersionLine], *, blocks: bool) -> list[str]:
    """Return a line for each measure that a person is shown: its curve, where it stands, and its best version."""
    found = []
    for name in metrics.shortlist(lines):
        known = [(line.version, line.metrics[name]) for line in lines if name in line.metrics]
        bars = sparkline([value for _, value in known], WIDTH, blocks=blocks)
        told = f"{name:<18} {bars:<{WIDTH}} {known[0][1]:.4g} to {known[-1][1]:.4g}"
        if measures.split(name)[0] in measures.MEASURES:
            pick: Callable[..., tuple[str, float]] = max if measures.is_high(name) else min
            version, value = pick(known, key=lambda each: each[1])
            told += f", best {value:.4g} at {version}"
        found.append(told)
    return found


def waits(line: operator.JobLine) -> list[str]:
    """Return what a job waits for, what would end that, and what there is to note of it, in lines."""
    said = (
        ("over: ", line.reason if not line.waits_for else ""),
        ("waits for: ", line.waits_for),
        ("ended by: ", line.ends),
        *(("note: ", note) for note in line.notes),
    )
    return [f"    {what}{text}" for what, text in said if text]


def described(details: operator.JobDetails, versions: Sequence[VersionLine]) -> list[str]:
    """Return all of a job in lines. versions: its own, in order."""
    line = details.job
    lines = [
        f"{line.name}  {line.job}",
        f"    {line.state} at version {line.version}, {line.devices_ready} devices ready",
    ]
    lines += waits(line)
    lines += [f"    {text}" for text in curves(versions, blocks=can_show(BLOCKS))]
    lines += [f"    {text}" for text in (scores.lines(details.scores) if details.scores is not None else ())]
    lines += [f"    {text}" for text in (*by_devices.lines(details.federated), *int8.lines(details.int8))]
    lines.append(f"{'DEVICE':<24} {'STATE':<10} {'EXAMPLES':<9} WHY")
    for device in details.devices:
        since = "" if device.since_s is None else f"for {duration(device.since_s)}"
        why = "; ".join(filter(None, (since, device.why, device.trouble, device.alarm)))
        lines.append(f"{device.device:<24} {device.state:<10} {device.examples or '-':<9} {why}")
    return lines


class Followed:
    """A job that is asked after again and again: the one that had the name at first, whichever has it later.

    While the broker or the aggregator is away, it waits. away: why nothing was answered last, "" where it was. tell: is
    told so once.
    """

    def __init__(
        self, config: operator.OperatorConfig, name: str, tell: Callable[[str], None] = lambda _why: None
    ) -> None:
        self._config, self._name, self._tell = config, name, tell
        self.details = operator.show(config, name)
        """As it was answered last."""
        self.away = ""

    def look(self) -> operator.JobDetails:
        """Return it as it is now, or was last while nobody answers. Raises OperatorError where it is there no more."""
        found = self._ask(operator.show)
        self.details = self.details if found is None else found
        return self.details

    def versions(self) -> list[VersionLine] | None:
        """Return its versions; None while nobody answers. Raises OperatorError where it is there no more."""
        return self._ask(metrics.versions)

    def _ask(self, what: Callable[[operator.OperatorConfig, str], T]) -> T | None:
        job = self.details.job.job
        try:
            found = what(self._config, job)
        except operator.UnansweredError as error:
            if not self.away:
                self._tell(str(error))
            self.away = str(error)
            return None
        except operator.RefusedError as error:
            why = f"{job} was deleted, or replaced by another job {self._name}: fedge job list --all"
            raise operator.OperatorError(f"{why} ({error})") from error
        self.away = ""
        return found


def follow(config: operator.OperatorConfig, name: str) -> Iterator[str]:
    """Show a job until it has ended, or q or Ctrl-C: over and over on a terminal; else give a line for each version.

    Raises OperatorError where it is not, or no longer, there.
    """
    if not is_terminal():
        yield from _versions(config, name)
        return
    job, key = Followed(config, name), ""
    versions = job.versions() or []
    with interruptible(), Screen() as screen:
        try:
            while key not in QUIT:
                foot = f"{time.strftime('%H:%M:%S')}  q ends this{job.away and f'  waiting: {job.away}'}"
                lines = [*described(job.details, versions), "", foot]
                columns, rows = screen.size
                screen.draw([cell(line, columns, pad=False) for line in lines[:rows]])
                key = screen.key(FOLLOW_S)
                job.look()
                if not job.away:
                    versions = job.versions() or versions
        except KeyboardInterrupt:
            return


def follow_as_json(config: operator.OperatorConfig, name: str) -> Iterator[str]:
    """Give all of a job as a line of JSON, and again where it has changed, until it has ended.

    Raises OperatorError where it is not, or no longer, there.
    """
    told, job = None, Followed(config, name, _warn)
    while True:
        details = job.details
        aging = [structs.replace(device, since_s=None) for device in details.devices]  # seconds are no change
        if (now := structs.replace(details, devices=aging)) != told:
            told = now
            yield msgspec.json.encode(details).decode()
        if details.job.state in ENDED:
            return
        time.sleep(FOLLOW_S)
        job.look()


def _versions(config: operator.OperatorConfig, name: str) -> Iterator[str]:
    told, job = 0, Followed(config, name, _warn)
    while True:
        ended, lines = job.details.job.state in ENDED, job.versions()
        for line in (lines or [])[told:]:
            shown = "  ".join(f"{each} {line.metrics[each]:.4g}" for each in metrics.shortlist([line])[:4])
            yield f"{line.at}  version {line.version}  {shown}".rstrip()
        told = max(told, len(lines or []))
        if ended and lines is not None:
            break
        time.sleep(FOLLOW_S)
        job.look()
    last = job.details.job
    yield f"{last.state} at version {last.version}: {last.reason}"


def _warn(why: str) -> None:
    log.warning("waiting: %s", why)
