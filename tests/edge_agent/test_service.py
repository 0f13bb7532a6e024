"""An agent over the in-memory broker; the aggregator is played by hand, honestly or not."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from msgspec import structs

from broker import chunks
from broker.memory import MemoryBroker, MemoryTransport
from broker.messages import (
    CHUNK_BYTES,
    Beacon,
    Body,
    Chunk,
    DeltaAt,
    Failure,
    Head,
    Int8,
    Job,
    Message,
    Offer,
    Presence,
    Round,
    Verdict,
    Version,
    Want,
    along,
    body_name,
    echo,
)
from broker.transport import Denied, Packet
from broker.wire import Wire
from edge_agent.config import AgentConfig, DeviceLimits, ModelSettings, VitalsSettings
from edge_agent.disk import NoDisk
from edge_agent.effects import TrainingFailed
from edge_agent.fetcher import STALL_S
from edge_agent.home import Home
from edge_agent.jobs import FIRST_REST_S, LOOK_AGAIN_S, READING, SAID_S, TURN_S, UNANNOUNCED
from edge_agent.live.listeners import Live
from edge_agent.outbox import Probed
from edge_agent.reading import Start, inline, threads
from edge_agent.report import rng_of
from edge_agent.resend import Jitter
from edge_agent.resources import Condition, Resources
from edge_agent.service import DENY_S, Agent, ClonedError, will
from edge_agent.slots import Install, InstallOutcome, Slots
from edge_agent.versions import REFETCH_S
from edge_agent.work import FLUSH_S
from models import chain
from models.chain import Chain, Grids, Held, Step
from models.codec import FLOAT32, INT8, Terms
from models.codec.steps import step_near
from models.contract import NO_CONTRACT, ContractSpec
from models.data.dataset import Dataset, DatasetError
from models.data.source import DataSource, InMemory, Opener, Source
from models.data.source import open as open_source
from models.frozen import Find
from models.job import CompressionSpec, JobSpec, ModelSpec, TrainSpec
from models.nets import table as nets
from models.nets.mlp import Mlp
from models.nets.net import ModelError, Net
from models.training import probe, train
from models.training.train import TrainingError
from runtime.faults import Marks, Place
from tests.edge_agent.conftest import HOMES

FLEET, DEVICE, JOB = "f", "d", "toy-1"
WIRE = Wire(FLEET)
V0, V1 = Version(1, 0), Version(1, 1)
MODEL = ModelSpec(inputs=4, hidden=(16,), outputs=2)
SPEC = JobSpec("toy", MODEL, compression="light", deploy="never", train=TrainSpec(epochs=1, batch_size=5))
NET = nets.build(MODEL)
SKETCH = Terms(64, 1)
FIRST = Chain(NET.spec, SPEC).first()


def rows(*_: object) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    return Dataset(np.ascontiguousarray(rng.standard_normal((20, 4)) + y[:, None], np.float32), y)


def in_memory(*_: object, **__: object) -> InMemory:
    return InMemory(rows())


@pytest.fixture(autouse=True)
def news_is_never_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens in a test, what a device takes for told must be what putting it together anew would say."""
    announces_at = Agent._announces_at.fget
    assert announces_at is not None

    def checked(self: Agent) -> float:
        at = announces_at(self)
        announcer = self._announcer
        told, announcer._told = announcer._told, None
        assert not self._out.online or at == announcer.due_at(self._presence())
        announcer._told = told
        return at

    monkeypatch.setattr(Agent, "_announces_at", property(checked))


