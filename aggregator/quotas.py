"""What one device may say: so much in a minute, and what is beyond that is dropped unread. Pure.

Minutes begin for all devices at once. In each of them a device has, by kind,

    offers       `offers` for each job at work, and two more for each round that was opened meanwhile
    presences    `words`, and two more for each round
    chunks       those that it was asked for, and `words` that it was not: what it sends to an aggregator that was
                 started again, or for an update that has lost its room

A word beyond is dropped before it is unpacked, counted, and told to the operator once a minute. What is dropped weighs:
each word 1, and 1 more for every 64 KiB; a retained one a hundredth of `flood` (no agent retains an offer or a chunk,
and each stays in the broker's memory). A device of which more than `flood` was dropped in a minute, by weight, is
thrown off: it is *held off* for HELD_S, the next time twice as long, up to LAST_HELD_S, until it has
behaved for ten times that. Meanwhile its offers and chunks are dropped unread, and a tenth of `flood` throws it off
again. Its presence is heard, so that it is known when it comes back.

The numbers: a device that returns says one presence, answers one roll call and offers one update a job. The most that
an honest one sends unasked are 4,096 chunks of 100 kB that a former aggregator asked for: they weigh 8,192.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Literal

from msgspec import Struct

from broker.messages import Version

Kind = Literal["offer", "presence", "chunk"]
Answer = Literal["take", "drop", "throw off"]

MINUTE_S = 60.0
PER_ROUND = 2
"""Words of each kind that a round is worth: what it is about, and one repeat."""
WEIGHT_BYTES = 65_536
HELD_S = 60.0
LAST_HELD_S = 3600.0
KEPT_PART = 100
"""So many retained words throw a device off."""
AGAIN_S = 1.0
"""Nobody is thrown off sooner after the last time: what it had said before is still on its way."""
BEHAVED = 10
"""Times as long as it was held off, and it begins anew."""
HELD_PART = 10
"""One part in so many of `flood` throws off who is held off."""
MOST_HELD = 10_000
COPIES = 2
"""QoS 1 may bring a chunk twice, and two filters that hold for it do."""
DIGESTS = 4
"""Updates of a device whose chunks are still asked for."""
MOST_ASKED = 100_000
NAMED = 5
"""Devices that a line names."""


class _Said(Struct):
    """What a device has said in this minute. weight: of what was dropped."""

    offer: int = 0
    presence: int = 0
    chunk: int = 0
    weight: int = 0
    dropped: int = 0


class Held(Struct):
    """A device that was thrown off. until: it is held off. for_s: so long that was. times: how often. at: the last."""

    until: float
    for_s: float
    times: int
    at: float


class Quotas:
    """How much each device says. offers, words, flood: see above; a flood of 0 throws nobody off. now: it begins."""

    def __init__(self, offers: int, words: int, flood: int, now: float) -> None:
        self.n_jobs = 1
        """The jobs at work."""
        self.dropped = 0
        """Words that were dropped unread, of all devices, so far."""
        self._offers, self._words, self._flood = offers, words, flood
        self._said: dict[str, _Said] = {}
        self._has_dropped = False
        """Whether anything was dropped in this minute."""
        self._before: dict[str, int] = {}
        """Device to what was dropped of it in the minute before."""
        self.minute_ends = now + MINUTE_S
        self._rounds = 0
        self._opened: dict[str, tuple[Version, int]] = {}
        """Job to its last round, by base and attempt."""
        self._asked: OrderedDict[str, dict[str, int]] = OrderedDict()
        """Device to how many chunks of which updates it is still to send."""
        self._held: OrderedDict[str, Held] = OrderedDict()

    # What is allowed.

    def note_round(self, job: str, base: Version, attempt: int) -> None:
        """Note that a round is announced; once more is not another one."""
        if self._opened.get(job) != (base, attempt):
            self._opened[job] = base, attempt
            self._rounds += 1

    def forget_jobs(self, known: set[str]) -> None:
        """Forget the rounds of jobs that are not at work."""
        for job in self._opened.keys() - known:
            del self._opened[job]

    def note_want(self, device: str, digest: str, n_chunks: int) -> None:
        """Note that a device is asked for so many chunks of an update."""
        asked = self._asked.setdefault(device, {})
        asked.pop(digest, None)
        asked[digest] = COPIES * n_chunks
        while len(asked) > DIGESTS:
            del asked[next(iter(asked))]
        self._asked.move_to_end(device)
        while len(self._asked) > MOST_ASKED:
            self._asked.popitem(last=False)

    # What is said.

    def hear(
        self, device: str, kind: Kind, n_bytes: int, now: float, digest: str = "", *, is_kept: bool = False
    ) -> Answer:
        """Return what to do with a word of a device. digest: of a chunk's update. is_kept: it is a retained one."""
        held = self._held.get(device)
        is_held = held is not None and now < held.until
        if kind == "chunk" and not is_held and not is_kept and self._was_asked(device, digest):
            return "take"
        said = self._said.get(device)
        if said is None:
            said = self._said[device] = _Said()
        match kind:
            case "offer":
                said.offer += 1
                is_over = said.offer > self._offers * self.n_jobs + PER_ROUND * self._rounds
            case "presence":
                said.presence += 1
                is_over = said.presence > self._words + PER_ROUND * self._rounds
            case "chunk":
                said.chunk += 1
                is_over = said.chunk > self._words
        if not is_over and not is_kept and not (is_held and kind != "presence"):
            return "take"
        said.dropped += 1
        said.weight += max(1 + n_bytes // WEIGHT_BYTES, self._flood // KEPT_PART if is_kept else 0)
        self._has_dropped = True
        self.dropped += 1
        if not self._flood or said.weight <= (self._flood // HELD_PART if is_held else self._flood):
            return "drop"
        if held is not None and now < held.at + AGAIN_S:
            return "drop"
        said.weight = 0
        self._hold(device, now)
        return "throw off"

    def _was_asked(self, device: str, digest: str) -> bool:
        asked = self._asked.get(device)
        if asked is None or digest not in asked:
            return False
        asked[digest] -= 1
        if asked[digest] <= 0:
            del asked[digest]
            if not asked:
                del self._asked[device]
        return True

    def _hold(self, device: str, now: float) -> None:
        held = self._held.pop(device, None)
        if held is None or now > held.until + BEHAVED * held.for_s:
            held = Held(0.0, HELD_S / 2, 0, now)
        held.for_s = min(2 * held.for_s, LAST_HELD_S)
        held.until, held.times, held.at = now + held.for_s, held.times + 1, now
        self._held[device] = held
        while len(self._held) > MOST_HELD:
            self._held.popitem(last=False)

    # What is told.

    def turn(self, now: float) -> list[str]:
        """Begin another minute; return who was dropped in the last one, in words, the worst first."""
        self._before = {device: said.dropped for device, said in self._said.items() if said.dropped}
        self.minute_ends, self._rounds = now + MINUTE_S, 0
        self._said, self._has_dropped = {}, False
        return self.told(now)

    @property
    def has_dropped(self) -> bool:
        """Whether there is something to tell of this minute, or of the last one."""
        return self._has_dropped or bool(self._before)

    def told(self, now: float) -> list[str]:
        """Return who was dropped in this minute and the last one, in words, the worst first, and not too many."""
        dropped = Counter(self._before)
        for device, said in self._said.items():
            if said.dropped:
                dropped[device] += said.dropped
        lines = [self._line(device, n, now) for device, n in dropped.most_common(NAMED)]
        return [*lines, f"and {len(dropped) - NAMED} more devices"] if len(dropped) > NAMED else lines

    def _line(self, device: str, n: int, now: float) -> str:
        text = f"device {device} says too much: {n:,} of its messages were dropped unread"
        held = self.held(device, now)
        return f"{text}; thrown off {held.times} times, held off for {held.until - now:.0f} s" if held else text

    def all_held(self, now: float) -> dict[str, float]:
        """Return who is held off, and until when."""
        return {device: held.until for device, held in self._held.items() if now < held.until}

    def held(self, device: str, now: float) -> Held | None:
        """Return how a device is held off, if it is."""
        held = self._held.get(device)
        return held if held is not None and now < held.until else None
