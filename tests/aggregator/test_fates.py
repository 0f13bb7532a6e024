from __future__ import annotations

import pytest

from aggregator import fates
from aggregator.absences import ABSENT
from aggregator.coordinator import Coordinator
from aggregator.effects import Attempt, DeviceStatus, Setup
from broker.messages import Verdict, Version
from models.job import RoundsSpec

V0, V1 = Version(1, 0), Version(1, 1)

FATES = {
    "counted": "counted",
    "late": "counted late: its update was to version 1.0",
    "refused": "refused: its norm is absurd",
    "failed": "not counted: its training failed: nan",
    "absent": f"dropped: absent throughout {ABSENT} attempts",
    "offline": "not counted: it was offline",
    "unknown": "not counted: it was offline",
    "unready": "not counted: it could not take part: no data",
    "there": "not counted: nothing had arrived when the round ended",
}


@pytest.mark.parametrize("device", FATES)
def test_everybody_has_a_fate(device: str) -> None:
    verdicts = [
        Verdict("counted", "j", V1, "ab" * 4),
        Verdict("late", "j", V0, "ab" * 4),
        Verdict("refused", "j", V1, "ab" * 4, "its norm is absurd"),
    ]
    attempt = Attempt(V1, 2, "salt", 0, None, tuple(FATES), absences={"absent": ABSENT})
    rules = RoundsSpec(quorum=9, late="fold")
    setup = Setup(rules=rules, seed=7, base=V1, verdicts=verdicts, counted=["counted", "late"], last=attempt)
    core = Coordinator(setup, 0.0)
    core.receive(DeviceStatus("failed", online=True, ready=True, failed=V1, failure="nan"), 0.0)
    core.receive(DeviceStatus("offline", online=False, ready=True), 0.0)
    core.receive(DeviceStatus("unready", online=True, ready=False, why="no data"), 0.0)
    core.receive(DeviceStatus("there", online=True, ready=True), 0.0)
    assert fates.of(core, attempt, is_open=False)[device] == FATES[device]
    assert list(fates.of(core, attempt, is_open=False)) == sorted(FATES)
    meanwhile = FATES | {"there": "awaited: nothing has arrived yet"}
    assert fates.of(core, attempt, is_open=True)[device] == meanwhile[device]


def test_who_counts_and_was_not_drawn_has_one_too() -> None:
    setup = Setup(rules=RoundsSpec(), seed=7, base=V0, verdicts=[Verdict("a", "j", V0, "ab" * 4)])
    attempt = Attempt(V0, 1, "salt", 0, None, ())
    assert fates.of(Coordinator(setup, 0.0), attempt, is_open=False) == {"a": "counted"}