class Steady(Resources):
    """A device of which nothing that is read ever changes by itself."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now = Condition(disk_free=10**10, heat=45.0, load=0.1)
        self._clock = clock

    def condition(self, folder: Path) -> Condition:  # noqa: ARG002 -- of a law
        return self.now

    def wall_clock(self) -> float:
        return self._clock()


class Bench:
    """One agent, and everything it says."""

    def __init__(
        self,
        folder: Path,
        spec: JobSpec = SPEC,
        *,
        inference: bool = False,
        keep: int | None = None,
        checkpoint_s: float = 60.0,
        open_source: Opener = in_memory,
        reading: Start = inline,
    ) -> None:
        self.open_source = open_source
        self.reading = reading
        self.now = 1000.0
        self.folder = folder
        self.spec = spec
        self.models = ModelSettings(inference=inference, keep=keep)
        self.limits = DeviceLimits(checkpoint_s=checkpoint_s)
        self.live: Live | None = None
        self.steady = Steady(lambda: self.now)
        self.vitals = VitalsSettings()
        self.broker = MemoryBroker(lambda: self.now)
        self.hand = self.broker.transport("aggregator")
        self.hand.subscribe("fedge/1/f/#")
        self.hand.open()
        self.heard: list[Message] = []
        self.agent: Agent
        self.home: Home
        self.link: MemoryTransport
        self.start()

    def start(self, data: str = "toy") -> None:
        config = AgentConfig(
            fleet=FLEET,
            state_dir=str(self.folder),
            data={data: DataSource("memory")},
            models=self.models,
            limits=self.limits,
            vitals=self.vitals,
        )
        self.home = Home(self.folder, DEVICE)
        HOMES.append(self.home)
        self.link = self.broker.transport(DEVICE, will(WIRE, self.home))
        self.agent = Agent(
            *(config, self.home, self.link, WIRE),
            clock=lambda: self.now,
            open_source=self.open_source,
            start_reading=self.reading,
            live=self.live,
            resources=self.steady,
        )
        self.agent.start()

    def kill(self) -> None:
        self.link.drop()
        self.home.close()

    def say(self, *messages: Message | Packet) -> None:
        for message in messages:
            self.hand.publish(message if isinstance(message, Packet) else WIRE.pack(message))
        self.settle()

    def settle(self, seconds: float = 0.0) -> None:
        """Let the agent do what there is to do, then let time pass, and that once more."""
        for pause in (seconds, 0.0):
            while self.agent.step(0.0):
                pass
            self.now += pause
        events = (e for e in iter(self.hand.take, None) if isinstance(e, Packet))
        self.heard += [WIRE.unpack(event) for event in events]

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]

    def begin(self, *more: Message) -> None:
        tree = msgspec.to_builtins(self.spec)
        self.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, tree), head(), Round(JOB, 1, V0, 60.0), *more)

    def offered(self) -> Offer:
        self.settle()
        offers = self.of(Offer)
        assert offers
        last: Offer = offers[-1]
        return last


def head(version: Version = V0, held: Held = FIRST, **more: Any) -> Head:
    return Head(JOB, 1, version, held.sha256()[:32], **more)


def said(offer: Offer, terms: Terms) -> list[Any]:
    """What an update says of every tensor."""
    coding = Chain(NET.spec, SPEC).coding(offer.base.number, terms)
    return [part.values() for part in coding.tensors(coding.decode(offer.body))]


def verdict(offer: Offer, refused: str = "") -> Verdict:
    return Verdict(DEVICE, JOB, offer.base, echo(offer), refused)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    one = Bench(tmp_path)
    yield one
    one.agent.stop()


def test_a_drawn_device_trains_and_offers(bench: Bench) -> None:
    bench.begin()
    offer = bench.offered()
    assert (offer.base, offer.device, offer.n_examples) == (V0, DEVICE, 20)
    assert any(part.any() for part in said(offer, FLOAT32))
    assert bench.agent.doing == "toy: offering an update to version 1.0"


def test_a_verdict_ends_the_offering(bench: Bench) -> None:
    bench.begin()
    bench.say(verdict(bench.offered()))
    bench.heard.clear()
    bench.settle(300.0)
    assert bench.of(Offer) == []
    assert bench.agent.doing == "idle"


def test_without_a_word_it_is_offered_again(bench: Bench) -> None:
    bench.begin()
    first = bench.offered()
    bench.heard.clear()
    bench.settle(20.0)
    assert bench.of(Offer) == [], "a round may last so long"
    bench.settle(20.0)
    assert bench.of(Offer) == [first]


def test_the_announcement_of_a_later_base_ends_the_offering_for_good(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    bench.heard.clear()
    bench.say(Round(JOB, 1, V1, 60.0, threshold=0))
    bench.settle(300.0)
    assert bench.of(Offer) == []
    bench.kill()
    bench.start()
    bench.begin()
    bench.settle(300.0)
    assert bench.of(Offer) == [], "nor is its base trained again"
    assert [path.name for path in bench.folder.glob("jobs/*/*.bin")] == ["settled.bin"]


def test_the_end_of_the_job_ends_the_offering(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    bench.heard.clear()
    bench.say(Job(JOB, 1, msgspec.to_builtins(SPEC), last=V1))
    bench.settle(300.0)
    assert bench.of(Offer) == []


def test_a_leader_whose_connection_is_a_new_one_is_offered_the_update_at_once(bench: Bench) -> None:
    """What was said while it was away was said to nobody."""
    bench.begin()
    bench.offered()
    bench.heard.clear()
    bench.say(Beacon(1, "n", online=True, spread_s=2.0, roll=1))
    bench.settle(2.0)
    assert len(bench.of(Offer)) == 1


def test_an_aggregator_that_comes_back_is_offered_the_update_at_once(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    for _ in range(8):  # nobody answers, and the pauses grow long
        bench.settle(60.0)
    silent = len(bench.of(Offer))
    bench.say(Beacon(2, "m", online=True, spread_s=2.0))
    bench.settle(2.0)
    assert len(bench.of(Offer)) == silent + 1


def test_who_has_offered_while_nobody_led_offers_again_to_the_first_that_leads(bench: Bench) -> None:
    bench.begin()
    first = bench.offered()
    bench.kill()
    bench.say(Beacon(1, "n", online=False))
    bench.start()
    bench.settle(1.0)
    bench.heard.clear()
    bench.say(Beacon(2, "m", online=True, spread_s=2.0))
    bench.settle(2.0)
    assert bench.of(Offer) == [first]


def test_who_connects_to_one_that_leads_offers_once(bench: Bench) -> None:
    bench.begin()
    first = bench.offered()
    bench.kill()
    bench.heard.clear()
    bench.start()
    bench.settle(3.0)
    assert bench.of(Offer) == [first]


def test_presence_says_what_a_device_can(bench: Bench) -> None:
    bench.begin()
    bench.settle(1.0)
    said = bench.of(Presence)[-1]
    assert (said.online, said.boot, said.ready) == (True, 1, {JOB: 20})


def test_a_job_without_data_here_is_none_of_its_business(bench: Bench) -> None:
    bench.kill()
    bench.start(data="other")
    bench.begin()
    assert bench.agent.works == {}


def test_a_job_that_is_not_understood_is_told(bench: Bench) -> None:
    bench.say(Job("odd-1", 1, {"name": "odd", "model": {"kind": "transformer"}}))
    bench.settle(1.0)
    assert "does not understand the job" in bench.of(Presence)[-1].unready["odd-1"]


def test_a_deleted_job_leaves_nothing(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    bench.say(Job(JOB, 1))
    assert bench.agent.works == {}
    assert list((bench.folder / "jobs").iterdir()) == []


# Dying.


def test_an_update_is_offered_after_a_restart_and_not_trained_again(bench: Bench) -> None:
    bench.begin()
    first = bench.offered()
    bench.kill()
    bench.heard.clear()
    bench.start()
    bench.settle(1.0)
    assert bench.of(Offer) == [first]


def test_a_base_that_was_renamed_while_its_update_waited_is_not_trained_again_after_a_restart(bench: Bench) -> None:
    bench.begin()
    offer, renamed = bench.offered(), Version(9, 0)
    again = Round(JOB, 2, renamed, 600.0, aliases=(V0,), along=along(head().sha256, b""))
    bench.say(Beacon(2, "m", online=True, spread_s=0.0), again, verdict(offer))
    bench.settle(FLUSH_S)
    bench.kill()
    bench.heard.clear()
    bench.start()
    bench.settle(5.0)
    assert bench.of(Presence)[-1].done == {JOB: renamed}
    bench.settle(5.0)
    assert bench.of(Offer) == []


def test_who_dies_before_a_settlement_is_on_disk_offers_the_same_update_once_more(bench: Bench) -> None:
    bench.begin()
    offer = bench.offered()
    bench.say(Beacon(1, "m", online=True, spread_s=0.0), verdict(offer))
    assert bench.agent.works[JOB]._outbox.settled == V0
    bench.kill()
    bench.heard.clear()
    bench.start()
    bench.begin()
    assert bench.offered() == offer
    assert bench.of(Presence)[-1].done == {}
    bench.say(verdict(offer))
    bench.heard.clear()
    bench.settle(FLUSH_S)
    bench.kill()
    bench.start()
    bench.begin()
    bench.settle(300.0)
    assert bench.of(Offer) == [], "nor is its base trained again"


def test_an_update_is_offered_after_a_restart_under_the_name_that_another_leader_has_for_its_base(bench: Bench) -> None:
    copys, originals, proof = Version(588, 0), Version(700, 0), along(head().sha256, b"")
    bench.say(Job(JOB, 1, msgspec.to_builtins(SPEC)), Round(JOB, 2, copys, 60.0, aliases=(V0,), along=proof))
    offer = bench.offered()
    assert offer.base == copys
    bench.kill()
    bench.heard.clear()
    bench.start()
    bench.say(Job(JOB, 1, msgspec.to_builtins(SPEC)), Round(JOB, 3, originals, 60.0, aliases=(V0,), along=proof))
    bench.settle(5.0)
    assert bench.of(Offer)[-1] == structs.replace(offer, base=originals)
    assert bench.agent.works[JOB]._outbox.settled is None, "it was not trained again"
    bench.say(verdict(bench.of(Offer)[-1]))
    assert bench.agent.works[JOB]._outbox.settled == originals


@pytest.mark.parametrize("steps", range(1, 12))
def test_dying_at_any_step_offers_the_same_update(tmp_path: Path, steps: int) -> None:
    calm, rough = Bench(tmp_path / "calm"), Bench(tmp_path / "rough")
    calm.begin()
    rough.hand.publish(WIRE.pack(Job(JOB, 1, msgspec.to_builtins(SPEC))))
    rough.hand.publish(WIRE.pack(head()))
    rough.hand.publish(WIRE.pack(Round(JOB, 1, V0, 60.0)))
    for _ in range(steps):
        rough.agent.step(0.0)
    rough.kill()
    rough.start()
    rough.settle(6.0)
    assert rough.offered() == calm.offered()


def test_its_own_offline_is_answered(bench: Bench) -> None:
    bench.settle(1.0)
    bench.heard.clear()
    bench.say(Presence(DEVICE, 1, online=False))
    bench.settle(60.0)
    assert [said.online for said in bench.of(Presence)] == [False, True]


def test_a_goodbye_says_offline(bench: Bench) -> None:
    bench.settle(1.0)
    bench.agent.stop()
    bench.settle()
    assert not bench.of(Presence)[-1].online


def test_another_client_of_its_name_stops_it(bench: Bench) -> None:
    bench.settle()
    bench.broker.transport(DEVICE).open()
    with pytest.raises(ClonedError):
        bench.settle()


# Versions and chunks.


class Made(NamedTuple):
    """A version, and the step that leads to it."""

    held: Held
    body: bytes


def version_1(before: Held = FIRST, grids: Grids | None = None) -> Made:
    """Version 1; or the one after another."""
    rng, chain_ = np.random.default_rng(1 + before.number), Chain(NET.spec, SPEC)
    delta = {tensor.name: (0.01 * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET.spec}
    step = Step(SKETCH, chain_.coding(before.number, SKETCH).encode(delta, rng), (), grids)
    return Made(chain_.step(before, step), chain.write(step))


def way_1(made: Made, chunk_bytes: int) -> tuple[DeltaAt, list[Body]]:
    """Return the way to version 1 as a head names it, and its chunks."""
    pieces = enumerate(chunks.cut(made.body, chunk_bytes))
    return DeltaAt(0, 1, len(made.body)), [Body(JOB, body_name(V1, 0), n, piece) for n, piece in pieces]


def test_a_version_is_fetched_chunk_by_chunk(bench: Bench) -> None:
    state = version_1()
    way, pieces = way_1(state, 5)
    assert len(pieces) > 2
    bench.say(*pieces[:-1])
    bench.begin(head(V1, state.held, ways=(way,), chunk_bytes=5), Round(JOB, 1, V1, 60.0))
    bench.settle(1.0)
    assert all(offer.base == V0 for offer in bench.of(Offer))
    for offer in bench.of(Offer)[-1:]:
        bench.say(verdict(offer))
    bench.say(pieces[-1])
    assert bench.offered().base == V1


def listened(bench: Bench) -> list[str]:
    """Return the chunks that the agent listens to, by name and index."""
    return ["/".join(name.split("/")[-2:]) for name in bench.link._filters if "/body/" in name]


def fetching(bench: Bench, chunk_bytes: int = 5, *, wildcards: bool = False) -> list[Body]:
    """Return the chunks of version 1, which the agent fetches and of which nothing lies at the broker yet.

    wildcards: whether it has seen that this broker brings what is retained on a wildcard.
    """
    state = version_1()
    if wildcards:
        bench.say(Job(JOB, 1, msgspec.to_builtins(bench.spec)))
        bench.link.drop()
        bench.settle()
        bench.link.restore()
    bench.begin()
    bench.say(verdict(bench.offered()))
    way, pieces = way_1(state, chunk_bytes)
    bench.say(head(V1, state.held, ways=(way,), chunk_bytes=chunk_bytes), Round(JOB, 1, V1, 6000.0))
    bench.settle()
    assert listened(bench) == (["1-1-0/+"] if wildcards else [f"1-1-0/{piece.index}" for piece in pieces])
    assert len(pieces) > 1
    return pieces


@pytest.mark.parametrize("wildcards", [True, False])
def test_a_chunk_that_has_come_does_not_come_again_at_the_next_connect(bench: Bench, wildcards: bool) -> None:
    pieces = fetching(bench, wildcards=wildcards)
    before = listened(bench)
    bench.say(pieces[1])
    assert listened(bench) == before, "it is listened to until all have come"
    for came in ({1}, {1, 3}):
        bench.link.drop()
        bench.settle()
        assert listened(bench) == [f"1-1-0/{piece.index}" for piece in pieces if piece.index not in came]
        bench.link.restore()
        bench.say(*(pieces[3:4] if came == {1} else ()))
        assert listened(bench) == [f"1-1-0/{piece.index}" for piece in pieces if piece.index not in {1, 3}]
    bench.say(*pieces)
    assert bench.offered().base == V1
    assert listened(bench) == []


def test_where_the_broker_grants_no_filter_of_a_body_its_pieces_are_asked_for_one_by_one(bench: Bench) -> None:
    pieces = fetching(bench, wildcards=True)
    for _ in range(2):  # of two bodies both may be refused
        bench.agent._receive(Denied("fedge/1/f/body/toy-1/1-1-0/+", "the broker refused to subscribe: Not authorized"))
        assert listened(bench) == [f"1-1-0/{piece.index}" for piece in pieces]
    assert bench.agent.jobs.trouble == {}
    bench.say(*pieces)
    assert bench.offered().base == V1
    bench.agent._receive(Denied("fedge/1/f/body/toy-1/1-1-0/+", "which is late"))
    bench.agent._receive(Denied("fedge/1/f/body/another/1-1-0/+", "of which nobody knows"))
    assert listened(bench) == []


@pytest.mark.parametrize("wildcards", [True, False])
def test_of_a_version_of_which_nothing_has_come_all_is_asked_for_again(bench: Bench, wildcards: bool) -> None:
    pieces = fetching(bench, wildcards=wildcards)
    bench.link.drop()
    bench.settle()
    assert listened(bench) == [f"1-1-0/{piece.index}" for piece in pieces], "the next broker may be another"
    bench.link.restore()
    bench.say(*pieces)
    assert bench.offered().base == V1
    assert listened(bench) == []


def test_what_one_connection_shows_of_wildcards_is_not_believed_of_the_next(bench: Bench) -> None:
    fetching(bench, wildcards=True)
    (work,) = bench.agent.works.values()
    assert work.takes_bodies
    bench.broker.stop()  # it forgets what is retained, and so shows nothing at the next connect
    bench.settle()
    assert not work.takes_bodies
    bench.broker.start()
    bench.settle()
    assert not work.takes_bodies


def test_a_long_version_has_the_broker_show_once_what_it_brings_on_a_wildcard(bench: Bench) -> None:
    asked: list[str] = []
    bring = bench.broker._bring
    bench.broker._bring = lambda to, name, own: (asked.append(name), bring(to, name, own))[1]  # type: ignore[method-assign]
    bench.broker._retain(WIRE.pack(Job(JOB, 1, msgspec.to_builtins(bench.spec))))
    bench.say(*fetching(bench))
    (work,) = bench.agent.works.values()
    assert asked.count("fedge/1/f/job/+") == 1
    assert work.takes_bodies


def test_a_broker_that_brings_nothing_on_wildcards_is_asked_once_a_connection_whatever_is_fetched(bench: Bench) -> None:
    asked: list[str] = []
    bring = bench.broker._bring
    bench.broker._bring = lambda to, name, own: asked.append(name) if "+" in name else bring(to, name, own)  # type: ignore[method-assign, func-returns-value]
    pieces = fetching(bench)
    other = "toy-2"
    way = DeltaAt(0, 1, sum(len(piece.data) for piece in pieces))
    there = head(V1, version_1().held, ways=(way,), chunk_bytes=5)
    bench.say(
        Job(other, 1, msgspec.to_builtins(bench.spec)), Round(other, 1, V1, 6000.0), structs.replace(there, job=other)
    )
    assert len(listened(bench)) == 2 * len(pieces)
    for roll in (1, 2):  # the leader's connection is another one, and ours is not
        bench.say(Beacon(1, "n", online=True, spread_s=0.0, roll=roll))
        later = Version(1, 1 + roll)
        bench.say(structs.replace(there, version=later, ways=(DeltaAt(0, later.number, way.n_bytes),)))
        bench.say(Round(JOB, 1, later, 6000.0))
        assert f"{later.generation}-{later.number}-0/0" in listened(bench)
    jobs = "fedge/1/f/job/+"
    assert asked.count(jobs) == 1
    bench.link.drop()
    bench.settle()
    asked.clear()
    bench.link.restore()
    bench.settle()
    assert asked.count(jobs) == 1, "as it connects"
    later = Version(1, 4)
    bench.say(structs.replace(there, version=later, ways=(DeltaAt(0, later.number, way.n_bytes),)))
    bench.say(Round(JOB, 1, later, 6000.0))
    assert asked.count(jobs) == 2, "the next connection may be to another broker"


@pytest.mark.parametrize("wildcards", [True, False])
def test_a_version_comes_whole_by_either_way(bench: Bench, wildcards: bool) -> None:
    bench.say(*fetching(bench, wildcards=wildcards))
    assert bench.offered().base == V1
    assert listened(bench) == []


def test_a_chunk_that_the_broker_has_dropped_is_asked_for_again(bench: Bench) -> None:
    pieces = fetching(bench)
    bench.link.unsubscribe("fedge/1/f/body/toy-1/1-1-0/0")
    bench.say(*pieces)
    bench.settle(STALL_S)
    assert bench.offered().base == V1


def test_a_fetch_that_stalls_twice_begins_anew_with_a_new_head(bench: Bench) -> None:
    fetching(bench)
    bench.settle(STALL_S)
    assert listened(bench), "it is asked for again first"
    bench.settle(STALL_S)
    assert listened(bench) == []
    state = version_1()
    way, pieces = way_1(state, 9)
    bench.say(head(V1, state.held, ways=(way,), chunk_bytes=9))
    bench.settle(REFETCH_S)
    bench.settle()
    assert listened(bench) == ["1-1-0/+"], "this broker has shown that it brings what is retained on a wildcard"
    bench.settle(STALL_S)
    assert len(listened(bench)) == len(pieces), "the new one has its own two chances"
    bench.say(*pieces)
    assert bench.offered().base == V1


def test_a_fetch_that_gets_on_has_all_its_time_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    pieces = fetching(bench)
    bench.settle(STALL_S - 1.0)
    bench.say(pieces[0])
    bench.settle(STALL_S - 1.0)
    assert "stalled" not in caplog.text
    bench.say(pieces[1])
    bench.settle(STALL_S)
    bench.say(pieces[2])
    bench.settle(STALL_S)
    assert len(listened(bench)) == len(pieces) - 3, "it has stalled once since the last one came"
    bench.settle(STALL_S)
    assert listened(bench) == []


def test_who_was_offline_for_long_in_the_midst_of_a_fetch_keeps_what_has_come(bench: Bench) -> None:
    pieces = fetching(bench)
    bench.say(pieces[1])
    bench.settle(STALL_S)
    missing = [f"1-1-0/{piece.index}" for piece in pieces if piece.index != 1]
    assert listened(bench) == missing, "it has stalled once"
    bench.link.drop()
    for _ in range(60):
        bench.settle(STALL_S)
    bench.link.restore()
    bench.settle()
    assert listened(bench) == missing
    bench.settle(STALL_S)
    assert listened(bench) == missing, "the new connection has its own two chances"
    bench.say(*pieces)
    assert bench.offered().base == V1


def test_what_is_not_needed_any_more_is_listened_to_no_more(bench: Bench) -> None:
    fetching(bench)
    bench.say(Job(JOB, 1, msgspec.to_builtins(SPEC), V1))
    assert [name for name in bench.link._filters if "/body/" in name or "/head/" in name] == []


def test_a_wrong_chunk_is_no_fault_of_the_job(bench: Bench) -> None:
    pieces = fetching(bench)
    bench.say(structs.replace(pieces[0], data=b"too long"))
    assert (bench.agent.jobs.unready, list(bench.agent.works)) == ({}, [JOB])
    assert listened(bench) == []
    bench.say(*pieces)
    for _ in range(3):
        bench.settle(REFETCH_S)
    assert bench.offered().base == V1


def test_a_way_from_here_that_leads_elsewhere_is_made_good_by_the_one_from_version_0(bench: Bench) -> None:
    pieces = fetching(bench)
    bench.say(*pieces)
    bench.say(verdict(bench.offered()))
    two = version_1(version_1().held, Grids(step_near(2.0**-10)))
    snapshot = Chain(NET.spec, SPEC).snapshot(two.held, Grids(step_near(2.0**-10)))
    assert len(snapshot) > len(two.body)
    bodies = {0: snapshot, 1: bytes(len(two.body))}
    v2 = Version(1, 2)
    bench.say(*(Body(JOB, body_name(v2, start), 0, body) for start, body in bodies.items()))
    told = tuple(DeltaAt(start, 2, len(body)) for start, body in bodies.items())
    bench.say(head(v2, two.held, ways=told, chunk_bytes=100_000), Round(JOB, 1, v2, 600.0))
    for _ in range(3):
        bench.settle(REFETCH_S)
    assert bench.offered().base == v2


def test_a_version_that_is_not_what_the_head_names_is_not_trained_on(bench: Bench) -> None:
    state = version_1()
    way, pieces = way_1(state, 100)
    lie = Head(JOB, 1, V1, "0" * 32, ways=(way,), chunk_bytes=100)
    bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, msgspec.to_builtins(SPEC)), lie, *pieces)
    bench.say(Round(JOB, 1, V1, 60.0))
    bench.settle(1.0)
    assert bench.of(Offer) == []
    assert bench.agent.doing == "idle"


def test_a_version_that_came_with_its_round_is_trained_on(bench: Bench) -> None:
    bench.begin()
    bench.say(verdict(bench.offered()))
    state = version_1()
    bench.say(Round(JOB, 1, V1, 60.0, along=along(state.held.sha256(), state.body)))
    bench.settle(1.0)
    assert bench.of(Offer)[-1].base == V1


def test_a_way_that_leads_elsewhere_is_made_good_by_the_head(bench: Bench) -> None:
    state = version_1()
    bench.begin()
    bench.say(verdict(bench.offered()))
    bench.say(Round(JOB, 1, V1, 60.0, along=bytes(8) + state.body))
    bench.settle(1.0)
    assert bench.of(Offer)[-1].base == V0
    way, pieces = way_1(state, 100)
    bench.say(head(V1, state.held, ways=(way,), chunk_bytes=100), *pieces)
    bench.settle(30.0)
    bench.settle()
    assert bench.of(Offer)[-1].base == V1


OFF = JobSpec("toy", MODEL, compression="off", deploy="never", train=TrainSpec(epochs=1, batch_size=5))


def proved(bench: Bench) -> tuple[Held, list[Body]]:
    """Return version 1, and the pieces of its body, which says it whole, once the agent has trained on version 0."""
    chain_ = Chain(NET.spec, OFF)
    held = version_1().held
    body = chain_.whole(held.model)
    assert len(body) == chain_.whole_bytes
    bench.begin()
    bench.say(verdict(bench.offered()))
    pieces = enumerate(chunks.cut(body, CHUNK_BYTES))
    return chain_.take(FIRST, 1, body), [Body(JOB, body_name(V1, 0), n, piece) for n, piece in pieces]


def test_a_version_that_its_round_proves_is_fetched_without_a_head(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OFF)
    held, pieces = proved(bench)
    asked: list[str] = []
    bring = bench.broker._bring
    bench.broker._bring = lambda to, name, own: (asked.append(name), bring(to, name, own))[1]  # type: ignore[method-assign]
    bench.say(*pieces, Round(JOB, 1, V1, 60.0, along=along(held.sha256(), b"")))
    assert bench.offered().base == V1
    assert asked == ["fedge/1/f/body/toy-1/1-1-0/0"]
    bench.agent.stop()


def test_a_proof_that_the_whole_version_does_not_bear_out_is_made_good_by_the_head(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OFF)
    held, pieces = proved(bench)
    bench.say(*pieces, Round(JOB, 1, V1, 600.0, along=bytes(8)))
    bench.settle(1.0)
    assert bench.of(Offer)[-1].base == V0
    way = DeltaAt(0, 1, sum(len(piece.data) for piece in pieces))
    bench.say(head(V1, held, ways=(way,)))
    bench.settle(REFETCH_S)
    assert bench.offered().base == V1
    bench.agent.stop()


def test_a_large_update_goes_up_in_chunks_as_they_are_wanted(tmp_path: Path) -> None:
    model = ModelSpec(inputs=4, hidden=(8000,), outputs=2)
    spec = JobSpec("toy", model, compression=CompressionSpec(codec="float32"), deploy="never", train=SPEC.train)
    bench = Bench(tmp_path, spec)
    net = nets.build(model)
    tree = msgspec.to_builtins(spec)
    first = head(V0, Chain(net.spec, spec).first())
    bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, tree), first, Round(JOB, 1, V0, 60.0))
    offer = bench.offered()
    assert offer.body == b""
    assert offer.n_bytes > 2 * offer.chunk_bytes
    n_chunks = chunks.count(offer.n_bytes, offer.chunk_bytes)
    bench.say(Want(DEVICE, JOB, offer.digest, chunks.to_bitmap({0, n_chunks - 1}, n_chunks)))
    assert [piece.index for piece in bench.of(Chunk)] == [0, n_chunks - 1]
    bench.say(Want(DEVICE, JOB, offer.digest, "ff" * 4096))
    whole = chunks.Assembly(offer.digest, offer.n_bytes, offer.chunk_bytes)
    for piece in bench.of(Chunk):
        whole.add(piece.index, piece.data)
    coding = Chain(net.spec, spec).coding(0, FLOAT32)
    assert len(coding.tensors(coding.decode(whole.body() or b""))) == len(net.spec)


# How updates are coded, and what is reported of their base.


def opened(bench: Bench, *terms: int) -> None:
    """Have the round of version 0 say how updates to it are coded."""
    tree = msgspec.to_builtins(bench.spec)
    one = Round(JOB, 1, V0, 60.0, terms=(terms[0], terms[1], 0))
    bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, tree), head(), one)


@pytest.mark.parametrize("terms", [SKETCH, Terms(128, 4), INT8, FLOAT32])
def test_an_update_is_coded_as_its_round_says(bench: Bench, terms: Terms) -> None:
    opened(bench, *terms)
    offer = bench.offered()
    assert len(said(offer, terms)) == len(NET.spec)
    assert any(part.any() for part in said(offer, terms))
    assert (bench.folder / "jobs" / JOB / "update.bin").exists()
    bench.kill()
    bench.heard.clear()
    bench.start()
    bench.settle(1.0)
    assert bench.of(Offer) == [offer]


@pytest.mark.parametrize("terms", [(2**32, 1), (65, 1), (256, 1), (64, 5), (64, 32), (0, 4), (0, 1)])
def test_terms_that_no_update_can_have_end_a_training_before_it_begins(
    bench: Bench, terms: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(train, "steps", None)
        opened(bench, *terms)
        bench.settle(5.0)
    assert bench.of(Offer) == []
    assert bench.agent.jobs.unready == {}
    assert f"no update of 114 coordinates is coded in {terms[0]} buckets of {terms[1]} bits" in caplog.text
    told = bench.of(Presence)[-1].failed[JOB]
    assert (told.base, told.why) == (V0, caplog.records[-1].args[-1])  # type: ignore[index]
    assert not any((bench.folder / "marks").glob("*"))
    made = version_1()
    bench.say(Round(JOB, 1, V1, 60.0, along=along(made.held.sha256(), made.body)))
    bench.settle(5.0)
    assert bench.of(Offer)[-1].base == V1
    assert bench.of(Presence)[-1].failed == {}


OCTAVE = -10


def walk(
    bench: Bench,
    numbers: range | list[int],
    terms: Terms = SKETCH,
    dies: Collection[int] = (),
    octave: int = OCTAVE,
    generation: int = 1,
) -> list[Offer]:
    """Have the agent train on these versions, one after another; kill it before some. Give what it offers."""
    tree = msgspec.to_builtins(bench.spec)
    bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, tree))
    held, told, offers = FIRST, (), []
    for number in range(max(numbers) + 1):
        version = Version(generation, number)
        if number:
            made = version_1(held)
            held, told = made.held, (*told, DeltaAt(number - 1, number, len(made.body)))
            bench.say(Body(JOB, body_name(version, number - 1), 0, made.body))
        if number not in numbers:
            continue
        bench.say(head(version, held, ways=told, chunk_bytes=1000))
        if number in dies:
            bench.kill()
            bench.start()
        bench.say(Round(JOB, 1, version, 600.0, terms=(*terms, octave if number else 0)))
        bench.settle(10.0)
        offers.append(bench.offered())
        if number in dies:
            bench.kill()
            bench.start()
    assert [offer.base.number for offer in offers] == list(numbers)
    return offers


def test_an_update_is_coded_under_the_hash_of_its_own_base(tmp_path: Path) -> None:
    """Under another one it decodes as well, and says something else."""
    plain, coded = Bench(tmp_path / "plain"), Bench(tmp_path / "coded")
    wide = Terms(128, 4)
    true, found = (
        np.concatenate([part.reshape(-1) for part in said(walk(bench, [0, 2], terms)[-1], terms)])
        for bench, terms in ((plain, FLOAT32), (coded, wide))
    )
    assert np.square(found - true).sum() < 0.05 * np.square(true).sum()


def held_at(number: int) -> Held:
    held = FIRST
    for _ in range(number):
        held = version_1(held).held
    return held


def loss_at(number: int) -> float:
    """The loss of a version on the device's rows."""
    return probe.loss(NET, held_at(number).model.params(NET.spec), rows())


