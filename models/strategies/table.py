"""The strategies that a job may name: one row each. Whoever needs one takes its row, and asks for no name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.strategies.fedadam import FEDADAM
from models.strategies.fedavg import FEDAVG
from models.strategies.median import MEDIAN
from models.strategies.strategy import Strategy

if TYPE_CHECKING:
    from models.job import JobSpec

STRATEGIES: dict[str, Strategy] = {
    "fedavg": FEDAVG,
    "fedadam": FEDADAM,
    "median": MEDIAN,
}


def refusal(job: JobSpec) -> str:
    """Return why a job cannot have its strategy, as a sentence that says what to do; "" where it can."""
    rules, usual = job.aggregate, type(job.aggregate)()
    row = STRATEGIES[rules.strategy]
    for key in sorted(frozenset[str]().union(*(other.keys for other in STRATEGIES.values())) - row.keys):
        value = getattr(rules, key)
        if value != getattr(usual, key):
            used, named = ", ".join(sorted(row.keys)), f'strategy = "{rules.strategy}"'
            return f"[aggregate] {key} = {value:g}: {named} has no use for it: leave it out (its keys: {used})"
    if job.rounds.max_share is not None and not row.weighs:
        named = f'strategy = "{rules.strategy}"'
        return f"[rounds] max_share: no update weighs more than another with {named}: leave it out"
    return row.refusal(job)
