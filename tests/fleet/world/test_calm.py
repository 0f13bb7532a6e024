"""What a fleet owes when the weather is good, held against what a test says of its services."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from broker.messages import Beacon, Body, Version
from fleet.world import calm, insides
from fleet.world.calm import Leadership, Recovery
from fleet.world.misfortunes import ALWAYS
from fleet.world.nets import model
from fleet.world.nodes import WIRE, Device, Server
from fleet.world.process import Process
from fleet.world.record import ServerRecord, Update
from fleet.world.world import World
from models.job import JobSpec, RoundsSpec

JOB = "toy-1"
RULES = RoundsSpec(quorum=2, max_rounds=99, deadline_s=20.0)
SPEC = JobSpec("toy", model(), data="toy", compression="off", rounds=RULES)
HELD = {JOB: Update("d0", Version(1, 0), "aaaaaaaa")}


class Scene:
    """A world of two devices under a clear sky."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        seed = next(seed for seed in range(100) if World(seed, "calm", folder, None).n_devices == 2)
        self.world = World(seed, "calm", folder, None)
        for device in self.world.devices:
            device.step_s = 0.1
        self.leading: list[Server] = list(self.world.servers)
        self.spec, self.why = SPEC, ""
        self.held: dict[str, Update] = {}
        self.idle: list[str] = []
        self.failed: Version | None = None
        self.folders: list[str] = []
        patch.setattr(Process, "connected", property(lambda _process: True))
        patch.setattr(insides, "leads", lambda server: server in self.leading)
        patch.setattr(insides, "nonce", lambda server: server.name)
        patch.setattr(insides, "reason", lambda _server, _job: self.why)
        patch.setattr(insides, "jobs_in_store", lambda _server: {JOB: (self.spec, "")})
        patch.setattr(insides, "version_in_store", lambda _server, _job: Version(1, 0))
        patch.setattr(insides, "held", lambda _device: self.held)
        patch.setattr(insides, "idle_though_drawn", lambda _device: self.idle)
        patch.setattr(insides, "failed_on", lambda _device, _job: self.failed)
        patch.setattr(insides, "job_folders", lambda _device: self.folders)

    def beacon(self, nonce: str, online: bool = True) -> None:
        self.world.broker._publish(WIRE.pack(Beacon(1, nonce, online)))

    def pass_time(self, seconds: float, look: Leadership | Recovery) -> None:
        for _ in range(int(seconds)):
            self.world.agenda.now += 1.0
            look.inspect(0.0) if isinstance(look, Leadership) else look.inspect()

    def make(self, n: int, every_s: float = 1.0) -> None:
        for _ in range(n):
            self.world.agenda.now += every_s
            self.world.laws.made[JOB] = self.world.laws.made.get(JOB, 0) + 1
            self.world.laws.made_at.setdefault(JOB, []).append(self.world.agenda.now)

    def device(self) -> Device:
        return self.world.devices[0]

    @property
    def broken(self) -> list[tuple[int, str]]:
        return [(one.law, one.kind) for one in self.world.laws.violations]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


# 6. One leads.


def test_one_leader_with_its_beacon_is_well(scene: Scene) -> None:
    scene.beacon("aggregator1")
    scene.pass_time(100, Leadership(scene.world))
    assert scene.broken == []


def test_two_lead_for_five_seconds_at_most(scene: Scene) -> None:
    scene.leading.append(scene.world.new_server(scene.world.new_disk("second", ServerRecord())))
    look = Leadership(scene.world)
    scene.pass_time(6, look)
    assert scene.broken == []
    scene.pass_time(3, look)
    assert scene.broken == [(6, "two aggregators lead")]


