"""What processes have cost so far, as Linux tells it: CPU seconds of all of their threads, and the most memory held."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """cpu_s: user and system, ended threads included. peak_mb: VmHWM."""

    cpu_s: float
    peak_mb: float


def cost_of(pid: int) -> Cost:
    """Return what a process has cost. Raises OSError when it is gone."""
    folder = Path("/proc") / str(pid)
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    held = (folder / "status").read_text().partition("VmHWM:")[2].split()
    if not held:
        raise ProcessLookupError(f"process {pid} has ended, and its memory is no longer known")
    return Cost((int(fields[11]) + int(fields[12])) / _TICKS, int(held[0]) / 1024)


class Costs:
    """What the processes of each role had cost at the times when `note` was called."""

    def __init__(self, roles: Mapping[str, Sequence[int]]) -> None:
        """Look at these processes, by role."""
        self._roles = roles
        self._noted: list[dict[str, list[Cost]]] = []

    def note(self) -> None:
        """Look now. Raises OSError when a process is gone."""
        self._noted.append({role: [cost_of(pid) for pid in pids] for role, pids in self._roles.items()})

    def between(self) -> dict[str, float]:
        """Return the CPU seconds of each role from the first look to the last, its processes together."""
        first, last = self._noted[0], self._noted[-1]
        return {role: sum(c.cpu_s for c in last[role]) - sum(c.cpu_s for c in first[role]) for role in self._roles}

    def peak_mb(self, role: str) -> float:
        """Return the most memory that any process of a role has held up to the last look."""
        return max(cost.peak_mb for cost in self._noted[-1][role])
