"""Each law, held against a trace that breaks it and, where it is close, one that does not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import pytest
from msgspec import structs

from broker.messages import Body, Head, Job, Message, Offer, Reply, Round, Verdict, Version, along
from broker.transport import Packet
from edge_agent.effects import Settle
from edge_agent.service import ClonedError
from fleet.world import insides, laws
from fleet.world.laws import Laws
from fleet.world.nets import model
from fleet.world.nodes import WIRE, Device, Server
from fleet.world.process import Process
from fleet.world.record import Judged, ServerRecord, Update
from fleet.world.world import World
from models.job import JobSpec, RoundsSpec

JOB = "toy-1"
V0 = Version(1, 0)
SPEC = JobSpec("toy", model(), compression="off", rounds=RoundsSpec(quorum=1, max_rounds=3, deadline_s=20.0))


HEAD = Head(JOB, 1, Version(1, 1), "ab" * 16)


class Run:
    """What the laws see of a job that runs."""

    def __init__(self) -> None:
        self.spec = SPEC
        self.version = Version(1, 0)


class Scene:
    """A world of one aggregator and two devices, in which a test says what happens."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        seed = next(seed for seed in range(100) if World(seed, "calm", folder, None).n_devices == 2)
        self.world = World(seed, "calm", folder, None)
        self.run = Run()
        self.in_sum: list[str] = []
        self.said = 0
        self.version = Version(1, 0)
        self.ended = ""
        self.known: set[Version] = set()
        """Names of versions of former generations that the store has had."""
        self.written: list[Verdict] = []
        patch.setattr(insides, "runs", lambda _server: {JOB: self.run})
        patch.setattr(insides, "resting", lambda _server: set())
        patch.setattr(insides, "open_rounds", lambda _server: [])
        patch.setattr(insides, "n_participants", lambda _server, _job: self.said)
        patch.setattr(insides, "sum_in_store", lambda _server, _job: sorted(self.in_sum))
        patch.setattr(insides, "version_in_store", lambda _server, _job: self.version)
        patch.setattr(insides, "last_name_in_store", lambda _server, _job: self.version)
        patch.setattr(insides, "verdicts_in_store", lambda _server, _job: self.written)
        patch.setattr(insides, "knows", lambda _server, _job, version: self.knows(version))
        patch.setattr(insides, "jobs_in_store", lambda _server: {JOB: (SPEC, self.ended)})

    def knows(self, version: Version) -> bool:
        return version.generation == self.version.generation or version in self.known

    @property
    def laws(self) -> Laws:
        return self.world.laws

    @property
    def server(self) -> Server:
        return self.world.servers[0]

    @property
    def device(self) -> Device:
        return self.world.devices[0]

    def judge(self, device: str = "d0", base: int = 0, digest: str = "aaaaaaaa", refused: str = "") -> Verdict:
        """Have a verdict written."""
        verdict = Verdict(device, JOB, Version(1, base), digest, refused)
        self.laws.writes(self.server, verdict)
        self.laws.has_written(self.server, verdict)
        return verdict

    def commit(self, number: int, members: int = 1, sha256: str = "00" * 32) -> None:
        """Have a version made."""
        self.said = members
        self.laws.writes(self.server, JOB)
        self.laws.has_made(self.server, JOB, Version(1, number), sha256)
        self.run.version = Version(1, number)

    def say(self, message: Message, sender: Server | Device | None = None) -> None:
        """Have somebody publish something."""
        self.publish(WIRE.pack(message), sender)

    def publish(self, packet: Packet, sender: Server | Device | None = None) -> None:
        self.world.acting = sender
        self.laws.heard(packet)
        self.world.acting = None

    @property
    def broken(self) -> list[tuple[int, str]]:
        return [(one.law, one.kind) for one in self.laws.violations]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


# 1. Once, and never lost.


