"""The power is cut at every point of some rounds: whatever was said is in the store that comes up again.

A cut leaves of each file what it was when it was synced last, and of the blocks that were written since any: none,
all, or some of them.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from aggregator import bodies, generations, wal
from aggregator.intake import Counted
from aggregator.learner import Learner
from aggregator.store import Store
from broker.memory import MemoryTransport
from broker.messages import Head, Message, Round, Verdict
from broker.transport import Packet
from models.job import JobSpec, RoundsSpec
from models.nets.net import Net
from tests.aggregator.conftest import WIRE, Fleet, toy
from tests.aggregator.syncs import counted

BLOCK = 4096


class Left(NamedTuple):
    """What a cut leaves."""

    files: dict[Path, bytes]
    n_said: int
    """How many messages were said before."""


class Cuts:
    """The files of a store, and what cuts of its power would leave of them."""

    def __init__(self, folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: list[Left] = []
        self.said: list[Message] = []
        self._folder = folder
        self._chance = random.Random(seed)  # noqa: S311 -- no secret
        self._synced: dict[Path, bytes] = {}
        for module in (wal, bodies):
            monkeypatch.setattr(module, "_sync_data", self._noting(module._sync_data))
        pwrite = os.pwrite

        def written(descriptor: int, body: bytes, at: int) -> int:
            n = pwrite(descriptor, body, at)
            self.cut()
            return n

        monkeypatch.setattr(os, "pwrite", written)

    def _noting(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def noted(descriptor: int) -> None:
            self.cut()
            sync(descriptor)
            self.note(Path(f"/proc/self/fd/{descriptor}").resolve())

        return noted

    def note(self, file: Path) -> None:
        """Note that a file has been synced."""
        if file.is_relative_to(self._folder) and file.exists():
            self._synced[file] = file.read_bytes()

    def cut(self, _file: Path | None = None) -> bool:
        """Keep what a cut would leave now. Nothing fails."""
        files = (self._folder / "aggregator.sqlite", self._folder / "aggregator.sqlite-wal")
        there = [file for file in (*files, *self._folder.glob("updates/*.bin")) if file.exists()]
        if files[0].exists():
            torn = {file.relative_to(self._folder): self._torn(file) for file in there}
            self.left.append(Left(torn, len(self.said)))
        return False

    def _torn(self, file: Path) -> bytes:
        now = file.read_bytes()
        # made whole under another name, and then given this one
        left = bytearray(self._synced.get(file, now if file.suffix == ".sqlite" else b""))
        share = self._chance.choice((0.0, 0.5, 1.0))
        for at in range(0, len(now), BLOCK):
            block = now[at : at + BLOCK]
            if left[at : at + BLOCK] != block and self._chance.random() < share:
                left.extend(bytes(max(0, at - len(left))))
                left[at : at + len(block)] = block
        return bytes(left)


@pytest.mark.parametrize(("seed", "late", "checkpoint"), [(1, "refuse", 1000), (2, "fold", 4), (3, "refuse", 2)])
def test_whatever_was_said_is_in_the_store_that_comes_up_after_a_cut_of_the_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, late: str, checkpoint: int
) -> None:
    def opened(folder: Path, **_: bool) -> Store:
        store = Store(folder, row_bytes=0)
        store._db.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}")
        return store

    cuts = Cuts(tmp_path / "aggregator", seed, monkeypatch)
    monkeypatch.setattr("tests.aggregator.conftest.Store", opened)
    monkeypatch.setattr(generations, "place", lambda _: "one and the same")
    with counted(cuts.note, cuts.cut):
        fleet = Fleet(tmp_path, n_agents=3)
        publish = MemoryTransport.publish

        def heard(link: MemoryTransport, packet: Packet) -> object:
            if link is fleet.link:
                cuts.said += [WIRE.unpack(packet)] if packet.payload else []
                cuts.cut()
            return publish(link, packet)

        monkeypatch.setattr(MemoryTransport, "publish", heard)
        rounds = RoundsSpec(quorum=3, min_devices=3, max_rounds=3, late=late)  # type: ignore[arg-type]
        fleet.submit(toy(rounds=rounds))
        while not fleet.job().coordinator.ended:
            for agent in fleet.agents.values():  # their updates are written one by one
                agent.step(0.0)
                fleet.aggregator.step(0.0)
            fleet.now += 0.1
        run = fleet.job()
        fleet.store.close()
    assert run.version.number == 3
    n_held = sum(
        check(left, cuts.said[: left.n_said], tmp_path / "after", run.spec, run._net) for left in tuple(cuts.left)
    )
    assert n_held > 20, "the bodies of updates are looked at"


def check(left: Left, said: Sequence[Message], folder: Path, spec: JobSpec, net: Net) -> int:
    """Start from what is left, and hold it against what was said; return how many updates it holds."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "updates").mkdir(parents=True)
    for path, content in left.files.items():
        (folder / path).write_bytes(content)
    store, n_held = Store(folder, synced=False, row_bytes=0), 0
    assert store._db.damage() == ""
    for job in {one.job for one in said if isinstance(one, Head)}:
        last = store.last_version(job)
        verdicts = {verdict.device: verdict for verdict in store.verdicts(job)}
        for one in said:
            match one:
                case Head():
                    assert one.version < last.version or last.sha256.startswith(one.sha256)
                    assert one.version <= last.version
                case Round():
                    assert one.base <= last.version
                case Verdict():
                    assert verdicts[one.device].base >= one.base
        learner = Learner(net, spec, last.state, last.version.number, last.sha256, steps=last.steps, record=last.record)
        for update in store.updates(job):
            number = None if update.number == last.version.number else update.number
            learner.restore(update.body, Counted(update.weight, update.norm, update.report, number, update.device))
            n_held += 1
    store.close()
    return n_held
