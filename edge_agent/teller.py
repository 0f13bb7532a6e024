"""Puts together what a device says of how it is, when its pace (vitals.py) has it that something could be said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from broker.messages import Version, Vitals
from broker.transport import Counters, Packet, wire_bytes
from broker.wire import Wire
from edge_agent.activity import Activity
from edge_agent.home import Home
from edge_agent.resources import Resources
from edge_agent.textfile import Textfile
from edge_agent.vitals import Pace, Today

FIRST_S = 5.0
"""After connecting, how long a device may take to find something to do."""
PUBACK_BYTES = 4
MOST_DISK = 2**49
MOST_SERVED = 64


class Teller:
    """The vitals of one device. counters: of its connection. now: of the clock that goes on.

    textfile: where they are written at every look, said or not.
    """

    def __init__(
        self,
        every_s: float,
        home: Home,
        wire: Wire,
        counters: Counters,
        resources: Resources,
        now: float,
        textfile: Textfile | None = None,
    ) -> None:
        self.pace = Pace(every_s)
        self.topic = wire.filter_for("vitals", device=home.device)
        self._home = home
        self._wire = wire
        self._counters = counters
        self._resources = resources
        self._textfile = textfile
        self._began_at = now
        self._today = Today()
        drawn = hashlib.blake2b(f"{home.device}/{home.boot}".encode(), digest_size=4).digest()
        self._share = int.from_bytes(drawn, "little") / 2**32
        """The part of a fleet's spread after which this device speaks."""

    def forget(self, now: float, spread_s: float) -> None:
        """Forget what was said: the connection, or whoever leads, is a new one."""
        self.pace.forget(now, FIRST_S + self._share * spread_s)

    def stop(self) -> None:
        """Fall silent until the next `forget`: the broker takes none of it."""
        self.pace.stop()

    def tell(
        self, now: float, doing: Callable[[], Activity], serves: Callable[[], Mapping[str, Version]]
    ) -> Packet | None:
        """Return what is to be said now, if anything. doing, serves: asked where something could be said."""
        self.pace.look(now)
        clock = self._resources.wall_clock()
        n_bytes = self._today.count(self._counters.wire_sent_bytes + self._counters.wire_received_bytes, clock)
        if now < self.pace.may_at and self._textfile is None:
            return None
        vitals = self._vitals(now, doing(), serves(), clock, n_bytes)
        if self._textfile is not None:
            self._textfile.write(vitals)
        if not self.pace.is_due(vitals, now):
            return None
        packet = self._wire.pack(vitals)
        self.pace.say(vitals, wire_bytes(packet) + PUBACK_BYTES, now)
        return packet

    def _vitals(
        self, now: float, activity: Activity, serves: Mapping[str, Version], clock: float, n_bytes: int
    ) -> Vitals:
        found = self._resources.condition(self._home.folder)
        return Vitals(
            self._home.device,
            self._home.boot,
            activity.doing,
            activity.job,
            None if activity.progress is None else round(min(activity.progress, 1.0), 2),
            activity.why,
            disk_free=None if found.disk_free is None else min(found.disk_free, MOST_DISK),
            heat=None if found.heat is None else round(found.heat, 1),
            load=None if found.load is None else round(found.load, 2),
            bytes_today=n_bytes,
            clock=round(max(clock, 0.0), 1),
            uptime_s=round(max(now - self._began_at, 0.0)),
            serves=dict(sorted(serves.items())[:MOST_SERVED]),
        )