def test_a_quiet_life_breaks_nothing(scene: Scene) -> None:
    scene.say(scene.judge(), scene.server)
    scene.commit(1)
    scene.judge("d1", base=1)
    scene.commit(2)
    assert scene.broken == []
    first, second = Update("d0", 0, "aaaaaaaa"), Update("d1", 1, "aaaaaaaa")
    assert scene.server.record.jobs[JOB].members == {1: [first], 2: [second]}


def test_a_device_is_judged_once_for_a_base(scene: Scene) -> None:
    scene.judge(digest="aaaaaaaa")
    scene.judge(digest="bbbbbbbb")
    assert scene.broken == [(1, "a second verdict on one base")]


def test_a_base_that_was_renamed_is_the_same_base(scene: Scene) -> None:
    scene.judge()
    scene.run.version = Version(2, 0)
    verdict = Verdict("d0", JOB, Version(2, 0), "bbbbbbbb")
    scene.laws.has_written(scene.server, verdict)
    assert scene.broken == [(1, "a second verdict on one base")]


def test_a_stale_update_is_not_counted(scene: Scene) -> None:
    scene.run.version = Version(1, 1)
    scene.judge(base=0, refused="stale")
    assert scene.broken == []
    scene.judge("d1", base=0)
    assert scene.broken == [(1, "a stale update was counted")]


def test_a_verdict_is_of_a_job_that_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insides, "runs", lambda _server: {})
    scene.judge()
    assert scene.broken == [(1, "a verdict without a job")]


def test_no_device_is_judged_for_an_older_base_than_the_last(scene: Scene) -> None:
    scene.judge(base=0)
    scene.commit(1)
    scene.judge(base=1)
    scene.commit(2)
    scene.judge("d1", base=1, refused="stale")
    assert scene.broken == []
    scene.judge("d0", base=0, digest="bbbbbbbb", refused="stale")
    scene.judge("d1", base=0, digest="bbbbbbbb", refused="stale")
    assert (1, "a verdict on an older base than the last") in scene.broken


def test_a_version_is_what_the_updates_in_the_store_make(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insides, "committing", lambda _server: [JOB])
    monkeypatch.setattr(insides, "expected_sha256", lambda _server, _job: "00" * 32)
    scene.judge()
    scene.laws.makes(scene.server)
    scene.commit(1)
    assert scene.broken == []
    scene.judge(base=1)
    scene.laws.makes(scene.server)
    scene.commit(2, sha256="ff" * 32)
    assert scene.broken == [(1, "a version is not what the store's updates make")]


def test_a_version_is_made_of_what_was_counted(scene: Scene) -> None:
    scene.judge()
    scene.commit(1, members=2)
    assert scene.broken == [(1, "a version of other updates than were counted")]


def test_a_start_finds_what_was_counted(scene: Scene) -> None:
    scene.judge()
    scene.in_sum = ["d0"]
    scene.laws.started(scene.server)
    assert scene.broken == []
    scene.in_sum = []
    scene.laws.started(scene.server)
    assert scene.broken == [(1, "what was counted is not in the store")]


def test_a_start_finds_the_version_that_was_made(scene: Scene) -> None:
    scene.judge()
    scene.commit(1)
    scene.laws.started(scene.server)
    assert scene.broken == [(1, "a version is not in the store")]


@pytest.mark.parametrize("durable", [False, True])
def test_a_death_within_a_write_leaves_either(scene: Scene, durable: bool) -> None:
    scene.judge("d1")
    scene.in_sum = ["d1"]
    verdict = Verdict("d0", JOB, Version(1, 0), "aaaaaaaa")
    scene.laws.writes(scene.server, verdict)
    if durable:
        scene.written, scene.in_sum = [verdict], ["d0", "d1"]
    scene.laws.started(scene.server)
    assert scene.broken == []


