"""Law 10, of devices that an operator has put in quarantine, as far as the store of who leads has it written.

 a. Once the operator is answered it is durable: there after every start, in a copy of that disk, and what the
    aggregator goes by.
 b. Such a device is not drawn. What of it is judged from the next step on is never counted, and no score of a version
    either; what was counted before is in the sum, and in the next version (law 1).
 c. No round waits for it.
 d. Nothing is refused for a quarantine that is over; and who is released takes part again (law 9).

An update that was judged in the very step in which the quarantine was written was here before that.
"""

from __future__ import annotations

from typing import Protocol

from aggregator.effects import Attempt
from aggregator.refusals import BARRED
from broker.messages import Quarantine, Release, Reply, Verdict
from fleet.world import insides
from fleet.world.nodes import Server
from fleet.world.process import Process


class World(Protocol):
    """What this law needs to know of the world."""

    servers: list[Server]
    acting: Process | None


class Broken(Protocol):
    """Notes that a law was broken."""

    def __call__(self, law: int, kind: str, words: str) -> None:
        """See `Laws.broken`."""


class Bars:
    """Law 10 of one world."""

    def __init__(self, world: World, broken: Broken) -> None:
        self._world = world
        self._broken = broken
        self._asked: dict[tuple[str, str], tuple[str, str]] = {}
        """Client and request to a device, and why it shall be in quarantine; "" where it shall not."""

    # What the store is told.

    def writes(self, server: Server, device: str) -> None:
        """Note that a quarantine, or its end, is about to become durable."""
        server.record.unsure_barred.add(device)

    def has_written(self, server: Server, device: str, why: str) -> None:
        """Note that it is."""
        record = server.record
        record.bar(device, why)
        record.barred_at[device] = server.moment
        before, self._world.acting = self._world.acting, None
        record.scored[device] = insides.scored_by(server, device) if why else set()
        self._world.acting = before

    def judged(self, server: Server, verdict: Verdict) -> None:
        """Hold a verdict that was written down against the law."""
        record, device = server.record, verdict.device
        if device in record.unsure_barred or record.barred_at.get(device) == server.moment:
            return
        words = f"{server.name}: {verdict}"
        if verdict.counted and device in record.barred:
            self._broken(10, "an update of a device in quarantine was counted", words)
        if verdict.refused.startswith(BARRED) and device not in record.barred:
            self._broken(10, "an update was refused for a quarantine that is over", words)

    def draws(self, server: Server, attempt: Attempt) -> None:
        """Hold the cohort of an attempt that is about to become durable against the law."""
        drawn = server.record.surely_barred().intersection(attempt.cohort) - insides.counted_in(server, attempt)
        if drawn:
            self._broken(10, "a device in quarantine is drawn", f"{server.name}: {sorted(drawn)} for {attempt.base}")

    # What is heard at the broker.

    def asks(self, command: Quarantine | Release) -> None:
        """Note what an operator asks for."""
        why = command.why if isinstance(command, Quarantine) else ""
        self._asked[command.client, command.request] = command.device, why

    def answers(self, server: Server, reply: Reply) -> None:
        """Hold it against the law that an operator is told that something is done."""
        asked = self._asked.get((reply.client, reply.request))
        if asked is not None and asked not in server.record.barring and asked[0] not in server.record.unsure_barred:
            self._broken(10, "a quarantine is answered that is not durable", f"{server.name}: {reply.text}")

    def scores(self, server: Server, verdict: Verdict) -> None:
        """Hold it against the law that what a device says of a version was taken."""
        record, device = server.record, verdict.device
        if device in record.surely_barred() and (verdict.job, verdict.base) not in record.scored.get(device, ()):
            self._broken(10, "a score of a device in quarantine was counted", f"{server.name}: {verdict}")

    # Lives, and now and then.

    def started(self, server: Server) -> None:
        """Hold what a store has after a start against what it was known to hold."""
        record, stored = server.record, insides.quarantined_in_store(server)
        for device in sorted(record.unsure_barred):
            record.bar(device, stored.get(device, ""))
        if stored != record.barred:
            self._broken(10, "a quarantine is not as it was written", f"{server.name}: {record.barred}, now {stored}")

    def inspect(self, server: Server) -> None:
        """Look at a running aggregator, between two of its steps."""
        if not insides.leads(server):
            return
        barred = server.record.surely_barred()
        by = insides.quarantined(server) - server.record.unsure_barred
        if by != barred:
            self._broken(10, "it goes by another quarantine than is written", f"{server.name}: {by}, not {barred}")
        for job, awaited in insides.awaited(server).items():
            if waits_for := awaited & barred:
                self._broken(10, "a round waits for a device in quarantine", f"{server.name} {job}: {waits_for}")
