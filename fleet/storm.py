"""A storm: the two pure cores, many times over, in the worst weather that a seed can make.

One coordinator and a few participants talk over a network that loses, doubles, delays and reorders; links break,
processes die between any two effects and come back with what was durable, disks are full, clocks jump, the broker
forgets. Then the sky clears, and the fleet must go on. Nothing here knows numbers: a body is a token. Time is made up,
and a schedule is a pure function of its seed: `run(seed)` says what went wrong, every time the same.

What must hold, whatever the weather:

 1. An update is in at most one version, once, and whatever was counted is in a version or waits durably for the next.
 2. Versions go up, one by one, and never beyond max_rounds.
 3. A round is over at its deadline, counted from its announcement or from the last start of the aggregator.
 4. A device never finishes two trainings for one base.
 5. The verdict that a device settles an update by is the one that the aggregator has written down.
 6. When the weather has cleared there is a new version, or the end of the job, and every update gets its verdict.

    python -m fleet.storm --schedules 20000 --seed 1
"""

from __future__ import annotations

import argparse
import heapq
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from aggregator.effects import Seen
from broker.messages import Head, Offer, Round, Verdict, Version
from edge_agent.participant import ENDED, Fetch, Over
from fleet.stand_ins import Device, Key, Node, Server
from models.job import JobSpec, ModelSpec, RoundsSpec

log = logging.getLogger(__name__)

DEADLINE_S, GRACE_S = 20.0, 4.0
STALL_S = 60.0
BAD_WEATHER_S = 90.0
PATIENCE_S = 900.0
"""Time after the storm in which a fleet must have made progress: many deadlines, and the longest resend a few times."""
MOST_EVENTS = 50_000


class Report(NamedTuple):
    """What one schedule came to."""

    seed: int
    events: int
    versions: int
    violations: tuple[str, ...]


class _Weather(NamedTuple):
    """How likely each misfortune is, and what the job asks for."""

    n_devices: int
    rules: RoundsSpec
    loss: float
    double: float
    crash: float
    full: float
    rough: float
    """Of a link, a clock, the broker: per second and node."""
    slow_s: float
    bad_device: str
    """A device whose updates are refused or whose training fails; "" for none."""


def _draw_weather(rng: random.Random) -> _Weather:
    n = rng.randint(1, 5)
    wait: Literal["target", "all"] = "all" if rng.random() < 0.25 else "target"
    bad = "d0" if wait == "target" and n > 1 and rng.random() < 0.4 else ""
    quorum = rng.randint(1, n - 1 if bad else n)
    target = rng.choice([None, rng.randint(quorum, n)])
    rules = RoundsSpec(
        fraction=rng.choice([1.0, 0.5]),
        target=target,
        quorum=quorum,
        over_selection=rng.choice([1.0, 1.5]),
        wait=wait,
        deadline_s=DEADLINE_S,
        grace_s=GRACE_S,
        max_rounds=rng.choice([2, 4, 8]),
        late=rng.choice(["refuse", "fold"]),
    )
    rough = rng.choice([0.0, 0.005, 0.02])
    return _Weather(
        n,
        rules,
        loss=rng.choice([0.0, 0.1, 0.4]),
        double=rng.choice([0.0, 0.1, 0.3]),
        crash=rng.choice([0.0, 0.003, 0.03]),
        full=rng.choice([0.0, 0.0, 0.05]),
        rough=rough,
        slow_s=rng.choice([0.2, 3.0, 12.0]),
        bad_device=bad,
    )


