"""Of the store: what people look at beside jobs: what has happened, the past of a device, and who is in quarantine."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aggregator import events, pasts, quarantine
from aggregator.database import StoreError
from aggregator.events import Event, Kind
from aggregator.part import Part, durable
from aggregator.pasts import Fated
from runtime.failpoints import reach


class Onlookers(Part):
    """What stands in the table `events`, and in `meta` of devices in quarantine."""

    def write_events(self) -> None:
        """Write what has happened, without a sync, where nothing has been written that took it along.

        Raises StoreError.
        """
        if self.events.waits:
            self._db.write_pending()

    def quarantine(self, device: str, why: str, who: str = "") -> None:
        """Remember that nothing of a device is counted any more, and why; "" where it may take part again.

        who: has said so, for people. Raises StoreError.
        """
        by = f", by {who}" * bool(who)
        kind: Kind = "device.quarantined" if why else "device.released"
        told = f"{device} was put in quarantine{by}: {why}" if why else f"{device} was released from quarantine{by}"
        with self.events.told(kind, told, device=device):
            name = f"note:{quarantine.note_of(device)}"
            with self._db.transaction("a word") as write:
                if why:
                    write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, why))
                else:
                    write("DELETE FROM meta WHERE name = ?", (name,))
                reach("store.quarantine.within", (device, why))
        with durable():
            reach("store.quarantine.after", (device, why))

    def past_of(self, device: str, most: int) -> list[Fated]:
        """Return what became of a device in the last rounds of every job, the latest first."""
        return pasts.of(self._db, device, most)

    def happened(self, **limits: Any) -> list[Event]:
        """Return what has happened, also just now where that can be written. limits: see `events.page`."""
        with suppress(StoreError):
            self.write_events()
        return events.page(self._db, **limits)

    def quarantined(self) -> dict[str, str]:
        """Return the devices of which nothing is counted, and why, by name."""
        return quarantine.read(self._db)
