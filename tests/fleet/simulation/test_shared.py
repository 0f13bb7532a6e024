"""What simulated devices share is what each would have made for itself."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker.errors import WireError
from broker.messages import Beacon, Body, Chunk, Job, Offer, Presence, Round, Verdict, Version
from broker.transport import Packet
from broker.wire import Wire
from edge_agent.config import ModelSettings
from fleet.simulation.shared import DRAWS, PACKETS, Once, SharedChain, SharedResources, SharedWire, Unmarked
from models.agreement import Agreed
from models.chain import SPAN, Chain, Grids, Held, Step, grouped, write
from models.codec import CodecError, Terms
from models.codec.steps import step_near
from models.contract import ContractSpec
from models.job import AggregateSpec, JobSpec, ModelSpec
from models.params import TensorSpec

WIRE = Wire("f")

SPEC = (TensorSpec("w", (12, 10)), TensorSpec("b", (12,)))
TERMS = Terms(64, 1)


def job(momentum: float = 0.0) -> JobSpec:
    return JobSpec("j", ModelSpec(), seed=3, aggregate=AggregateSpec(server_momentum=momentum))


def steps(n: int, momentum: float = 0.0) -> tuple[list[Held], list[bytes], bytes]:
    """Versions, the steps between them, and a snapshot of the last."""
    chain, rng = Chain(SPEC, job(momentum)), np.random.default_rng(0)
    held, bodies = [chain.first()], []
    grids = Grids(step_near(0.01), step_near(0.005) if momentum else 0)
    for number in range(n):
        delta = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in SPEC}
        body = chain.coding(number, TERMS).encode(delta, rng)
        step = Step(TERMS, body, (), grids if number == n - 1 else None)
        held.append(chain.step(held[-1], step))
        bodies.append(write(step))
    return held, bodies, chain.snapshot(held[-1], grids)


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    taken: list[int] = []
    step = Chain.step

    def counted(self: Chain, held: Held, one: Step) -> Held:
        taken.append(held.number)
        return step(self, held, one)

    monkeypatch.setattr(Chain, "step", counted)
    return taken


# Packets.


def test_a_packet_is_read_once_however_many_hear_it() -> None:
    read: list[Packet] = []
    once = Once(lambda packet: read.append(packet) or len(read))
    one, equal = Packet("a", b"x"), Packet("a", b"x")
    assert [once(one), once(one), once(equal), once(one)] == [1, 1, 2, 1]
    assert read == [one, equal]


def test_what_goes_wrong_with_a_packet_goes_wrong_each_time() -> None:
    wire = SharedWire("f")
    for _ in range(2):
        with pytest.raises(WireError, match="is not of this fleet"):
            wire.unpack(Packet("fedge/1/g/aggregator", b"{}"))


def test_no_more_packets_are_remembered_than_there_is_room_for_and_none_is_taken_for_another() -> None:
    once = Once(lambda packet: packet.payload)
    for n in range(5 * PACKETS):
        assert once(Packet("a", str(n).encode())) == str(n).encode()
        assert len(once._made) <= PACKETS


def test_all_devices_hear_the_same_message() -> None:
    wire, packet = SharedWire("f"), WIRE.pack(Beacon(1, "n", online=True))
    assert wire.unpack(packet) is wire.unpack(packet)
    assert wire.unpack(packet) == WIRE.unpack(packet)


def test_a_presence_is_read_once_by_two_and_then_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    unpack = Wire.unpack
    monkeypatch.setattr(Wire, "unpack", lambda self, packet: read.append(packet.topic) or unpack(self, packet))
    wire, many = SharedWire("f"), [WIRE.pack(Presence(f"d{n}", 1, online=True)) for n in range(2 * PACKETS)]
    heard = [wire.unpack(packet) for packet in many]
    live = [Packet(packet.topic, packet.payload) for packet in many]  # the broker says what is retained as another one
    assert [wire.unpack(packet) for packet in live] == heard
    assert len(read) == len(many)
    assert wire._presences == {}


def test_of_two_presences_of_a_device_each_is_read() -> None:
    wire, packets = SharedWire("f"), [WIRE.pack(Presence("d", boot, online=True)) for boot in (1, 2, 1)]
    assert [wire.unpack(packet) for packet in packets] == [WIRE.unpack(packet) for packet in packets]
    assert len(wire._presences) == 1


@pytest.mark.parametrize("n_along", [0, 7])
def test_bodies_are_counted_in_what_devices_hear(n_along: int) -> None:
    wire, v0 = SharedWire("f"), Version(1, 0)
    bodies = [Body("j", "1-1-0", 0, b"x" * 9), Round("j", 1, v0, 9.0, along=b"y" * n_along)]
    heard = [*bodies, Job("j", 1), Presence("d", 1, online=True), Verdict("d", "j", v0, "ab" * 4)]
    assert [wire.heard_bytes(WIRE.pack(message)) for message in heard] == [9, n_along, 0, 0, 0]
    assert all(wire.heard_bytes(packet) == WIRE.blob_bytes(packet) for packet in map(WIRE.pack, heard))


@pytest.mark.parametrize("n_bytes", [0, 7])
def test_bodies_are_counted_in_what_devices_send(n_bytes: int) -> None:
    wire, v0 = SharedWire("f"), Version(1, 0)
    offer = Offer("j", "d", v0, 9, "ab" * 16, 7, body=b"y" * n_bytes)
    sent = [offer, Chunk("j", "d", "ab" * 16, 0, b"x" * 9), Presence("d", 1, online=True)]
    assert [wire.sent_bytes(WIRE.pack(message)) for message in sent] == [n_bytes, 9, 0]


# Jobs.


def test_all_devices_of_a_job_have_one_specification_one_net_and_one_chain() -> None:
    resources, spec = SharedResources(), job()
    told = Job("j-1", 1, msgspec.to_builtins(spec))
    assert resources.spec(told) == spec
    assert resources.spec(told) is resources.spec(Job("j-1", 2, msgspec.to_builtins(spec)))
    assert resources.spec(Job("j-1", 2, msgspec.to_builtins(job(0.5)))) == job(0.5)
    mine, yours, other = (resources.chain(name, spec, ModelSettings()) for name in ("j-1", "j-1", "j-2"))
    assert mine[0] is yours[0]
    assert mine[1] is yours[1]
    assert mine[1] is not other[1]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_every_way_leads_where_it_leads_a_device_by_itself(momentum: float) -> None:
    held, bodies, snapshot = steps(SPAN, momentum)
    shared = SharedChain(SPEC, job(momentum))
    for _ in range(2):
        at = shared.first()
        for number, body in enumerate(bodies, 1):
            at = shared.take(at, number, body)
            assert at.sha256() == held[number].sha256()
            assert at.model == held[number].model
        assert shared.take(shared.first(), SPAN, grouped(bodies)).sha256() == held[-1].sha256()
        assert shared.take(held[0], SPAN, snapshot).sha256() == held[-1].sha256()
        assert shared.take(held[3], SPAN, snapshot) is shared.take(held[0], SPAN, snapshot), "it begins anywhere"


def test_a_version_is_decoded_once_however_many_devices_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    held, bodies, _ = steps(SPAN)
    taken = count_steps(monkeypatch)
    shared = SharedChain(SPEC, job())
    for device in range(20):
        at: Held = shared.first()
        for number, body in enumerate(bodies, 1):
            at = shared.take(at, number, body)
        assert shared.take(held[0], SPAN, grouped(bodies)) is shared.take(held[0], SPAN, grouped(bodies))
        assert len(taken) == 2 * SPAN, f"device {device}"


def test_who_has_been_away_walks_only_where_nobody_has_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices of a small cohort hold versions of many ages, and come to the last one by the same last steps."""
    held, bodies, _ = steps(6)
    taken = count_steps(monkeypatch)
    shared = SharedChain(SPEC, job())
    for start in (4, 2, 0, 3, 1):
        at = held[start]
        for number in range(start + 1, 7):
            at = shared.take(at, number, bodies[number - 1])
    assert sorted(taken) == [0, 1, 2, 3, 4, 5]


