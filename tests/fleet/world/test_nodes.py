"""The real services as processes: what they pass is heard, kills them, and is refused where a disk is full."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.store import StoreError
from broker.messages import Verdict, Version
from fleet.world import insides, nets, nodes, trail
from fleet.world.process import Died
from fleet.world.trail import Trail
from fleet.world.world import World
from models.job import JobSpec
from models.nets import table as registry
from runtime import failpoints


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(3, "calm", tmp_path, None)
    with nets.surrounded_by(one), trail.installed(Trail(Ears(), lambda: one.acting), 100_000):
        yield one
        for process in (*one.servers, *one.devices):
            process.switch_off("never")


class Ears:
    """Hears what passes."""

    heard: list[object]

    def __init__(self) -> None:
        type(self).heard = []

    def passes(self, _process: object, point: str) -> None:
        self.heard.append(point)

    def __getattr__(self, name: str) -> object:
        return lambda *args: self.heard.append((name, *args[1:]))


def test_the_services_start_meet_and_end(world: World) -> None:
    for process in (*world.servers, *world.devices):
        process.start()
    world.agenda.run(5.0)
    server = world.servers[0]
    assert insides.leads(server)
    assert server.connected
    assert server.service is not None
    assert len(server.service.roster.devices) == len(world.devices)
    world.misfortunes.happen("kill server")
    assert not server.up
    assert server.store is None
    world.agenda.run(15.0)
    assert insides.leads(server)
    assert insides.nonce(server) == "aggregator1-2"


def test_who_has_not_been_told_that_its_broker_is_gone_is_online(world: World) -> None:
    server = world.servers[0]
    assert not insides.is_online(server)
    server.start()
    world.agenda.run(5.0)
    assert server.service is not None
    assert insides.is_online(server)
    server.service._out.online = False
    assert insides.is_online(server), "it is, and will be told so"
    world.broker.halt(keep=True, wills=False)
    assert not insides.is_online(server)
    server.service._out.online = True
    assert insides.is_online(server)


def test_a_store_knows_the_names_that_it_has_had(world: World) -> None:
    for process in (*world.servers, *world.devices):
        process.start()
    world.agenda.run(5.0)
    server = world.servers[0]
    assert server.service is not None
    assert server.store is not None
    job = server.service.submit(JobSpec("toy", nets.model()))
    assert insides.knows(server, job, Version(1, 9))
    copys = server.store.raise_generation(job, 0)
    known = [Version(1, 0), copys, Version(copys.generation, 9)]
    other = [Version(1, 1), Version(copys.generation + 1, 0)]
    assert [insides.knows(server, job, name) for name in (*known, *other)] == [True] * 3 + [False] * 2
    assert not insides.knows(server, "other-1", Version(1, 0))


def test_who_acts_is_told_of_and_nobody_else(world: World) -> None:
    failpoints.reach("store.add_verdict.after", Verdict("d0", "j-1", Version(1, 0), "aaaaaaaa"))
    assert Ears.heard == []
    world.acting = world.servers[0]
    verdict = Verdict("d0", "j-1", Version(1, 0), "aaaaaaaa")
    failpoints.reach("store.add_verdict.after", verdict)
    assert Ears.heard == [("has_written", verdict), "store.add_verdict.after"]


def test_a_process_dies_at_its_nth_point_and_passes_none_after(world: World) -> None:
    server = world.acting = world.servers[0]
    server.dies_in = 2
    failpoints.reach("a")
    failpoints.reach("b")
    with pytest.raises(Died):
        failpoints.reach("c")
    failpoints.reach("d")
    assert Ears.heard == ["a", "b", "c"]


@pytest.mark.parametrize("point", ["store.statement.before", "files.replace.before"])
def test_a_full_disk_refuses_what_is_a_write(world: World, point: str) -> None:
    process = world.acting = world.servers[0]
    process.disk.full = True
    failpoints.reach("aggregator.Open.before")
    with pytest.raises((StoreError, OSError), match=os.strerror(errno.ENOSPC)):
        failpoints.reach(point)
    assert point not in Ears.heard


def test_nothing_is_left_of_a_world(tmp_path: Path) -> None:
    before = failpoints._points, os.fsync
    with trail.installed(Trail(Ears(), lambda: None), 40):
        assert os.fsync is not before[1]
    assert (failpoints._points, os.fsync) == before
    assert nets.KIND not in registry.NETS


@pytest.mark.parametrize("poison", ["train:raise", "evaluate:raise"])
def test_a_poisoned_net_throws_where_it_is_poisoned(world: World, poison: str) -> None:
    net = registry.build(nets.model(poison))
    rows = world.devices[0].rows["toy"]
    world.acting = world.devices[0]
    call = net.loss_and_gradients if poison.startswith("train") else net.evaluate
    with pytest.raises(nets.PoisonError):
        call({}, rows.X, rows.y)
    assert world.devices[0].tasted == poison


def test_training_takes_time_on_the_devices_own_clock(world: World) -> None:
    device = world.acting = world.devices[0]
    before = device.clock()
    assert world.computes("train", "") == 1.0
    assert device.clock() >= before + nodes.SLICE_S
    device.diverges = 1
    assert world.computes("train", "") != world.computes("train", "nothing") == 1.0
    device.lies = True
    assert world.computes("train", "") > 1000.0


def test_the_net_has_ten_numbers(world: World) -> None:
    assert world.acting is None
    assert sum(tensor.size for tensor in registry.build(nets.model()).spec) == 10