def price_at(number: int) -> float:
    """What noise would cost there."""
    rng = rng_of("probe", 0, number, DEVICE)
    return probe.curvature(NET, held_at(number).model.params(NET.spec), rows(), loss_at(number), 2.0**OCTAVE, rng)


def gained(number: int, since: int) -> float:
    """What a version gains there, going by another one."""
    return probe.gain(loss_at(since), since, loss_at(number), number)


def test_a_device_reports_what_noise_would_cost_and_what_a_version_gains(bench: Bench) -> None:
    first, second, later = walk(bench, [0, 1, 3])
    assert first.report == ()
    assert second.report == pytest.approx((price_at(1), gained(1, 0)), rel=0.006)
    assert later.report == pytest.approx((price_at(3), gained(3, 1)), rel=0.006)
    assert all(float(f"{value:.3g}") == value for value in second.report)


def test_a_device_that_has_reported_on_nothing_yet_goes_by_version_0(bench: Bench) -> None:
    (offer,) = walk(bench, [3])
    assert offer.report == pytest.approx((price_at(3), gained(3, 0)), rel=0.006)


def test_a_device_reports_when_it_is_due_and_every_early_version(bench: Bench) -> None:
    due, last = [], None
    for number in range(14):
        if probe.is_due(DEVICE, number, last):
            due.append(number)
            last = number
    offers = walk(bench, range(14))
    assert [offer.base.number for offer in offers if offer.report] == due[1:]
    assert due[:5] == [0, 1, 2, 3, due[4]]
    assert due[4] > 4 or due[5] > due[4] + 1


