"""Who has room for an update that comes in pieces: the law, without a byte of any update. Pure.

A *holder* is an update that was begun; it reserves room for the whole of its body, so that what was begun can be
finished. All together reserve at most `most_bytes`. Who finds no room stands in line.

1. A device has a quota: beside its first update it begins another one only while all of its together reserve at most
   one part in SHARES of the room.
2. A holder gives way by its progress, and only while another stands in line. It has a turn of some seconds to begin
   with. Every new byte prolongs that by what the byte takes at the *wanted pace*, to one turn from now at most: so who
   sends at that pace keeps the room however long it takes, and nobody saves up time, or holds it by a piece now and
   then.
3. The wanted pace is a quarter of what is usual: of the median pace of the devices whose last update came in whole.
   Where all links are slow, slow is good enough. While none has come in whole, and whenever none does, it is halved
   with each holder that gives way: where nobody can keep it, it falls until somebody can. Turns that were begun before
   it fell are then as long as one that begins now: of a slow fleet that comes back at once only a few give way.
4. A device whose update gave way for that, was not what it had offered, or was left for another one while others
   stood in line, is a *guest*, for GUEST_S, the next time for twice as long: it stands behind the others in line, and
   makes room at once for any of them. Alone it has all the room and time that it wants.
5. Between guests, who has not moved for IDLE_S gives way.
6. Who comes finds the room that is free, though others stand in line: the first there may need more. But of so many
   bytes as all the room has, beside one and the same who is first; from then on they stand behind it. A guest is never
   first so, nor one that its quota keeps waiting.

So one device, whatever it does, keeps the others waiting for one turn in GUEST_S, and beyond that no longer than an
update that comes in at the wanted pace. (Many devices can do more: each is to be admitted first.)
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections import Counter, OrderedDict

from msgspec import Struct, structs

from broker.messages import Offer

Key = tuple[str, str]
"""Job and device."""

SHARES = 4
TURN_S = 3.0
"""A turn, where a piece at the wanted pace does not take longer."""
FULL_PIECE = 100_000
"""Bytes of the largest piece that a turn is made for: a sender's word does not make it longer."""
FIRST_PACE = 125_000.0
"""Bytes a second: the wanted pace before any update has come in whole."""
LEAST_PACE, MOST_PACE = 625.0, 250_000.0
"""The wanted pace is never below a quarter of 20 kbit/s, nor above 2 Mbit/s."""
USUAL_PART = 4
IDLE_S = 120.0
"""100 kB at 20 kbit/s take 40 s."""
GUEST_S = 600.0
LAST_GUEST_S = 86_400.0
REMEMBERED = 64
"""Devices whose pace is remembered."""
MOST_GUESTS = 10_000
SPENT = 64
"""Entries of the heap of dues that may be of nobody any more, beside as many as there are holders."""
MOST_IN_LINE = 1000
"""Offers that wait for room; of more, the oldest wait for their next resend instead."""


class _Holder(Struct):
    n_bytes: int
    piece_bytes: int
    begun_at: float
    moved_at: float
    due: float
    """Until when it keeps its room though others need it."""
    turn_s: float
    """The longest turn that it has been given."""


