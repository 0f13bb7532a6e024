"""What an idle device sends and hears in a day, counted by a proxy: `python -m benchmarks.idle [--minutes M]`.

A mosquitto, an aggregator and an agent, each a process; the agent, as it is configured by default, is behind a proxy
that counts every byte of MQTT. It has one job, which waits for a second device. Said are what connecting cost, what the
minutes after that cost, and what a day comes to:

    measured    connecting, and the minutes after it times those of a day
    at most     connecting, the pings of a day, and all that vitals may cost however its sensors swing

Load, heat and disk are those of this machine, so what is said of them within a few minutes is chance; pings are not.

Last, what goes from the aggregator's machine to the broker for Home Assistant, by a made-up clock and the code that
says it: a device whose heat is another one in each of its vitals, in a job that makes a version so often. Nothing of
that is on a device's link.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from msgspec import Struct

from broker.connection import BrokerSettings
from broker.embedded import start_broker
from broker.messages import Beacon, Job, Presence, Status, Version, Vitals
from edge_agent.vitals import DAILY_BYTES, DAY_S
from fleet.console.observer import over_mqtt
from fleet.console.watch import Watch
from fleet.homeassistant.publication import STATE_S, Publication
from fleet.identity import wire_of_operator
from fleet.local import stage
from fleet.local.meter import Meter, Traffic
from fleet.local.processes import Children
from fleet.local.stage import FLEET
from fleet.sight.sight import Sight
from identity.settings import IdentitySettings
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, RoundsSpec

SETTLED_S = 45.0
"""Until whatever follows from connecting, and from a job, has been said."""
PING_BYTES = 4
"""A PINGREQ and its answer."""
HEADER_BYTES = 8
"""Of a PUBLISH at QoS 1 beside its topic and payload, at most (MQTT 5, section 3.3, without properties)."""
VITALS_S = 900.0


class Idle(Struct, frozen=True):
    """What passed, in bytes: all of MQTT, both ways."""

    minutes: float
    connecting: int
    """From the CONNECT until whatever followed from that had been said, its first vitals among it."""
    after: int
    """In the minutes after that."""
    pings: int
    publishes: int
    vitals: int
    """Payload bytes of vitals, in all."""

    @property
    def measured(self) -> float:
        """Bytes of a day like these minutes."""
        return self.connecting + self.after * DAY_S / (60.0 * self.minutes)

    @property
    def most(self) -> float:
        """Bytes of a day at most: a connection, pings at the default keepalive, and all that vitals may cost."""
        return self.connecting + PING_BYTES * DAY_S / BrokerSettings().keepalive_s + DAILY_BYTES


def measure(minutes: float) -> Idle:
    """Let a device be idle for so long. Raises StartError without a broker, ChildDiedError where a process ends."""
    rows = Dataset(np.zeros((20, 4), np.float32), np.arange(20) % 3)
    spec = JobSpec("idle", ModelSpec("mlp", 4, (8,), 3), deploy="never", rounds=RoundsSpec(min_devices=2))
    with tempfile.TemporaryDirectory(prefix="fedge-idle-") as name, start_broker(Path(name) / "broker") as broker:
        meter = Meter(broker.host, broker.port)
        behind = BrokerSettings(port=meter.start(), protocol=broker.protocol)
        ahead = BrokerSettings(port=broker.port, protocol=broker.protocol)
        try:
            (Path(name) / "fleet").mkdir()
            built = stage.build(
                Path(name) / "fleet", spec, [rows], rows, lambda role: ahead if role == "aggregator" else behind
            )
            with Children() as children:
                stage.start(children, built)
                with Watch(over_mqtt("idle", ahead, wire_of_operator(FLEET, IdentitySettings()))) as watch:
                    watch.submit(spec)
                _rest(children, SETTLED_S)
                before = meter.totals()
                _rest(children, 60.0 * minutes)
                return _compared(minutes, before, meter.totals())
        finally:
            meter.stop()


def _rest(children: Children, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        children.check()
        time.sleep(0.5)


def _compared(minutes: float, before: Traffic, after: Traffic) -> Idle:
    connecting = before.up.wire_bytes + before.down.wire_bytes
    n_publishes = [each.up.packets["PUBLISH"] + each.down.packets["PUBLISH"] for each in (before, after)]
    return Idle(
        minutes=minutes,
        connecting=connecting,
        after=after.up.wire_bytes + after.down.wire_bytes - connecting,
        pings=after.up.packets["PINGREQ"] - before.up.packets["PINGREQ"],
        publishes=n_publishes[1] - n_publishes[0],
        vitals=after.up.words["vitals"],
    )


def discovery(versions: int) -> tuple[int, int, int]:
    """Return what Home Assistant is told of one device in a day: bytes of its discovery, states, and their bytes.

    versions: that its job makes in this day.
    """
    sight, told = Sight(FLEET), Publication("homeassistant", FLEET, "fedge 0.1.0", set())
    sight.connect(connected=True, now=0.0)
    sight.hear(Beacon(1, "n", online=True), 0.0)
    sight.hear(Presence("device-00", 1, online=True, ready={"idle-1f0c22ab": 100}), 0.0)
    sight.hear(Job("idle-1f0c22ab", 1, {"name": "idle", "seed": 1}), 0.0)
    first, n_states, n_bytes, made, heat = 0, 0, 0, 0, 0.0
    for step in range(int(DAY_S / STATE_S)):
        now = step * STATE_S
        if now % VITALS_S == 0:
            heat = 60.0 - heat
            sight.hear(Vitals("device-00", 1, heat=heat), now)
        if made < now * versions / DAY_S:
            made += 1
            accuracy = 1.0 - 1.0 / (1 + made)
            sight.hear(Status("idle-1f0c22ab", Version(1, made), "running", metrics={"accuracy": accuracy}), now)
        told.look(sight.view(now), now)
        for packet in told.due(now, 10):
            size = len(packet.topic) + len(packet.payload) + HEADER_BYTES
            if packet.topic.endswith("/config"):
                first += size
            else:
                n_states, n_bytes = n_states + 1, n_bytes + size
    return first, n_states, n_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="that the device is idle (10)")
    found = measure(parser.parse_args().minutes)
    print(
        f"connecting, with the first vitals: {found.connecting:,} bytes ({found.vitals:,} are payloads of vitals)\n"
        f"{found.minutes:g} minutes after it: {found.after:,} bytes, {found.pings} pings, {found.publishes} messages\n"
        f"a day: {found.measured:,.0f} bytes measured, {found.most:,.0f} at most"
    )
    for versions in (0, 24, 1440):
        first, n_states, n_bytes = discovery(versions)
        print(
            f"for Home Assistant, {versions:,} versions a day: {first:,} bytes to make a device known,"
            f" {n_states:,} states of {n_bytes:,} bytes in all"
        )


if __name__ == "__main__":
    main()