@pytest.mark.parametrize("dies", [range(9), [2, 5], [0], [7]])
def test_a_report_is_the_same_whether_or_not_the_agent_was_killed_in_between(
    tmp_path: Path, dies: Collection[int]
) -> None:
    calm, rough = Bench(tmp_path / "calm"), Bench(tmp_path / "rough")
    assert walk(calm, range(9)) == walk(rough, range(9), dies=dies)
    assert len([offer for offer in calm.of(Offer) if offer.report]) > 3


def test_what_was_reported_under_another_generation_is_no_measure_of_a_gain(bench: Bench) -> None:
    walk(bench, [0, 1, 2])
    (offer,) = walk(bench, [3], generation=7)
    assert offer.report == pytest.approx((price_at(3), gained(3, 0)), rel=0.006)


@pytest.mark.parametrize("generation", [1, 7])
def test_a_version_that_came_before_the_one_reported_on_last_is_no_measure_of_a_gain(
    bench: Bench, generation: int
) -> None:
    """As a backup that was restored brings it back."""
    walk(bench, [3])
    bench.agent.works[JOB]._outbox.probed = Probed(Version(generation, 3), 1e3)
    (offer,) = walk(bench, [2], generation=7)
    assert offer.report == pytest.approx((price_at(2), gained(2, 0)), rel=0.006)


@pytest.mark.parametrize("terms", [INT8, FLOAT32])
def test_of_what_is_not_sketched_nothing_is_reported(bench: Bench, terms: Terms) -> None:
    assert [offer.report for offer in walk(bench, range(3), terms)] == [()] * 3


def test_where_the_job_names_its_buckets_nothing_is_reported(tmp_path: Path) -> None:
    spec = structs.replace(SPEC, compression=CompressionSpec(buckets=64))
    bench = Bench(tmp_path, spec)
    assert [offer.report for offer in walk(bench, range(3))] == [()] * 3


def test_where_the_noise_is_not_known_nothing_is_reported_but_the_gain_of_the_next_builds_on_it(bench: Bench) -> None:
    assert walk(bench, [0, 1], octave=0)[-1].report == ()
    (offer,) = walk(bench, [2])
    assert offer.report == pytest.approx((price_at(2), gained(2, 1)), rel=0.006)


@pytest.mark.parametrize("loss", [math.inf, math.nan, 1e300])
def test_a_loss_that_is_none_is_not_reported_and_nothing_builds_on_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    walk(bench, [0])
    with monkeypatch.context() as patch:
        patch.setattr(probe, "loss", lambda *_, **__: loss)
        assert walk(bench, [1])[-1].report == ()
    assert bench.agent.works[JOB]._outbox.probed is None
    assert walk(bench, [2])[-1].report == pytest.approx((price_at(2), gained(2, 0)), rel=0.006)


@pytest.mark.parametrize("found", [math.inf, math.nan, -math.inf, -1.7976e308])
def test_a_gain_that_is_none_is_not_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch, found: float) -> None:
    walk(bench, [0])
    monkeypatch.setattr(probe, "gain", lambda *_, **__: found)
    (offer,) = walk(bench, [1])
    assert offer.report == ()


@pytest.mark.parametrize("found", [math.inf, math.nan, -math.inf, 1.7976e308])
def test_a_price_that_is_none_is_not_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch, found: float) -> None:
    walk(bench, [0])
    monkeypatch.setattr(probe, "curvature", lambda *_, **__: found)
    (offer,) = walk(bench, [1])
    assert offer.report == ()
    assert b"null" not in WIRE.pack(offer).payload


# Hostile input.


HEARD = {
    "aggregator": "fedge/1/f/aggregator",
    "job": f"fedge/1/f/job/{JOB}",
    "head": f"fedge/1/f/head/{JOB}",
    "round": f"fedge/1/f/round/{JOB}",
    "want": f"fedge/1/f/want/{JOB}/{DEVICE}",
    "verdict": f"fedge/1/f/verdict/{JOB}/{DEVICE}",
    "device": f"fedge/1/f/device/{DEVICE}",
}
NOISE = [b"{", b"null", b"[]", b"{}", b'{"job":"toy-1"}', b"\xff" * 100, b'{"a":' * 5000, bytes(range(256))]


@pytest.mark.parametrize("word", HEARD)
def test_noise_is_counted_and_the_update_is_the_same(tmp_path: Path, word: str) -> None:
    calm, rough = Bench(tmp_path / "calm"), Bench(tmp_path / "rough")
    rough.hand.unsubscribe("fedge/1/f/#")
    rough.hand.subscribe("fedge/1/f/offer/#")
    noise = [Packet(HEARD[word], payload) for payload in NOISE]
    for one in (calm, rough):
        one.begin()
        if one is rough:
            one.say(*noise)
    assert rough.offered() == calm.offered()
    if word != "head":  # nobody listens to a head that has been read
        assert rough.agent.tally.counts["garbage"] == len(noise)


def lies(offer: Offer) -> dict[str, Callable[[], Message]]:
    return {
        "a verdict on another base": lambda: Verdict(DEVICE, JOB, V1, echo(offer)),
        "a verdict on another update": lambda: Verdict(DEVICE, JOB, V0, "0" * 8),
        "a verdict on another job": lambda: Verdict(DEVICE, "other-1", V0, echo(offer)),
        "a want of another update": lambda: Want(DEVICE, JOB, "0" * 32, "01"),
        "a want of another job": lambda: Want(DEVICE, "other-1", offer.digest, "01"),
        "a body that nobody wanted": lambda: Body(JOB, "0" * 32, 0, b"x"),
        "a head of a lower term": lambda: Head(JOB, 0, V1, "0" * 32),
        "a round of a lower term": lambda: Round(JOB, 0, V1, 60.0),
    }


@pytest.mark.parametrize("lie", lies(Offer(JOB, DEVICE, V0, 1, "f" * 32, 1)))
def test_a_lie_changes_nothing(bench: Bench, lie: str) -> None:
    bench.begin()
    offer = bench.offered()
    bench.heard.clear()
    bench.say(lies(offer)[lie]())
    bench.settle(40.0)
    assert bench.of(Chunk) == []
    assert bench.of(Offer) == [offer]


def test_a_full_disk_puts_the_job_off_and_does_not_end_the_agent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.files.os.fsync", full)
        bench.begin()
        bench.settle(1.0)
    assert bench.of(Offer) == []
    bench.settle(120.0)
    bench.say(Round(JOB, 1, V0, 60.0))
    bench.settle(10.0)
    assert bench.offered().base == V0


def test_a_disk_that_is_full_when_training_ends_is_no_fault_of_the_job_and_is_looked_at_again_soon(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    bench.say(Job(JOB, 1, msgspec.to_builtins(SPEC)))
    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.outbox.files.overwrite", full)
        bench.begin(Round(JOB, 1, V0, 6000.0))
        bench.settle(1.0)
    assert bench.agent.jobs.unready == {JOB: "a file cannot be used: No space left on device"}
    bench.settle(LOOK_AGAIN_S)
    bench.settle(1.0)
    assert bench.offered().base == V0


# Being called, and being asked.


def settled(bench: Bench, spread_s: float = 0.0) -> None:
    """Have an aggregator lead, and let the first presence pass."""
    bench.say(Beacon(1, "n", online=True, spread_s=spread_s, roll=1))
    bench.settle(5.0)
    bench.heard.clear()


def test_a_presence_says_whose_life_it_is(bench: Bench) -> None:
    bench.settle(1.0)
    said = bench.of(Presence)[-1]
    assert (said.incarnation, said.boot, said.nonce) == (bench.home.incarnation, 1, bench.home.nonce)
    assert WIRE.unpack(will(WIRE, bench.home)) == Presence(
        DEVICE, 1, online=False, incarnation=bench.home.incarnation, nonce=bench.home.nonce
    )


def test_a_roll_call_is_answered_once_within_its_window(bench: Bench) -> None:
    settled(bench)
    for beacon in (Beacon(1, "n", True, 20.0, 1), Beacon(1, "n", True, 20.0, 2), Beacon(1, "n", True, 20.0, 2)):
        bench.say(beacon)
    assert bench.of(Presence) == []
    for _ in range(25):
        bench.settle(1.0)
    assert len(bench.of(Presence)) == 1


def test_another_aggregator_calls_the_roll_too(bench: Bench) -> None:
    settled(bench)
    bench.say(Beacon(2, "m", online=True, spread_s=0.0, roll=1))
    bench.settle(1.0)
    assert len(bench.of(Presence)) == 1


def test_a_device_that_is_idle_says_and_asks_nothing_all_day(bench: Bench) -> None:
    bench.begin()
    bench.say(verdict(bench.offered()))
    bench.settle(5.0)
    bench.settle(900.0)  # how it is now was said before it was idle
    bench.heard.clear()
    sent = bench.link.counters.sent_packets
    for _ in range(23 * 60):
        bench.settle(60.0)
    assert bench.link.counters.sent_packets == sent
    assert bench.heard == []


def test_a_device_that_is_asked_whether_it_lives_denies_that_it_is_gone(bench: Bench) -> None:
    settled(bench)
    question = Presence(DEVICE, 1, online=False, incarnation=bench.home.incarnation, nonce=bench.home.nonce)
    bench.say(question)
    bench.settle(1.0)
    assert [said.online for said in bench.of(Presence)] == [False, True]


def test_the_will_of_its_former_life_that_the_broker_remembers_is_no_question(bench: Bench) -> None:
    """It says of itself what it can do once it has heard which jobs there are, not before."""
    bench.settle(1.0)
    bench.kill()
    bench.settle()
    bench.start()
    bench.heard.clear()
    bench.settle()
    assert bench.of(Presence) == []
    bench.settle(0.5)
    assert [said.online for said in bench.of(Presence)] == [True]


def test_a_clone_is_told_of_here_too(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    settled(bench)
    bench.say(Presence(DEVICE, 1, online=True, incarnation=bench.home.incarnation, nonce="ffffffff"))
    assert "another process speaks as device=d" in caplog.text
    assert "nonce=ffffffff" in caplog.text
    assert bench.home.nonce in caplog.text


def test_its_own_last_life_is_no_clone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.settle(1.0)
    bench.kill()
    bench.start()
    bench.settle(1.0)
    assert "another process" not in caplog.text


def test_an_aggregator_of_a_lower_term_is_told_of_the_higher_one(bench: Bench) -> None:
    bench.say(Beacon(7, "n", online=True, spread_s=0.0))
    bench.settle(5.0)
    bench.heard.clear()
    bench.say(Beacon(3, "restored", online=True, spread_s=0.0))
    bench.settle(1.0)
    assert [said.term for said in bench.of(Presence)] == [7]
    bench.say(Beacon(8, "restored", online=True, spread_s=0.0, roll=1))
    bench.settle(1.0)
    assert [said.term for said in bench.of(Presence)] == [7, 0]


def test_a_presence_says_what_was_trained_last(bench: Bench) -> None:
    bench.begin()
    bench.say(verdict(bench.offered()))
    bench.say(Beacon(1, "n", online=True, spread_s=0.0, roll=5))
    bench.settle(5.0)
    assert bench.of(Presence)[-1].done == {JOB: V0}


# Being offline.


def test_an_aggregator_that_goes_back_is_told_of_the_later_version(bench: Bench) -> None:
    """Its store is older than what this device has heard of, and it may have nobody else to tell it."""
    bench.begin()
    bench.say(Round(JOB, 1, Version(1, 7), 60.0))
    bench.settle(30.0)
    assert bench.of(Presence)[-1].ahead == {}
    bench.say(Round(JOB, 1, V1, 60.0))
    bench.settle(30.0)
    assert bench.of(Presence)[-1].ahead == {JOB: Version(1, 7)}
    bench.say(Round(JOB, 1, Version(9, 1), 60.0))
    bench.settle(30.0)
    assert bench.of(Presence)[-1].ahead == {}


def test_a_day_offline_queues_nothing_and_one_offer_goes_at_the_reconnect(bench: Bench) -> None:
    bench.begin()
    offer = bench.offered()
    bench.link.drop()
    until = bench.now + 86_400.0
    while bench.now < until:
        bench.agent.step(1.0)
        bench.now = min(max(bench.now + 0.001, bench.agent.deadline), until)
    assert len(bench.agent._out) == 0
    assert bench.agent._patience(1.0) == 1.0, "and nothing wakes it up"
    bench.heard.clear()
    bench.link.restore()
    bench.settle(1.0)
    assert bench.of(Offer) == [offer]


def test_nothing_wakes_up_a_device_that_is_offline(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    bench.settle(100.0)
    bench.link.drop()
    bench.settle()
    assert (bench.agent.doing, bench.agent.deadline) == ("toy: offering an update to version 1.0", math.inf)


def test_what_is_trained_offline_is_offered_with_its_body_at_the_reconnect(bench: Bench) -> None:
    bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, msgspec.to_builtins(SPEC)), head())
    bench.hand.publish(WIRE.pack(Round(JOB, 1, V0, 60.0)))
    while not bench.agent.busy:
        bench.agent.step(0.0)
    bench.link.drop()
    bench.settle(5.0)
    assert bench.of(Offer) == []
    bench.link.restore()
    bench.settle(1.0)
    assert bench.offered().body


# What frees a resource looks again at what waits for it.


def test_a_device_whose_base_is_left_trains_at_once_on_the_next_one_that_draws_it(bench: Bench) -> None:
    state = version_1()
    bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, msgspec.to_builtins(SPEC)), head())
    bench.hand.publish(WIRE.pack(Round(JOB, 1, V0, 60.0)))
    while not bench.agent.busy:
        bench.agent.step(0.0)
    way, pieces = way_1(state, 100)
    bench.hand.publish(WIRE.pack(head(V1, state.held, ways=(way,), chunk_bytes=100)))
    for piece in pieces:
        bench.hand.publish(WIRE.pack(piece))
    bench.say(Round(JOB, 1, V1, 60.0))
    bench.settle(0.1)
    bench.settle(0.1)
    assert [offer.base for offer in bench.of(Offer)] == [V1]


