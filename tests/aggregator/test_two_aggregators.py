"""Two supervised aggregators on one fleet, in memory and on a made-up clock: which one leads, and for how long."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from aggregator.config import AggregatorConfig, ServerLimits
from aggregator.leadership import LISTEN_S, STANDBY_S
from aggregator.service import Aggregator, ReplacedError
from aggregator.store import Store
from broker.memory import MemoryBroker, MemoryTransport
from broker.messages import Beacon, Presence, Stop
from broker.server_seal import ServerSeal
from broker.transport import Packet
from broker.wire import Wire
from identity.keys import SigningKey
from models.job import JobSpec, ModelSpec

WIRE = Wire("f")
KEY = SigningKey(bytes(32))

RESTART_S = 5.0
SPEC = JobSpec("toy", ModelSpec(inputs=4, outputs=2))


class Unit:
    """An aggregator under `Restart=always`."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.folder = world.folder / name
        self.starts = 0
        self.at = 0.0
        self.exits: list[str] = []
        self.store: Store
        self.link: MemoryTransport
        self.aggregator: Aggregator | None = None

    def start(self, **how: bool) -> None:
        self.starts += 1
        nonce = f"{self.name}{self.starts}"
        self.store = Store(self.folder, synced=False)
        self.link = self.world.broker.transport(f"f-aggregator-{nonce}")
        config = AggregatorConfig("f", state_dir=str(self.folder), limits=ServerLimits(spread_s=0.0))
        clock: Callable[[], float] = lambda: self.world.now
        self.aggregator = Aggregator(config, self.store, self.link, self.world.wire(), nonce=nonce, clock=clock, **how)
        self.aggregator.start()

    def kill(self, *, will: bool = True, pause_s: float = RESTART_S) -> None:
        """As by kill -9. will: whether the broker notices at once."""
        self.link.drop(will=will)
        self.store.close()
        self.aggregator, self.at = None, self.world.now + pause_s

    def step(self) -> None:
        if self.aggregator is None:
            if self.world.now >= self.at:
                self.start()
            return
        try:
            while self.aggregator.step(0.0):
                pass
        except ReplacedError as error:
            self.exits.append(str(error))
            self.aggregator.stop()
            self.store.close()
            self.aggregator, self.at = None, self.world.now + RESTART_S

    @property
    def leads(self) -> bool:
        return self.aggregator is not None and self.aggregator.leads


class World:
    """A broker, some units, and what is said of who leads."""

    def __init__(self, folder: Path, *, keys: bool = False) -> None:
        self.folder = folder
        self.keys = keys
        """Whether both sign what they say, with one key."""
        self.now = 0.0
        self.broker = MemoryBroker(lambda: self.now)
        self.units: list[Unit] = []
        self.ear = self.broker.transport("ear")
        self.ear.subscribe("fedge/1/f/aggregator")
        self.ear.open()
        self.beacons: list[tuple[float, Beacon]] = []

    def wire(self) -> Wire:
        return Wire("f", ServerSeal("f", KEY)) if self.keys else WIRE

    def unit(self, name: str, at: float = 0.0) -> Unit:
        one = Unit(self, name)
        one.at = at
        self.units.append(one)
        return one

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            for one in self.units:
                one.step()
            for event in iter(self.ear.take, None):
                if isinstance(event, Packet):
                    message = WIRE.unpack(event)
                    assert isinstance(message, Beacon)
                    self.beacons.append((self.now, message))
            self.now += 0.1

    def retained(self) -> Beacon:
        return self.beacons[-1][1]

    def both_online_s(self) -> float:
        """Return for how long two that say that they lead have spoken in turn, at most."""
        spoke: dict[str, list[float]] = {}
        for at, beacon in self.beacons:
            if beacon.online:
                spoke.setdefault(beacon.nonce, []).append(at)
        both = [min(one[-1], other[-1]) - max(one[0], other[0]) for one, other in combinations(spoke.values(), 2)]
        return max(both, default=0.0)


