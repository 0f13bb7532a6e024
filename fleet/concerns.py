"""What an operator should know before it hurts: certificates and lists that end, secrets that lie open, a wrong clock.

A service says them at its start and once a day, `--check` at once. None of them stops anybody.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from broker.connection import BrokerSettings
from broker.credentials import certificate_concerns, exposed
from identity.validity import clock

if TYPE_CHECKING:
    from identity.registry import Registry

log = logging.getLogger(__name__)

MADE = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
"""No clock that is right is before the program itself."""
DAY_S = 86_400.0
LIST_DAYS = 10
"""`fedge ca renew` runs every day, and leaves a list of the revoked 30 days: with fewer left it has failed for long."""


def concerns(broker: BrokerSettings, *secrets: str | None, now: dt.datetime | None = None) -> list[str]:
    """Return what is of concern about a connection, and about files and folders that others must not reach."""
    now = now or dt.datetime.now(dt.UTC)
    found = exposed(broker.key_file, broker.password_file, *secrets)
    if broker.ca_file is None:
        return found
    if now < MADE:
        found.append(f"no certificate will be taken for valid: {clock(now)}")
    return found + certificate_concerns(broker, now)


def list_concerns(registry: Registry, now: dt.datetime) -> list[str]:
    """Return what is of concern about the broker's list of the revoked, which locks everybody out once it ends."""
    until = registry.list_until
    if until is None or until - now > dt.timedelta(days=LIST_DAYS):
        return []
    when = f"has ended on {until:%Y-%m-%d}" if until <= now else f"ends on {until:%Y-%m-%d}"
    return [f"the broker's list of revoked devices {when}, past which it lets no device in: run `fedge ca renew`"]


class Daily:
    """Says concerns when it is made, and once a day from then on. look: gives them. clock: monotonic seconds."""

    def __init__(self, look: Callable[[], Sequence[str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._look, self._clock = look, clock
        self._say()

    def tick(self) -> None:
        """Say them again, if a day is over."""
        if self._clock() >= self._next_at:
            self._say()

    def _say(self) -> None:
        self._next_at = self._clock() + DAY_S
        for concern in self._look():
            log.warning("%s", concern)
