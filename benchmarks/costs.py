"""A job at a broker of deploy/, without and with message keys and TLS: what it costs. Behind benchmarks.secured.

Each run is a fleet of processes of its own: mosquitto, an aggregator, every device; a proxy counts before the devices'
listener. Who is who is made once, for all runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, structs

from benchmarks.deployed import HOST, OPERATOR, Broker, Identities, Passwords
from benchmarks.memory import cpu_s, peak_mb
from benchmarks.overhead.meters import cost_of
from broker.messages import Presence
from fleet.console.observer import over_mqtt
from fleet.console.watch import Sights, Watch, WatchError
from fleet.identity import wire_of_operator
from fleet.local import stage
from fleet.local.meter import Meter
from fleet.local.processes import Children
from fleet.local.stage import FLEET
from fleet.problems.problem import Problem, device_names, for_all
from identity.settings import IdentitySettings
from models.job import JobSpec, StopSpec

FEW = 3
"""Rounds of the short run: what is said once is in both, and cancels out."""
SETTLING_S = 2.0
"""So long nobody has anything left to say: before the job is handed in, and after its end."""


class Kind(NamedTuple):
    """How a fleet is secured."""

    name: str
    keys: bool
    tls: bool


KINDS = (Kind("passwords", keys=False, tls=False), Kind("keys", keys=True, tls=False), Kind("keys, TLS", True, True))


class Cost(Struct, frozen=True):
    """A job, and what it has cost. Bytes: of a device. CPU: milliseconds a round. Memory: VmHWM, MB of 10^6 bytes."""

    kind: str
    devices: int
    rounds: int
    joined_up: float
    """Until a device is connected and known, once."""
    joined_down: float
    begun_up: float
    """Of a job of FEW rounds, from its announcement to its end."""
    begun_down: float
    up: float
    """Of any further round."""
    down: float
    round_s: float
    aggregator_ms: float
    broker_ms: float
    agent_ms: float
    """Of one, on average."""
    aggregator_mb: float
    broker_mb: float
    agent_mb: float
    """Of the largest."""
    accuracy: float | None
    sha256: str
    """Of the last version, as far as its head says it: without keys half of it."""


class _Run(NamedTuple):
    """One run. joined, done: what all devices have sent and received until all are known, and until the job has ended.

    round_s, cpu_s: from the first version to the last, a round; cpu_s and mb by role.
    """

    rounds: int
    joined: tuple[int, int]
    done: tuple[int, int]
    round_s: float
    cpu_s: dict[str, float]
    mb: dict[str, float]
    accuracy: float | None
    sha256: str


class _Server(NamedTuple):
    """Who is who, for all of the runs."""

    identities: Identities
    passwords: Passwords


def measure(problem: Problem, repeats: int = 1, say: Callable[[str], None] = lambda _: None) -> list[Cost]:
    """Run the job of a problem in all kinds in turn, so many times over. say: told what goes on.

    Raises SettingsError for a job that so many devices cannot do, StartError where mosquitto or its tools are missing,
    ChildDiedError when a process ends early, WatchError when the fleet is silent or the job ends early.
    """
    names = device_names(len(problem.shares))
    wanted = for_all(problem.spec, len(names))
    found = []
    with tempfile.TemporaryDirectory(prefix="fedge-secured-") as name:
        folder = Path(name).resolve()
        say(f"certificates, keys and passwords for {len(names)} devices")
        identities = Identities(folder, FLEET, names)
        server = _Server(identities, Passwords(folder / "passwords", [*names, "aggregator", OPERATOR]))
        for _ in range(repeats):
            for kind in KINDS:
                runs = []
                for rounds in (FEW, problem.spec.rounds.max_rounds):
                    say(f"{kind.name}, {rounds} rounds")
                    rules = structs.replace(wanted.rounds, max_rounds=rounds, stop=StopSpec())
                    spec = structs.replace(wanted, rounds=rules)
                    with tempfile.TemporaryDirectory(dir=folder) as place:
                        runs.append(_run(structs.replace(problem, spec=spec), kind, server, Path(place)))
                found.append(_cost(kind, len(names), *runs))
    return found


def _cost(kind: Kind, devices: int, few: _Run, many: _Run) -> Cost:
    """Return what a job costs once and a round, by two runs of other lengths."""
    few_bytes, many_bytes = (
        [(done - joined) / devices for joined, done in zip(run.joined, run.done, strict=True)] for run in (few, many)
    )
    a_round = [(b - a) / (many.rounds - few.rounds) for a, b in zip(few_bytes, many_bytes, strict=True)]
    joined = [n / devices for n in many.joined]
    ms = {role: 1000 * cpu_s for role, cpu_s in many.cpu_s.items()}
    return Cost(
        kind=kind.name,
        devices=devices,
        rounds=many.rounds,
        joined_up=joined[0],
        joined_down=joined[1],
        begun_up=few_bytes[0],
        begun_down=few_bytes[1],
        up=a_round[0],
        down=a_round[1],
        round_s=many.round_s,
        aggregator_ms=ms["aggregator"],
        broker_ms=ms["broker"],
        agent_ms=ms["agent"] / devices,
        aggregator_mb=many.mb["aggregator"],
        broker_mb=many.mb["broker"],
        agent_mb=many.mb["agent"],
        accuracy=many.accuracy,
        sha256=many.sha256,
    )


def _run(problem: Problem, kind: Kind, server: _Server, folder: Path) -> _Run:
    with ExitStack() as stack:  # undone from the end: whoever says goodbye at the end of it is still heard
        broker = Broker(
            folder / "broker", stack.enter_context(Children()), server.identities if kind.tls else server.passwords
        )
        meter = Meter(HOST, broker.device_port)
        port = meter.start()
        stack.callback(meter.stop)
        keys = server.identities if kind.keys else None
        plan = stage.build(
            *(folder, problem.spec, problem.shares, problem.test, lambda name: broker.settings(name, port)),
            inference=False,
            keys=keys,
            vitals=False,  # said by the clock, and so in one run more often than in another
        )
        children = stack.enter_context(Children())
        observer = over_mqtt(
            *("watch", broker.settings(OPERATOR)),
            wire_of_operator(FLEET, keys.of_operator if keys else IdentitySettings()),
        )
        watch = stack.enter_context(Watch(observer, heard=("aggregator", "device", "head", "status")))
        aggregator, *agents = (child.process.pid for child in stage.start(children, plan))
        pids = {"aggregator": [aggregator], "broker": [broker.child.process.pid], "agent": agents}
        return _Following(problem.spec, watch, children, meter, pids).follow()


class _Following:
    """Looking on from the first device to the end of the job."""

    def __init__(
        self, spec: JobSpec, watch: Watch, children: Children, meter: Meter, pids: dict[str, list[int]]
    ) -> None:
        self._spec, self._watch, self._children, self._meter, self._pids = spec, watch, children, meter, pids
        self._sights, self._times = Sights(), list[float]()
        self._cpu_s: list[dict[str, float]] = []

    def follow(self) -> _Run:
        """Hand the job in once everybody is there; return what it has cost once it has ended.

        Raises WatchError, ChildDiedError.
        """
        self._until_all_are_there()
        joined = self._bytes()
        self._watch.submit(self._spec)
        self._until_the_end()
        rounds = self._spec.rounds.max_rounds
        (since, until), (first, last) = self._times, self._cpu_s
        return _Run(
            rounds=rounds,
            joined=joined,
            done=self._bytes(),
            round_s=(until - since) / (rounds - 1),
            cpu_s={role: (last[role] - first[role]) / (rounds - 1) for role in self._pids},
            mb={role: max(map(peak_mb, pids)) for role, pids in self._pids.items()},
            accuracy=self._sights.statuses[rounds].metrics.get("accuracy"),
            sha256=self._sights.heads[rounds].sha256,
        )

    def _until_all_are_there(self) -> None:
        here: set[str] = set()
        calm_at = float("inf")
        for heard in self._watch.hear():
            self._children.check()
            if heard is not None:
                self._sights.see(heard)
            if isinstance(heard, Presence):
                (here.add if heard.online else here.discard)(heard.device)
            if not self._sights.led or len(here) < len(self._pids["agent"]):
                calm_at = float("inf")
            elif heard is not None:
                calm_at = time.monotonic() + SETTLING_S
            elif time.monotonic() > calm_at:
                return

    def _until_the_end(self) -> None:
        last, ends_at = self._spec.rounds.max_rounds, float("inf")
        for heard in self._watch.hear():
            self._children.check()
            if heard is not None and self._sights.see(heard) and max(self._sights.statuses) in (1, last):
                self._cpu_s.append({role: sum(map(_cpu_s, pids)) for role, pids in self._pids.items()})
                self._times.append(time.monotonic())
            if self._sights.ended is not None and ends_at == float("inf"):
                ends_at = time.monotonic() + SETTLING_S
            if time.monotonic() > ends_at:
                break
        ended, reached = self._sights.ended, max(self._sights.statuses)
        if ended is None or reached < last:
            why = "" if ended is None else f": {ended.reason}"
            raise WatchError(f"the job ended at version {reached} of {last}{why}")

    def _bytes(self) -> tuple[int, int]:
        total = self._meter.totals()
        return total.up.wire_bytes, total.down.wire_bytes


def _cpu_s(pid: int) -> float:
    """Return what a process has used: by the nanosecond, or where threads of it have ended by the tick."""
    return max(cpu_s(pid), cost_of(pid).cpu_s)
