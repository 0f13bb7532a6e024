"""What somebody should be told of: incidents, each once from its first sign until it is over.

    View, events, surroundings ──▶ signs ──new ones──▶ held, where a few of a kind were told ──▶ notices
                                     └─of what is open──▶ nothing

1. An incident has a kind and a name (a device, a job, a file). While it is open nothing is said of it again. It is over
   when its end is seen, or when no sign of it was seen for as long as `QUIET_S` says.
2. Of one kind there are FEW notices in HOLD_S at most: more incidents are counted in one, the first ones named. So a
   storm is a few lines, however many devices it has. Of MOST_OPEN incidents that are open those that nobody has seen a
   sign of for ROOM_S make room; while there is none, a further state of a device is passed over, and the log says so.
3. It has no clock, no file and no thread; all that it remembers is `Told`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from aggregator.looking_on import NotifySettings
from broker.messages import Notice
from fleet.console.display import duration, n_bytes
from fleet.notices.missing import Missing
from fleet.notices.told import MOST_HELD, MOST_OPEN, Held, Told
from fleet.sight.view import Happened, View
from runtime.words import clean

log = logging.getLogger(__name__)

DAY_S = 86_400.0
HOLD_S = 60.0
FEW = 3
"""Of one kind, that are told one by one."""
NAMED = 5
"""Of many, that are named."""
ROOM_S = 600.0
LONGEST_STEP_S = 60.0
"""From one look to the next, as far as it counts: a clock may leap."""
MOST_TEXT = 400
ENOUGH = 1.2
"""Of disk_free_bytes: with more, a disk has room again."""
ENDED = ("job.finished", "job.stopped", "job.deleted")
QUIET_S: Mapping[str, float] = {
    "job.ended": 30 * DAY_S,
    "round.abandoned": 3600.0,
    "device.clone": 3600.0,
    "words.refused": 3600.0,
    "disk": DAY_S,
    "certificate": DAY_S,
}
MANY = {
    "job.ended": "{n} jobs have ended: {names}",
    "round.abandoned": "rounds of {n} jobs came to no version: {names}",
    "device.lost": "{n} devices have been away for {lost_after} or longer: {names}",
    "device.back": "{n} devices that were lost are back: {names}",
    "device.clone": "{n} devices share their id with another one, it seems: {names}",
    "words.refused": "{n} times messages were refused: {names}",
    "disk": "{n} disks are nearly full, less than {limit} is left: {names}",
    "certificate": "{n} certificates or lists of the revoked end soon: {names}",
}


class Surroundings(Struct, frozen=True):
    """What neither topics nor the store tell. free: bytes where the state lies, None where that cannot be said.

    ends: name of a file to when what is in it ends, in seconds since 1970.
    """

    folder: str = ""
    free: int | None = None
    ends: Mapping[str, float] = {}


class Incidents:
    """See the law above. told: what was told before; it is changed in place, and is there to be written down."""

    def __init__(self, settings: NotifySettings, told: Told) -> None:
        self._settings, self._told = settings, told
        self._missing = Missing(settings.lost_after_s, told)
        self._looked_at: float | None = None
        self._recent: dict[str, list[float]] = {}
        """Kind to when the last notices of it were told; FEW stand for one that counts many."""
        self._is_full = False

    def look(self, view: View, happened: Sequence[Happened], around: Surroundings, now: float) -> list[Notice]:
        """Return what to tell now. now: seconds since 1970. happened: those with a number up to `last` were told."""
        passed_s = 0.0 if self._looked_at is None else min(LONGEST_STEP_S, max(0.0, now - self._looked_at))
        self._looked_at = now
        for event in happened:
            if event.n > (self._told.last or 0):
                self._told.last = event.n
                self._take(event, now)
        self._look_around(around, now)
        self._look_at_devices(view, passed_s if view.connected else 0.0, now)
        self._close(now)
        return [notice for kind in list(self._told.held) for notice in self._tell(kind, now)]

    # Signs.

    def _take(self, event: Happened, now: float) -> None:
        kind, who = "job.ended" if event.kind in ENDED else event.kind, event.device or event.job
        named = kind in ("job.ended", "round.abandoned", "device.clone") and who  # without: "and so many more"
        if named or kind == "words.refused":
            self._sign(kind, who, Held(who or "somebody", event.text, event.job, event.device), now, is_state=False)

    def _look_at_devices(self, view: View, passed_s: float, now: float) -> None:
        if view.connected and passed_s > 0:
            lost, back = self._missing.look(view.devices, passed_s)
            after = duration(self._settings.lost_after_s)
            for device in lost:
                self._hold("device.lost", Held(device, f"{device} has been away for {after}", device=device))
            for device in back:
                self._hold("device.back", Held(device, f"{device} was lost and is back", device=device))
        for device, seen in view.devices.items():
            if seen.alarm:
                self._sign("device.clone", device, Held(device, f"{device}: {seen.alarm}", device=device), now)
            free = seen.vitals.disk_free if seen.vitals is not None else None
            self._weigh(device, f"the disk of {device}", free, now, device)

    def _look_around(self, around: Surroundings, now: float) -> None:
        self._weigh("the server", f"the server's disk at {around.folder}", around.free, now)
        for name, ends in around.ends.items():
            left_s = ends - now
            if left_s < self._settings.certificate_days * DAY_S:
                how = f"ends in {left_s / DAY_S:.0f} days" if left_s > 0 else "has ended"
                self._sign("certificate", f"{name} {ends:.0f}", Held(name, f"{name} {how}: have it renewed"), now)

    def _weigh(self, who: str, what: str, free: int | None, now: float, device: str = "") -> None:
        limit = self._settings.disk_free_bytes
        if free is not None and free < limit:
            text = f"{what} is nearly full: {n_bytes(free)} left"
            self._sign("disk", who, Held(who, text, device=device), now)
        elif free is not None and free >= ENOUGH * limit:
            self._told.open.pop(f"disk {who}", None)

    def _sign(self, kind: str, name: str, held: Held, now: float, *, is_state: bool = True) -> None:
        """Note a sign of an incident; the first one is told. is_state: it comes again at each look."""
        if kind not in self._settings.kinds:
            return
        incident, open_ = f"{kind} {name}", self._told.open
        is_new = open_.pop(incident, None) is None
        has_room = not is_new or self._has_room(now)
        if is_new and (has_room or not is_state):
            self._hold(kind, held)
        if has_room:
            open_[incident] = now  # as the last one: the first are those that no sign was seen of for longest

    def _has_room(self, now: float) -> bool:
        """Return whether one more incident can be remembered; of those that are open one may make room."""
        open_ = self._told.open
        if len(open_) < MOST_OPEN:
            return True
        oldest = next(iter(open_))
        if now - open_[oldest] <= ROOM_S:
            if not self._is_full:
                log.warning("%d incidents are open: what begins at further devices is not told", MOST_OPEN)
            self._is_full = True
            return False
        del open_[oldest]
        self._is_full = False
        return True

    def _hold(self, kind: str, held: Held) -> None:
        if kind not in self._settings.kinds:
            return
        waiting = self._told.held.setdefault(kind, [])
        if len(waiting) < MOST_HELD:
            held.text = clean(held.text, MOST_TEXT)
            waiting.append(held)
        else:
            self._told.more[kind] = self._told.more.get(kind, 0) + 1

    # Ends.

    def _close(self, now: float) -> None:
        open_ = self._told.open
        quiet = [one for one, at in open_.items() if now - at > QUIET_S.get(one.partition(" ")[0], DAY_S)]
        for incident in quiet:
            del open_[incident]

    # Notices.

    def _tell(self, kind: str, now: float) -> Iterator[Notice]:
        recent = [at for at in self._recent.get(kind, []) if now - HOLD_S < at <= now]
        self._recent[kind] = recent
        if len(recent) >= FEW:
            return
        held, n_more = self._told.held.pop(kind), self._told.more.pop(kind, 0)
        n = len(held) + n_more
        if n <= FEW - len(recent):
            recent += [now] * n
            yield from (Notice(now, kind, one.text, one.job, one.device) for one in held)
            return
        recent += [now] * FEW
        names = ", ".join(one.who for one in held[:NAMED]) + f" and {n - NAMED:,} more" * (n > NAMED)
        figures = {
            "lost_after": duration(self._settings.lost_after_s),
            "limit": n_bytes(self._settings.disk_free_bytes),
        }
        yield Notice(now, kind, clean(MANY[kind].format(n=f"{n:,}", names=names, **figures), MOST_TEXT))