@pytest.fixture(params=[False, True], ids=["without keys", "with keys"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, keys=request.param)
    yield made
    for one in made.units:
        if one.aggregator is not None:
            one.store.close()


def with_jobs(world: World, name: str) -> Unit:
    """An aggregator that leads and has a job, and has led often before."""
    store = Store(world.folder / name, synced=False)
    for _ in range(19):
        store.raise_term()
    store.close()
    one = world.unit(name)
    world.run(2.0)
    assert one.aggregator is not None
    one.aggregator.submit(SPEC)
    return one


def test_a_second_aggregator_with_an_empty_store_never_leads_beside_the_first(world: World) -> None:
    first, second = with_jobs(world, "a"), world.unit("b", at=10.0)
    world.run(600.0)
    assert (first.leads, second.leads) == (True, False)
    assert (first.starts, second.starts) == (1, 1)
    assert {beacon.nonce for _, beacon in world.beacons} == {"a1"}
    assert world.retained().online
    assert second.aggregator is not None
    assert second.aggregator.doing == "standing by: aggregator a1 leads"


def test_whoever_is_killed_and_restarted_the_first_leads_again(world: World) -> None:
    first, second = with_jobs(world, "a"), world.unit("b", at=10.0)
    world.run(20.0)
    for n in range(12):
        first.kill(will=n % 3 > 0)
        world.run(15.0)
        second.kill()
        world.run(15.0)
        assert (first.leads, second.leads) == (True, False)
        assert (world.retained().nonce, world.retained().online) == (f"a{first.starts}", True)
    assert first.starts == second.starts == 13
    assert {beacon.nonce[0] for _, beacon in world.beacons} == {"a"}


def test_after_its_own_former_life_it_does_not_wait_for_an_answer(world: World) -> None:
    first = with_jobs(world, "a")
    first.kill(will=False)
    world.run(RESTART_S + 1.0)
    assert (world.retained().nonce, world.retained().online) == ("a2", True)
    assert LISTEN_S > 1.0


def test_a_late_will_of_a_former_life_does_not_stay(world: World) -> None:
    first = with_jobs(world, "a")
    former = first.link.client_id
    first.kill(will=False)
    world.run(20.0)
    world.broker.lapse(former)
    world.run(2.0)
    assert (world.retained().nonce, world.retained().online) == ("a2", True)


def test_a_second_aggregator_without_jobs_steps_in_when_the_first_stays_away_and_gives_way_when_it_is_back(
    world: World,
) -> None:
    first, second = with_jobs(world, "a"), world.unit("b", at=10.0)
    world.run(20.0)
    first.kill(pause_s=300.0)
    world.run(STANDBY_S + LISTEN_S + 3.0)
    assert second.leads
    world.run(300.0)
    assert (first.leads, second.leads) == (True, False)
    assert world.both_online_s() < 5.0
    assert second.starts == 1


@pytest.mark.parametrize("copied_while", ["it runs", "it is down"])
def test_a_copied_state_directory_does_not_alternate_with_its_original(world: World, copied_while: str) -> None:
    first = with_jobs(world, "a")
    if copied_while == "it is down":
        first.kill()
    shutil.copytree(world.folder / "a", world.folder / "b")
    copy = world.unit("b", at=world.now + 10.0)
    world.run(600.0)
    assert (first.leads, copy.leads) == (True, False)
    assert first.starts + copy.starts <= 3
    assert {beacon.nonce[0] for _, beacon in world.beacons} == {"a"}, "it is not the former life of its copy"
    assert world.both_online_s() < 5.0
    copy.kill()
    first.kill(pause_s=60.0)
    world.run(40.0)
    assert not copy.leads, "what it has is older than what the fleet has"
    world.run(60.0)
    assert (first.leads, copy.leads) == (True, False)


def test_both_at_once_after_a_power_cut_come_to_one(world: World) -> None:
    first, second = with_jobs(world, "a"), world.unit("b", at=10.0)
    world.run(20.0)
    for _ in range(5):
        world.broker.stop()
        for one in (first, second):
            one.kill(pause_s=3.0)
        world.run(1.0)
        world.broker.start()
        world.run(30.0)
        assert (first.leads, second.leads) == (True, False)


def test_an_operators_word_replaces_the_leader_for_good(world: World) -> None:
    first, second = with_jobs(world, "a"), world.unit("b", at=1e9)
    second.start(take_over=True)
    world.run(10.0)
    assert (first.leads, second.leads) == (False, True)
    assert world.both_online_s() < 5.0
    assert second.aggregator is not None
    second.aggregator.submit(SPEC)
    first.kill()
    second.kill(pause_s=60.0)
    world.run(50.0)
    assert not first.leads, "it was told to leave it to the other, and remembers"
    world.run(60.0)
    assert (first.leads, second.leads) == (False, True)


def test_a_restored_one_that_has_led_can_be_replaced_like_any_other(world: World) -> None:
    store = Store(world.folder / "a", synced=False)
    store.set_note("restored", "yes")
    store.close()
    first, second = with_jobs(world, "a"), world.unit("b", at=1e9)
    second.start(take_over=True)
    world.run(10.0)
    assert second.aggregator is not None
    second.aggregator.submit(SPEC)
    world.run(1.0)
    first.kill()
    second.kill(pause_s=60.0)
    world.run(50.0)
    assert not first.leads, "only before it leads it may be older than what it was told"


def test_one_that_was_told_to_exits_when_another_leads(world: World) -> None:
    with_jobs(world, "a")
    second = world.unit("b", at=1e9)
    second.start(exit_when_replaced=True)
    world.run(3.0)
    assert second.exits == ["another aggregator leads fleet f: nonce a1"]
    assert world.retained().nonce == "a1"


def test_who_does_not_lead_says_no_goodbye(world: World) -> None:
    """Its goodbye would lie at the broker in the place of the leader's beacon."""
    with_jobs(world, "a")
    second, third = world.unit("b", at=world.now + 1.0), world.unit("c", at=1e9)
    world.run(10.0)
    third.start(exit_when_replaced=True)
    world.run(3.0)
    assert third.exits
    assert second.aggregator is not None
    second.aggregator.stop()
    world.run(10.0)
    assert {beacon.nonce for _, beacon in world.beacons} == {"a1"}


def test_who_has_stood_down_has_no_will_any_more(world: World) -> None:
    first, second = with_jobs(world, "a"), world.unit("b", at=1e9)
    second.start(take_over=True)
    world.run(10.0)
    assert (first.leads, second.leads) == (False, True)
    first.kill(will=True)
    world.run(1.0)
    assert [beacon for _, beacon in world.beacons if beacon.nonce == "a1" and not beacon.online] == []


def test_a_standby_says_nothing_at_all_but_its_question(world: World) -> None:
    with_jobs(world, "a")
    second = world.unit("b", at=world.now + 1.0)
    ear = world.broker.transport("all")
    ear.subscribe("fedge/1/f/#")
    ear.open()
    for event in iter(ear.take, None):
        assert event is not None
    world.run(30.0)
    second.kill()
    world.run(60.0)
    said = {event.topic for event in iter(ear.take, None) if isinstance(event, Packet)}
    assert said == {"fedge/1/f/candidate", "fedge/1/f/aggregator"}
    assert {beacon.nonce for _, beacon in world.beacons} == {"a1"}


def test_only_who_leads_listens_to_the_fleet(world: World) -> None:
    """Who stands by would else hear every update of every device, for nothing."""
    first, second = with_jobs(world, "a"), world.unit("b", at=world.now)
    own = {WIRE.filter_for(word) for word in ("aggregator", "candidate")}
    world.run(10.0)
    assert set(second.link._filters) == own < set(first.link._filters)
    second.kill()
    second.start(take_over=True)
    world.run(10.0)
    assert (first.leads, second.leads) == (False, True)
    assert set(first.link._filters) == own < set(second.link._filters)


def test_what_was_on_its_way_to_a_leader_that_stands_down_is_not_answered(world: World) -> None:
    first = with_jobs(world, "a")
    replies = world.broker.transport("cli")
    replies.subscribe(WIRE.filter_for("reply", client="cli"))
    replies.open()
    assert first.aggregator is not None
    first.aggregator._receive(world.wire().pack(Beacon(99, "z", online=True, claim=9, store="s")))
    for message in (Stop("cli", "s", SPEC.name), Presence("d", 1, online=True, nonce="n")):
        first.aggregator._receive(WIRE.pack(message))
    assert not first.aggregator.roster.devices
    world.run(5.0)
    assert not any(isinstance(event, Packet) for event in iter(replies.take, None))
    assert [row.ended for row in first.store.jobs()] == [""]


def test_a_device_that_has_heard_a_higher_term_raises_ours(world: World) -> None:
    first = with_jobs(world, "a")
    device = world.broker.transport("d")
    device.open()
    device.publish(WIRE.pack(Presence("d", 1, online=True, nonce="n", term=90)))
    world.run(2.0)
    assert world.retained().term == 91
    assert first.store.term == 91
    assert first.aggregator is not None
    assert {run.term for run in first.aggregator.runs.values()} == {91}


def test_a_disk_that_is_full_when_the_term_must_rise_costs_time(world: World) -> None:
    first = with_jobs(world, "a")
    before = world.retained().term
    first.store._db.execute("PRAGMA query_only = ON")
    device: Any = world.broker.transport("d")
    device.open()
    device.publish(WIRE.pack(Presence("d", 1, online=True, nonce="n", term=90)))
    world.run(20.0)
    assert world.retained().term == before
    first.store._db.execute("PRAGMA query_only = OFF")
    world.run(10.0)
    assert world.retained().term >= 91