class Room:
    """The room for unfinished updates, and the line before it."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.reserved = 0
        """Bytes that the holders will have when they are complete."""
        self._holders: OrderedDict[Key, _Holder] = OrderedDict()
        """In the order in which they moved last."""
        self._held: Counter[str] = Counter()
        """Device to the bytes that it reserves."""
        self._dues: list[tuple[float, float, Key]] = []
        """A heap of (due, begun_at, holder), where due may have moved on since."""
        self._line: OrderedDict[Key, Offer] = OrderedDict()
        self._guests: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Device to until when it is a guest, and for how long that was."""
        self._guests_in: OrderedDict[Key, None] = OrderedDict()
        """The holders whose devices were guests when they began, or have become so."""
        self._paces: OrderedDict[str, float] = OrderedDict()
        """Device to the pace of its last update that came in whole."""
        self._usual: float = FIRST_PACE
        """A quarter of the usual pace."""
        self._halvings = 0
        """Holders that gave way since an update came in whole."""
        self._passed_by: Key | None = None
        """Who was first in line when somebody came and began."""
        self._passed = 0
        """Bytes that have begun so."""
        self._called: set[Key] = set()
        """Who was taken out of the line, and is to begin now."""

    # Holders.

    def begin(self, offer: Offer, now: float) -> tuple[bool, list[Key]]:
        """Return whether an update may begin, and the holders that have given way; if not, it stands in line.

        One that is larger than all the room does not: it would stand there for ever.
        """
        if offer.n_bytes > self.most_bytes:
            return False, []
        key, gone, begins = (offer.job, offer.device), [], False
        guest = self.is_guest(offer.device, now)
        first = self._first(now, guests=False)
        if not self._is_over_quota(offer) and not (guest and first) and self._may_pass(key, offer.n_bytes, first):
            gone = self._make_way(offer.n_bytes, now, guest=guest)
            begins = self.reserved + offer.n_bytes <= self.most_bytes
        called = key in self._called
        self._called.discard(key)
        if begins and first not in (None, key) and not called:
            self._passed += offer.n_bytes
        if not begins:
            self._stand(key, offer)
            return False, gone
        self._line.pop(key, None)
        turn_s = self._turn_s(offer.chunk_bytes)
        due = now + turn_s
        self._holders[key] = _Holder(offer.n_bytes, offer.chunk_bytes, now, now, due, turn_s)
        self.reserved += offer.n_bytes
        self._held[offer.device] += offer.n_bytes
        heapq.heappush(self._dues, (due, now, key))
        if guest:
            self._guests_in[key] = None
        return True, gone

    def move(self, key: Key, n_bytes: int, now: float) -> None:
        """Note that so many bytes of a holder have come that were missing."""
        holder = self._holders[key]
        ahead = now + self._turn_s(holder.piece_bytes)
        holder.due, holder.moved_at = min(holder.due + n_bytes / self.wanted_pace, ahead), now
        self._holders.move_to_end(key)

    def end(self, key: Key, whole_at: float | None = None) -> None:
        """Take a holder out. whole_at: when it had come in whole, and was what it had been offered as."""
        holder = self._holders.pop(key, None)
        if holder is None:
            return
        device = key[1]
        self._guests_in.pop(key, None)
        self.reserved -= holder.n_bytes
        self._held[device] -= holder.n_bytes
        if not self._held[device]:
            del self._held[device]
        if len(self._dues) > 2 * len(self._holders) + SPENT:
            self._dues = [(one.due, one.begun_at, of) for of, one in self._holders.items()]
            heapq.heapify(self._dues)
        if whole_at is not None:
            self._halvings = 0
            self._paces[device] = holder.n_bytes / max(whole_at - holder.begun_at, 0.05)
            self._paces.move_to_end(device)
            while len(self._paces) > REMEMBERED:
                self._paces.popitem(last=False)
            self._usual = statistics.median(self._paces.values()) / USUAL_PART

    @property
    def wanted_pace(self) -> float:
        """Bytes a second at which a holder keeps its room though others need it."""
        return max(LEAST_PACE, min(self._usual, MOST_PACE) * 0.5 ** min(self._halvings, 32))

    def _turn_s(self, piece_bytes: int) -> float:
        return max(TURN_S, 1.5 * min(piece_bytes, FULL_PIECE) / self.wanted_pace)

    # Guests.

    def is_guest(self, device: str, now: float) -> bool:
        """Return whether a device has room only while nobody else needs it."""
        return device in self._guests and now < self._guests[device][0]

    def make_guest(self, device: str, now: float) -> None:
        """Put a device behind the others, for longer each time."""
        _, before_s = self._guests.pop(device, (0.0, GUEST_S / 2))
        for_s = min(2 * before_s, LAST_GUEST_S)
        self._guests[device] = now + for_s, for_s
        while len(self._guests) > MOST_GUESTS:
            self._guests.popitem(last=False)
        self._guests_in.update(dict.fromkeys(key for key in self._holders if key[1] == device))

    # The line.

    @property
    def is_wanted(self) -> bool:
        """Whether somebody stands in line."""
        return bool(self._line)

    def forget_job(self, job: str) -> None:
        """Forget all who wait with an update to this job."""
        for key in [key for key in self._line if key[0] == job]:
            del self._line[key]

    def call(self, now: float) -> list[Offer]:
        """Take out of the line, in turn, who finds room now: a large one is not passed by for ever."""
        free, called = self.most_bytes - self.reserved, []
        while (key := self._first(now, guests=True)) is not None and self._line[key].n_bytes <= free:
            offer = self._line.pop(key)
            free -= offer.n_bytes
            called.append(offer)
        self._called = {(offer.job, offer.device) for offer in called}
        return called

    def _stand(self, key: Key, offer: Offer) -> None:
        self._line[key] = structs.replace(offer, body=b"")
        while len(self._line) > MOST_IN_LINE:
            self._line.popitem(last=False)

    def _first(self, now: float, *, guests: bool) -> Key | None:
        """Return who is first in line: a guest only where no other waits, and only if guests are asked for."""
        guest: Key | None = None
        for key, offer in self._line.items():
            if self._is_over_quota(offer):
                continue
            if not self.is_guest(key[1], now):
                return key
            guest = guest or key
        return guest if guests else None

    def _is_over_quota(self, offer: Offer) -> bool:
        held = self._held.get(offer.device, 0)
        return held > 0 and held + offer.n_bytes > self.most_bytes // SHARES

    def _may_pass(self, key: Key, n_bytes: int, first: Key | None) -> bool:
        """Return whether somebody may begin though another is first in line."""
        if first != self._passed_by:
            self._passed_by, self._passed = first, 0
        return first is None or first == key or key in self._called or self._passed + n_bytes <= self.most_bytes

    # Giving way.

    @property
    def deadline(self) -> float:
        """When `tick` may have something to do; inf for never: nobody waits, or nobody holds what he could have."""
        if not self._line:
            return math.inf
        due = self._next_due()
        return math.inf if due is None else due

    def tick(self, now: float) -> list[Key]:
        """Return who gives way to the first in line, by law 2 or as a guest."""
        first = self._first(now, guests=False)
        gone = [] if first is None else self._make_way(self._line[first].n_bytes, now, guest=False)
        while not gone and (due := self._next_due()) is not None and due <= now:
            holder = self._holders[self._dues[0][2]]  # nobody needs its room: asked again in a turn
            holder.due = now + self._turn_s(holder.piece_bytes)
        return gone

    def _make_way(self, n_bytes: int, now: float, *, guest: bool) -> list[Key]:
        gone: list[Key] = []
        while self._holders and self.reserved + n_bytes > self.most_bytes:
            key = self._idle(now) if guest else self._guest(now) or self._overdue(now)
            if key is None:
                break
            self.end(key)
            gone.append(key)
        return gone

    def _idle(self, now: float) -> Key | None:
        key, holder = next(iter(self._holders.items()))
        return key if now - holder.moved_at >= IDLE_S else None

    def _guest(self, now: float) -> Key | None:
        """Return a guest among the holders, who came first."""
        while self._guests_in:
            key = next(iter(self._guests_in))
            if self.is_guest(key[1], now):
                return key
            del self._guests_in[key]
        return None

    def _overdue(self, now: float) -> Key | None:
        """Return the holder that is overdue for longest: from now on its device is a guest."""
        due = self._next_due()
        if due is None or due > now:
            return None
        _, _, key = self._dues[0]
        self._halvings += 1
        self.make_guest(key[1], now)
        return key

    def _next_due(self) -> float | None:
        """Return when the first holder is due, with the heap's first one right."""
        while self._dues:
            due, begun_at, key = self._dues[0]
            holder = self._holders.get(key)
            if holder is None or holder.begun_at != begun_at:
                heapq.heappop(self._dues)
            elif holder.due > due:
                heapq.heapreplace(self._dues, (holder.due, begun_at, key))
            elif (turn_s := self._turn_s(holder.piece_bytes)) > holder.turn_s:
                holder.due += turn_s - holder.turn_s
                holder.turn_s = turn_s
            else:
                return due
        return None
