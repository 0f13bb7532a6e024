"""What is known of one device by its own words, and the view of it. Pure; `now` is seconds since 1970.

    a retained word ──▶ silent ──a live word, or the aggregator's──▶ online ──its last will──▶ offline
                                                                       └──cleared at the broker──▶ unknown, or forgotten

A presence that says "gone" may be the aggregator's question whether the device is there, which it denies at once: so
it counts LEAVE_S later. One that belongs to an earlier life of the device says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from broker.messages import Presence, Vitals
from fleet.sight.view import DeviceState, Part
from runtime.words import clean

LEAVE_S = 1.0
"""How long a device has to deny that it is gone."""
MOST_PARTS = 64
MOST_WORDS = 200
"""Characters of one thing that a device says of itself."""
NO_LABELS: Mapping[str, str] = {}
NO_PARTS: Mapping[str, Part] = {}
NO_JOBS: frozenset[str] = frozenset()


class Known(Struct):
    """One device. announced: its presence was heard, and lies at the broker."""

    device: str
    state: DeviceState
    since: float
    announced: bool = False
    live: bool = False
    """It, or the aggregator, has said on this connection that it is there."""
    life: str = ""
    former: str = ""
    """The life that has made way to this one."""
    incarnation: str = ""
    boot: int = -1
    heard_at: float | None = None
    labels: Mapping[str, str] = NO_LABELS
    parts: Mapping[str, Part] = NO_PARTS
    software: str = ""
    vitals: Vitals | None = None
    vitals_at: float | None = None
    offset_s: float | None = None
    alarm: str = ""
    able: frozenset[str] = NO_JOBS
    """Jobs that it was last noted to be there for, and able to take part in."""
    link: int = 0
    """The connection on which its presence was heard last."""

    def move(self, state: DeviceState, now: float) -> None:
        """Note how it is, and since when."""
        if state != self.state:
            self.state, self.since = state, now

    def able_for(self) -> frozenset[str]:
        """Return the jobs that it is there for, and can take part in."""
        if self.state not in ("online", "silent") or not self.parts:
            return NO_JOBS
        return frozenset(job for job, part in self.parts.items() if part.examples is not None)

    def is_stale(self, said: Presence, *, retained: bool) -> bool:
        """Return whether a presence belongs to an earlier life than the one that is known."""
        if not self.announced or said.life == self.life:
            return False
        if not said.online:
            return said.boot <= self.boot or said.incarnation != self.incarnation
        return retained and said.incarnation == self.incarnation and said.boot < self.boot

    def take(self, said: Presence, now: float, *, retained: bool, link: int) -> None:
        """Take a presence that is not stale: all of it but that it says "gone"."""
        if said.life != self.life:
            self._change_life(said, retained=retained)
        self.announced, self.link = True, link
        if said.online:
            self.software = clean(said.software, MOST_WORDS)
            self.labels, self.parts = said.labels, parts_of(said)
        if not retained:
            self.heard_at, self.live = now, said.online
        if said.online:
            self.move("online" if self.live else "silent", now)

    def _change_life(self, said: Presence, *, retained: bool) -> None:
        same_card = said.incarnation == self.incarnation and self.incarnation != ""
        if self.announced and not retained and said.online:
            if said.life == self.former:
                self.alarm = "two devices share this id and speak in turn"
            elif same_card and said.boot == self.boot and self.live:
                self.alarm = "two devices share this id and come from one card"
        self.former, self.life = self.life, clean(said.life, 80)
        self.incarnation, self.boot, self.live = clean(said.incarnation, 80), said.boot, False

    def take_vitals(self, vitals: Vitals, now: float, *, retained: bool) -> None:
        """Take what it says of how it is."""
        self.vitals = vitals
        if retained:
            return
        self.vitals_at = self.heard_at = now
        self.offset_s = round(vitals.clock - now, 1) if vitals.clock > 0 else None
        if self.state == "silent":
            self.live = True
            self.move("online", now)


def parts_of(said: Presence) -> Mapping[str, Part]:
    """Return a device's part in each job that it speaks of."""
    if not (said.ready or said.unready or said.failed or said.trouble):
        return NO_PARTS
    found: dict[str, Part] = {}
    for job in (*said.ready, *said.unready):
        if job in found or len(found) >= MOST_PARTS:
            continue
        why = said.unready.get(job, "")
        if not why and (failure := said.failed.get(job)) is not None:
            why = f"its training failed: {failure.why}"
        examples = None if job in said.unready else said.ready.get(job)
        found[job] = Part(examples, clean(why, MOST_WORDS), clean(said.trouble.get(job, ""), MOST_WORDS))
    return found