def never_done(folder: Path, monkeypatch: pytest.MonkeyPatch, *jobs: str, checkpoint_s: float = 60.0) -> Bench:
    """A device with trainings that do not end, each step of which takes a quarter of a second."""
    endless = structs.replace(SPEC, train=TrainSpec(epochs=1_000_000, batch_size=5))
    bench = Bench(folder, endless, checkpoint_s=checkpoint_s)
    real = train.steps

    def steps(*what: Any, **more: Any) -> Iterator[train.TrainingStep]:
        for step in real(*what, **more):
            bench.now += 0.25
            yield step

    monkeypatch.setattr("edge_agent.trainer.train.steps", steps)
    for job in jobs:
        proof = along(head().sha256, b"")
        for message in (Job(job, 1, msgspec.to_builtins(bench.spec)), Round(job, 1, V0, 6000.0, along=proof)):
            bench.hand.publish(WIRE.pack(message))
    return bench


def test_jobs_that_train_at_once_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None starves another; and who has not its turn has no mark, for it is not to blame for what ends the process."""
    bench = never_done(tmp_path, monkeypatch, "toy-1", "toy-2", "toy-3")
    turns: list[tuple[str, float]] = []
    while bench.now < 1100.0:
        bench.agent.step(0.0)
        marks = [mark.name for mark in (tmp_path / "entered").glob("*.train")]
        assert len(marks) <= 1
        if marks and (not turns or turns[-1][0] != marks[0]):
            turns.append((marks[0], bench.now))
    turns = turns[3:]  # from when all three had something to train
    assert len(turns) >= 15
    lengths = [later - at for (_, at), (_, later) in itertools.pairwise(turns)]
    assert lengths == [pytest.approx(TURN_S, abs=0.3)] * len(lengths)
    names = [name for name, _ in turns]
    assert {frozenset(names[n : n + 3]) for n in range(len(names) - 2)} == {
        frozenset(f"toy-{n}.train" for n in (1, 2, 3))
    }
    bench.agent.stop()


def test_a_job_that_trains_alone_goes_on_without_a_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = never_done(tmp_path, monkeypatch, "toy-1")
    entered: list[str] = []
    enter = Marks.enter

    def note(self: Marks, job: str, place: Place, what: str) -> None:
        entered.append(place)
        enter(self, job, place, what)

    monkeypatch.setattr(Marks, "enter", note)
    while bench.now < 1000.0 + 4 * TURN_S:
        bench.agent.step(0.0)
    assert entered == ["begin", "read", "read", "train"]
    bench.agent.stop()


def test_a_training_that_is_halted_or_paused_leaves_no_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the process then is not this job's fault."""
    bench = never_done(tmp_path, monkeypatch, "toy-1", "toy-2")

    def marks() -> list[str]:
        return [mark.name for mark in (tmp_path / "entered").glob("*.train")]

    while marks() != ["toy-2.train"]:
        bench.agent.step(0.0)
    bench.hand.publish(WIRE.pack(Round("toy-2", 1, V1, 6000.0)))
    while bench.agent.works["toy-2"].busy:
        bench.agent.step(0.0)
    assert "toy-2.train" not in marks()
    while not marks():
        bench.agent.step(0.0)
    bench.agent.stop()
    assert marks() == []


@pytest.mark.parametrize(
    ("names", "then"),
    [((Version(588, 0), V0), (V0,)), ((V0,), (Version(588, 0), V0))],
    ids=["to a lower name", "to a higher one, restarted"],
)
def test_a_training_goes_on_where_it_stood_under_the_name_that_another_leader_has_for_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[Version, ...], then: tuple[Version, ...]
) -> None:
    bench = never_done(tmp_path, monkeypatch, checkpoint_s=0.25)
    proof = along(head().sha256, b"")

    def goes_on(term: int, base: Version, *aliases: Version) -> None:
        bench.hand.publish(WIRE.pack(Round(JOB, term, base, 6000.0, aliases=aliases, along=proof)))

    def stands(base: Version) -> tuple[int, int]:
        for _ in range(50):
            bench.agent.step(0.0)
            training = bench.agent.works[JOB]._training if JOB in bench.agent.works else None
            if training is not None and training.effect.base == base and training.loss is not None:
                return training.state.epoch, training.state.batch
        pytest.fail(f"it does not train on {base}")

    bench.hand.publish(WIRE.pack(Job(JOB, 1, msgspec.to_builtins(bench.spec))))
    goes_on(2, *names)
    before = stands(names[0])
    while before < (5, 2):
        before = stands(names[0])
    if then[0] > names[0]:
        bench.kill()
        bench.start()
        bench.hand.publish(WIRE.pack(Job(JOB, 1, msgspec.to_builtins(bench.spec))))
    goes_on(3, *then)
    assert before <= stands(then[0]) <= (before[0], 3)
    bench.agent.stop()


def test_deaths_before_something_was_gained_count_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = never_done(tmp_path, monkeypatch)
    bench.kill()
    for _ in range(3):
        Marks(tmp_path / "entered").enter(JOB, "train", "training on version 1.0")
    bench.start()
    proof = along(head().sha256, b"")
    bench.agent.jobs._marks.forgive(JOB)
    for message in (Job(JOB, 1, msgspec.to_builtins(bench.spec)), Round(JOB, 1, V0, 6000.0, along=proof)):
        bench.hand.publish(WIRE.pack(message))
    mark = tmp_path / "entered" / f"{JOB}.train"
    while not (mark.exists() and b'"deaths":0' in mark.read_bytes()):
        bench.agent.step(0.0)
        assert bench.now < 1200.0, "an epoch was finished, and a checkpoint written"
    bench.agent.stop()


# What a deleted job leaves.


def test_a_job_that_is_deleted_in_the_middle_of_a_fetch_leaves_no_subscription(bench: Bench) -> None:
    state = version_1()
    bench.begin()
    bench.say(verdict(bench.offered()))
    way, _ = way_1(state, 5)
    bench.say(head(V1, state.held, ways=(way,), chunk_bytes=5), Round(JOB, 1, V1, 600.0))
    bench.settle(10.0)
    assert [name for name in bench.link._filters if "/body/" in name]
    bench.say(Job(JOB, 1))
    assert not [name for name in bench.link._filters if JOB in name]


