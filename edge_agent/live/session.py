"""One connection to a site's broker, from the first packet to the last: what becomes of each event. Clock and transport
are others' (listener.py); everything here happens in one thread.

    offline ──Online──▶ on trial ──PROOF_S, nothing of the fleet's was seen──▶ trusted: rows go to the ring
       ▲                   │ a packet on a topic of this fleet
       └──── Offline ──────┤
                           ▼
                        refused: what waits is dropped, for good

 1. Rows of a connection on trial wait in memory; they are dropped with it. So nothing from the fleet's own broker is
    ever on disk, however it is reached.
 2. A loss of the connection makes everything that was heard unknown (joining.py, law 6).
 3. A message is counted, thinned, decoded and joined, in that order: what is too much costs the least.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver, TransportEvent
from edge_agent.live import refusal
from edge_agent.live.decoding import MANY, Decoder, Rubbish
from edge_agent.live.health import StrayHealth, TopicHealth, clock
from edge_agent.live.joining import Join, Row
from edge_agent.live.settings import LiveSettings
from runtime.words import clean

PROOF_S = 3.0
"""What is retained comes at once behind the answer to a subscription."""
MOST_ON_TRIAL = 10_000
"""Rows that wait so long; and, with TEXTS_ON_TRIAL, the characters of texts in them."""
TEXTS_ON_TRIAL = 2**20


class Session:
    """A source's dealings with its broker. keep: is given the rows of a trusted connection.

    proofs: topics that only the fleet's broker has something on. now: seconds that only go forward; wall: the clock.
    """

    def __init__(
        self, source: LiveSettings, proofs: tuple[str, ...], keep: Callable[[Row], None], now: float, wall: float
    ) -> None:
        mqtt = source.mqtt
        self._mqtt, self._proofs, self._keep = mqtt, proofs, keep
        self._label_topic = mqtt.label_topic
        self._group = mqtt.group if mqtt.is_grouped else ""
        self._decoder = Decoder(mqtt)
        tolerance_s = 2 * (mqtt.period_s or 0.0) if mqtt.tolerance_s is None else mqtt.tolerance_s
        self._join = Join(
            period_s=mqtt.period_s, tolerance_s=tolerance_s, label=source.label, is_grouped=mqtt.is_grouped
        )
        self._topics = {topic: TopicHealth(mqtt.max_per_s, now, wall) for topic in mqtt.filters}
        self._label_health = TopicHealth(mqtt.max_per_s, now, wall)
        self._strays = StrayHealth(now)
        self._trusted_at = math.inf
        self._on_trial: list[Row] = []
        self._texts_on_trial = 0
        self._offline_since: float | None = wall
        self._reason = "it has not answered yet"
        self._denied: dict[str, str] = {}
        self.refused = ""
        """Why there is to be no such connection; "" while there may be."""
        self.taken_over = False

    @property
    def filters(self) -> tuple[str, ...]:
        """Return what to subscribe to."""
        label = () if self._label_topic is None else (self._label_topic,)
        return (*self._mqtt.filters, *label, *self._proofs)

    @property
    def floods(self) -> bool:
        """Return whether more comes than this device should even throw away."""
        of_topics = (self._label_health, *self._topics.values())
        return self._strays.floods or any(health.floods for health in of_topics)

    def is_trusted(self, now: float) -> bool:
        """Return whether rows go to the ring."""
        return now >= self._trusted_at

    def due_in(self, wall: float) -> float:
        """Return the seconds until `tick` has a row to give; inf for never."""
        return max(0.0, self._join.due_at - wall)

    def receive(self, event: TransportEvent, now: float, wall: float) -> None:
        """Take an event of the transport."""
        match event:
            case Packet():
                self._hear(event, now, wall)
            case Online():
                self._offline_since, self._trusted_at = None, now + PROOF_S
                self._denied.clear()
            case Offline(reason):
                self._lose(reason, wall)
            case Denied(topic, reason):
                if topic not in self._proofs:  # an access list that hides those is as it should be
                    self._denied[topic] = reason
            case SessionTakenOver():
                self.taken_over = True
                self._lose("another client has connected under the same client_id: give this one its own", wall)

    def tick(self, now: float, wall: float) -> None:
        """Let time pass."""
        self._give(self._join.tick(wall), now)

    def said(self, now: float) -> str:
        """Return what an operator should know; "" where all is well."""
        if self.refused:
            return self.refused
        found = []
        where = f"{self._mqtt.host}:{self._mqtt.port}"
        if self._offline_since is not None:
            return f"no connection to {where} since {clock(self._offline_since)}: {clean(self._reason, 200)}"
        found += [f"{where} refuses topic {clean(topic, 80)}: {clean(why, 80)}" for topic, why in self._denied.items()]
        found += self._strays.said()
        for topic, health in self._topics.items():
            found += health.said(topic, now, self._mqtt.stall_s)
        if self._label_topic is not None:
            found += self._label_health.said(self._label_topic, now, math.inf)
            if not self._join.has_label and self._label_health.silent_s(now) >= self._mqtt.stall_s:
                found.append(f"no label is known: nothing came on label_topic {clean(self._label_topic, 80)}")
        return "; ".join(found)

    def _hear(self, packet: Packet, now: float, wall: float) -> None:
        if packet.topic in self._proofs:
            self.refused = refusal.recognised(self._mqtt, packet.topic)
            self._drop_on_trial()
            self._trusted_at = math.inf
            return
        if packet.topic == self._label_topic:
            self._hear_label(packet, now, wall)
            return
        routes = [] if packet.retain else self._decoder.routes(packet.topic)
        if not routes:
            self._strays.note(now)
        for topic, group in routes:
            health = self._topics[topic]
            if not health.allows(now):
                continue
            read = self._decoder.read(topic, group, packet.payload)
            if isinstance(read, Rubbish):
                health.rubbish(read.why)
                continue
            rows = self._join.take(read, wall)
            if rows is None:
                health.rubbish(MANY)
                continue
            health.note(now, wall)
            self._give(rows, now)

    def _hear_label(self, packet: Packet, now: float, wall: float) -> None:
        if not self._label_health.allows(now):
            return
        value = self._decoder.label(packet.payload)
        if isinstance(value, Rubbish):
            self._label_health.rubbish(value.why)
            return
        self._give(self._join.tick(wall), now)
        self._join.label(value)
        self._label_health.note(now, wall)

    def _lose(self, reason: str, wall: float) -> None:
        if self._offline_since is None:
            self._offline_since = wall
        self._reason = reason
        self._trusted_at = math.inf
        self._drop_on_trial()
        self._join.forget()

    def _give(self, rows: list[Row], now: float) -> None:
        for row in rows:
            full = row if not self._group else row._replace(values={self._group: row.group, **row.values})
            if len(self._on_trial) < MOST_ON_TRIAL and self._texts_on_trial < TEXTS_ON_TRIAL:
                self._on_trial.append(full)
                self._texts_on_trial += sum(len(value) for value in full.values.values() if isinstance(value, str))
        if now >= self._trusted_at:
            for row in self._on_trial:
                self._keep(row)
            self._drop_on_trial()

    def _drop_on_trial(self) -> None:
        self._on_trial.clear()
        self._texts_on_trial = 0