class _Storm:
    """The broker, the weather and the record of one schedule."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 -- a schedule is a pure function of its seed
        self.weather = weather = _draw_weather(self.rng)
        self.spec = JobSpec("storm", ModelSpec(), rounds=weather.rules, deploy="never")
        self.now = 0.0
        self.events = 0
        self.jumped = 0.0
        self.violations: list[str] = []
        self.truth: dict[Key, bool] = {}
        self.crash, self.full, self.bad_device = weather.crash, weather.full, weather.bad_device
        self.loss, self.double, self.slow_s = weather.loss, weather.double, weather.slow_s
        self.over: Over | None = None
        self.head: Head | None = None
        self.bodies: set[int] = set()
        self.presences: dict[str, Seen] = {}
        self._round: Round | None = None
        self._round_until = 0.0
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._n_planned = 0
        self.server = Server(self)
        self.devices = {f"d{i}": Device(self, f"d{i}", big=self.rng.random() < 0.3) for i in range(weather.n_devices)}

    # Time.

    def later(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        """Plan something."""
        self._n_planned += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._n_planned, act, args))

    def run(self) -> None:
        """Let the storm rage, then see whether the fleet recovers."""
        for node in (self.server, *self.devices.values()):
            self.later(self.rng.uniform(0.0, 3.0), node.start)
        for at in self._misfortunes():
            self.later(at, self._befall)
        self._until(BAD_WEATHER_S, lambda: bool(self.violations))
        self._clear_up()
        base, held = self.server.version, {d.name: d.update for d in self.devices.values() if d.update}
        self._until(self.now + PATIENCE_S, lambda: bool(self.violations) or self._recovered(base, held))
        if not self.violations and not self._recovered(base, held):
            still = [name for name, offer in held.items() if self.devices[name].update is offer]
            self.violated(f"no recovery: {base} → {self.server.version}, without verdict: {still}, {self.weather}")
        self._check_sums()

    def _until(self, end: float, enough: Callable[[], bool]) -> None:
        agenda = self._agenda
        while agenda and agenda[0][0] < end and not enough():
            self.now, _, act, args = heapq.heappop(agenda)
            self.events += 1
            if self.events > MOST_EVENTS:
                self.violated(f"somebody spins: {act.__qualname__} {args}")
            act(*args)
        if not enough():
            self.now = end

    def _misfortunes(self) -> Iterator[float]:
        at, rate = 0.0, self.weather.rough * (len(self.devices) + 1)
        while rate and (at := at + self.rng.expovariate(rate)) < BAD_WEATHER_S:
            yield at

    def _befall(self) -> None:
        node = self.rng.choice([self.server, *self.devices.values()])
        match self.rng.randrange(6):
            case 0 | 1:
                node.disconnect()
            case 2 | 3:
                node.die()
            case 4:
                jump = self.rng.choice([1.0, 10.0, 100.0])
                node.skew += jump
                self.jumped += jump
            case 5:
                self.head, self._round, self.bodies, self.presences = None, None, set(), {}
                for each in (self.server, *self.devices.values()):
                    each.disconnect()

    def _clear_up(self) -> None:
        self.crash = self.full = self.loss = self.double = 0.0
        self.slow_s = 0.2

    def _recovered(self, base: Version, held: Mapping[str, Offer]) -> bool:
        if any(self.devices[name].update is offer for name, offer in held.items()):
            return False
        return self.server.version > base or bool(self.server.ended)

    # The broker.

    def deliver(self, node: Node, message: object, surely: bool = False) -> None:
        """Bring a message to a node that is online: later, perhaps twice, perhaps never, in any order.

        surely: once, and in order, as a broker does as long as the connection lasts.
        """
        if not node.online:
            return
        if surely:
            self.later(0.1, self._hand_over, node, node.connection, message)
            return
        rng = self.rng
        if rng.random() >= self.loss:
            self.later(rng.random() * self.slow_s, self._hand_over, node, node.connection, message)
        if rng.random() < self.double:
            self.later(rng.random() * 5 * self.slow_s, self._hand_over, node, node.connection, message)

    def _hand_over(self, node: Node, connection: int, message: object) -> None:
        if node.online and node.connection == connection:
            node.guarded(node.hear, message)

    def send_up(self, device: Device, message: object) -> None:
        if device.online:
            self.deliver(self.server, message)

    def send_down(self, device: str, message: object) -> None:
        if self.server.online:
            self.deliver(self.devices[device], message)

    def publish_head(self, server: Server, head: Head) -> None:
        if server.online:
            self.head = head
            if head.state in ENDED:
                self.over = Over(head.version, head.term)
                self._to_all(self.over)

    def publish_round(self, server: Server, round_: Round | None) -> None:
        if server.online:
            self._round = round_
            if round_ is not None:
                self._round_until = self.now + round_.seconds_left + 1
                self._to_all(round_)

    def current_round(self) -> Round | None:
        """Give the retained round, unless the broker has let it expire."""
        return self._round if self.now < self._round_until else None

    def publish_bodies(self, server: Server, numbers: set[int]) -> None:
        if server.online:
            self.bodies = numbers
            for device in self.devices.values():
                if device.fetching is not None and device.fetching.version.number in numbers:
                    self.deliver(device, device.fetching.version.number)

    def fetch(self, device: Device, effect: Fetch, life: int) -> None:
        """Subscribe to the bodies of a version, again while they do not come; some need none."""
        if device.life != life or device.fetching is not effect:
            return
        number = effect.version.number
        if number == 0 or isinstance(effect.source, Round):
            self.later(0.0, self._at_once, device, device.life, number)
            return
        if number in self.bodies:
            self.deliver(device, number)
        self.later(STALL_S, self.fetch, device, effect, life)

    def _at_once(self, device: Device, life: int, number: int) -> None:
        if device.alive and device.life == life:
            device.guarded(device.hear, number)

    def _to_all(self, message: object) -> None:
        for device in self.devices.values():
            self.deliver(device, message)

    def be_seen(self, device: Device) -> None:
        """Take a device's presence, retained."""
        self._note_presence(Seen(device.name, online=True, ready=True))

    def gone(self, node: Node) -> None:
        """Publish a last will."""
        if isinstance(node, Device):
            self._note_presence(Seen(node.name, online=False, ready=True))

    def _note_presence(self, seen: Seen) -> None:
        self.presences[seen.device] = seen
        self.deliver(self.server, seen, surely=True)

    # The record.

    def violated(self, what: str) -> None:
        """Note what must not be."""
        self.violations.append(f"t={self.now:.1f}: {what}")

    def check_answer(self, verdict: Verdict) -> None:
        """Hold an answer against what was written down; only updates long settled may be answered otherwise."""
        written = self.server.verdicts.get(verdict.device)
        known = self.truth.get((verdict.device, verdict.base, verdict.digest))
        if known is None and verdict.counted:
            self.violated(f"a verdict that is not durable is sent: {verdict}")
        if known is not None and known != verdict.counted and written is not None and written.base <= verdict.base:
            self.violated(f"another verdict than the first: {verdict}")

    def check_settled(self, device: Device, verdict: Verdict) -> None:
        """Hold the verdict that a device settles by against the one that was written down."""
        known = self.truth.setdefault((device.name, verdict.base, verdict.digest), False)
        if known != verdict.counted:
            self.violated(f"{device.name} settles by {verdict}, written down is counted={known}")

    def _check_sums(self) -> None:
        folded = [key for members in (*self.server.versions, self.server.sum) for key in members]
        counted = [key for key, yes in self.truth.items() if yes]
        if sorted(folded) != sorted(counted):
            self.violated(f"counted {sorted(counted)}, but in the sums are {sorted(folded)}")


def run(seed: int) -> Report:
    """Run one schedule."""
    storm = _Storm(seed)
    try:
        storm.run()
    except Exception as error:
        error.add_note(f"in the storm of seed {seed} at t={storm.now:.3f}")
        raise
    return Report(seed, storm.events, len(storm.server.versions) - 1, tuple(storm.violations))


def main(argv: Sequence[str] | None = None) -> int:
    """Run many schedules and say what came of them."""
    parser = argparse.ArgumentParser(prog="python -m fleet.storm", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--schedules", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--seed", type=int, default=1, help="the first one's seed; the others follow")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started, reports = time.monotonic(), []
    events = versions = 0
    for seed in range(args.seed, args.seed + args.schedules):
        report = run(seed)
        events, versions = events + report.events, versions + report.versions
        if report.violations:
            reports.append(report)
            log.error("seed=%d %s", seed, "; ".join(report.violations[:3]))
    took = time.monotonic() - started
    log.info(
        "schedules=%d events=%d versions=%d violations=%d seconds=%.1f schedules_per_s=%.0f",
        *(args.schedules, events, versions, len(reports), took, args.schedules / took),
    )
    return 1 if reports else 0


if __name__ == "__main__":
    raise SystemExit(main())
