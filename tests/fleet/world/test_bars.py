"""The law of devices in quarantine, held against a trace that breaks it and one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from aggregator.effects import Attempt
from broker.messages import Message, Quarantine, Release, Reply, Verdict, Version
from broker.transport import Packet
from fleet.world import insides
from fleet.world.nodes import WIRE, Server
from fleet.world.world import World

V0 = Version(1, 0)
VERDICT = Verdict("d1", "toy-1", V0, "aaaaaaaa")
BARRED = structs.replace(VERDICT, refused="in quarantine: its clock")
ATTEMPT = Attempt(V0, 1, "salt", 2**64 - 1, None, ("d0", "d1"))


class Scene:
    """A world of one aggregator, in which a test says what happens."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.world = World(3, "calm", folder, None)
        self.bars = self.world.laws.bars
        self.stored: dict[str, str] = {}
        self.by: set[str] = set()
        self.counted: set[str] = set()
        self.scored: set[tuple[str, Version]] = set()
        self.awaited: dict[str, set[str]] = {"toy-1": {"d0"}}
        patch.setattr(insides, "leads", lambda _server: True)
        patch.setattr(insides, "quarantined_in_store", lambda _server: self.stored)
        patch.setattr(insides, "quarantined", lambda _server: self.by)
        patch.setattr(insides, "counted_in", lambda _server, _attempt: self.counted)
        patch.setattr(insides, "scored_by", lambda _server, _device: self.scored)
        patch.setattr(insides, "awaited", lambda _server: self.awaited)

    @property
    def server(self) -> Server:
        return self.world.servers[0]

    def bar(self, why: str = "its clock") -> None:
        self.bars.writes(self.server, "d1")
        self.bars.has_written(self.server, "d1", why)
        self.by = {"d1"} if why else set()
        self.stored = {"d1": why} if why else {}

    def later(self) -> None:
        self.server.n_steps += 1

    def hear(self, message: Message) -> None:
        self.world.acting = self.server if isinstance(message, Reply) else None
        packet = WIRE.pack(message)
        assert isinstance(packet, Packet)
        self.world.laws.heard(packet)

    def broken(self) -> list[str]:
        assert {violation.law for violation in self.world.laws.violations} <= {10}
        return [violation.kind for violation in self.world.laws.violations]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_what_was_judged_in_the_step_of_the_quarantine_may_count_and_nothing_after_it(scene: Scene) -> None:
    scene.bar()
    scene.bars.judged(scene.server, VERDICT)
    scene.later()
    scene.bars.judged(scene.server, BARRED)
    scene.bars.judged(scene.server, structs.replace(VERDICT, device="d0"))
    assert scene.broken() == []
    scene.bars.judged(scene.server, VERDICT)
    assert scene.broken() == ["an update of a device in quarantine was counted"]


def test_nothing_is_refused_for_a_quarantine_that_is_over(scene: Scene) -> None:
    scene.bar()
    scene.later()
    scene.bar("")
    scene.bars.judged(scene.server, BARRED)
    scene.later()
    scene.bars.judged(scene.server, VERDICT)
    assert scene.broken() == []
    scene.bars.judged(scene.server, BARRED)
    assert scene.broken() == ["an update was refused for a quarantine that is over"]


def test_nobody_in_quarantine_is_drawn_unless_it_counts(scene: Scene) -> None:
    scene.bars.draws(scene.server, ATTEMPT)
    scene.bar()
    scene.counted = {"d1"}
    scene.bars.draws(scene.server, ATTEMPT)
    assert scene.broken() == []
    scene.counted = set()
    scene.bars.draws(scene.server, ATTEMPT)
    assert scene.broken() == ["a device in quarantine is drawn"]


def test_an_answer_is_true_when_it_is_given_and_may_come_again(scene: Scene) -> None:
    scene.hear(Quarantine("operator", "r1", "d1", "its clock"))
    scene.hear(Release("operator", "r2", "d1"))
    scene.bar()
    scene.hear(Reply("operator", "r1", ok=True, text="d1 is in quarantine"))
    scene.bar("")
    scene.hear(Reply("operator", "r1", ok=True, text="d1 is in quarantine"))
    scene.hear(Reply("operator", "r2", ok=True, text="d1 is released"))
    scene.hear(Reply("operator", "r3", ok=True, text="three jobs"))
    assert scene.broken() == []
    scene.hear(Quarantine("operator", "r4", "d2", "its clock"))
    scene.hear(Reply("operator", "r4", ok=True, text="d2 is in quarantine"))
    assert scene.broken() == ["a quarantine is answered that is not durable"]


def test_of_a_score_that_was_taken_before_nothing_is_said(scene: Scene) -> None:
    scene.scored = {("toy-1", V0)}
    scene.bar()
    scene.bars.scores(scene.server, VERDICT)
    scene.bars.scores(scene.server, structs.replace(VERDICT, device="d0"))
    assert scene.broken() == []
    scene.bars.scores(scene.server, structs.replace(VERDICT, base=Version(1, 1)))
    assert scene.broken() == ["a score of a device in quarantine was counted"]


def test_a_start_finds_what_was_written_and_either_of_what_was_being_written(scene: Scene) -> None:
    scene.bar()
    scene.bars.started(scene.server)
    scene.bars.writes(scene.server, "d1")
    scene.stored = {}
    scene.bars.started(scene.server)
    assert scene.server.record.barred == {}
    scene.bars.writes(scene.server, "d1")
    scene.stored = {"d1": "its clock"}
    scene.bars.started(scene.server)
    assert scene.server.record.barred == scene.stored
    assert scene.broken() == []
    scene.stored = {}
    scene.bars.started(scene.server)
    assert scene.broken() == ["a quarantine is not as it was written"]


def test_a_quarantine_goes_with_its_disk(scene: Scene) -> None:
    scene.bar()
    copy = scene.server.disk.copy()
    scene.bar("")
    assert scene.server.record.barred == {}
    scene.server.disk.restore(copy)
    assert scene.server.record.barred == {"d1": "its clock"}


def test_an_aggregator_goes_by_what_is_written_and_no_round_waits_for_who_is_barred(scene: Scene) -> None:
    scene.bar()
    scene.bars.inspect(scene.server)
    scene.bars.writes(scene.server, "d1")
    scene.by = set()
    scene.bars.inspect(scene.server)
    assert scene.broken() == []
    scene.bar()
    scene.by, scene.awaited = set(), {"toy-1": {"d0", "d1"}}
    scene.bars.inspect(scene.server)
    by, awaited = "it goes by another quarantine than is written", "a round waits for a device in quarantine"
    assert scene.broken() == [by, awaited]