def test_a_tombstone_that_comes_after_a_restart_takes_the_folder_too(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    bench.kill()
    bench.hand.publish(WIRE.pack(Job(JOB, 1)))
    bench.start()
    bench.settle(1.0)
    assert list((bench.folder / "jobs").iterdir()) == []


def test_of_a_deleted_job_that_was_put_off_nothing_stays_and_it_is_not_tried_again(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    bench.kill()
    for _ in range(3):
        Marks(bench.folder / "entered").enter(JOB, "begin", "it was begun")
    bench.start()
    agent = bench.agent
    bench.begin(Job(JOB, 1, msgspec.to_builtins(SPEC), V0))
    names = ("unready", "_later", "_rested_s", "_overs")
    assert all(JOB in getattr(agent.jobs, name) for name in names)
    bench.say(Job(JOB, 1))
    assert not any(JOB in getattr(agent.jobs, name) for name in (*names, "_announced"))
    assert list((bench.folder / "entered").iterdir()) == []
    bench.settle(2 * FIRST_REST_S)
    bench.settle(1.0)
    assert (agent.works, list((bench.folder / "jobs").iterdir())) == ({}, [])


def test_of_a_deleted_job_that_the_broker_has_refused_something_of_nothing_is_told_any_more(bench: Bench) -> None:
    bench.begin()
    bench.agent.jobs.be_denied(["offer", JOB, DEVICE, "1"], "it is too large")
    bench.say(Job(JOB, 1))
    bench.settle(30.0)
    bench.settle(30.0)
    assert bench.of(Presence)[-1].trouble == {}


def test_a_job_on_disk_that_nobody_announces_is_reported_and_kept(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    bench.kill()
    bench.broker.stop()
    bench.broker.start()
    bench.start()
    bench.settle(50.0)
    assert bench.of(Presence)[-1].unready == {}
    bench.settle(50.0)
    bench.settle(30.0)
    assert bench.of(Presence)[-1].unready == {JOB: "it is on disk here, and no aggregator has announced it"}
    assert (bench.folder / "jobs" / JOB / "update.bin").exists()


def slot(folder: Path, name: str, installed_at: int) -> Path:
    """Make what a model slot looks like on disk."""
    made = folder / "models" / name
    (made / "versions" / "1").mkdir(parents=True)
    (made / "current").symlink_to("versions/1")
    os.utime(made / "current", (installed_at, installed_at), follow_symlinks=False)
    return made


@pytest.mark.parametrize(
    ("keep", "stay"),
    [(None, {"toy", "older", "newer"}), (1, {"toy", "newer"}), (0, {"toy"})],
    ids=["all", "one", "none"],
)
def test_when_a_job_is_deleted_the_models_of_jobs_that_are_over_go_as_the_operator_says(
    tmp_path: Path, keep: int | None, stay: set[str]
) -> None:
    bench = Bench(tmp_path, inference=True, keep=keep)
    for at, name in enumerate(("toy", "older", "newer")):
        slot(tmp_path, name, 1000 + at)
    bench.begin()
    bench.say(Job("older-1", 1))
    assert {path.name for path in (tmp_path / "models").iterdir()} == stay
    bench.agent.stop()


def test_a_job_that_is_announced_late_is_reported_no_more_also_where_its_data_are_not_here(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    bench.kill()
    bench.broker.stop()
    bench.broker.start()
    bench.start(data="elsewhere")
    for _ in range(4):
        bench.settle(30.0)
    assert bench.of(Presence)[-1].unready == {JOB: UNANNOUNCED}
    bench.say(Job(JOB, 1, msgspec.to_builtins(SPEC)))
    bench.settle(30.0)
    bench.settle(30.0)
    assert bench.of(Presence)[-1].unready == {}


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_job_that_has_ended_while_it_was_put_off_is_over_when_it_begins(bench: Bench, goes_on: bool) -> None:
    """Unless it has been brought back by then."""

    class Missing:
        there = False

        def snapshot(self) -> Dataset:
            if not self.there:
                raise DatasetError("no such file")
            return rows()

    source = Missing()
    bench.agent.jobs._open_source = lambda *_, **__: source
    bench.begin(Round(JOB, 1, V0, 6000.0))
    assert bench.agent.works == {}
    tree = msgspec.to_builtins(SPEC)
    bench.say(Job(JOB, 1, tree, V0))
    if goes_on:
        bench.say(Job(JOB, 2, tree), structs.replace(head(), term=2), Round(JOB, 2, V0, 6000.0))
    source.there = True
    bench.settle(LOOK_AGAIN_S)
    bench.settle(1.0)
    assert list(bench.agent.works) == [JOB]
    assert bool(bench.of(Offer)) == goes_on


# A job's own faults.


def test_what_a_jobs_code_throws_puts_it_at_rest_with_the_reason_and_the_others_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ModelError("gave outputs of shape (5, 3)")

    other = "other-2"
    with monkeypatch.context() as patch:
        patch.setattr("models.nets.mlp.Mlp.loss_and_gradients", fail)
        bench.begin()
        bench.settle(1.0)
    assert bench.agent.works == {}
    bench.settle(30.0)
    said = bench.of(Presence)[-1]
    assert "at rest: ModelError: gave outputs of shape (5, 3) (" in said.unready[JOB]
    spec = msgspec.to_builtins(structs.replace(SPEC, name="other", data="toy"))
    bench.say(Job(other, 1, spec), Head(other, 1, V0, head().sha256), Round(other, 1, V0, 60.0))
    assert bench.offered().job == other


def test_an_event_that_is_illegal_puts_its_job_at_rest_and_an_update_is_offered_on(bench: Bench) -> None:
    bench.begin()
    before = bench.offered()
    bench.agent.jobs.inside(JOB, lambda work, now: work.handle(TrainingFailed(V0, "it diverged"), now))
    assert bench.agent.works == {}
    bench.settle(1.0)
    why = bench.of(Presence)[-1].unready[JOB]
    assert "at rest: IllegalEventError: TrainingFailed came while an update is offered: nothing is trained" in why
    bench.heard.clear()
    bench.settle(2 * FIRST_REST_S)
    assert bench.offered() == before, "nothing had changed"


def test_a_job_at_rest_is_tried_again_ever_less_often(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fail(*_: object, **__: object) -> None:
        tries.append(bench.now)
        raise RuntimeError("an old build of a library")

    monkeypatch.setattr("edge_agent.resources.nets.build", fail)
    bench.say(Job(JOB, 1, msgspec.to_builtins(SPEC)))
    for _ in range(3 * 24 * 60):
        bench.settle(60.0)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[0] == pytest.approx(FIRST_REST_S, abs=120.0)
    assert pauses == sorted(pauses)
    assert len(tries) < 12


def test_a_job_that_has_killed_three_processes_is_not_entered_again(bench: Bench) -> None:
    for _ in range(3):
        marks = Marks(bench.folder / "entered")
        marks.enter(JOB, "begin", "it was begun")
    bench.kill()
    bench.start()
    bench.begin()
    bench.settle(30.0)
    assert bench.agent.works == {}
    assert "3 processes running have died while it was begun" in bench.of(Presence)[-1].unready[JOB]


def test_a_job_that_has_killed_processes_after_each_rest_rests_for_longer_each_time(bench: Bench) -> None:
    """The marks remember it, though no process does."""
    pauses = []
    for deaths in (3, 1, 1):
        bench.kill()
        for _ in range(deaths):
            Marks(bench.folder / "entered").enter(JOB, "begin", "it was begun")
        bench.start()
        bench.begin()
        pauses.append(bench.agent.jobs._later[JOB].pause_s)
    assert pauses == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]


def test_a_mark_lies_wherever_the_code_of_a_job_is_entered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = bench.folder / "entered"
    seen: dict[str, set[str]] = {"build": set(), "train": set()}
    build, learn = nets.build, Mlp.loss_and_gradients

    def look_and_build(*args: Any, **more: Any) -> Any:
        seen["build"].update(mark.suffix for mark in marks.glob("*"))
        return build(*args, **more)

    def look_and_learn(*args: Any, **more: Any) -> Any:
        seen["train"].update(mark.suffix for mark in marks.glob("*"))
        return learn(*args, **more)

    monkeypatch.setattr("edge_agent.resources.nets.build", look_and_build)
    monkeypatch.setattr(Mlp, "loss_and_gradients", look_and_learn)
    bench.begin()
    bench.offered()
    assert seen == {"build": {".begin"}, "train": {".train"}}
    assert list(marks.iterdir()) == []


def test_a_training_that_throws_leaves_no_mark(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("an old build of a library")

    monkeypatch.setattr("models.nets.mlp.Mlp.loss_and_gradients", fail)
    bench.begin()
    bench.settle(1.0)
    assert bench.agent.works == {}
    assert list((bench.folder / "entered").iterdir()) == []


def test_dying_in_the_middle_of_a_training_is_no_fault_of_a_job_that_gets_on(bench: Bench) -> None:
    bench.begin()
    assert list((bench.folder / "entered").iterdir()) == []


class KilledError(BaseException):
    """The agent is gone, in the middle of what it did."""


def test_a_device_that_is_killed_soon_after_each_start_gets_on_by_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before a checkpoint is due: what has had a death goes on from the last epoch that it finished."""
    bench = Bench(tmp_path, structs.replace(SPEC, train=TrainSpec(epochs=8, batch_size=5)), checkpoint_s=3600.0)
    stood: list[tuple[int, int]] = []
    lived = 0

    def watch(name: str, *args: Any) -> None:
        nonlocal lived
        if name == "training.begin":
            lived = 0
            stood.append(args[0][2:])
        elif name == "training.epoch":
            lived += 1
            if lived == 2:
                raise KilledError

    monkeypatch.setattr("edge_agent.trainer.reach", watch)
    for _ in range(20):
        try:
            bench.begin()
            break
        except KilledError:
            bench.kill()
            bench.start()
    assert bench.of(Offer), bench.of(Presence)[-1]
    assert stood == [(0, 0), *((epoch, 0) for epoch in range(7))]
    assert list((tmp_path / "entered").iterdir()) == []


def test_a_training_that_nothing_has_killed_writes_no_checkpoint_at_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, structs.replace(SPEC, train=TrainSpec(epochs=8, batch_size=5)), checkpoint_s=3600.0)
    written: list[object] = []
    monkeypatch.setattr("edge_agent.outbox.Outbox.checkpoint", lambda *what: written.append(what))
    bench.begin()
    bench.settle(1.0)
    assert bench.of(Offer)
    assert written == []


def test_a_training_that_fails_leaves_the_device_ready_for_the_next_base(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> Iterator[None]:
        yield from ()
        raise TrainingError("training diverged")

    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.trainer.train.steps", diverge)
        bench.begin()
        bench.settle(5.0)
    said = bench.of(Presence)[-1]
    assert (said.ready, said.unready) == ({JOB: 20}, {})
    assert said.failed == {JOB: Failure(V0, "training diverged")}
    state = version_1()
    way, pieces = way_1(state, 100)
    bench.say(*pieces, head(V1, state.held, ways=(way,), chunk_bytes=100), Round(JOB, 1, V1, 60.0))
    assert bench.offered().base == V1
    bench.settle(30.0)
    assert bench.of(Presence)[-1].failed == {}


# A broker that takes only small packets.


def test_an_update_is_cut_as_the_broker_takes_it(tmp_path: Path) -> None:
    model = ModelSpec(inputs=4, hidden=(2000,), outputs=2)
    spec = JobSpec("toy", model, compression=CompressionSpec(codec="float32"), deploy="never", train=SPEC.train)
    bench = Bench(tmp_path, spec)
    net = nets.build(model)
    first = head(V0, Chain(net.spec, spec).first())
    bench.broker.max_packet_bytes = 20_000
    bench.broker.stop(keep=True)
    bench.broker.start()
    tree = msgspec.to_builtins(spec)
    bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, tree), first, Round(JOB, 1, V0, 60.0))
    offer = bench.offered()
    assert offer.n_bytes > 50_000
    assert offer.chunk_bytes < 20_000
    n_chunks = chunks.count(offer.n_bytes, offer.chunk_bytes)
    bench.say(Want(DEVICE, JOB, offer.digest, chunks.to_bitmap(set(range(n_chunks)), n_chunks)))
    whole = chunks.Assembly(offer.digest, offer.n_bytes, offer.chunk_bytes)
    for piece in bench.of(Chunk):
        whole.add(piece.index, piece.data)
    coding = Chain(net.spec, spec).coding(0, FLOAT32)
    assert len(coding.tensors(coding.decode(whole.body() or b""))) == len(net.spec)


def test_a_packet_that_the_broker_refuses_is_a_reason_for_the_operator(bench: Bench) -> None:
    bench.begin()
    bench.broker.max_packet_bytes = 60
    bench.settle(40.0)
    bench.broker.max_packet_bytes = None
    bench.say(Beacon(1, "n", online=True, spread_s=0.0, roll=9))
    bench.settle(5.0)
    assert "the broker takes 60" in bench.of(Presence)[-1].trouble[JOB]
    bench.link.drop()
    bench.settle(1.0)
    bench.link.restore()
    bench.settle(30.0)
    bench.settle(30.0)
    assert bench.of(Presence)[-1].trouble == {}, "this broker has refused nothing yet"


# Putting models into service.


class SlowSlots(Slots):
    """Slots whose installs are done when the test says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ())
        self.wanted: list[Install] = []
        self.outcomes: list[InstallOutcome] = []
        self.swept: list[set[str]] = []
        self.said: dict[str, Int8] = {}

    def int8(self) -> dict[str, Int8]:
        return self.said

    def put(self, install: Install) -> None:
        self.wanted.append(install)

    def finished(self) -> list[InstallOutcome]:
        found, self.outcomes = self.outcomes, []
        return found

    def sweep(self, at_work: Collection[str]) -> None:
        self.swept.append(set(at_work))

    def end(self, why: str = "") -> None:
        last = self.wanted[-1]
        self.outcomes.append(InstallOutcome(last.name, last.release, why))


def test_an_install_that_fails_is_tried_again_and_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, structs.replace(SPEC, deploy="final"), inference=True)
    slots = SlowSlots(tmp_path)
    bench.agent.jobs.slots = slots
    bench.begin()
    bench.say(verdict(bench.offered()))
    state = version_1()
    way, pieces = way_1(state, 100)
    tree = msgspec.to_builtins(bench.spec)
    bench.say(*pieces, head(V1, state.held, state="finished", ways=(way,), chunk_bytes=100), Job(JOB, 1, tree, V1))
    bench.settle(1.0)
    for tried in range(1, 4):
        assert len(slots.wanted) == tried
        slots.end("No space left on device")
        bench.settle(1.0)
        bench.settle(25.0)
        bench.settle(25.0)
        assert bench.of(Presence)[-1].trouble == {JOB: "model toy 1.1 is not in service: No space left on device"}
        for _ in range(60):
            bench.settle(5.0)
    slots.end()
    bench.settle(1.0)
    bench.settle(40.0)
    assert bench.of(Presence)[-1].trouble == {}
    for _ in range(100):
        bench.settle(60.0)
    assert len(slots.wanted) == 4
    assert slots.swept == [{"toy"}] * 4, "a small disk is looked after at each of them"
    assert bench.of(Presence)[-1].int8 == {}
    slots.said = {JOB: Int8(V1, 0.002, 3.0, ""), "former-0a0b0c0d": Int8(V1, 0.0, 0.0, "too few rows")}
    bench.settle(40.0)
    assert bench.of(Presence)[-1].int8 == {JOB: Int8(V1, 0.002, 3.0, "")}, "of jobs that there are"
    bench.agent.stop()


# What it costs.


def test_a_device_that_nothing_happens_to_puts_no_presence_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.begin()
    bench.settle(60.0)
    monkeypatch.undo()  # the check above puts it together all the time
    put_together: list[str] = []
    presence = Agent._presence

    def counted(self: Agent) -> Presence:
        put_together.append(self.device)
        return presence(self)

    monkeypatch.setattr(Agent, "_presence", counted)
    said = len(bench.of(Presence))
    for _ in range(50):
        bench.say(Round(JOB, 1, V0, 60.0))
        assert bench.agent.deadline > 0.0
    assert put_together == []
    bench.agent.jobs.be_denied(["offer", JOB, DEVICE, "1"], "it is too large")
    bench.settle(60.0)
    assert len(bench.of(Presence)) == said + 1
    assert bench.of(Presence)[-1].trouble == {JOB: "it is too large"}


def test_devices_that_share_resources_build_by_them(tmp_path: Path) -> None:
    calls: list[str] = []

    class Counted(Resources):
        def chain(self, job: str, spec: JobSpec, models: ModelSettings, find: Find | None = None) -> tuple[Net, Chain]:
            calls.append("chain")
            return super().chain(job, spec, models, find)

        def spec(self, job: Job) -> JobSpec:
            calls.append("spec")
            return super().spec(job)

        def jitter(self, seed: str) -> Jitter:
            calls.append("jitter")
            return super().jitter(seed)

    broker = MemoryBroker()
    home = Home(tmp_path, DEVICE, disk=NoDisk())
    link = broker.transport(DEVICE)
    config = AgentConfig(fleet=FLEET, data={"toy": DataSource("memory")}, models=ModelSettings(inference=False))
    agent = Agent(config, home, link, WIRE, open_source=in_memory, resources=Counted(), marks=Marks(tmp_path / "marks"))
    agent.start()
    hand = broker.transport("hand")
    hand.open()
    hand.publish(WIRE.pack(Job(JOB, 1, msgspec.to_builtins(SPEC))))
    while agent.step(0.0):
        pass
    assert agent.works[JOB].n_examples
    assert {call: calls.count(call) for call in calls} == {"jitter": 2, "spec": 1, "chain": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["marks"], "it has no disk"


# The rows, as they are when a training begins.


class Readers:
    """Reads when a test says so, as a thread would that is slow."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def __call__(self, future: Future[Any], read: Callable[[], Any]) -> threading.Thread:
        self.waiting.append((future, read))
        return threading.Thread()

    def finish(self) -> None:
        for future, read in self.waiting:
            inline(future, read)
        self.waiting.clear()


def on_disk(path: Path) -> Opener:
    return lambda *_, **__: open_source(DataSource(str(path)))


def write_csv(path: Path, n: int) -> None:
    """Write the first n rows of `rows`, in place of what is there."""
    data = rows()
    lines = (",".join(map(str, (*x, y))) for x, y in zip(data.X.tolist(), data.y.tolist(), strict=True))
    path.write_text("a,b,c,d,y\n" + "\n".join(itertools.islice(lines, n)) + "\n")


def leave(bench: Bench, made: Made) -> None:
    """Go on to version 1."""
    way, pieces = way_1(made, 100)
    bench.say(*pieces, head(V1, made.held, ways=(way,), chunk_bytes=100), Round(JOB, 1, V1, 60.0))


def test_rows_that_were_appended_are_trained_on_in_the_next_round(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    write_csv(data, 10)
    bench = Bench(tmp_path / "state", open_source=on_disk(data))
    bench.begin()
    assert bench.offered().n_examples == 10
    write_csv(data, 20)
    leave(bench, version_1())
    assert (bench.offered().base, bench.offered().n_examples) == (V1, 20)
    bench.settle(30.0)
    assert bench.of(Presence)[-1].ready == {JOB: 20}
    bench.agent.stop()


@pytest.mark.parametrize("changes", [False, True])
def test_only_rows_that_have_changed_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: bool
) -> None:
    monkeypatch.setattr("models.data.source.SETTLED_S", 0.0)
    data, readers = tmp_path / "data.csv", Readers()
    write_csv(data, 10)
    bench = Bench(tmp_path / "state", open_source=on_disk(data), reading=readers)
    for _ in range(2):  # the first look, and the first training, which sees that nothing has changed
        bench.begin()
        readers.finish()
        bench.settle()
    assert bench.offered().n_examples == 10
    if changes:
        write_csv(data, 20)
    leave(bench, version_1())
    assert len(readers.waiting) == changes
    readers.finish()
    bench.settle()
    assert (bench.offered().base, bench.offered().n_examples) == (V1, 20 if changes else 10)
    bench.agent.stop()


def test_a_disk_that_does_not_answer_any_more_holds_nobody_but_the_training_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file on another file system than the state directory is not looked at in the loop."""
    monkeypatch.setattr("models.data.source.SETTLED_S", 0.0)
    data, readers = tmp_path / "data.csv", Readers()
    write_csv(data, 20)
    away = data.stat().st_dev + 1

    def stamp(path: str) -> tuple[int, ...]:
        assert answers, "who asks it waits for ever"
        found = Path(path).stat()
        return away, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    monkeypatch.setattr("models.data.table._stamp", stamp)
    answers = True
    bench = Bench(tmp_path / "state", open_source=on_disk(data), reading=readers)
    for _ in range(2):
        bench.begin()
        readers.finish()
        bench.settle()
    assert bench.offered().base == V0
    answers = False
    leave(bench, version_1())
    assert len(readers.waiting) == 1
    bench.say(Beacon(1, "n", online=True, spread_s=0.0, roll=1))
    bench.settle(30.0)
    assert bench.of(Presence)[-1].ready == {JOB: 20}
    answers = True
    readers.finish()
    bench.settle()
    assert bench.offered().base == V1
    bench.agent.stop()


def test_a_few_rows_more_are_no_news(tmp_path: Path) -> None:
    """An offer says how many there are; nothing else is sent for it."""
    data = tmp_path / "data.csv"
    write_csv(data, 19)
    bench = Bench(tmp_path / "state", open_source=on_disk(data))
    bench.begin()
    bench.settle(30.0)
    said = len(bench.of(Presence))
    write_csv(data, 20)
    leave(bench, version_1())
    assert bench.offered().n_examples == 20
    bench.settle(30.0)
    assert len(bench.of(Presence)) == said
    bench.agent.stop()


@pytest.mark.parametrize("changes", [False, True])
def test_a_training_goes_on_where_it_stood_on_the_same_rows_and_begins_anew_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: bool
) -> None:
    data = tmp_path / "data.csv"
    write_csv(data, 20)
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "edge_agent.trainer.reach", lambda name, *what: begun.append(what[0][2:]) if name == "training.begin" else None
    )
    bench = never_done(tmp_path / "state", monkeypatch, checkpoint_s=0.0)
    for _ in range(2):
        bench.kill()
        bench.open_source = on_disk(data)
        bench.start()
        proof = along(head().sha256, b"")
        for message in (Job(JOB, 1, msgspec.to_builtins(bench.spec)), Round(JOB, 1, V0, 6000.0, along=proof)):
            bench.hand.publish(WIRE.pack(message))
        for _ in range(20):
            bench.agent.step(0.0)
        if changes:
            write_csv(data, 19)
    assert begun[0] == (0, 0)
    assert (begun[1] == (0, 0)) == changes
    bench.agent.stop()


def test_a_slow_reader_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """A roll call is answered while the rows of a training are read."""
    may_read = threading.Event()
    may_read.set()

    class Slow:
        def snapshot(self) -> Dataset:
            assert may_read.wait(120.0)
            return rows()

    bench = Bench(tmp_path, open_source=lambda *_, **__: Slow(), reading=threads(lambda: None))

    def until(holds: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + 120.0
        while not holds():
            assert time.monotonic() < give_up_at, "it does not come true"
            bench.settle()

    tree = msgspec.to_builtins(SPEC)
    bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, tree), head())
    until(lambda: JOB in bench.agent.works)
    bench.settle(1.0)
    bench.heard.clear()
    may_read.clear()
    try:
        bench.say(Round(JOB, 1, V0, 60.0))
        assert (bench.of(Offer), bench.agent.doing) == ([], "toy: training on version 1.0")
        bench.say(Beacon(1, "n", online=True, spread_s=0.0, roll=1))
        bench.settle(1.0)
        assert bench.of(Presence)[-1].ready == {JOB: 20}
        assert bench.of(Offer) == []
    finally:
        may_read.set()
    until(lambda: bool(bench.of(Offer)))
    bench.agent.stop()


def test_until_its_data_have_been_looked_at_a_job_is_not_taken_part_in_and_a_long_look_is_told(tmp_path: Path) -> None:
    readers = Readers()
    bench = Bench(tmp_path, reading=readers)
    bench.begin()
    bench.settle(1.0)
    assert (bench.of(Presence)[-1].ready, bench.of(Presence)[-1].unready) == ({}, {})
    bench.settle(SAID_S)
    bench.settle(30.0)
    assert (bench.of(Presence)[-1].ready, bench.of(Presence)[-1].unready) == ({}, {JOB: READING})
    readers.finish()
    bench.settle(30.0)
    assert (bench.of(Presence)[-1].ready, bench.of(Presence)[-1].unready) == ({JOB: 20}, {})
    readers.finish()
    bench.begin()
    assert bench.offered().n_examples == 20
    bench.agent.stop()


def test_data_that_go_bad_between_two_rounds_are_looked_at_again_soon(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    write_csv(data, 20)
    bench = Bench(tmp_path / "state", open_source=on_disk(data))
    bench.begin()
    bench.offered()
    data.write_text("a,b,c,d,y\n1,2,3,4,x\n")
    leave(bench, version_1())
    assert bench.agent.works == {}
    bench.settle(30.0)
    why = (
        f"{data}: the label 'y' is no number: name the job's classes, classes = [...] in [contract] (`fedge job draft "
        f"{data}` writes the line)"
    )
    assert bench.of(Presence)[-1].unready == {JOB: why}, "and not what stands there"
    write_csv(data, 20)
    bench.settle(LOOK_AGAIN_S)
    bench.settle(30.0)
    assert (bench.of(Presence)[-1].ready, bench.of(Presence)[-1].unready) == ({JOB: 20}, {})
    assert list((bench.folder / "entered").iterdir()) == []
    bench.agent.stop()


@pytest.mark.parametrize("when", ["at first", "in a round"])
def test_a_reader_that_does_not_come_to_an_end_puts_its_job_at_rest_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    readers = Readers()
    bench = Bench(tmp_path, reading=readers)
    if when == "in a round":
        bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 1, msgspec.to_builtins(SPEC)))
        readers.finish()
        bench.settle()
        assert JOB in bench.agent.works
    bench.begin()
    (hanging,) = readers.waiting
    assert [path.name for path in (tmp_path / "entered").iterdir()] == [f"{JOB}.read"]
    readers.waiting.clear()
    monkeypatch.setattr("edge_agent.reading.READ_S", 0.0)
    bench.settle()
    monkeypatch.setattr("edge_agent.reading.READ_S", 600.0)
    bench.settle(30.0)
    assert bench.agent.works == {}
    assert "at rest: EndlessError: its data were not read within 0 s" in bench.of(Presence)[-1].unready[JOB]
    assert list((tmp_path / "entered").iterdir()) == []
    other = "other-2"
    spec = msgspec.to_builtins(structs.replace(SPEC, name="other", data="toy"))
    bench.say(Job(other, 1, spec), Head(other, 1, V0, head().sha256), Round(other, 1, V0, 60.0))
    for _ in range(2):
        readers.finish()
        bench.settle()
    assert bench.offered().job == other
    inline(*hanging)  # it comes to its end after all, and changes nothing
    bench.settle()
    assert list(bench.agent.works) == [other]
    bench.agent.stop()


