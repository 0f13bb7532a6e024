"""What one event costs: a coordinator's, among many devices, or after many versions; a message's, through a whole
service; a chunk's, of many.

Everything here runs in this process and on made-up clocks. Times are CPU time, the best of a few tries.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import structs

from aggregator.config import AggregatorConfig
from aggregator.config import ServerLimits as AggregatorLimits
from aggregator.coordinator import Coordinator
from aggregator.effects import Committed, CoordinatorEvent, DeviceStatus, Setup, VerdictPending, VerdictStored
from aggregator.service import Aggregator
from aggregator.store import Store
from broker import chunks
from broker.memory import MemoryBroker, MemoryTransport
from broker.messages import (
    Beacon,
    Body,
    Chunk,
    DeltaAt,
    Head,
    Job,
    Message,
    Offer,
    Presence,
    Round,
    Verdict,
    Version,
    body_name,
)
from broker.wire import Wire
from edge_agent.config import AgentConfig, ModelSettings
from edge_agent.home import Home
from edge_agent.service import Agent
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from models.job import JobSpec, ModelSpec, RoundsSpec, StopSpec

FLEET = "bench"
WIRE = Wire(FLEET)
EVENTS = 400
"""So many of each kind are timed."""
TRIES = 3
ROUND = "a round"
V0, V1 = Version(1, 0), Version(1, 1)
SPEC = JobSpec("bench", ModelSpec(inputs=20, hidden=(200,), outputs=3), compression="off", deploy="never")
"""4,803 parameters: an update has room for four thousand chunks."""


class Cost(NamedTuple):
    """What one event of a kind costs in a fleet of some size."""

    kind: str
    known: int
    drawn: int
    us: float
    """CPU time, in microseconds."""


# The coordinator alone.


def coordinator(known: int, drawn: int) -> list[Cost]:
    """Time every kind of event where so many devices are known and drawn, each with a look at `deadline` after it.

    A ROUND is its end and the opening of the next one together: it alone looks at everybody, once.
    """
    kinds = {
        "presence, waiting": lambda: (_waiting(known), map(_seen, range(EVENTS))),
        "fails and mends, waiting": lambda: (_few(known), map(_fails, range(EVENTS))),
        "presence": lambda: (_open(known, drawn), map(_seen, range(EVENTS))),
        "goes and comes back": lambda: (_open(known, drawn), map(_flaps, range(EVENTS))),
        "offer": lambda: _offered(_open(known, drawn)),
        "offer, wait = all": lambda: _offered(_open(known, drawn, wait="all")),
        "offered again": lambda: _offered_again(_open(known, drawn)),
        "joins the round": lambda: (_open(drawn, drawn), map(_seen, range(drawn, drawn + EVENTS))),
        "verdict": lambda: _judged(_open(known, drawn)),
        "verdict, wait = all": lambda: _judged(_open(known, drawn, wait="all")),
    }
    found = [Cost(kind, known, drawn, _us_an_event(make)) for kind, make in kinds.items()]
    return [*found, Cost(ROUND, known, drawn, min(_us_a_round(known, drawn) for _ in range(TRIES)))]


def _us_an_event(make: Callable[[], tuple[Coordinator, Iterable[CoordinatorEvent]]]) -> float:
    tries = []
    for _ in range(TRIES):
        core, events = make()
        listed = list(events)
        began = time.process_time()
        for event in listed:
            core.receive(event, 1.0)
            core.deadline  # noqa: B018 -- the loop asks for it after every event
        tries.append(1e6 * (time.process_time() - began) / len(listed))
    return min(tries)


def _us_a_round(known: int, drawn: int) -> float:
    """Return the CPU time of committing a round and opening the next, which every version costs once."""
    core = _open(known, drawn)
    assert core.attempt is not None
    *first, last = core.attempt.cohort
    for event in (event for name in first for event in _stored(name)):
        core.receive(event, 1.0)
    began = time.process_time()
    for event in (*_stored(last), Committed(V1, {})):
        core.receive(event, 1.0)
    return 1e6 * (time.process_time() - began)


def _core(known: int, **rules: object) -> Coordinator:
    rounds = RoundsSpec(deadline_s=600.0, **rules)  # type: ignore[arg-type]  # its own fields
    core = Coordinator(Setup(rules=rounds, seed=1, base=V0), 0.0)
    for event in map(_seen, range(known)):
        core.receive(event, 0.0)
    return core


def _waiting(known: int) -> Coordinator:
    """Nobody is short, and yet no round opens: one has failed, and every one would be needed."""
    core = _core(known - 1, quorum=known, min_devices=known)
    core.receive(structs.replace(_seen(known - 1), failed=V0), 0.0)
    assert core.attempt is None
    return core


def _few(known: int) -> Coordinator:
    """Half of them are not there, and that has been told."""
    core = _core(known, quorum=known + 1, min_devices=known + 1)
    for number in range(1, known, 2):
        core.receive(structs.replace(_seen(number), online=False), 0.0)
    for number in (1, 0):
        core.receive(_fails(number), 0.0)
    return core


def _open(known: int, drawn: int, wait: str = "target") -> Coordinator:
    core = _core(known, target=drawn, quorum=drawn, min_devices=known, wait=wait)
    assert core.attempt is not None
    assert len(core.attempt.cohort) == drawn
    return core


def _seen(number: int) -> DeviceStatus:
    return DeviceStatus(f"device-{number:05d}", online=True, ready=True)


def _flaps(number: int) -> DeviceStatus:
    return structs.replace(_seen(number // 2), online=number % 2 == 1)


def _fails(number: int) -> DeviceStatus:
    """It is the one that has failed, so that each time something else is waited for, and told."""
    return structs.replace(_seen(0), failed=V0 if number % 2 else None)


def _offer(device: str) -> Offer:
    return Offer("j", device, V0, 10, f"{device.encode().hex():0>32}"[-32:], 9)


def _drawn(core: Coordinator) -> list[str]:
    assert core.attempt is not None
    return list(core.attempt.cohort[1:][-EVENTS:])  # the last ones: who looks through a list finds them last


def _offered(core: Coordinator) -> tuple[Coordinator, Iterable[CoordinatorEvent]]:
    return core, map(_offer, _drawn(core))


def _judged(core: Coordinator) -> tuple[Coordinator, Iterable[CoordinatorEvent]]:
    return core, [event for name in _drawn(core) for event in _stored(name)]


def _stored(device: str) -> tuple[VerdictPending, VerdictStored]:
    return VerdictPending(device), VerdictStored(Verdict(device, "j", V0, _offer(device).digest[:8]))


def _offered_again(core: Coordinator) -> tuple[Coordinator, Iterable[CoordinatorEvent]]:
    names = _drawn(core)
    for event in _judged(core)[1]:
        core.receive(event, 0.5)
    return core, map(_offer, names)


def versions(n: int) -> Cost:
    """Time an event of rounds that one device ends, in a job of so many versions with a rule to stop by."""
    history = [{"accuracy": number % 97 / 100} for number in range(n)]
    rules = RoundsSpec(max_rounds=10 * n, stop=StopSpec(target=1.0, patience=10 * n))
    core = Coordinator(Setup(rules=rules, seed=1, base=Version(1, n - 1), history=history), 0.0)
    core.receive(_seen(0), 0.0)
    (device,) = core.attempt.cohort if core.attempt is not None else ()
    tries = []
    for _ in range(TRIES):
        began = time.process_time()
        for number in range(EVENTS):
            verdict = Verdict(device, "j", core.base, "0" * 8)
            for event in (VerdictPending(device), VerdictStored(verdict)):
                core.receive(event, 1.0)
            core.receive(Committed(core.base.following(), {"accuracy": number % 97 / 100}), 1.0)
        tries.append(1e6 * (time.process_time() - began) / (3 * EVENTS))
    return Cost("an event, after versions", n, 0, min(tries))


# A message through the whole aggregator.


def aggregator(known: int) -> Cost:
    """Time the presence of a device, from the transport's queue to the last deadline, in a service with one job."""
    with _served(known) as (service, stranger):
        while service.step(0.0):
            pass
        tries = []
        for again in range(TRIES):
            for number in range(EVENTS):
                _say(stranger, _presence(number, service, boot=2 + again))
            tries.append(_us_each(service, EVENTS))
    return Cost("a presence, whole service", known, 0, min(tries))


