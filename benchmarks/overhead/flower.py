"""Flower's rounds: its lean server and clients as processes, with the Python of an environment of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.overhead.found import Found
from benchmarks.overhead.meters import Costs
from benchmarks.overhead.rounds import WARM, in_report, look_on
from fleet.local.processes import Children
from models.params import Spec

_ROLE = str(Path(__file__).with_name("flower_role.py"))
_FIND = "import importlib.util, sys; sys.exit(importlib.util.find_spec('flwr') is None)"


def is_installed(python: Path) -> bool:
    """Return whether this is a Python that finds `flwr`."""
    try:
        return subprocess.run([str(python), "-c", _FIND], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def measure(python: Path, spec: Spec, n_agents: int, rounds: int, *, say: Callable[[str], None]) -> Found:
    """Run so many rounds beyond the first few. python: of an environment with flwr. Raises ChildDiedError."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="flower-overhead-") as name, Children() as children:
        shapes, report = Path(name) / "shapes.json", Path(name) / "report"
        shapes.write_text(json.dumps([tensor.shape for tensor in spec]), encoding="utf-8")
        report.touch()
        began = time.perf_counter()
        # Two rounds more than are looked at: who ends a process takes its figures along.
        arguments = ["server", address, str(n_agents), str(WARM + rounds + 2), str(shapes), str(report)]
        server = children.start("server", [str(python), _ROLE, *arguments], Path(name) / "server.log").process.pid
        _wait_for(address, children)
        clients = []
        for i in range(n_agents):
            command = [str(python), _ROLE, "client", address, str(shapes), str(i)]
            clients.append(children.start(f"client {i}", command, Path(name) / f"client-{i}.log").process.pid)
        costs = Costs({"server": [server], "agent": clients})
        seen = look_on(
            *(in_report(report, children, WARM + rounds), costs, rounds),
            lambda number: say(f"flower, {n_agents} clients: round {number} of {WARM + rounds}"),
        )
        whole = [line.split() for line in report.read_text().splitlines()]
        if any(line[1:] != [str(n_agents), "0"] for line in whole):
            raise ValueError(f"a round of Flower's had not all of its clients: {whole}")
        return Found(
            "flower",
            n_agents,
            seen.wall_s,
            seen.cpu_s["server"],
            0.0,
            seen.cpu_s["agent"] / n_agents,
            costs.peak_mb("server"),
            costs.peak_mb("agent"),
            seen.first_at - began,
        )


def _wait_for(address: str, children: Children) -> None:
    host, _, port = address.partition(":")
    while True:
        children.check()
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.05)