def test_what_reading_throws_puts_the_job_at_rest_with_the_reason(tmp_path: Path) -> None:
    class Broken:
        def snapshot(self) -> Dataset:
            raise MemoryError

    bench = Bench(tmp_path, open_source=lambda *_, **__: Broken(), reading=threads(lambda: None))
    bench.begin()
    give_up_at = time.monotonic() + 120.0
    while JOB not in bench.agent.jobs.unready:
        assert time.monotonic() < give_up_at
        bench.settle()
    assert bench.agent.jobs.unready[JOB].startswith("at rest: MemoryError (")
    bench.agent.stop()


def test_while_data_are_read_nothing_trains_and_only_their_job_is_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = never_done(tmp_path, monkeypatch, "toy-1")
    readers = Readers()
    bench.agent.jobs._readings._start = readers
    for _ in range(2):
        for _ in range(20):
            bench.agent.step(0.0)
        readers.finish()
    for _ in range(20):
        bench.agent.step(0.0)
    assert [mark.name for mark in (tmp_path / "entered").iterdir()] == ["toy-1.train"]
    at = bench.now
    bench.hand.publish(WIRE.pack(Job("toy-2", 1, msgspec.to_builtins(bench.spec))))
    for _ in range(20):
        bench.agent.step(0.0)
    assert [mark.name for mark in (tmp_path / "entered").iterdir()] == ["toy-2.read"]
    assert bench.now <= at + 0.5
    readers.finish()
    for _ in range(20):
        bench.agent.step(0.0)
    assert [mark.name for mark in (tmp_path / "entered").iterdir()] == ["toy-1.train"]
    assert bench.now > at + 1.0
    bench.agent.stop()


def test_a_job_whose_data_have_killed_three_processes_is_not_entered_again(bench: Bench) -> None:
    for _ in range(3):
        Marks(bench.folder / "entered").enter(JOB, "read", "its data were read")
    bench.kill()
    bench.start()
    bench.begin()
    bench.settle(30.0)
    assert bench.agent.works == {}
    assert "3 processes running have died while its data were read" in bench.of(Presence)[-1].unready[JOB]


