"""What message keys and TLS cost a fleet: bytes, CPU and memory of the same job without them, and with them.

    python -m benchmarks.secured job.toml --data train.npz --test test.npz --devices 10 --rounds 20
    python -m benchmarks.secured job.toml --data train.npz --test test.npz --partition column:device --json secured.json

mosquitto, an aggregator and every device are processes; a proxy before the devices' listener counts. In turn:

    passwords    deploy/mosquitto/mosquitto.conf: a password each, and nobody signs
    keys         the same broker; everybody signs, and believes signed words alone
    keys, TLS    deploy/mosquitto/locked.conf: TLS 1.3 and a client certificate each, keys as before

Bytes are all that TCP carries to and from devices, of one: MQTT, or TLS records with MQTT in them, handshakes and
resends too; not the heads of TCP and IP. Every kind runs twice, for three rounds and for all, so that what is said once
(to connect and be known; of the job, and of its end) is told apart from a round. [rounds.stop] of the job is left out.
CPU is user and system from the first version to the last, a round: of the aggregator, of the broker, of one device on
average. Memory is VmHWM, of 10^6 bytes; of devices the largest. All models have to be the same bits: else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, structs, to_builtins

from benchmarks.deployed import HOST, OPERATOR, Broker, Identities, Passwords
from benchmarks.memory import cpu_s, peak_mb
from benchmarks.overhead.meters import cost_of
from broker.errors import StartError
from broker.messages import Presence
from fleet.console.observer import over_mqtt
from fleet.console.watch import Sights, Watch, WatchError
from fleet.identity import wire_of_operator
from fleet.local import stage
from fleet.local.meter import Meter
from fleet.local.processes import ChildDiedError, Children, interruptible
from fleet.local.stage import FLEET
from fleet.problems.partition import PartitionError
from fleet.problems.problem import Problem, device_names, for_all, read_problem
from identity.settings import IdentitySettings
from models.data.dataset import DatasetError
from models.job import JobSpec, StopSpec
from models.nets.net import ModelError
from runtime.settings import SettingsError

INTERRUPTED = 130
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
        for turn in range(repeats):
            for kind in KINDS:
                runs = []
                for rounds in (FEW, problem.spec.rounds.max_rounds):
                    say(f"{kind.name}, {rounds} rounds")
                    rules = structs.replace(wanted.rounds, max_rounds=rounds, stop=StopSpec())
                    spec = structs.replace(wanted, rounds=rules)
                    place = folder / f"{turn}-{kind.name}-{rounds}"
                    runs.append(_run(structs.replace(problem, spec=spec), kind, server, place))
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
    with Children() as brokers, Children() as children:
        broker = Broker(folder / "broker", brokers, server.identities if kind.tls else server.passwords)
        meter = Meter(HOST, broker.device_port)
        port = meter.start()
        keys = server.identities if kind.keys else None
        plan = stage.build(
            *(folder, problem.spec, problem.shares, problem.test, lambda name: broker.settings(name, port)),
            inference=False,
            keys=keys,
        )
        wire = wire_of_operator(FLEET, keys.of_operator if keys else IdentitySettings())
        heard = ("aggregator", "device", "head", "status")
        with Watch(over_mqtt("watch", broker.settings(OPERATOR), wire), heard=heard) as watch:
            aggregator, *agents = (child.process.pid for child in stage.start(children, plan))
            pids = {"aggregator": [aggregator], "broker": [broker.child.process.pid], "agent": agents}
            run = _Following(problem.spec, watch, children, meter, pids).follow()
        meter.stop()
    return run


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


# What is printed.

HEADER = (
    f"{'':<10}{'B to join':>15}{f'B, {FEW} rounds':>15}{'B, each further':>19}{'s':>7}"
    f"{'ms of CPU a round':>26}{'MB':>26}"
)
UNITS = (
    f"{'':<10}{'up':>8}{'down':>7}{'up':>8}{'down':>7}{'up':>10}{'down':>9}{'/round':>7}"
    f"{'aggregator':>11}{'broker':>8}{'agent':>7}{'aggregator':>12}{'broker':>7}{'agent':>7}"
)


def median(costs: Sequence[Cost]) -> Cost:
    """Return the medians of runs of one kind; their models are the first one's."""
    first = to_builtins(costs[0])
    numbers = [name for name, value in first.items() if isinstance(value, float)]
    return Cost(**first | {name: statistics.median(getattr(cost, name) for cost in costs) for name in numbers})


