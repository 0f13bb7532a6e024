"""The floor: as many bytes as a round has, by bare paho through the same mosquitto, and nothing done with them."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.overhead.found import Found
from benchmarks.overhead.meters import Costs
from benchmarks.overhead.rounds import WARM, in_report, look_on
from broker.embedded import start_broker
from fleet.local.processes import Children

COMMAND = (sys.executable, "-P", "-m", "benchmarks.overhead.floor_role")


def measure(up: int, down: int, n_agents: int, rounds: int, *, say: Callable[[str], None]) -> Found:
    """Run so many rounds beyond the first few, of so many bytes an agent. Raises ChildDiedError or StartError."""
    with (
        tempfile.TemporaryDirectory(prefix="floor-overhead-") as name,
        start_broker(Path(name) / "broker") as broker,
        Children() as children,
    ):
        report, port = Path(name) / "report", str(broker.port)
        began = time.perf_counter()
        arguments = ["server", port, str(n_agents), str(WARM + rounds + 2), str(up), str(down), str(report)]
        server = children.start("server", [*COMMAND, *arguments], Path(name) / "server.log").process.pid
        while not report.exists():
            children.check()
            time.sleep(0.05)
        clients = []
        for i in range(n_agents):
            command = [*COMMAND, "client", port, f"client-{i}", str(up), str(down)]
            clients.append(children.start(f"client {i}", command, Path(name) / f"client-{i}.log").process.pid)
        costs = Costs({"server": [server], "broker": [broker.pid], "agent": clients})
        seen = look_on(
            *(in_report(report, children, WARM + rounds), costs, rounds),
            lambda number: say(f"floor, {n_agents} clients: round {number} of {WARM + rounds}"),
        )
        return Found(
            f"bare paho, {up} up, {down} down",
            n_agents,
            seen.wall_s,
            seen.cpu_s["server"],
            seen.cpu_s["broker"],
            seen.cpu_s["agent"] / n_agents,
            costs.peak_mb("server"),
            costs.peak_mb("agent"),
            seen.first_at - began,
            up,
            down,
        )