@pytest.mark.parametrize("deaths", [0, 2])
def test_who_is_asked_to_stop_while_data_are_read_blames_nobody_and_forgets_no_death(
    tmp_path: Path, deaths: int
) -> None:
    for _ in range(deaths):
        Marks(tmp_path / "entered").enter(JOB, "read", "its data were read")
    bench = Bench(tmp_path, reading=Readers())
    bench.begin()
    bench.agent.stop()
    bench.home.close()
    found = [path.read_text() for path in (tmp_path / "entered").iterdir()]
    assert [msgspec.json.decode(text)["deaths"] for text in found] == [deaths] * bool(deaths)
    assert all(not msgspec.json.decode(text)["inside"] for text in found)


def test_a_training_that_is_halted_before_its_rows_are_there_does_not_begin(tmp_path: Path) -> None:
    readers = Readers()
    bench = Bench(tmp_path, reading=readers)
    bench.begin()
    readers.finish()
    bench.settle()
    bench.begin()
    assert len(readers.waiting) == 1
    leave(bench, version_1())
    readers.finish()
    bench.settle()
    assert bench.of(Offer) == []
    readers.finish()
    assert bench.offered().base == V1
    bench.agent.stop()


def test_a_training_that_is_halted_before_its_rows_are_there_and_is_not_drawn_again_never_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[str] = []
    for module in ("work", "trainer"):
        monkeypatch.setattr(f"edge_agent.{module}.reach", lambda name, *_: passed.append(name))
    readers = Readers()
    bench = Bench(tmp_path, reading=readers)
    bench.begin()
    readers.finish()
    bench.settle()
    bench.begin()
    bench.say(Round(JOB, 1, V1, 60.0, threshold=0))
    readers.finish()
    bench.settle(1.0)
    assert "agent.Halt.after" in passed
    assert "training.begin" not in passed
    bench.agent.stop()


def test_the_fingerprint_that_a_checkpoint_is_tied_to_is_that_of_the_rows_of_its_training(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    write_csv(data, 20)
    bench = Bench(tmp_path / "state", open_source=on_disk(data))
    bench.begin()
    work = bench.agent.works[JOB]
    before = work._read()
    write_csv(data, 19)
    after = work._read()
    assert before.fingerprint == before.data.fingerprint
    assert after.fingerprint == after.data.fingerprint
    assert before.fingerprint != after.fingerprint
    bench.agent.stop()


def test_a_training_is_on_its_base_whatever_is_installed_before_its_rows_are_there(tmp_path: Path) -> None:
    """The update is the same as where the rows are there at once."""
    spec = structs.replace(SPEC, deploy="every 1", rounds=structs.replace(SPEC.rounds, late="fold", max_staleness=5))
    bodies = []
    for slow in (False, True):
        readers = Readers()
        bench = Bench(tmp_path / str(slow), spec, inference=True, reading=readers)
        bench.begin()
        readers.finish()
        bench.settle()
        bench.begin()
        if not slow:
            readers.finish()
            bench.settle()
        made = version_1()
        way, pieces = way_1(made, 100)
        bench.say(*pieces, head(V1, made.held, ways=(way,), chunk_bytes=100), Round(JOB, 1, V1, 60.0, threshold=0))
        bench.settle(1.0)
        if slow:
            assert bench.agent.works[JOB]._version == V1
            readers.finish()
        offer = bench.offered()
        assert offer.base == V0
        bodies.append(offer.body)
        bench.agent.stop()
    assert bodies[0] == bodies[1]


def test_a_job_that_is_deleted_while_its_data_are_read_leaves_nothing(tmp_path: Path) -> None:
    readers = Readers()
    bench = Bench(tmp_path, reading=readers)
    bench.begin()
    bench.say(Job(JOB, 1))
    readers.finish()
    bench.settle()
    assert (bench.agent.works, bench.agent.jobs._beginning, bench.agent.jobs._sources) == ({}, {}, ())
    assert list((tmp_path / "entered").iterdir()) == []
    assert list((tmp_path / "jobs").iterdir()) == []
    bench.agent.stop()


def test_jobs_on_the_same_data_share_the_source_and_it_goes_with_the_last_of_them(bench: Bench) -> None:
    opened: list[Source] = []

    def note(*_: object, **__: object) -> Source:
        opened.append(in_memory())
        return opened[-1]

    bench.agent.jobs._open_source = note
    bench.begin()
    bench.say(Job("other-2", 1, msgspec.to_builtins(structs.replace(SPEC, name="other", data="toy"))))
    assert len(bench.agent.works) == 2
    assert len(opened) == 1
    bench.say(Job("other-2", 1))
    assert [(one.name, one.source) for one in bench.agent.jobs._sources] == [("toy", opened[0])]
    bench.say(Job(JOB, 1))
    assert bench.agent.jobs._sources == ()


def test_two_jobs_with_different_contracts_mean_different_things_by_one_source(bench: Bench, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    write_csv(data, 20)
    opened: list[tuple[Any, ...]] = []

    def note(settings: DataSource, *more: Any, **others: Any) -> Source:
        opened.append((*more, others["classifies"], others["allow"]))
        return open_source(DataSource(str(data)), *more, **others)

    bench.agent.jobs._open_source = note
    bench.begin()
    turned = ContractSpec(features=("d", "c", "b", "a"), label="y", classes=("0", "1"))
    bench.say(Job("other-2", 1, msgspec.to_builtins(structs.replace(SPEC, name="other", data="toy", contract=turned))))
    assert [one[0] for one in opened] == [NO_CONTRACT, turned]
    assert {one[1:] for one in opened} == {(bench.folder / "scratch", True, ())}
    first, second = (work._read().data for work in bench.agent.works.values())
    np.testing.assert_array_equal(first.X, second.X[:, ::-1])
    bench.say(Job("other-2", 1))
    assert [one.contract for one in bench.agent.jobs._sources] == [NO_CONTRACT]


def test_what_is_left_out_of_the_rows_is_told_to_the_operator_and_not_what_stands_there(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    write_csv(data, 20)
    bench = Bench(tmp_path / "state", open_source=on_disk(data))
    bench.begin()
    bench.offered()
    with data.open("a") as file:
        file.write("1,2,warm,4,0\n1,2,3,,1\n")
    leave(bench, version_1())
    bench.settle(30.0)
    told = f"{data}: about 9 % of the rows are left out, most because 'c' is no number (line 22)"
    assert bench.of(Presence)[-1].trouble == {JOB: told}
    assert bench.of(Presence)[-1].ready == {JOB: 20}
    write_csv(data, 20)
    assert bench.agent.jobs.trouble == {JOB: told}, "until they are read again"
    bench.agent.stop()


def test_what_stands_in_a_cell_is_in_this_machines_log_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def snapshot(self) -> Dataset:
            raise DatasetError("x.csv, line 3: is wrong", cell="warm")

    bench = Bench(tmp_path, open_source=lambda *_, **__: Broken())
    bench.say(Job(JOB, 1, msgspec.to_builtins(SPEC)))
    bench.settle(30.0)
    assert bench.of(Presence)[-1].unready == {JOB: "x.csv, line 3: is wrong"}
    assert "x.csv, line 3: is wrong (it holds 'warm')" in caplog.text
    bench.agent.stop()


@pytest.mark.parametrize("ends", ["trained", "halted"])
def test_rows_are_let_go_when_their_training_is_over(tmp_path: Path, ends: str) -> None:
    """A device has memory for one copy of them."""
    given: list[weakref.ref[Any]] = []
    alive: list[int] = []

    class Fresh:
        def snapshot(self) -> Dataset:
            alive.append(sum(one() is not None for one in given))
            data = rows()
            given.append(weakref.ref(data.X))
            return data

    bench = Bench(tmp_path, open_source=lambda *_, **__: Fresh())
    if ends == "trained":
        bench.begin()
        bench.offered()
    else:
        messages = (Job(JOB, 1, msgspec.to_builtins(SPEC)), head(), Round(JOB, 1, V0, 60.0))
        for message in messages:
            bench.hand.publish(WIRE.pack(message))
        while not (JOB in bench.agent.works and bench.agent.works[JOB].busy):
            bench.agent.step(0.0)
    leave(bench, version_1())
    assert bench.offered().base == V1
    assert alive == [0, 0, 0]
    bench.agent.stop()


# What is said in the name of others.


def test_what_somebody_else_says_in_its_name_is_denied_and_its_own_word_is_not(bench: Bench) -> None:
    bench.begin()
    bench.settle(5.0)
    said = len(bench.of(Presence))
    bench.settle(60.0)
    bench.settle(60.0)
    assert len(bench.of(Presence)) == said, "it hears its own word, and says it no more"
    for forged in (
        Presence(DEVICE, 2**32, online=True, incarnation="00000000", nonce="other"),
        Presence(DEVICE, bench.home.boot, online=True, incarnation=bench.home.incarnation, nonce=bench.home.nonce),
    ):
        bench.say(forged)
        bench.heard.clear()
        bench.settle(DENY_S - 0.1)
        assert bench.of(Presence) == []
        bench.settle(0.2)
        assert [one.ready for one in bench.of(Presence)] == [{JOB: bench.agent.works[JOB].n_examples}]


def test_a_round_of_a_huge_term_is_forgotten_at_the_leaders_next_word(bench: Bench) -> None:
    bench.begin()
    offered = bench.offered()
    bench.say(Round(JOB, 2**40, Version(1, 7), 60.0, threshold=0))
    bench.say(Head(JOB, 1, V1, "0" * 32), Round(JOB, 1, V1, 60.0))
    assert offered.base == V0
    assert bench.agent.works[JOB].participant.announced.latest() == V1


def test_a_forged_job_is_left_when_the_leader_says_its_own_again(bench: Bench) -> None:
    tree = msgspec.to_builtins(bench.spec)
    bench.say(Beacon(1, "n", online=True, spread_s=0.0), Job(JOB, 2**40, tree | {"seed": 99}))
    assert bench.agent.works[JOB].spec.seed == 99
    bench.say(Job(JOB, 1, tree))
    assert bench.agent.works[JOB].spec == bench.spec
    work = bench.agent.works[JOB]
    bench.say(Job(JOB, 1, tree), Job(JOB, 7, tree | {"seed": 98}), Job(JOB, 1, {"name": "no job"}))
    assert bench.agent.works[JOB] is work, "another term is not the leader's, and what is no job is nobody's"


def test_a_forged_tombstone_is_mended_when_the_leader_says_the_job_again(bench: Bench) -> None:
    bench.begin()
    bench.say(Job(JOB, 2**40))
    assert JOB not in bench.agent.works
    bench.begin()
    assert bench.agent.works[JOB].spec == bench.spec
    assert bench.offered().base == V0


# Live sources.


class Played:
    """Live sources that say what a test has them say."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.said: dict[str, str] = {}

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def trouble(self) -> dict[str, str]:
        return self.said


def test_what_ails_a_live_source_is_told_of_the_jobs_on_it_and_of_no_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.kill()
    bench.live = played = Played()
    bench.start()
    bench.begin()
    assert played.calls == ["start"]
    played.said = {"toy": "no reading from topic hall/t since 2026-11-27 12:00 UTC", "other": "anything"}
    bench.settle(31.0)
    bench.settle(1.0)
    trouble = "its data: no reading from topic hall/t since 2026-11-27 12:00 UTC"
    assert bench.of(Presence)[-1].trouble == {JOB: trouble}
    played.said = {}
    bench.settle(31.0)
    bench.settle(1.0)
    assert bench.of(Presence)[-1].trouble == {}
    bench.agent.stop()
    assert played.calls == ["start", "stop"]


def test_a_job_that_is_put_off_for_want_of_rows_is_told_what_ails_its_live_source(tmp_path: Path) -> None:
    def nothing(_: DataSource) -> Source:
        raise DatasetError("no reading has been kept yet")

    class Empty:
        snapshot = nothing

    bench = Bench(tmp_path, open_source=lambda *_, **__: Empty())
    bench.kill()
    bench.live = played = Played()
    played.said = {"toy": "no connection to 127.0.0.1:1884"}
    bench.start()
    bench.begin()
    bench.settle(31.0)
    said = bench.of(Presence)[-1]
    assert said.unready == {JOB: "no reading has been kept yet"}
    assert said.trouble == {JOB: "its data: no connection to 127.0.0.1:1884"}
    bench.agent.stop()
