"""What stands before everything that devices say: how much, and what they leave at the broker.

    packet ──▶ retained offer or chunk? ──▶ cleared (strays.py)
           ──▶ too much of this device? ──▶ dropped unread (quotas.py) ──▶ far too much? ──▶ thrown off (takeover.py)
           ──▶ unpacked, and heard

1. It looks at topics only: what is dropped is never unpacked.
2. Who is thrown off may come back at once: to keep it out for good is to revoke it, which is the operator's to do. So
   it is *cordoned off* as well: we connect anew, which has the broker forget what it still had for us, and subscribe to
   what the other devices say, one by one, until nobody is held off. The broker then passes nothing of it on. What it
   has retained comes when that is over; but for presences, which are read now and then: else nobody new would be heard
   of. And its client id is kept from it as long as it is held off.
3. Throwing off needs a listener where client ids are free. Where our own connection ends as we do it, ours is not such
   a one: that is said once, and nobody is thrown off by this process any more. So it is done while we have a connection
   that can end, and not before the new one of law 2. (A broker that tells its client that it was taken over ends this
   process with that: a note in the store, written before the first try, tells the next one.)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

from aggregator.config import ServerLimits
from aggregator.quotas import Kind, Quotas
from aggregator.store import Store, StoreError
from aggregator.strays import Strays
from aggregator.takeover import Cutter
from broker.messages import Round, Want
from broker.outgoing import Outgoing
from broker.transport import Packet, Transport
from broker.wire import Wire
from runtime.tally import Tally

log = logging.getLogger(__name__)

SWEEP_S = 5.0
"""How long what a filter brings is listened to, from the last that it has brought."""
OURS_S = 3.0
"""Within this of a takeover, the end of our own connection is held for its doing."""
NOTE = "takeover"
REVOKE = 5
"""Who is thrown off for this many times is to be revoked."""
MOST_OUT = 1000
"""With more than this waiting to be sent, nothing is cleared."""
STORED_S = 10.0
"""So long after we have subscribed, what is retained has lain there, and is no word of today ..."""
MOST_STORED = 30_000
"""... up to so many."""
READ_S = 1.0
READ_EVERY_S, READ_EACH_S = 60.0, 0.01
"""While presences are cordoned off, the retained ones are read for READ_S, this often, or so long for each device."""


class Guard:
    """The quotas of one fleet. cutter: throws off; None: nothing does.

    refuse: counts and tells what is refused, by kind. devices: those that are known. reconnect: has our own connection
    made anew.
    """

    def __init__(
        self,
        limits: ServerLimits,
        store: Store,
        transport: Transport,
        wire: Wire,
        out: Outgoing,
        *,
        now: float,
        cutter: Cutter | None,
        refuse: Callable[[str, str], None],
        devices: Callable[[], Iterable[str]],
        reconnect: Callable[[], None],
    ) -> None:
        self.quotas = Quotas(limits.offers_a_minute, limits.words_a_minute, limits.flood_a_minute, now)
        self.strays = Strays()
        self._store = store
        self._transport = transport
        self._wire = wire
        self._out = out
        self._cutter = cutter
        self._refuse = refuse
        self._devices = devices
        self._reconnect = reconnect
        self._cordon: set[str] = set()
        """The words of the topic table that are subscribed to device by device."""
        self._inside: set[str] = set()
        """The devices that are then heard."""
        self._outside: set[str] = set()
        """Those that are not."""
        self._lift_at = math.inf
        self._read_at = self._read_ends = math.inf
        """When retained presences are read next, and until when they are."""
        self._reconnects = False
        self._stored_until, self._n_stored = -math.inf, 0
        self._to_cut: dict[str, float] = {}
        """Device to how long it is held off: thrown off as soon as our own connection stands."""
        self._cannot = ""
        """Why nobody can be thrown off."""
        self._tally = Tally()
        self._cut_at = -math.inf
        self._proved = False
        """Whether a takeover has left our own connection alone."""
        self._sweep_ends = math.inf
        """When the reading of what is retained ends, if it goes on."""
        self._learn()

    def _learn(self) -> None:
        """Find out whether throwing somebody off has ended the process before this one."""
        if self._cutter is not None and self._store.note(NOTE):
            self._forbid("doing so has ended this aggregator's own connection")
            self._set_note("")

    # Packets.

    def admits(self, packet: Packet, now: float) -> bool:
        """Return whether to unpack a packet."""
        levels = packet.topic.split("/", 7)
        word = levels[3] if len(levels) > 4 else ""
        match word:
            case "device":
                return (packet.retain and not self._reconnects) or self._hear(levels[4], "presence", packet, now)
            case "offer" | "chunk" if len(levels) > 6:
                return self._hear_once(levels[5], "offer" if word == "offer" else "chunk", packet, levels[6], now)
        return True

    def _hear_once(self, device: str, kind: Kind, packet: Packet, digest: str, now: float) -> bool:
        """Hear what is said once, and not to be kept."""
        if not packet.payload and self.strays.is_echo(packet.topic):
            return False
        if not packet.retain:
            return self._hear(device, kind, packet, now, digest) and packet.payload != b""
        if packet.payload:
            self._refuse("retained", f"topic={packet.topic[:120]!r}: it is said once, and not to be kept; cleared")
            self.strays.add(packet.topic, now)
            if math.isfinite(self._sweep_ends):
                self._sweep_ends = now + SWEEP_S
        self._n_stored += 1
        if now >= self._stored_until or self._n_stored > MOST_STORED:
            self._hear(device, kind, packet, now, is_kept=packet.payload != b"")
        return False

    def _hear(
        self, device: str, kind: Kind, packet: Packet, now: float, digest: str = "", *, is_kept: bool = False
    ) -> bool:
        if self._reconnects:  # it is said again, over a connection that brings nothing of what waits now
            return False
        if math.isfinite(self._read_ends) and device in self._outside:  # what it says is heard by our own doing
            return False
        if now >= self.quotas.minute_ends:
            self._turn(now)
        match self.quotas.hear(device, kind, len(packet.payload), now, digest, is_kept=is_kept):
            case "take":
                return True
            case "throw off":
                self._throw_off(device, kind, now)
        return False

    def note(self, message: object) -> None:
        """Note what we say: it makes room for answers."""
        match message:
            case Round():
                self.quotas.note_round(message.job, message.base, message.attempt)
            case Want():
                self.quotas.note_want(message.device, message.digest, int(message.missing, 16).bit_count())

    # The cordon.

    def is_cordoned(self, word: str) -> bool:
        """Return whether a word of the topic table is subscribed to device by device."""
        return word in self._cordon

    def note_device(self, device: str) -> None:
        """Note that a device is there, which may be a new one."""
        if self._cordon and device not in self._inside and device not in self._outside:
            self._inside.add(device)
            for word in self._cordon:
                self._listen_to(word, [device])

    def _cordon_off(self, device: str, word: str, now: float) -> None:
        """Subscribe to what everybody else says of a word, in place of all that is said."""
        held = self.quotas.all_held(now)
        self._lift_at = max(held.values(), default=now)
        if device not in self._outside:
            self._outside.add(device)
            if device in self._inside:
                self._inside.discard(device)
                self._transport.unsubscribe(*(self._wire.filter_for(each, device=device) for each in self._cordon))
        if word not in self._cordon:
            if not self._cordon:
                self._inside = set(self._devices()) - self._outside
                log.warning("flood device=%s: it is heard no more for %.0f s", device, self._lift_at - now)
            self._cordon.add(word)
            self._listen_to(word, self._inside)
            self._transport.unsubscribe(self._wire.filter_for(word))
        self._end_sweep()
        if math.isinf(self._read_at):
            self._end_reading(now)
        self._reconnects = True
        self._reconnect()

    def _listen_to(self, word: str, devices: Iterable[str]) -> None:
        filters = (self._wire.filter_for(word, device=device) for device in devices)
        self._transport.subscribe(*filters, as_published=word != "device")

    def _begin_reading(self, now: float) -> None:
        """Read who there is, with whoever is new: of those that are cordoned off what they say now is dropped."""
        self._read_at, self._read_ends = math.inf, now + READ_S
        self._transport.subscribe(self._wire.filter_for("device"))

    def _end_reading(self, now: float) -> None:
        self._read_at = self._read_ends = math.inf
        if "device" in self._cordon:
            self._transport.unsubscribe(self._wire.filter_for("device"))
            self._read_at = now + max(READ_EVERY_S, READ_EACH_S * len(self._inside))

    def _lift(self, now: float) -> None:
        """Listen to everybody again."""
        for word in self._cordon:
            self._transport.subscribe(self._wire.filter_for(word), as_published=word != "device")
            self._transport.unsubscribe(*(self._wire.filter_for(word, device=device) for device in self._inside))
        self._cordon.clear()
        self._inside.clear()
        self._outside.clear()
        self._lift_at = self._read_at = self._read_ends = math.inf
        self._expect_stored(now)

    def _expect_stored(self, now: float) -> None:
        self._stored_until, self._n_stored = now + STORED_S, 0

    # Throwing off.

    def _throw_off(self, device: str, kind: Kind, now: float) -> None:
        held = self.quotas.held(device, now)
        if held is not None:
            self._cordon_off(device, "device" if kind == "presence" else kind, now)
            say = log.error if held.times >= REVOKE else log.warning
            more = "; it does not stop: revoke it" if held.times >= REVOKE else ""
            say(
                "flood device=%s: thrown off for the %d. time, held off for %g s%s",
                device,
                held.times,
                held.for_s,
                more,
            )
            told = f"{device} says far too much: it is not heard for {held.for_s:g} s{more}"
            self._store.events.note("device.flooding", told, device=device)
            self._to_cut[device] = held.for_s
        if self._cutter is None:
            self._forbid("this aggregator was not given a way to")

    def _cut(self, now: float) -> None:
        """Throw off whoever is to be, and keep it out for as long as it is held off."""
        to_cut, self._to_cut = self._to_cut, {}
        if self._cutter is None or not to_cut:
            return
        for device, for_s in to_cut.items():
            if self._cannot or (not self._proved and not self._set_note("tried")):
                return
            self._cut_at = now
            # A broker that puts client ids on user names knows it by its name, any other by what its agent says.
            self._cutter.cut((device, f"{self._wire.fleet}-{device}"), for_s)

    def _forbid(self, why: str) -> None:
        if not self._cannot:
            self._cannot = why
            if self._cutter is not None:
                self._cutter.release()
            log.error(
                "devices that flood cannot be thrown off: %s. That needs a listener where client ids are free, for the "
                "aggregator alone (deploy/mosquitto/mosquitto.conf: 1884). What they say is dropped all the same",
                why,
            )

    def _set_note(self, value: str) -> bool:
        try:
            self._store.set_note(NOTE, value)
        except StoreError as error:
            log.error("nobody is thrown off: %s", error)
            return False
        return True

    def lost(self, now: float) -> None:
        """Note that our own connection has ended."""
        if now < self._cut_at + OURS_S and not self._is_settled and not self._reconnects:
            self._set_note("")
            self._forbid("doing so has ended this aggregator's own connection")

    def connected(self, now: float) -> None:
        """Note that the connection is a new one: it brings all that is retained."""
        self._reconnects = False
        self._expect_stored(now)
        self.strays.doubt()
        self._cut(now)

    def release(self) -> None:
        """Let everybody in again: we end, or another one leads."""
        self._to_cut.clear()
        if self._cutter is not None:
            self._cutter.release()

    def stand_down(self) -> None:
        """Look for nothing any more: another one leads."""
        self._end_sweep()
        self.release()
        for word in self._cordon:
            self._transport.unsubscribe(*(self._wire.filter_for(word, device=device) for device in self._inside))
        self._cordon.clear()
        self._inside.clear()
        self._outside.clear()
        self._lift_at = self._read_at = self._read_ends = math.inf
        self._reconnects = False
        self.strays = Strays()

    # Time.

    @property
    def deadline(self) -> float:
        """When `tick` has something to do; inf for never."""
        tried = self._cut_at + OURS_S if math.isfinite(self._cut_at) and not self._is_settled else math.inf
        ends = self.quotas.minute_ends if self.quotas.has_dropped else math.inf
        strays = math.inf if self._cordon and not self.strays.waits else self.strays.deadline
        return min(tried, ends, strays, self._lift_at, self._sweep_ends, self._read_at, self._read_ends)

    @property
    def _is_settled(self) -> bool:
        return self._proved or self._cannot != ""

    def tick(self, now: float, jobs: set[str]) -> None:
        """Clear, read and tell what is due. jobs: those at work."""
        self.quotas.n_jobs = max(1, len(jobs))
        if now >= self.quotas.minute_ends:
            self.quotas.forget_jobs(jobs)
            self._turn(now)
        if not self._is_settled and now >= self._cut_at + OURS_S and math.isfinite(self._cut_at):
            self._proved = self._set_note("")
            self._cut_at = -math.inf
        for why in self._cutter.failures() if self._cutter is not None else ():
            if self._tally.count(why):
                log.error("a device that floods could not be thrown off: %s", why)
        if len(self._out) < MOST_OUT:
            for topic in self.strays.take(now):
                self._out.put(Packet(topic, b"", retain=True))
        if now >= self._lift_at:
            self._lift(now)
        if now >= self._read_ends:
            self._end_reading(now)
        if now >= self._read_at:
            self._begin_reading(now)
        if now >= self._sweep_ends:
            self._end_sweep()
        if now >= self.strays.read_at and not self._cordon:
            self._begin_sweep(now)

    def _turn(self, now: float) -> None:
        for line in self.quotas.turn(now):
            log.warning("%s in the last minute", line)

    def _begin_sweep(self, now: float) -> None:
        """Read once more what is retained."""
        self.strays.read_at, self._sweep_ends = math.inf, now + SWEEP_S
        self._expect_stored(now)
        self._transport.subscribe(*self._all_filters(), as_published=True)

    def _end_sweep(self) -> None:
        if math.isfinite(self._sweep_ends):
            self._sweep_ends = math.inf
            self._transport.unsubscribe(*self._all_filters())

    def _all_filters(self) -> list[str]:
        return [self._wire.filter_below(word) for word in ("offer", "chunk")]

    # Words for operators.

    def told(self, now: float) -> list[str]:
        """Return what an operator should know."""
        lines = self.quotas.told(now)
        return [*lines, f"nobody can be thrown off: {self._cannot}"] if lines and self._cannot else lines
