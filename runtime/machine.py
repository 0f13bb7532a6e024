"""What this machine has for this process: memory, and room on a disk; and how it is: heat, load. Linux; elsewhere
little is known, and what is not known is None.

Memory is the machine's own, or what the control groups of this process may take, if that is less: systemd's MemoryMax=
and a container's limit are such groups, each within others that have limits too (cgroups(7)).

    v2    /proc/self/cgroup has "0::/system.slice/fedge-agent.service"; the limit of each level is its memory.max
    v1    it has "9:memory:/system.slice/…"; the limit of each level is its memory.limit_in_bytes
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
MOST_ZONES = 32
"""Thermal zones that are read."""
_OF_A_PROCESSOR = ("cpu", "soc", "pkg", "core", "package")
"""What the type of a processor's thermal zone has in it: cpu-thermal on a Raspberry Pi, x86_pkg_temp on a PC."""


def physical_bytes(root: Path = ROOT) -> int | None:
    """Return how much memory the machine has; None where that is not known. root: where /proc and /sys lie."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("MemTotal:") and len(line.split()) > 1), "")
    return 1024 * int(found) if found.isdigit() else None


def group_bytes(root: Path = ROOT) -> int | None:
    """Return the least memory limit of the control groups that this process is in; None where there is none.

    One that is at least what the machine has is none.
    """
    physical = physical_bytes(root)
    limits = [limit for limit in _of_groups(root) if limit is not None and (physical is None or limit < physical)]
    return min(limits, default=None)


def free_bytes(folder: Path) -> int | None:
    """Return how much this user may still write where a folder lies, or will lie; None where that is not known."""
    try:
        found = os.statvfs(next((path for path in (folder, *folder.parents) if path.exists()), Path()))
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def used_bytes(folder: Path) -> int:
    """Return how much of the disk the files below a folder take, as far as they can be seen."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(parent, name).lstat().st_blocks * 512
    return total


def heat(root: Path = ROOT) -> float | None:
    """Return the temperature of the processor in degrees Celsius; None where no sensor tells it.

    It is that of the hottest thermal zone which is a processor's, or of the hottest of all where none says that it is
    (/sys/class/thermal, in thousandths of a degree). What a broken sensor says, 150 degrees and more, is passed over.
    """
    found: list[tuple[bool, float]] = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"))[:MOST_ZONES]:
        try:
            kind = (zone / "type").read_text(encoding="ascii", errors="replace").lower()
            degrees = int((zone / "temp").read_text(encoding="ascii", errors="replace")) / 1000
        except (OSError, ValueError):  # a zone that is switched off answers with an error
            continue
        if -50 < degrees < 150:
            found.append((any(word in kind for word in _OF_A_PROCESSOR), degrees))
    return max(found)[1] if found else None


def load() -> float | None:
    """Return how many processes run or wait to, the mean of the last minute, for each processor."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def _of_groups(root: Path) -> Iterator[int | None]:
    """Return the limits of all groups that this process is in, from the innermost out."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield from _levels(root / "sys/fs/cgroup", path, "memory.max")
            # Where v1 and v2 live side by side, v2 lies here:
            yield from _levels(root / "sys/fs/cgroup/unified", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _levels(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _levels(mount: Path, path: str, name: str) -> Iterator[int | None]:
    """Return the limit of a group and of each that it is in. In a container the outer ones are out of sight."""
    inner = PurePosixPath("/") / path
    for level in (inner, *inner.parents):
        if ".." not in level.parts:
            yield _read(mount / str(level).lstrip("/") / name)


def _read(file: Path) -> int | None:
    """Return what a limit's file says; None for none ("max"), and where there is no such file."""
    try:
        text = file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