@contextmanager
def _served(known: int) -> Iterator[tuple[Aggregator, MemoryTransport]]:
    """Return a leading aggregator with a job that draws few of so many devices, and somebody to speak for them."""
    now = itertools.count(1000.0, 1e-6)
    with tempfile.TemporaryDirectory(prefix="fedge-scale-") as folder:
        store = Store(Path(folder), synced=False)
        broker = MemoryBroker(lambda: next(now))
        config = AggregatorConfig(fleet=FLEET, state_dir=folder, limits=AggregatorLimits(spread_s=0.0))
        jump = [0.0]
        service = Aggregator(
            config, store, broker.transport("aggregator"), WIRE, nonce="bench", clock=lambda: next(now) + jump[0]
        )
        service.start()
        while not service.leads:
            service.step(0.0)
            jump[0] += 0.1
        stranger = broker.transport("devices")
        stranger.open()
        service.submit(structs.replace(SPEC, rounds=RoundsSpec(target=10, quorum=5, min_devices=known)))
        for number in range(known):
            _say(stranger, _presence(number, service))
        yield service, stranger
        service.stop()
        store.close()


def _presence(number: int, service: Aggregator, boot: int = 1) -> Presence:
    name = f"device-{number:05d}"
    return Presence(
        name, boot, online=True, incarnation="0" * 8, nonce=f"{boot:08x}", ready=dict.fromkeys(service.runs, 20)
    )


