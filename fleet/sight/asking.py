"""Asking the aggregator which devices are there, where retained words alone tell of some. `now` only goes forward.

begin ──▶ ask a page ──reply──▶ the next page ──…──▶ the last one ──AGAIN_S──▶ ask a page
└──SILENT_S without a reply, as where this user may not ask──▶ the same
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from broker.messages import Devices, Reply

FIRST_S = 3.0
"""After a connection was made: what lies at the broker has come, and devices have answered a roll call."""
AGAIN_S = 60.0
SILENT_S = 20.0


class Asking:
    """One question at a time. client: who asks."""

    def __init__(self) -> None:
        self._at = float("inf")
        self._request = ""

    def begin(self, now: float) -> None:
        """Ask soon: a connection was made."""
        self._at, self._request = now + FIRST_S, ""

    def next(self, client: str, now: float) -> Devices | None:
        """Return what to ask, where it is time."""
        if now < self._at:
            return None
        self._at, self._request = now + SILENT_S, secrets.token_hex(4)
        return Devices(client, self._request)

    def take(self, reply: Reply, now: float) -> tuple[Mapping[str, bool], Devices | None]:
        """Return which devices are there, by an answer, and what to ask on; nothing of what is no answer to this."""
        if not self._request or reply.request != self._request:
            return {}, None
        self._request, self._at = "", now + AGAIN_S
        if not (reply.ok and reply.more):
            return there_of(reply.data), None
        self._at, self._request = now + SILENT_S, secrets.token_hex(4)
        return there_of(reply.data), Devices(reply.client, self._request, after=reply.more)


def there_of(data: Mapping[str, Any]) -> dict[str, bool]:
    """Return which devices are there, by a page of an answer, as far as it says."""
    rows = data.get("devices")
    return {
        row["device"]: row["state"] == "online"
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, dict) and isinstance(row.get("device"), str) and row.get("state") in ("online", "offline")
    }