def test_a_body_that_leads_nowhere_is_refused_each_time_and_another_one_is_not_taken_for_it() -> None:
    held, bodies, _ = steps(2)
    shared = SharedChain(SPEC, job())
    shared.take(shared.first(), 1, bodies[0])
    for body in (bodies[0][:-1], b"\x21", b"\xff" + bodies[0][1:]):
        for _ in range(2):
            with pytest.raises(CodecError):
                shared.take(shared.first(), 1, body)
    with pytest.raises(CodecError, match="leads to version 1 where 2 was wanted"):
        shared.take(shared.first(), 2, bodies[0])
    assert shared.take(shared.first(), 1, bodies[0]).sha256() == held[1].sha256()


def test_nobody_can_change_a_version_that_others_hold() -> None:
    _, bodies, _ = steps(1, 0.9)
    shared = SharedChain(SPEC, job(0.9))
    for held in (shared.first(), shared.take(shared.first(), 1, bodies[0])):
        for array in (*held.model.ints, *held.state.arrays):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


def test_what_is_kept_of_versions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    _, bodies, _ = steps(SPAN)
    room = 3 * (4 * 132 + max(map(len, bodies)))
    shared = SharedChain(SPEC, job(), most_bytes=room)
    at: Held = shared.first()
    for number, body in enumerate(bodies, 1):
        at = shared.take(at, number, body)
        assert shared._n_bytes <= room
    assert len(shared._taken) == 3
    taken = count_steps(monkeypatch)
    at = shared.first()
    for number, body in enumerate(bodies, 1):
        at = shared.take(at, number, body)
    assert len(taken) == SPAN, "it is decoded again, not forgotten for good"


