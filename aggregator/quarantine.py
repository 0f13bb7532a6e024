"""Devices that an operator has put in quarantine, in the store: drawn no more, and nothing of them is counted.

A word of `meta` each, so that it survives a restart, a backup and a repair. What was counted before stays counted.
"""

from __future__ import annotations

from aggregator.database import Database

_FIRST, _END = "note:quarantine:", "note:quarantine;"
"""Between these lie their names: the semicolon follows the colon."""
MOST = 10_000
"""Devices that may be in quarantine at once: who has more to keep out revokes them."""
REASON = "in quarantine"


def note_of(device: str) -> str:
    """Return the name of the note that says why a device is in quarantine."""
    return f"quarantine:{device}"


def read(db: Database) -> dict[str, str]:
    """Return the devices in quarantine, and why. Raises StoreError or DamageError."""
    sql = "SELECT name, value FROM meta WHERE name > ? AND name < ? AND value != '' ORDER BY name"
    return {str(name).removeprefix(_FIRST): str(why) for name, why in db.rows("table meta", sql, (_FIRST, _END))}


def reason(why: str) -> str:
    """Return what is said of a device in quarantine."""
    return f"{REASON}: {why}"
