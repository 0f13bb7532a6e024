"""Devices that an operator has put in quarantine: drawn no more, waited for no more, and nothing of them is counted.

    Quarantine ──durable──▶ the roster and every job are told ──▶ the operator is answered

1. It is a word of `meta` for each device, so that it outlives a restart, a backup and a repair.
2. What was counted before stays counted. What is offered from then on is refused with the reason, for good like any
   other update that is refused: after its release the device is in with the next base. A base that cannot be left
   without it is not left: the job waits, and says that this device was refused, and why.
3. A job sees a device that is there, cannot take part and says why; where a job waits for all, its membership of the
   base ends at once, so that nobody waits for it, and no count of absences runs.
"""

from __future__ import annotations

from aggregator.database import Database

_FIRST, _END = "note:quarantine:", "note:quarantine;"
"""Between these lie their names: the semicolon follows the colon."""
MOST = 10_000
"""Devices that may be in quarantine at once: who has more to keep out revokes them."""
UNSAID = "an operator has said so"
"""Why, where nothing is said."""


def note_of(device: str) -> str:
    """Return the name of the note that says why a device is in quarantine."""
    return f"quarantine:{device}"


def read(db: Database) -> dict[str, str]:
    """Return the devices in quarantine, and why, by name. Raises StoreError or DamageError."""
    sql = "SELECT name, value FROM meta WHERE name > ? AND name < ? AND value != '' ORDER BY name"
    return {str(name).removeprefix(_FIRST): str(why) for name, why in db.rows("table meta", sql, (_FIRST, _END))}
