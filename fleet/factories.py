"""A job's own code on the command line: where it is found, and what is said of it before anything is trained."""

from __future__ import annotations

import sys
from pathlib import Path

from edge_agent.config import DeviceLimits
from models import budget
from models.job import JobSpec
from models.nets import size
from models.nets.table import factories_of


def find_beside(job: Path, spec: JobSpec) -> None:
    """Let Python find the factory of a job in the folder of its file, and in the current one, behind all installed.

    Processes that are started from here on look there too (runtime/children.py). A service does not look there: who
    runs one says which code it has.
    """
    if not factories_of(spec.model):
        return
    for folder in (job.resolve().parent, Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def told_of(spec: JobSpec) -> list[str]:
    """Return what the author of a job's net should know, a sentence each. A factory's is tried in a child process.

    Raises ModelError for a net that cannot be trained.
    """
    if not factories_of(spec.model):
        return []
    trial = size.tried(spec, budget.found(DeviceLimits(), None).memory_bytes, exports=True)
    if trial is None:
        return []
    size.check_job(trial, spec)
    return [f"note: {note}" for note in trial.notes]