def test_who_was_replaced_does_not_lead_again_by_itself(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.beacon("aggregator1")
    look = Leadership(scene.world)
    replaced = False
    monkeypatch.setattr(insides, "was_replaced", lambda _server: replaced)
    scene.pass_time(3, look)
    scene.leading.clear()
    replaced = True
    scene.pass_time(3, look)
    assert scene.broken == []
    scene.leading += scene.world.servers
    replaced = False
    scene.pass_time(1, look)
    assert scene.broken == [(6, "a replaced aggregator leads by itself")]


def test_somebody_leads_when_the_network_is_whole(scene: Scene) -> None:
    scene.leading.clear()
    look = Leadership(scene.world)
    scene.pass_time(calm.WHOLE_S + 5, look)
    assert scene.broken == []
    scene.pass_time(5, look)
    assert scene.broken == [(6, "nobody leads")]


@pytest.mark.parametrize(("nonce", "online"), [("aggregator1", False), ("another", True), ("", True)])
def test_the_beacon_at_the_broker_is_the_leaders(scene: Scene, nonce: str, online: bool) -> None:
    if nonce:
        scene.beacon(nonce, online)
    scene.pass_time(calm.WHOLE_S + 10, Leadership(scene.world))
    assert scene.broken == [(6, "the beacon at the broker is not the leader's")]


# 9. Everybody is served.


def test_a_job_owes_a_version(scene: Scene) -> None:
    recovery = Recovery(scene.world, versions=2)
    scene.pass_time(100, recovery)
    scene.make(1)
    assert not recovery.done()
    recovery.judge()
    assert scene.broken == [(9, "a job makes no version")]
    scene.make(1)
    assert recovery.done()


@pytest.mark.parametrize("trouble", ["diverges", "lies", "slow", "failed", "poisoned", "too few"])
def test_who_cannot_owes_a_reason(scene: Scene, trouble: str) -> None:
    device = scene.device()
    match trouble:
        case "diverges":
            device.diverges = ALWAYS
        case "lies":
            device.lies = True
        case "slow":
            device.step_s = 100.0
        case "failed":
            scene.failed = Version(1, 0)
        case "poisoned":
            scene.spec = structs.replace(SPEC, model=model("train:raise"))
        case "too few":
            scene.spec = structs.replace(SPEC, rounds=structs.replace(RULES, quorum=3))
    recovery = Recovery(scene.world, versions=1)
    scene.pass_time(calm.RESTS_S + 1, recovery)
    assert not recovery.done()
    recovery.judge()
    assert scene.broken == [(9, "a job waits without a reason")]
    scene.why = "too few devices"
    assert recovery.done()


def test_one_that_failed_on_this_base_still_counts_as_present(scene: Scene) -> None:
    scene.failed = Version(1, 0)
    scene.spec = structs.replace(SPEC, rounds=structs.replace(RULES, quorum=1, min_devices=2))
    monkey = Recovery(scene.world, versions=1)
    scene.pass_time(calm.RESTS_S + 1, monkey)
    monkey.judge()
    assert scene.broken == [(9, "a job waits without a reason")], "both failed, and the quorum is one"


def test_an_update_comes_to_an_end(scene: Scene) -> None:
    scene.held = dict(HELD)
    recovery = Recovery(scene.world, versions=1)
    scene.make(1, every_s=200.0)
    assert not recovery.done()
    recovery.judge()
    assert scene.broken == [(9, "an update comes to no end")]
    scene.held = {}
    assert recovery.done()


def test_who_asks_again_is_answered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insides, "runs", lambda _server: {JOB: None})
    scene.world.laws.asked["d0", JOB] = 0.0
    recovery = Recovery(scene.world, versions=1)
    scene.pass_time(calm.WHOLE_S + 2 * calm.ANSWER_S, recovery)
    assert scene.broken == [], "what was asked before the sky cleared may have been lost"
    scene.world.laws.asked["d0", JOB] = scene.world.agenda.now
    scene.pass_time(calm.ANSWER_S, recovery)
    assert scene.broken == []
    scene.pass_time(1.0, recovery)
    assert scene.broken == [(9, "who asks again is not answered")]


def test_who_is_drawn_and_free_does_something(scene: Scene) -> None:
    recovery = Recovery(scene.world, versions=1)
    scene.idle = [JOB]
    scene.pass_time(calm.WHOLE_S, recovery)
    assert scene.broken == []
    scene.pass_time(2, recovery)
    assert scene.broken == [(9, "a device idles though it is drawn")]


def test_nobody_is_starved(scene: Scene) -> None:
    recovery = Recovery(scene.world, versions=1)
    scene.pass_time(calm.WHOLE_S + calm.FAIR_S, recovery)
    for _ in range(calm.FAIR + 1):
        scene.make(1)
        scene.world.laws.answered["d1", JOB] = scene.world.laws.made[JOB]
        recovery.inspect()
    assert scene.broken == []
    scene.make(1)
    recovery.inspect()
    assert scene.broken == [(9, "a device is starved")]
    assert "d0" in scene.world.laws.violations[0].words


def test_rounds_do_not_go_on_to_wait_for_who_is_no_more(scene: Scene) -> None:
    recovery = Recovery(scene.world, versions=1)
    scene.world.agenda.now = calm.WHOLE_S + 1
    for every_s in (19.9, 5.0, 19.9, 19.9, 19.9, 19.9):
        assert scene.broken == []
        scene.make(1, every_s)
        for device in ("d0", "d1"):
            scene.world.laws.answered[device, JOB] = scene.world.laws.made[JOB]
        recovery.inspect()
    assert scene.broken == [(9, "rounds wait for who is gone")]


