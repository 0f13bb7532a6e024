"""What streams that many look at cost the rounds: one fleet, with and without them in turn, so that a pair compares.

A mosquitto, an aggregator with its page, and agents as processes, which train a step of a small net: rounds are as
short as they can be, and whatever else takes a processor is seen in them. The page's process runs in both halves of a
pair; in one of them, every other time the first, there are the streams and a few clients who take a byte a second.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct, structs

from benchmarks.looking.large import looks_on
from benchmarks.looking.told import Told
from benchmarks.memory import peak_mb, spent_s
from benchmarks.overhead.ours import rows_of, spec_of
from benchmarks.shown_fleet import free_port
from broker.connection import BrokerSettings
from broker.embedded import start_broker
from broker.messages import Beacon, Status
from broker.wire import Wire
from fleet.console.observer import over_mqtt
from fleet.console.watch import Watch, WatchError
from fleet.local import stage
from fleet.local.processes import FEDGE, Children
from fleet.local.stage import FLEET, Role, Stage
from models.job import ModelSpec

MODEL = ModelSpec(inputs=64, hidden=(32,), outputs=10)
CODEC = "strong"
ROUNDS = 1_000_000
PATHS = ("/live/", "/live/jobs/{job}", "/live/?sort=heat", "/live/devices/device-03", "/live/events")
"""What is looked at, by as many each."""
SETTLED_S = 3.0
"""After the streams are open, or closed, before anything is measured."""
WARM_S = 10.0
"""After the first version: caches fill, the coding settles."""


class Half(Struct, frozen=True):
    """One half of a pair. CPU in seconds a second."""

    round_ms: float
    """The median."""
    rounds: int
    page_cpu: float
    aggregator_cpu: float
    viewers_cpu: float = 0.0
    open: int = 0
    """Streams at its end."""
    cuts: int = 0
    """How often one was cut off, and came again."""
    refused: int = 0
    mb_s: float = 0.0
    """What the streams took, in 10^6 bytes a second."""


class Pair(Struct, frozen=True):
    """Without streams, and with them."""

    without: Half
    beside: Half

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.beside.round_ms / self.without.round_ms


class _Fleet:
    """A fleet at work. job: its one job, once that has made a version."""

    def __init__(self, plan: Stage, children: Children, watch: Watch, n_agents: int) -> None:
        self._children = children
        self.job = ""
        self._versions = self._heard(watch, n_agents)
        self._aggregator = self._start("aggregator", plan.aggregator)
        for role in plan.devices:
            self._start("agent", role)
        next(self._versions)
        self.page_pid = looks_on(plan.aggregator.log)

    def _start(self, kind: str, role: Role) -> int:
        command = [*FEDGE, kind, "run", "--config", str(role.config)]
        return self._children.start(role.name, command, role.log).process.pid

    def _heard(self, watch: Watch, n_agents: int) -> Iterator[float]:
        """Return the time of each version as soon as it is said."""
        asked, number = False, 0
        for heard in watch.hear():
            self._children.check()
            match heard:
                case Beacon(online=True) if not asked:
                    watch.submit(spec_of(MODEL, CODEC, n_agents, ROUNDS))
                    asked = True
                case Status(state="resting", reason=why):
                    raise WatchError(f"the job is at rest: {why}")
                case Status() as status if status.version.number > number:
                    number, self.job = status.version.number, status.job
                    yield time.perf_counter()

    def rest(self, seconds: float) -> None:
        """Let so much time pass."""
        until = time.perf_counter() + seconds
        while next(self._versions) < until:
            pass

    def half(self, seconds: float) -> Half:
        """Return what rounds take for so long."""
        pids = (self.page_pid, self._aggregator)
        times = [next(self._versions)]
        before = [spent_s(pid) for pid in pids]
        while times[-1] < times[0] + seconds:
            times.append(next(self._versions))
        took = times[-1] - times[0]
        page, aggregator = ((spent_s(pid) - was) / took for pid, was in zip(pids, before, strict=True))
        each = [1e3 * (there - here) for here, there in itertools.pairwise(times)]
        return Half(statistics.median(each), len(each), page, aggregator)


def measure(
    n_agents: int, n_streams: int, n_slow: int, pairs: int, seconds: float, say: Callable[[str], None]
) -> tuple[list[Pair], float]:
    """Return so many pairs of halves of so many seconds, and the most memory that the page's process has held, in MB.

    Raises OSError, StartError, ChildDiedError, WatchError, SilentError.
    """
    shares = [rows_of(MODEL, seed) for seed in range(n_agents)]
    page = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="fedge-looking-") as name, start_broker(Path(name) / "broker") as broker:
        direct = BrokerSettings(port=broker.port, protocol=broker.protocol)
        spec = spec_of(MODEL, CODEC, n_agents, ROUNDS)
        plan = stage.build(Path(name), spec, shares, None, direct, inference=False, page=page)
        observer = over_mqtt("watch", direct, Wire(FLEET))
        with Children() as children, Watch(observer, heard=("aggregator", "status")) as watch:
            fleet = _Fleet(plan, children, watch, n_agents)
            fleet.rest(WARM_S)
            asked = (page, n_streams, n_slow, *(path.format(job=fleet.job) for path in PATHS))
            found = []
            with Told("benchmarks.looking.viewers", asked, Path(name) / "viewers.log") as viewers:
                for number in range(pairs):
                    found.append(_pair(fleet, viewers, seconds, turned=number % 2 == 1))
                    say(f"pair {number + 1} of {pairs}: {found[-1].ratio:.3f}")
            return found, peak_mb(fleet.page_pid)


def _pair(fleet: _Fleet, viewers: Told, seconds: float, *, turned: bool) -> Pair:
    """Return a pair. turned: the half with streams comes first, so that what grows with time falls on both alike."""
    if turned:
        beside = _beside(fleet, viewers, seconds)
        return Pair(_without(fleet, seconds), beside)
    return Pair(_without(fleet, seconds), _beside(fleet, viewers, seconds))


def _without(fleet: _Fleet, seconds: float) -> Half:
    fleet.rest(SETTLED_S)
    return fleet.half(seconds)


def _beside(fleet: _Fleet, viewers: Told, seconds: float) -> Half:
    viewers.tell("open")
    fleet.rest(SETTLED_S)
    half = fleet.half(seconds)
    told = viewers.tell("close")
    return structs.replace(
        half,
        viewers_cpu=told["cpu_s"] / told["seconds"],
        open=told["open"],
        cuts=told["cuts"],
        refused=told["refused"],
        mb_s=told["n_bytes"] / told["seconds"] / 1e6,
    )


def ratio(found: Sequence[Pair]) -> float:
    """Return the median of the ratios of these pairs."""
    return statistics.median(pair.ratio for pair in found)