@pytest.mark.parametrize("durable", [False, True])
def test_a_death_within_a_commit_leaves_either(scene: Scene, durable: bool) -> None:
    scene.judge()
    scene.laws.writes(scene.server, JOB)
    scene.version, scene.in_sum = (Version(1, 1), []) if durable else (Version(1, 0), ["d0"])
    scene.laws.started(scene.server)
    assert scene.broken == []


def test_a_restored_backup_goes_on_from_its_copy(scene: Scene) -> None:
    scene.judge("d1")
    copy = scene.server.disk.copy()
    scene.judge("d0")
    scene.server.disk.restore(copy)
    scene.in_sum = ["d1"]
    scene.laws.started(scene.server)
    scene.judge("d0")
    assert scene.broken == []


def test_a_number_is_given_out_once(scene: Scene) -> None:
    scene.say(HEAD)
    scene.say(HEAD)
    scene.say(Round(JOB, 1, Version(1, 1), 20.0, along=along("ab" * 32, b"way")))
    assert scene.broken == []
    scene.say(structs.replace(HEAD, sha256="cd" * 16))
    assert scene.broken == [(1, "a number was given out twice")]


def test_a_number_of_another_generation_is_another(scene: Scene) -> None:
    scene.say(HEAD)
    scene.say(structs.replace(HEAD, version=Version(2, 1), sha256="cd" * 16))
    assert scene.broken == []


def test_a_proof_that_comes_with_a_round_is_held_against_the_head(scene: Scene) -> None:
    scene.say(HEAD)
    scene.say(Round(JOB, 1, Version(1, 1), 20.0, along=along("cd" * 32, b"way")))
    assert scene.broken == [(1, "a number was given out twice")]


def test_a_body_keeps_its_bytes(scene: Scene) -> None:
    scene.say(Body(JOB, "1-1-0", 0, b"one"))
    scene.say(Body(JOB, "1-1-0", 1, b"two"))
    assert scene.broken == []
    scene.say(Body(JOB, "1-1-0", 0, b"other"))
    assert scene.broken == [(1, "the name of a body has other bytes than before")]


# 2. One by one.


@pytest.mark.parametrize("number", [0, 2])
def test_versions_go_up_one_by_one(scene: Scene, number: int) -> None:
    scene.judge()
    scene.commit(number)
    assert scene.broken == [(2, "versions do not go up one by one")]


def test_no_version_is_beyond_max_rounds(scene: Scene) -> None:
    for number in range(1, 5):
        scene.judge(base=number - 1)
        scene.commit(number)
    assert scene.broken == [(2, "a version beyond max_rounds")]


def test_a_version_has_a_quorum(scene: Scene) -> None:
    scene.commit(1, members=0)
    assert scene.broken == [(2, "a version without a quorum")]


# 3. Rounds end.


