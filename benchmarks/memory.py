"""What a process has used so far, as the kernel counts it (Linux)."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, of user and system, all threads together. Raises OSError.

    To the nanosecond where the kernel has it (of threads that live), else to a tick of some 10 ms.
    """
    try:
        return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    except (OSError, ValueError, IndexError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def spent_s(pid: int) -> float:
    """Return the CPU seconds of a process, to a tick of some 10 ms, with threads that have ended. Raises OSError."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int | str = "self") -> float:
    """Return the RSS of a process in MB of 10^6 bytes. Raises OSError."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def peak_mb(pid: int | str = "self") -> float:
    """Return the peak RSS (VmHWM) of a process in MB of 10^6 bytes. Raises OSError."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