# 7. Nothing is left of what is gone.


def test_nothing_is_left_of_a_deleted_job(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = Recovery(scene.world, versions=1)
    scene.world.agenda.now = calm.WHOLE_S + 1
    scene.world.servers[0].record.deleted.add("old-1")
    scene.folders = [JOB]
    recovery.tidy()
    assert scene.broken == []
    scene.folders = ["old-1"]
    monkeypatch.setattr(insides, "jobs_listened_to", lambda _device: {"old-1"})
    monkeypatch.setattr(insides, "rows_of_deleted_jobs", lambda _server: 3)
    recovery.tidy()
    assert scene.broken == [
        (7, "a deleted job is still on a disk"),
        (7, "a deleted job is still listened to"),
        (7, "a deleted job still has rows in the store"),
    ]


def test_files_do_not_pile_up_on_a_device(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = Recovery(scene.world, versions=1)
    scene.world.agenda.now = calm.WHOLE_S + 1
    monkeypatch.setattr(insides, "jobs_listened_to", lambda _device: set())
    scene.folders = [JOB]
    n = calm.FILES + calm.FILES_A_JOB
    for device in scene.world.devices:
        monkeypatch.setattr(device.disk, "n_files", lambda: n)
    recovery.tidy()
    assert scene.broken == []
    n += 1
    recovery.tidy()
    assert scene.broken == [(7, "files pile up")]


@pytest.mark.parametrize(
    ("job", "generation", "is_broken"), [(JOB, 1, True), ("old-1", 1, True), ("lost-1", 1, False), (JOB, 2, False)]
)
def test_no_body_lies_at_the_broker_that_no_store_knows(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, job: str, generation: int, is_broken: bool
) -> None:
    recovery = Recovery(scene.world, versions=1)
    scene.world.agenda.now = calm.WHOLE_S + 1
    monkeypatch.setattr(insides, "deleted", lambda _server: ["old-1"])
    monkeypatch.setattr(insides, "rows_of_deleted_jobs", lambda _server: 0)
    monkeypatch.setattr(insides, "version_in_store", lambda _server, _job: Version(generation, 0))
    monkeypatch.setattr(insides, "bodies_in_store", lambda _server: {(JOB, "1-2-1")})
    scene.world.broker._publish(WIRE.pack(Body(JOB, "1-2-1", 0, b"x")))
    recovery.tidy()
    assert scene.broken == []
    scene.world.broker._publish(WIRE.pack(Body(job, "1-1-0", 0, b"x")))
    recovery.tidy()
    assert scene.broken == [(7, "bodies that no store knows lie at the broker")] * is_broken


def test_a_job_owes_no_version_while_it_lacks_who_is_in_quarantine_and_says_so(scene: Scene) -> None:
    scene.world.servers[0].record.bar("d1", "its clock")
    recovery = Recovery(scene.world, versions=1)
    scene.pass_time(calm.RESTS_S + 1, recovery)
    scene.why = "2 devices are needed, 1 is there"
    assert recovery.done()
    scene.why = ""
    recovery.judge()
    assert scene.broken == [(9, "a job waits without a reason")]


def test_a_job_that_waits_for_all_waits_for_nobody_in_quarantine(scene: Scene) -> None:
    scene.world.servers[0].record.bar("d1", "its clock")
    scene.spec = structs.replace(SPEC, rounds=structs.replace(RULES, quorum=1, wait="all"))
    Recovery(scene.world, versions=1).judge()
    assert scene.broken == [(9, "a job makes no version")]


def test_an_update_waits_on_a_base_that_needs_who_was_refused_for_a_quarantine(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = scene.world.servers[0].record
    record.bar("d1", "its clock")
    record.bar("d1", "")
    monkeypatch.setattr(insides, "refused_for_quarantine", lambda _server, _job: {"d1"})
    scene.held, scene.why = dict(HELD), "2 devices are needed, 1 is there"
    recovery = Recovery(scene.world, versions=1)
    scene.pass_time(calm.RESTS_S + 1, recovery)
    recovery.judge()
    assert scene.broken == []
    scene.spec = structs.replace(SPEC, rounds=structs.replace(RULES, quorum=1))
    scene.make(1, every_s=1.0)
    recovery.judge()
    assert scene.broken == [(9, "an update comes to no end")]
