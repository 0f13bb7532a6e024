"""Looking on while rounds are made, whoever makes them: what one costs once the first few are over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.overhead.meters import Costs
from fleet.local.processes import Children

WARM = 5
"""Rounds before the first that is measured: caches fill, the coding settles."""
_POLL_S = 0.005


class Seen(NamedTuple):
    """first_at: when the first round was over, by time.perf_counter. wall_s: a round. cpu_s: a round, by role."""

    first_at: float
    wall_s: float
    cpu_s: dict[str, float]


def look_on(
    numbers: Iterator[int],
    costs: Costs,
    rounds: int,
    say: Callable[[int], None],
    *,
    on_edge: Callable[[], None] = lambda: None,
) -> Seen:
    """Follow so many rounds beyond the first few; `numbers` gives each when it is over.

    on_edge: called at the first and the last that is measured.
    """
    first_at, times = 0.0, []
    for number in numbers:
        now = time.perf_counter()
        if number == 1:
            first_at = now
        if number in (WARM, WARM + rounds):
            costs.note()
            times.append(now)
            on_edge()
        say(number)
    a_round = {role: cost / rounds for role, cost in costs.between().items()}
    return Seen(first_at, (times[1] - times[0]) / rounds, a_round)


def in_report(report: Path, children: Children, last: int) -> Iterator[int]:
    """Return the number of every round as soon as the report has its line. Raises ChildDiedError."""
    number = 0
    while number < last:
        lines = report.read_text().count("\n")
        if lines == number:
            children.check()
            time.sleep(_POLL_S)
        for _ in range(lines - number):
            number += 1
            yield number
