"""Somebody who looks on a real fleet, which goes away in parts and comes back; and the store that is read beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from aggregator.store import Store
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from broker.messages import Job, Offer, Round, Verdict, Version
from broker.wire import Wire
from fleet.console import operator
from fleet.console.observer import over_mqtt
from fleet.local import stage
from fleet.local.processes import FEDGE, Children
from fleet.local.stage import FLEET, Stage
from fleet.problems.partition import deal
from fleet.problems.problem import dealt
from fleet.sight.lookout import Lookout, lookout_on
from fleet.sight.store_readings import StoreSource
from fleet.sight.view import Happened, View
from models.job import JobSpec, ModelSpec
from tests.fleet.conftest import Until, blobs

SPEC = JobSpec("blobs", ModelSpec("mlp", 4, (8,), 3))
JOB = """
name = "blobs"
deploy = "never"
[model]
inputs = 4
hidden = [8]
outputs = 3
[rounds]
quorum = 1
max_rounds = {rounds}
"""


@pytest.fixture
def built(tmp_path: Path, mosquitto: EmbeddedBroker) -> Stage:
    data, folder = blobs(120), tmp_path / "fleet"
    folder.mkdir()
    shares = dealt(data, deal("iid", data.y, 2, 0))
    where = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    return stage.build(folder, SPEC, shares, blobs(60, seed=1), where)


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as children:
        yield children


def start(children: Children, role: stage.Role) -> int:
    command = [*FEDGE, role.kind, "run", "--config", str(role.config)]
    return children.start(role.name, command, role.log).process.pid


def lookout(mosquitto: EmbeddedBroker, built: Stage | None = None) -> Lookout:
    source = None if built is None else StoreSource(built.aggregator.state)
    return lookout_on(BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol), Wire(FLEET), source)


def test_a_fleet_is_seen_at_work_and_as_it_goes_away_in_parts_and_comes_back(
    tmp_path: Path, mosquitto: EmbeddedBroker, built: Stage, children: Children, until: Until
) -> None:
    views, events = list[View](), list[Happened]()

    def told(view: View, happened: Sequence[Happened]) -> None:
        views.append(view)
        events.extend(happened)
        if len(views) == 3:
            raise RuntimeError("one who looks on has a fault of its own")

    here, afar = lookout(mosquitto, built), lookout(mosquitto)
    here.subscribe(told)
    with here, afar:
        until(lambda: "no" in here.view.trouble and here.view.connected)
        assert "has no aggregator run here yet" in here.view.trouble

        started = children.start(
            "aggregator", [*FEDGE, "aggregator", "run", "--config", str(built.aggregator.config)], built.aggregator.log
        )
        until(lambda: here.view.aggregator.online and not here.view.trouble)
        devices = [
            children.start(role.name, [*FEDGE, "agent", "run", "--config", str(role.config)], role.log)
            for role in built.devices
        ]
        names = [role.name for role in built.devices]
        until(lambda: [d.state for d in here.view.devices.values()] == ["online", "online"])
        assert list(here.view.devices) == names

        with lookout(mosquitto) as late:  # what lies at the broker is all that it hears of who says nothing
            until(lambda: [d.state for d in late.view.devices.values()] == ["online", "online"])

        job_file = tmp_path / "blobs.toml"
        job_file.write_text(JOB.format(rounds=100_000))
        job, _ = operator.submit(operator.load_config(built.aggregator.config), job_file)
        until(lambda: here.view.jobs[job].version.number >= 5 if job in here.view.jobs else False)
        seen = here.view.jobs[job]
        assert (seen.name, seen.ready) == ("blobs", 2)
        assert seen.state in ("running", "waiting")
        assert "accuracy" in seen.metrics
        until(lambda: any(view.jobs[job].round is not None for view in tuple(views) if job in view.jobs))
        assert all(later.n >= view.n for view, later in pairwise(views))
        until(lambda: afar.view.jobs[job].version.number >= 5)
        assert afar.view.jobs[job].best is None

        assert here.readings is not None
        curve = here.readings.curve(job)
        assert [point.number for point in curve] == list(range(len(curve)))
        assert all(point.participants in (1, 2) and point.bytes_up for point in curve[1:])
        fates = here.readings.round(job, 3)[-1]
        assert (fates.base, fates.outcome, set(fates.fates)) == (2, "committed", set(names))
        assert here.readings.spec(job)["name"] == "blobs"

        config = operator.load_config(built.aggregator.config)
        operator.pause(config, "blobs")
        until(lambda: here.view.jobs[job].state == "paused")

        devices[0].process.kill()
        until(lambda: here.view.devices[names[0]].state == "offline")
        start(children, built.devices[0])
        until(lambda: here.view.devices[names[0]].state == "online")

        mosquitto.kill()
        until(lambda: not here.view.connected)
        mosquitto.start()
        until(lambda: here.view.connected and here.view.aggregator.online)
        until(lambda: [d.state for d in here.view.devices.values()] == ["online", "online"])

        started.process.kill()
        until(lambda: not here.view.aggregator.online)
        version = here.view.jobs[job].version
        start(children, built.aggregator)
        until(lambda: here.view.aggregator.online)
        operator.resume(config, "blobs")
        until(lambda: here.view.jobs[job].version > version)
        until(lambda: {"aggregator.leads", "job.paused", "version.made"} <= {event.kind for event in events})
        assert [event.n for event in events] == sorted(event.n for event in events)


def test_a_store_that_cannot_be_read_says_why_and_is_read_again(
    tmp_path: Path, mosquitto: EmbeddedBroker, until: Until
) -> None:
    folder = tmp_path / "state"
    Store(folder, synced=False).close()
    file = folder / "aggregator.sqlite"
    looks = lookout_on(BrokerSettings(port=mosquitto.port), Wire("f"), StoreSource(folder))
    with looks:
        until(lambda: looks.view.connected and looks.view.trouble == "")
        content = file.read_bytes()
        file.write_bytes(b"no database at all" * 100)
        until(lambda: looks.view.trouble != "")
        assert "restore a backup" in looks.view.trouble
        file.write_bytes(content)
        until(lambda: looks.view.trouble == "")
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version = 999")
        until(lambda: "newer fedge" in looks.view.trouble)


class Broken:
    """A source with a fault of its own, the first time."""

    readings = None
    asked = 0

    def poll(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise ZeroDivisionError

    def close(self) -> None:
        """Have nothing to close."""


def test_a_fault_of_its_own_ends_a_connection_and_no_more(
    mosquitto: EmbeddedBroker, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.sight.lookout.AGAIN_S", 0.1)
    source = Broken()
    with lookout_on(BrokerSettings(port=mosquitto.port), Wire("f"), source) as looks:
        until(lambda: source.asked > 1 and looks.view.connected)


def test_offers_that_weigh_too_much_are_not_listened_to_and_verdicts_still_are(
    mosquitto: EmbeddedBroker, until: Until
) -> None:
    broker, wire, base = BrokerSettings(port=mosquitto.port), Wire("f"), Version(1, 0)
    with lookout_on(broker, wire) as looks, over_mqtt("hand", broker, wire) as hand:
        assert hand.connect(20.0) == ""
        until(lambda: looks.view.connected)
        hand.say(Job("j-1", 1, {"name": "j"}))
        hand.say(Round("j-1", 1, base, 600.0))

        def offered() -> frozenset[str]:
            round_ = looks.view.jobs["j-1"].round if "j-1" in looks.view.jobs else None
            return frozenset() if round_ is None else round_.offered

        def offer(device: str, body: bytes) -> None:
            hand.say(Offer("j-1", device, base, 10, "ab" * 8, len(body), body=body))

        for n in range(30):
            offer(f"d{n}", bytes(100_000))
        until(lambda: len(offered()) >= 20)
        until(lambda: "offer" in looks.deaf_to)

        def is_deaf() -> bool:
            n = len(offered())
            offer(f"late-{n}", b"1234")
            hand.say(Verdict(f"other-{n}", "j-1", base, "ab" * 4))
            until(lambda: f"other-{n}" in offered())
            return f"late-{n}" not in offered()

        until(is_deaf)