def _say(stranger: MemoryTransport, message: Message) -> None:
    stranger.publish(WIRE.pack(message))


def _us_each(service: Aggregator | Agent, n: int) -> float:
    """Return the CPU time of each of n events that wait to be taken: many go into a step."""
    began = time.process_time()
    while service.step(0.0):
        pass
    us = 1e6 * (time.process_time() - began) / n
    assert not service.tally.counts, f"some of it was refused: {service.tally.counts}"
    return us


# Chunks.


def chunks_down(n: int) -> Cost:
    """Time a chunk of a version of so many, through the whole agent. The last one is left out."""
    with tempfile.TemporaryDirectory(prefix="fedge-scale-") as folder:
        broker, home = MemoryBroker(), Home(Path(folder), "device", nonce="0" * 8)
        config = AgentConfig(
            fleet=FLEET,
            state_dir=folder,
            data={SPEC.data_name: DataSource("rows")},
            models=ModelSettings(inference=False),
        )
        agent = Agent(config, home, broker.transport("device"), WIRE, open_source=lambda *_, **__: InMemory(_rows()))
        hand = broker.transport("aggregator")
        hand.open()
        agent.start()
        way = DeltaAt(0, 1, n)
        _say(hand, Beacon(1, "bench", online=True, spread_s=0.0))
        _say(hand, Job("bench-1", 1, msgspec.to_builtins(SPEC)))
        _say(hand, Head("bench-1", 1, V1, "ab" * 16, ways=(way,), chunk_bytes=1))
        _say(hand, Round("bench-1", 1, V1, 6000.0))
        while agent.step(0.0):
            pass
        for index in range(n - 1):
            _say(hand, Body("bench-1", body_name(V1, 0), index, b"x"))
        us = _us_each(agent, n - 1)
        agent.stop()
        home.close()
    return Cost("a chunk, device", n, 0, us)


def chunks_up(n: int) -> Cost:
    """Time a chunk of an update of so many, through the whole aggregator. The last one is left out."""
    with _served(10) as (service, stranger):
        while service.step(0.0):
            pass
        (job, run), *_ = service.runs.items()
        body = bytes(n)
        name = chunks.digest(body)
        _say(stranger, Offer(job, "device-00000", run.version, 10, name, n, 1))
        while service.step(0.0):
            pass
        for index in range(n - 1):
            _say(stranger, Chunk(job, "device-00000", name, index, b"\0"))
        us = _us_each(service, n - 1)
    return Cost("a chunk, aggregator", n, 0, us)


def _rows() -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset(rng.standard_normal((20, 20)).astype(np.float32), np.arange(20) % 3)