def test_a_round_ends_at_its_deadline(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.server.up = True
    here = [(JOB, ("coordinator", Version(1, 0), 1), 20.0)]
    monkeypatch.setattr(insides, "open_rounds", lambda _server: here)
    for now in (0.0, 24.0):
        scene.world.agenda.now = now
        scene.laws.inspect()
    assert scene.broken == []
    scene.world.agenda.now = 26.0
    scene.laws.inspect()
    assert scene.broken == [(3, "a round did not end at its deadline")]


def test_a_deadline_counts_from_the_last_start(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.server.up = True
    monkeypatch.setattr(insides, "open_rounds", lambda _server: [(JOB, ("c", Version(1, 0), 1), 20.0)])
    scene.laws.inspect()
    scene.world.agenda.now = 19.0
    scene.laws.started(scene.server)
    scene.laws.inspect()
    scene.world.agenda.now = 40.0
    scene.laws.inspect()
    assert scene.broken == []


@pytest.mark.parametrize(("back_at", "ends_at"), [(15.0, 30.0), (400.0, 415.0)])
def test_a_round_stands_still_while_the_broker_is_away(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, back_at: float, ends_at: float
) -> None:
    scene.server.up = True
    online, connections = True, 1
    monkeypatch.setattr(insides, "open_rounds", lambda _server: [(JOB, ("c", Version(1, 0), 1), 20.0)])
    monkeypatch.setattr(insides, "knows_a_broker", lambda _server: online)
    monkeypatch.setattr(insides, "connections", lambda _server: connections)
    monkeypatch.setattr(insides, "n_queued", lambda _server: 0)

    def pass_time(to: float) -> None:
        scene.world.agenda.now = to
        scene.laws.acted(scene.server)
        scene.laws.inspect()

    pass_time(0.0)
    online = False
    pass_time(5.0)
    pass_time(back_at)
    online, connections = True, 2
    pass_time(back_at)
    pass_time(ends_at + 4.0)
    assert scene.broken == []
    pass_time(ends_at + 6.0)
    assert scene.broken == [(3, "a round did not end at its deadline")]


def test_who_answers_a_roll_call_may_take_its_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.server.up = True
    monkeypatch.setattr(insides, "open_rounds", lambda _server: [(JOB, ("c", Version(1, 0), 1), 20.0)])
    monkeypatch.setattr(insides, "knows_a_broker", lambda _server: True)
    monkeypatch.setattr(insides, "hint_s", lambda _server: 7.0)
    scene.laws.inspect()
    scene.world.agenda.now = 19.0
    monkeypatch.setattr(insides, "connections", lambda _server: 2)
    scene.laws.acted(scene.server)
    scene.world.agenda.now = 30.0
    scene.laws.inspect()
    assert scene.broken == []
    scene.world.agenda.now = 32.0
    scene.laws.inspect()
    assert scene.broken == [(3, "a round did not end at its deadline")]


def test_a_learned_deadline_has_a_ceiling(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insides, "open_rounds", lambda _server: [(JOB, ("c", Version(1, 0), 2), None)])
    scene.say(Round(JOB, 1, Version(1, 0), 7200.0, attempt=2, along=along("ab" * 32, b"")), scene.server)
    assert scene.broken == [(3, "a deadline was learned without end")]


# 4. Trained once.


def test_a_base_is_trained_once(scene: Scene) -> None:
    for job in (JOB, "other-1", JOB):
        scene.laws.has_finished(scene.device, job, Version(1, 0))
    assert scene.broken == [(4, "a base was trained twice")]


def test_an_epoch_is_trained_once(scene: Scene) -> None:
    for epoch in (0, 1, 1):
        scene.laws.has_trained(scene.device, JOB, Version(1, 0), epoch)
    assert scene.broken == [(4, "an epoch was trained twice")]


COPYS, ORIGINALS = Version(588, 0), Version(700, 0)
"""Names that a copy and its original have given to version 0 of generation 1."""


def goes_on(base: Version, term: int, *aliases: Version) -> Round:
    return Round(JOB, term, base, 60.0, aliases=aliases)


def train(scene: Scene, base: Version, *epochs: int, finish: bool = False) -> None:
    """Have the device train."""
    scene.laws.begins(scene.device, JOB, base)
    for epoch in epochs:
        scene.laws.has_trained(scene.device, JOB, base, epoch)
    if finish:
        scene.laws.has_finished(scene.device, JOB, base)


def test_an_epoch_is_trained_once_whatever_its_base_is_called(scene: Scene) -> None:
    scene.version = ORIGINALS
    for round_ in (goes_on(COPYS, 2, V0), goes_on(ORIGINALS, 3, V0)):
        scene.say(round_, scene.server)
    train(scene, COPYS, 0)
    train(scene, ORIGINALS, 1)
    assert scene.broken == []
    train(scene, V0, 1)
    assert scene.broken == [(4, "an epoch was trained again under another name of its base")]


def test_an_epoch_of_another_version_of_that_number_is_another(scene: Scene) -> None:
    scene.version = ORIGINALS
    for round_ in (goes_on(COPYS, 2, V0), goes_on(ORIGINALS, 3)):
        scene.say(round_, scene.server)
    train(scene, COPYS, 0)
    train(scene, ORIGINALS, 0)
    train(scene, Version(1, 1), 0)
    assert scene.broken == []


@pytest.mark.parametrize(
    ("between", "again", "may"),
    [
        (Version(1, 1), 4, True),  # another history has led the device away, and the first leads again
        (Version(1, 1), 3, False),  # it was not announced since
        (Version(1, 1), None, False),
        (Version(588, 1), 4, False),  # of the same history
        (None, 4, False),  # of its disk nothing has made way
    ],
)
def test_an_epoch_is_trained_again_only_where_its_base_comes_back_from_another_history(
    scene: Scene, between: Version | None, again: int | None, may: bool
) -> None:
    scene.version = Version(588, 1)
    scene.say(goes_on(COPYS, 2), scene.server)
    train(scene, COPYS, 0)
    if between is not None:
        scene.say(goes_on(between, 3), scene.server)
        train(scene, between, 0, finish=True)
    if again is not None:
        scene.say(goes_on(COPYS, again), scene.server)
    train(scene, COPYS, 0)
    assert scene.broken == ([] if may else [(4, "an epoch was trained twice")])
    if may:
        train(scene, COPYS, 0)
        assert scene.broken == [(4, "an epoch was trained twice")], "once more for each time that it comes back"


def test_a_base_that_comes_back_is_not_finished_twice(scene: Scene) -> None:
    scene.version = Version(588, 1)
    for term, base in enumerate((COPYS, V0, COPYS), 2):
        scene.say(goes_on(base, term), scene.server)
        train(scene, base, 0, finish=True)
    assert scene.broken == [(4, "a base was trained twice")]


def test_a_new_card_trains_again(scene: Scene) -> None:
    scene.laws.has_finished(scene.device, JOB, Version(1, 0))
    scene.device.disk.empty()
    scene.laws.has_finished(scene.device, JOB, Version(1, 0))
    assert scene.broken == []


def test_a_card_serves_one_device(scene: Scene) -> None:
    other = scene.world.new_clone(scene.device, scene.device.disk, "d0x")
    scene.laws.has_finished(scene.device, JOB, Version(1, 0))
    scene.laws.has_finished(other, JOB, Version(1, 1))
    assert scene.broken == [(4, "a state directory serves two devices")]


# 5. What is said is written.


def test_a_verdict_is_durable_before_it_is_sent(scene: Scene) -> None:
    scene.say(Job(JOB, 1, {}), scene.server)
    scene.say(Verdict("d0", JOB, Version(1, 0), "aaaaaaaa"), scene.server)
    assert scene.broken == [(5, "a verdict is sent that is not durable")]


def test_the_first_verdict_stays(scene: Scene) -> None:
    verdict = scene.judge()
    scene.say(structs.replace(verdict, refused="no"), scene.server)
    assert scene.broken == [(5, "another verdict than the first")]


def test_an_update_that_is_long_settled_may_be_called_stale(scene: Scene) -> None:
    old = scene.judge()
    scene.run.version = Version(1, 1)
    scene.judge(base=1)
    scene.say(structs.replace(old, refused="stale"), scene.server)
    assert scene.broken == []


def test_who_does_not_know_a_job_refuses_nothing(scene: Scene) -> None:
    scene.judge()
    other = scene.world.new_server(scene.world.new_disk("second", ServerRecord()))
    scene.say(Verdict("d1", JOB, Version(1, 0), "bbbbbbbb", "there is no such job"), other)
    assert scene.broken == [(5, "a job's update is refused by who does not know the job")]


def test_who_has_deleted_a_job_may_refuse(scene: Scene) -> None:
    verdict = scene.judge()
    scene.say(Job(JOB, 1), scene.server)
    scene.say(structs.replace(verdict, refused="there is no such job"), scene.server)
    assert scene.broken == []


def test_a_job_that_was_at_rest_when_it_was_stopped_is_told_to_be_no_more_and_stays_in_the_store(scene: Scene) -> None:
    scene.judge()
    scene.say(Job(JOB, 1), scene.server)
    scene.ended, scene.version = "stopped", Version(1, 4)
    scene.laws.started(scene.server)
    assert scene.broken == []


def test_a_device_settles_by_what_is_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = scene.judge()
    monkeypatch.setattr(insides, "offered", lambda _device, _job: Update("d0", 0, "aaaaaaaa"))
    monkeypatch.setattr(insides, "leads", lambda _server: True)
    scene.laws.settles(scene.device, by(verdict))
    assert scene.broken == []
    scene.laws.settles(scene.device, by(structs.replace(verdict, refused="no")))
    assert scene.broken == [(5, "settled by another verdict than the one written down")]


@pytest.mark.parametrize("late", ["refuse", "fold"])
@pytest.mark.parametrize(("base", "older"), [(Version(977, 1), True), (Version(977, 2), False)])
def test_who_never_had_a_base_refuses_no_update_to_it_but_one_that_might_have_come_late(
    scene: Scene, late: Literal["refuse", "fold"], base: Version, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no device then takes that refusal for the word of who has the update."""
    scene.judge()
    scene.server.record.jobs[JOB].spec = structs.replace(SPEC, rounds=structs.replace(SPEC.rounds, late=late))
    scene.version = Version(1074, 2)
    refused = Verdict("d0", JOB, base, "aaaaaaaa", "stale")
    scene.say(refused, scene.server)
    if late == "refuse" or not older:
        assert scene.broken == [(5, "an update is refused by who does not know its base")]
        return
    assert scene.broken == []
    other = scene.world.new_server(scene.world.new_disk("second", ServerRecord()))
    other.record.jobs[JOB] = scene.server.record.jobs[JOB]
    other.record.jobs[JOB].judge(Judged(Update("d0", 1, "aaaaaaaa"), True, 977))
    monkeypatch.setattr(insides, "offered", lambda _device, _job: Update("d0", 1, "aaaaaaaa"))
    monkeypatch.setattr(insides, "leads", lambda server: server is other)
    scene.laws.settles(scene.device, by(refused))
    assert scene.broken == []
    scene.laws.settles(scene.device, by(structs.replace(refused, base=Version(978, 1))))
    assert scene.broken == []
    monkeypatch.setattr(insides, "offered", lambda _device, _job: Update("d0", 1, "aaaaaaaa"))
    scene.laws._foreign.clear()
    scene.laws.settles(scene.device, by(refused))
    assert scene.broken == [(5, "settled by another verdict than the one written down")]


def test_who_has_had_a_base_may_call_an_update_to_it_stale(scene: Scene) -> None:
    scene.judge()
    scene.version = Version(1074, 2)
    scene.known = {Version(1, 1)}
    scene.say(Verdict("d1", JOB, Version(1, 1), "bbbbbbbb", "stale"), scene.server)
    scene.say(Verdict("d1", JOB, Version(1074, 1), "bbbbbbbb", "stale"), scene.server)
    assert scene.broken == []
    scene.ended = "finished"
    scene.say(Verdict("d1", JOB, Version(3, 1), "bbbbbbbb", "the job has ended"), scene.server)
    assert scene.broken == []


def test_a_device_settles_its_own_update(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insides, "offered", lambda _device, _job: Update("d0", Version(1, 1), "bbbbbbbb"))
    scene.laws.settles(scene.device, by(scene.judge()))
    assert scene.broken == [(5, "settled by a verdict on another update")]


def by(verdict: Verdict) -> Settle:
    return Settle(JOB, verdict.base, verdict)


def let_go(later: Version | None, number: int = 0) -> Settle:
    return Settle(JOB, Version(1, number), later=later)


def test_a_version_is_announced_when_it_is_in_the_store(scene: Scene) -> None:
    scene.say(structs.replace(HEAD, version=Version(1, 0)), scene.server)
    assert scene.broken == []
    scene.say(Round(JOB, 1, Version(1, 1), 60.0), scene.server)
    assert scene.broken == [(5, "a version is announced that is not durable")]


def test_an_update_is_let_go_for_a_later_version_that_was_announced(scene: Scene) -> None:
    scene.version = Version(1, 1)
    scene.say(HEAD, scene.server)
    scene.laws.settles(scene.device, let_go(Version(1, 1)))
    assert scene.broken == []


@pytest.mark.parametrize("later", [None, Version(1, 0), Version(1, 1)])
def test_an_update_is_not_let_go_before(scene: Scene, later: Version | None) -> None:
    scene.say(structs.replace(HEAD, version=Version(1, 0)), scene.server)
    scene.laws.settles(scene.device, let_go(later))
    assert scene.broken == [(5, "an update was let go though nothing later was announced")]


def test_an_update_is_let_go_when_the_job_is_over(scene: Scene) -> None:
    scene.say(structs.replace(HEAD, version=Version(1, 0), state="stopped"), scene.server)
    scene.laws.settles(scene.device, let_go(Version(1, 0)))
    assert scene.broken == []


def test_an_update_is_not_let_go_at_another_name_of_its_base(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = scene.version = Version(9, 0)
    scene.say(structs.replace(HEAD, version=renamed), scene.server)
    scene.server.up = True
    same = {Version(1, 0), renamed}
    monkeypatch.setattr(insides, "are_one", lambda _server, _job, one, other: {one, other} == same)
    scene.laws.settles(scene.device, let_go(renamed, 1))
    assert scene.broken == []
    scene.laws.settles(scene.device, let_go(renamed))
    assert scene.broken == [(5, "an update was let go at another name of its base")]


def test_an_update_that_may_come_late_is_let_go_by_its_verdict_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.version = Version(1, 1)
    scene.say(HEAD, scene.server)
    monkeypatch.setattr(insides, "folds_late", lambda _device, _job: True)
    scene.laws.settles(scene.device, let_go(Version(1, 1)))
    assert scene.broken == [(5, "an update was let go that may come late")]


@pytest.mark.parametrize(
    ("later", "may"), [(Version(9, 1), True), (Version(9, 0), True), (Version(9, 2), False), (Version(1, 2), False)]
)
def test_an_update_that_nobody_can_fold_into_what_was_announced_is_let_go(
    scene: Scene, later: Version, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.version = later
    scene.say(goes_on(later, 2), scene.server)
    monkeypatch.setattr(insides, "folds_late", lambda _device, _job: True)
    scene.laws.settles(scene.device, let_go(later, 1))
    assert scene.broken == ([] if may else [(5, "an update was let go that may come late")])


def test_an_update_is_not_let_go_at_a_name_that_another_store_has_given_its_base(scene: Scene) -> None:
    scene.version = ORIGINALS
    scene.say(goes_on(COPYS, 2, V0), scene.server)
    scene.say(goes_on(ORIGINALS, 3, Version(7, 0)), scene.server)
    scene.laws.settles(scene.device, Settle(JOB, COPYS, later=ORIGINALS))
    assert scene.broken == []
    scene.say(goes_on(ORIGINALS, 3, V0), scene.server)
    scene.laws.settles(scene.device, Settle(JOB, COPYS, later=ORIGINALS))
    assert scene.broken == [(5, "an update was let go at another name of its base")]


def test_who_asks_for_a_verdict_that_is_written_down_is_noted_until_it_has_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insides, "leads", lambda _server: True)
    monkeypatch.setattr(Process, "connected", property(lambda _process: True))
    offer = Offer(JOB, "d0", Version(1, 0), 8, "aaaaaaaa" + "0" * 8, 9, body=b"x" * 9)
    offer = structs.replace(offer, digest=hashlib.sha256(offer.body).hexdigest()[:16])
    scene.say(offer, scene.device)
    assert scene.laws.asked == {}, "it asks for the first time"
    scene.judge(digest=offer.digest[:8])
    scene.say(structs.replace(offer, base=Version(809, 0)), scene.device)
    assert scene.laws.asked == {}, "it asks another store"
    scene.server.record.jobs.clear()
    verdict = scene.judge(digest=offer.digest[:8])
    scene.say(offer, scene.device)
    assert list(scene.laws.asked) == [("d0", JOB)]
    scene.say(verdict, scene.server)
    assert scene.laws.asked == {}


def test_a_refused_submit_leaves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = Reply("operator", "r1", ok=False, text="disk full")
    scene.say(refusal, scene.server)
    assert scene.broken == []
    monkeypatch.setattr(insides, "jobs_in_store", lambda _server: {"fresh-1": (SPEC, "")})
    scene.say(refusal, scene.server)
    assert scene.broken == [(5, "a submit was refused, and its job is in the store")]


def test_what_nobody_understands_is_not_said(scene: Scene) -> None:
    scene.publish(Packet(WIRE.filter_for("aggregator"), b"{"))
    assert scene.broken == [(5, "a packet that nobody understands")]


# 7. Nothing grows.


def test_packets_do_not_pile_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insides, "n_queued", lambda _process: laws.MOST_QUEUED["offline"] + 1)
    with monkeypatch.context() as patch:
        patch.setattr(insides, "is_online", lambda _process: True)
        scene.laws.acted(scene.device)
    assert scene.broken == []
    scene.laws.acted(scene.device)
    assert scene.broken == [(7, "packets pile up")]


@pytest.mark.parametrize("what", ["subscriptions", "assemblies"])
def test_nothing_piles_up(scene: Scene, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    scene.server.up = True
    monkeypatch.setattr(insides, {"subscriptions": "n_filters", "assemblies": "n_assemblies"}[what], lambda _p: 100)
    scene.laws.inspect()
    assert scene.broken == [(7, f"{what} pile up")]


# 8. A fault stays its own.


def end(scene: Scene, process: Process, times: int, every_s: float = 10.0) -> None:
    for _ in range(times):
        scene.world.agenda.now += every_s
        process.exits.append((scene.world.agenda.now, "ValueError: no"))
        scene.laws.stopped(process, ValueError("no"))


def test_a_process_may_end_now_and_then(scene: Scene) -> None:
    end(scene, scene.server, 40, every_s=400.0)
    assert scene.broken == []


def test_a_process_does_not_end_again_and_again(scene: Scene) -> None:
    end(scene, scene.server, 13)
    assert scene.broken == [(8, "a process ends again and again")]


def test_a_job_ends_no_process(scene: Scene) -> None:
    scene.device.tasted = "train:raise"
    end(scene, scene.device, 1)
    assert scene.broken == [(8, "a process ended by a job's fault")]


def test_a_job_kills_its_process_a_few_times_at_most(scene: Scene) -> None:
    for _ in range(laws.MOST_DEATHS + 1):
        scene.laws.was_killed(scene.device, "train:kill")
    assert scene.broken == [(8, "a job kills its process again and again")]


# 9. A clone is named.


@pytest.mark.parametrize("named", [False, True])
def test_a_clone_is_named(scene: Scene, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insides, "leads", lambda _server: True)
    monkeypatch.setattr(Server, "connected", True)
    clone = scene.world.new_clone(scene.device, scene.device.disk.copy())
    for process in (clone, scene.device) * 4:
        scene.laws.stopped(process, ClonedError("another has its id"))
    if named:
        scene.laws.named_clones.add("d0")
    scene.laws.was_cloned(clone, scene.device)
    assert scene.broken == ([] if named else [(9, "a clone is not named")])


def test_a_law_is_broken_once_in_each_way(scene: Scene) -> None:
    for _ in range(3):
        scene.laws.broken(1, "in this way", "again")
    assert scene.broken == [(1, "in this way")]
