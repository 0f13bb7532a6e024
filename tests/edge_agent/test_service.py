"""An agent over the in-memory broker; the aggregator is played by hand, honestly or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from broker import chunks, topics
from broker.memory import MemoryBroker, MemoryTransport
from broker.messages import (
    Beacon,
    Body,
    Chunk,
    Head,
    Job,
    Message,
    Offer,
    Presence,
    Round,
    Verdict,
    Version,
    Want,
    Way,
    along,
    body_name,
    echo,
)
from broker.transport import Packet
from edge_agent.config import AgentConfig, ModelSettings
from edge_agent.service import Agent, ClonedError, count_boot, will
from models import codec, downlink, nets
from models.dataset import Dataset
from models.job import CompressionSpec, JobSpec, ModelSpec, TrainSpec
from models.lattice import Model
from models.source import DataSource

FLEET, DEVICE, JOB = "f", "d", "toy-1"
V0, V1 = Version(1, 0), Version(1, 1)
MODEL = ModelSpec(inputs=4, hidden=(8,), outputs=2)
SPEC = JobSpec("toy", MODEL, compression="light", deploy="never", train=TrainSpec(epochs=1, batch_size=5))
NET = nets.build(MODEL)


def rows(*_: object) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    return Dataset(np.ascontiguousarray(rng.standard_normal((20, 4)) + y[:, None], np.float32), y)


class Bench:
    """One agent, and everything it says."""

    def __init__(self, folder: Path, spec: JobSpec = SPEC) -> None:
        self.now = 1000.0
        self.folder = folder
        self.spec = spec
        self.broker = MemoryBroker(lambda: self.now)
        self.hand = self.broker.transport("aggregator")
        self.hand.subscribe("fedge/1/f/#")
        self.hand.open()
        self.heard: list[Message] = []
        self.agent: Agent
        self.link: MemoryTransport
        self.start()

    def start(self, data: str = "toy") -> None:
        config = AgentConfig(
            fleet=FLEET,
            state_dir=str(self.folder),
            data={data: DataSource("memory")},
            models=ModelSettings(inference=False),
        )
        boot = count_boot(self.folder)
        self.link = self.broker.transport(DEVICE, will(FLEET, DEVICE, boot))
        self.agent = Agent(config, DEVICE, boot, self.link, clock=lambda: self.now, read_data=rows)
        self.agent.start()

    def kill(self) -> None:
        self.link.drop()

    def say(self, *messages: Message | Packet) -> None:
        for message in messages:
            self.hand.publish(message if isinstance(message, Packet) else topics.pack(message, FLEET))
        self.settle()

    def settle(self, seconds: float = 0.0) -> None:
        """Let the agent do what there is to do, then let time pass, and that once more."""
        for pause in (seconds, 0.0):
            while self.agent.step(0.0):
                pass
            self.now += pause
        events = (e for e in iter(self.hand.take, None) if isinstance(e, Packet))
        self.heard += [topics.unpack(event, FLEET) for event in events]

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


def head(version: Version = V0, model: Model | None = None, **more: Any) -> Head:
    model = model or downlink.start(NET.spec, 0).model
    return Head(JOB, 1, version, model.sha256()[:32], **more)


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
    decoded = codec.decode(offer.body, NET.spec)
    assert any(part.integers.any() for part in decoded)
    assert bench.agent.doing == "toy: offering an update to version 1.0"


def test_a_verdict_ends_the_offering(bench: Bench) -> None:
    bench.begin()
    bench.say(verdict(bench.offered()))
    bench.heard.clear()
    bench.settle(300.0)
    assert bench.of(Offer) == []
    assert bench.agent.doing == "idle"


def test_without_a_verdict_it_is_offered_again(bench: Bench) -> None:
    bench.begin()
    first = bench.offered()
    bench.heard.clear()
    bench.settle(6.0)
    assert bench.of(Offer) == [first]


def test_an_aggregator_that_comes_back_is_offered_the_update_at_once(bench: Bench) -> None:
    bench.begin()
    bench.offered()
    for _ in range(8):  # nobody answers, and the pauses grow long
        bench.settle(60.0)
    silent = len(bench.of(Offer))
    bench.say(Beacon(2, "m", online=True, spread_s=2.0))
    bench.settle(2.0)
    assert len(bench.of(Offer)) == silent + 1


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


@pytest.mark.parametrize("steps", range(1, 12))
def test_dying_at_any_step_offers_the_same_update(tmp_path: Path, steps: int) -> None:
    calm, rough = Bench(tmp_path / "calm"), Bench(tmp_path / "rough")
    calm.begin()
    rough.hand.publish(topics.pack(Job(JOB, 1, msgspec.to_builtins(SPEC)), FLEET))
    rough.hand.publish(topics.pack(head(), FLEET))
    rough.hand.publish(topics.pack(Round(JOB, 1, V0, 60.0), FLEET))
    for _ in range(steps):
        rough.agent.step(0.0)
    rough.kill()
    rough.start()
    rough.settle(6.0)
    assert rough.offered() == calm.offered()


def test_a_boot_is_counted_and_a_rotten_count_begins_anew(tmp_path: Path) -> None:
    assert [count_boot(tmp_path) for _ in range(3)] == [1, 2, 3]
    (tmp_path / "boot").write_bytes(b"")
    assert count_boot(tmp_path) == 1


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


def version_1() -> downlink.ServerState:
    rng = np.random.default_rng(1)
    step = [0.01 * rng.standard_normal(tensor.shape) for tensor in NET.spec]
    return downlink.advance(downlink.start(NET.spec, 0), step, NET.spec, SPEC.coding)


def way_1(state: downlink.ServerState, chunk_bytes: int) -> tuple[Way, list[Body]]:
    """Give the way to version 1 as a head names it, and its chunks."""
    (way,) = state.ways
    pieces = enumerate(chunks.cut(way.body, chunk_bytes))
    return Way(0, len(way.body)), [Body(JOB, body_name(V1, 0), n, piece) for n, piece in pieces]


def test_a_version_is_fetched_chunk_by_chunk(bench: Bench) -> None:
    state = version_1()
    way, pieces = way_1(state, 5)
    assert len(pieces) > 2
    bench.say(*pieces[:-1])
    bench.begin(head(V1, state.model, ways=(way,), chunk_bytes=5), Round(JOB, 1, V1, 60.0))
    bench.settle(1.0)
    assert all(offer.base == V0 for offer in bench.of(Offer))
    for offer in bench.of(Offer)[-1:]:
        bench.say(verdict(offer))
    bench.say(pieces[-1])
    assert bench.offered().base == V1


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
    bench.say(Round(JOB, 1, V1, 60.0, along=along(state.model.sha256(), state.ways[0].body)))
    bench.settle(1.0)
    assert bench.of(Offer)[-1].base == V1


def test_a_way_that_leads_elsewhere_is_made_good_by_the_head(bench: Bench) -> None:
    state = version_1()
    bench.begin()
    bench.say(verdict(bench.offered()))
    bench.say(Round(JOB, 1, V1, 60.0, along=bytes(8) + state.ways[0].body))
    bench.settle(1.0)
    assert bench.of(Offer)[-1].base == V0
    way, pieces = way_1(state, 100)
    bench.say(head(V1, state.model, ways=(way,), chunk_bytes=100), *pieces)
    bench.settle(30.0)
    bench.settle()
    assert bench.of(Offer)[-1].base == V1


def test_a_large_update_goes_up_in_chunks_as_they_are_wanted(tmp_path: Path) -> None:
    model = ModelSpec(inputs=4, hidden=(8000,), outputs=2)
    spec = JobSpec("toy", model, compression=CompressionSpec(codec="float32"), deploy="never", train=SPEC.train)
    bench = Bench(tmp_path, spec)
    net = nets.build(model)
    tree = msgspec.to_builtins(spec)
    first = Head(JOB, 1, V0, downlink.start(net.spec, 0).model.sha256()[:32])
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
    assert len(codec.decode(whole.body() or b"", net.spec)) == len(net.spec)


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
    bench.settle(6.0)
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
