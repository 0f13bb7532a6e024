"""Roles with one of their safeguards taken out: what `fedge chaos --sabotage` starts, to show that it would notice.

    python -m fleet.chaos.sabotaged ledger aggregator run --config aggregator.toml

 ledger     the aggregator judges every offer as if it had never seen one from this device
 outbox     an update is kept in memory until its verdict, not on disk
 rename     files are written in place, a half at a time, and not beside the old one and renamed over it

A missing fsync is not among them: what a killed process has written stays in the kernel, and only a cut of the power
would show that it never reached the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from runtime.failpoints import reach


def forget_ledger() -> None:
    """Have the aggregator judge every offer anew, and its store take whatever it judges."""
    from aggregator.ledger import Ledger
    from aggregator.store import Store

    weigh, add_verdicts = Ledger.weigh, Store.add_verdicts

    def weigh_anew(self: Ledger, offer: Any, *rest: Any) -> Any:
        self._verdicts.pop(offer.device, None)
        return weigh(self, offer, *rest)

    def add_over(self: Store, job: str, judgements: Any) -> None:
        for verdict, *_ in judgements:
            self._write(
                "DELETE FROM updates WHERE job = ? AND device = ? AND generation = ? AND number = ?",
                (job, verdict.device, verdict.base.generation, verdict.base.number),
            )
        add_verdicts(self, job, judgements)

    _replace(Ledger, "weigh", weigh_anew)
    _replace(Store, "add_verdicts", add_over)


def forget_outbox() -> None:
    """Have a device keep its update in memory alone."""
    from edge_agent import files

    _replace(files, "overwrite", lambda _path, _content: None)


def write_in_place() -> None:
    """Have a device write its files where they are, so that a death leaves half of one."""
    from edge_agent import files

    def replace_in_place(path: Path, *parts: bytes) -> None:
        content = b"".join(parts)
        with path.open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            reach("files.replace.before", path.name)
            file.write(content[len(content) // 2 :])
            os.fsync(file.fileno())
        reach("files.replace.after", path.name)

    _replace(files, "replace", replace_in_place)


def _replace(owner: object, name: str, value: Callable[..., Any]) -> None:
    setattr(owner, name, value)


class Sabotage(NamedTuple):
    """take_out: to be called before anything is started. hurts_at: the points at which a death then shows."""

    take_out: Callable[[], None]
    hurts_at: tuple[str, ...]


SABOTAGE: dict[str, Sabotage] = {
    "ledger": Sabotage(forget_ledger, ("store.add_verdict.after", "aggregator.SendVerdict.before")),
    "outbox": Sabotage(forget_outbox, ("agent.Send.before", "agent.Send.after", "agent.published")),
    "rename": Sabotage(write_in_place, ("files.replace.before",)),
}