# The rest.


def test_jitter_is_that_of_a_device_by_itself() -> None:
    expected = random.Random("device-1/1/n")  # noqa: S311
    jitter = SharedResources().jitter("device-1/1/n")
    n = 2 * DRAWS
    for index in range(n):
        number = expected.random()
        if index % 3:
            assert jitter.random() == number
        else:
            jitter.skip()  # type: ignore[attr-defined]  # which random.Random has not


def test_marks_of_a_simulation_write_nothing_and_stop_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    marks = Unmarked()
    for _ in range(5):
        marks.enter("j-1", "train", "training")
    marks.gain("j-1", "train")
    assert not marks.has_deaths("j-1", "train")
    marks.step_out("j-1", "train")
    with marks.entered("j-1", "begin", "it was begun", most_s=1.0):
        pass
    marks.leave("j-1")
    assert (marks.reason("j-1"), marks.forgive("j-1")) == ("", 0)
    assert list(tmp_path.iterdir()) == []


def test_what_a_fleet_agrees_on_is_shared_with_the_version_that_has_it() -> None:
    spec = JobSpec("j", ModelSpec(inputs=10, outputs=12), contract=ContractSpec(normalise="standard"))
    chain = SharedChain(SPEC, spec)
    agreed = Agreed(np.ones(10, np.float32), np.ones(10, np.float32))
    first = chain.take(chain.first(), 1, chain.agreement(chain.first(), agreed))
    assert (first.number, first.agreed) == (1, agreed)
    assert first.sha256() == Chain(SPEC, spec).take(chain.first(), 1, chain.agreement(chain.first(), agreed)).sha256()
    whole = chain.whole(first.model, agreed)
    assert chain.take(chain.first(), 5, whole) is chain.take(first, 5, whole)  # whatever it was taken from
    step = chain.agreement(chain.first(), agreed)
    assert chain.take(first._replace(number=3, agreed=None), 4, step) is not first


def test_a_jobs_code_is_timed_where_all_that_it_makes_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    marks, limits = Unmarked(), list[float]()

    @contextmanager
    def noted(most_s: float) -> Iterator[None]:
        limits.append(most_s)
        yield

    monkeypatch.setattr("fleet.simulation.shared.limited", noted)
    with pytest.raises(ValueError, match="its code"), marks.entered("j-1", "begin", "it was begun", most_s=9.0):
        raise ValueError("its code")
    for job in ("j-1", "j-1", "j-2"):
        with marks.entered(job, "begin", "it was begun", most_s=9.0):
            pass
    assert limits == [9.0, 9.0, math.inf, 9.0]