def is_same(costs: Sequence[Cost]) -> bool:
    """Return whether all have made the same model, by as much of its SHA-256 as all of them say."""
    said = min(len(cost.sha256) for cost in costs)
    return len({cost.sha256[:said] for cost in costs}) == 1


def _row(cost: Cost) -> str:
    return (
        f"{cost.kind:<10}{cost.joined_up:>8.0f}{cost.joined_down:>7.0f}{cost.begun_up:>8.0f}{cost.begun_down:>7.0f}"
        f"{cost.up:>10.1f}{cost.down:>9.1f}{cost.round_s:>7.2f}"
        f"{cost.aggregator_ms:>11.1f}{cost.broker_ms:>8.2f}{cost.agent_ms:>7.1f}"
        f"{cost.aggregator_mb:>12.1f}{cost.broker_mb:>7.1f}{cost.agent_mb:>7.1f}"
    )


def _beside(cost: Cost, plain: Cost) -> str:
    """Say how much more a kind sends: in every round, and once, whose share of the first rounds is taken off."""
    up, down = cost.up - plain.up, cost.down - plain.down
    join = cost.joined_up - plain.joined_up, cost.joined_down - plain.joined_down
    job = cost.begun_up - plain.begun_up - FEW * up, cost.begun_down - plain.begun_down - FEW * down
    return (
        f"{cost.kind} beside {plain.kind}, bytes of a device up and down: {up:+.1f} and {down:+.1f} a round; once "
        f"{join[0]:+.0f} and {join[1]:+.0f} to join, {job[0]:+.0f} and {job[1]:+.0f} for the job"
    )


def _print(found: Sequence[Cost], repeats: int) -> None:
    first = found[0]
    print(f"{first.devices} devices, {first.rounds} rounds" + (f", medians of {repeats}" if repeats > 1 else ""))
    print(f"{HEADER}\n{UNITS}")
    rows = [median([cost for cost in found if cost.kind == kind.name]) for kind in KINDS]
    for row in rows:
        print(_row(row))
    for row in rows[1:]:
        print(_beside(row, rows[0]))
    if is_same(found):
        longest = max((cost.sha256 for cost in found), key=len)
        print(f"the same model every time: version {first.rounds}, accuracy {first.accuracy}, SHA-256 {longest}")
    else:
        models = "; ".join(f"{cost.kind} {cost.sha256[:16]}" for cost in found)
        print(f'NOT the same model every time: {models}; a device may have been late: give the job wait = "all"')


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 where something does not run or the models differ, 2 for bad input."""
    asked = _parser().parse_args(arguments)
    try:
        problem = read_problem(
            *(asked.job, asked.data),
            how=asked.partition,
            n_devices=asked.devices,
            test=asked.test,
            features=asked.features,
            rounds=asked.rounds,
        )
        with interruptible():
            before = os.getloadavg()[0]
            found = measure(problem, asked.repeats, lambda text: print(text, file=sys.stderr, flush=True))
    except (SettingsError, PartitionError, DatasetError, ModelError) as error:
        print(f"benchmarks.secured: {error}", file=sys.stderr)
        return 2
    except (StartError, WatchError, ChildDiedError, OSError) as error:
        print(f"benchmarks.secured: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: nothing is left behind", file=sys.stderr)
        return INTERRUPTED
    _print(found, asked.repeats)
    print(f"load of the machine before and after: {before:.1f}, {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")
    if asked.json is not None:
        asked.json.write_text(json.dumps(to_builtins(found), indent=1) + "\n", encoding="utf-8")
    return int(not is_same(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.secured",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", nargs="?", type=Path, default=Path("digits"), metavar="JOB.toml")
    parser.add_argument("--data", default="digits", metavar="FILE.npz|digits")
    parser.add_argument("--test", type=Path, metavar="FILE.npz", help="a test split; else a fifth of the data")
    parser.add_argument("--features", metavar="NAME", help="the array of features in the NPZ files (X)")
    parser.add_argument("--devices", type=_number, default=10, metavar="N")
    parser.add_argument("--partition", default="iid", metavar="HOW", help="iid, column:NAME, shards:K, dirichlet:A")
    parser.add_argument("--rounds", type=_rounds, default=20, metavar="R", help=f"more than {FEW}")
    parser.add_argument("--repeats", type=_number, default=1, metavar="N", help="medians of so many runs of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    return parser


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


def _rounds(text: str) -> int:
    if _number(text) < 2:
        raise argparse.ArgumentTypeError(
            "1 round: CPU is taken from the first version to the last, so there must be two"
        )
    return _number(text)


if __name__ == "__main__":
    sys.exit(main())
