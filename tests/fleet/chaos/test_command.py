from __future__ import annotations

import ast
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from msgspec import structs

from aggregator import effects
from broker.connection import BrokerSettings
from broker.messages import Beacon
from broker.seal import ForgedError
from broker.wire import Wire
from edge_agent import effects as agent_effects
from fleet.chaos import audit as chaos_accounts
from fleet.chaos import command as chaos_module
from fleet.chaos import points as chaos_points
from fleet.chaos import stage as chaos_stage
from fleet.chaos.command import ChaosReport, ChaosRun, Options, chaos, show, undisturbed
from fleet.chaos.fleet import Kill
from fleet.chaos.points import points
from fleet.chaos.sabotage import SABOTAGE
from fleet.chaos.scheduler import draw
from fleet.chaos.trace import Line, Trace
from fleet.cli import main
from fleet.console.display import Display
from fleet.console.operator import load_job
from fleet.identity import wire_of_aggregator, wire_of_device, wire_of_operator
from fleet.roles import load_agent, load_aggregator
from identity.settings import IdentitySettings
from models.job import JobSpec

ROOT = Path(__file__).resolve().parents[3]
NAMES = {point.name for point in points()}


# The points.


def test_every_effect_of_both_machines_is_killed_at_on_both_sides() -> None:
    for role, union in (("aggregator", effects.Effect), ("agent", agent_effects.Effect)):
        for effect in get_args(union):
            at = {f"{role}.{effect.__name__}.before", f"{role}.{effect.__name__}.after"}
            left_out = (*chaos_points.WORDS, *chaos_points.ELSEWHERE)
            assert at <= NAMES or f"{role}.{effect.__name__}" in left_out


STEPS_ELSEWHERE = {
    *("bases.name.before", "bases.piece.after"),
    *("store.quarantine.after", "store.quarantine.within"),  # fleet/world has an operator who does that
}
"""Of a device that fetches frozen tensors, which no job of chaos has: tests/fleet/test_finetune.py kills there."""


def test_every_failpoint_in_the_code_is_killed_at_and_no_other() -> None:
    effects_of_both = {name for name in NAMES if name.count(".") == 2 and name.startswith(("aggregator.", "agent."))}
    found = set(_failpoints_in("aggregator")) | set(_failpoints_in("edge_agent"))
    assert (NAMES - effects_of_both) | STEPS_ELSEWHERE == found


def _failpoints_in(package: str) -> list[str]:
    """Return the literal names that a package's modules pass to `reach`, themselves or by way of `Outgoing`."""
    found = []
    for path in (ROOT / package).glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
                at = {"reach": 0, "_reach": 0, "Outgoing": 1}.get(name)
                argument = call.args[at] if at is not None and len(call.args) > at else None
                found += [str(argument.value)] if isinstance(argument, ast.Constant) else []
    assert found
    return found


def test_every_point_is_planned_once_before_any_twice() -> None:
    plans = draw(_rng(0), points(), 2 * len(NAMES) + 3)
    for turn in (0, 1):
        assert {plan.point.name for plan in list(plans)[turn * len(NAMES) : (turn + 1) * len(NAMES)]} == NAMES
    assert all(1 <= plan.nth <= plan.point.most for plan in plans)


def test_the_same_seed_gives_the_same_plans() -> None:
    assert draw(_rng(5), points(), 30) == draw(_rng(5), points(), 30)


def _rng(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 -- a schedule, no secret


def test_a_sabotage_hurts_at_points_that_there_are() -> None:
    assert {name for sabotage in SABOTAGE.values() for name in sabotage.hurts_at} <= NAMES


# The stage.


def test_what_is_written_down_for_the_processes_is_what_was_meant(tmp_path: Path) -> None:
    stage = chaos_stage.build(tmp_path / "stage", 5, 7, BrokerSettings(port=12345))
    for spec in (*stage.compared, stage.loose):
        assert load_job(stage.job_file(spec)) == spec
    assert load_aggregator(stage.aggregator.config).limits.chunk_bytes == 20_000
    agents = [load_agent(role.config) for role in stage.devices]
    assert [agent.device for agent in agents] == [f"device-{i}" for i in range(6)]
    assert [agent.models.inference for agent in agents] == [True] + 5 * [False]


def test_with_keys_everybody_has_his_own_and_believes_nobody_else(tmp_path: Path) -> None:
    broker = BrokerSettings(port=12345)
    stage = chaos_stage.build(tmp_path / "stage", 5, 7, broker, keys=True)
    config = load_aggregator(stage.aggregator.config)
    server = wire_of_aggregator(config.fleet, config.identity)
    operator = stage.operator(broker)
    wires = [wire_of_operator(operator.fleet, operator.identity)]
    for role in stage.devices:
        agent = load_agent(role.config)
        wires.append(wire_of_device(agent.fleet, role.name, agent.identity))
    for wire in wires:
        assert wire.unpack(server.pack(Beacon(1, "n", online=True))) is not None
        with pytest.raises(ForgedError):
            wire.unpack(Wire(config.fleet).pack(Beacon(1, "n", online=True)))
    bare = chaos_stage.build(tmp_path / "bare", 5, 7, broker)
    assert bare.operator(broker).identity == IdentitySettings()


@pytest.mark.parametrize("make", [chaos_stage.steady, chaos_stage.steered])
def test_a_compared_job_has_a_fixed_membership_and_a_lossy_codec(
    make: Callable[[int, int], JobSpec],
) -> None:
    spec = make(5, 7)
    assert (spec.rounds.wait, spec.rounds.quorum, spec.rounds.min_devices) == ("all", 5, 6)
    assert spec.coding.codec != "float32"


# The books.


def test_a_diary_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    trace = Trace(path)
    assert trace.read() == []
    path.write_text('[1.5,7,"agent.Send.before",{"a":1}]\n[2.0,7,"agent.Se')
    assert trace.read() == [Line(1.5, 7, "agent.Send.before", {"a": 1})]
    with path.open("a") as file:
        file.write('nd.after",null]\n')
    assert trace.read() == [Line(2.0, 7, "agent.Send.after", None)]
    assert [line.at for line in trace.at("agent.Send.after")] == [2.0]


def test_an_epoch_that_is_finished_twice_is_counted_as_retrained() -> None:
    epochs = [("j", [1, 0], 0), ("j", [1, 0], 1), ("j", [1, 1], 0), ("j", [1, 0], 1), ("k", [1, 0], 0)]
    lines = [Line(float(i), 1, "training.epoch", list(what)) for i, what in enumerate(epochs)]
    assert chaos_accounts._retrained(lines) == 1


def test_an_update_ends_by_a_verdict_or_is_let_go() -> None:
    trace = Trace(Path("none"))
    ends: list[dict[str, str] | None] = [{"base": "1.0"}, {"refused": "no"}, None]
    for number, verdict in enumerate(ends):
        what = {"job": "j", "base": [1, number], "verdict": verdict}
        trace.lines.append(Line(float(number), 1, "agent.Settle.before", what))
    for number, word in enumerate(("counted", "refused", "let go")):
        (one,) = chaos_accounts._settlements({"d": trace}, "agent.Settle.before", word)
        assert one == ("j", (1, number), "d")
    assert len(chaos_accounts._settlements({"d": trace}, "agent.Settle.before")) == 3


def test_an_update_that_is_settled_once_more_counts_only_where_that_was_on_disk() -> None:
    def settle(number: int, job: str = "j") -> Line:
        return Line(0.0, 1, "agent.Settle.after", {"job": job, "base": [1, number], "verdict": None})

    put = Line(0.0, 1, "outbox.put.between", ["j", [1, 9]])
    assert chaos_accounts._settled_again([settle(0), settle(0), put, settle(1)]) == 0
    assert chaos_accounts._settled_again([settle(0), put, settle(0)]) == 1
    assert chaos_accounts._settled_again([settle(0, "k"), put, settle(0, "k")]) == 0


def test_recovery_is_from_the_restart_to_what_comes_next() -> None:
    trace = Trace(Path("none"))
    trace.lines = [Line(at, 1, "agent.Send.after", None) for at in (1.0, 5.5, 9.0)]
    kills = [
        Kill("device-0", "agent.Send.after", 4.0, 5.0),
        Kill("device-0", "any moment", 6.0, 7.0),
        Kill("x", "y", 9),
    ]
    row, _, everybody = chaos_accounts.recoveries(kills, {"device-0": trace, "x": Trace(Path("none"))}, [2.0, 8.0])
    assert (row.kills, row.at_points) == (2, 1)
    assert (row.work_p50_s, row.work_max_s, row.version_p50_s, row.version_max_s) == (0.5, 2.0, 1.0, 3.0)
    assert everybody.kills == 3


# What a schedule did not come to.


def ran(kills: Sequence[str], missed: Sequence[str] = (), problems: Sequence[str] = ()) -> ChaosRun:
    """What a run comes to that has killed at these points."""
    outcome = chaos_accounts.AuditOutcome({"j": ["aa"]}, {}, 0, 0, 0, [])
    dead = [Kill("device-0", point, 1.0, 2.0) for point in kills]
    rows = chaos_accounts.recoveries(dead, {"device-0": Trace(Path("none"))}, [])
    return ChaosRun(outcome, dead, rows, list(missed), list(problems), 1.0)


class Runs:
    """Stands in the place of `_run`: gives what is to come of each, and keeps what was asked for."""

    def __init__(self, *runs: ChaosRun) -> None:
        self.runs = list(runs)
        self.asked: list[tuple[int, int, Sequence[str]]] = []

    def __call__(self, options: Options, _name: str, _display: Display, only: Sequence[str] = ()) -> ChaosRun:
        self.asked.append((options.kills, options.seed, only))
        return self.runs.pop(0)


LAST = "slot.switch.after"
MANY = Options(Path("none"), kills=2 * len(NAMES), seed=5)
ALL_BUT_ONE = [*(2 * sorted(NAMES - {LAST})), "any moment", "any moment"]


def test_a_point_that_nobody_reached_is_run_again_and_is_no_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(ran(ALL_BUT_ONE, missed=[LAST]), ran(["any moment"] * 4, missed=[LAST]), ran([LAST] * 4))
    monkeypatch.setattr(chaos_module, "_run", runs)
    report = chaos(MANY, ran([]), Display(None))
    assert runs.asked == [(MANY.kills, 5, ()), (4, 6, [LAST]), (4, 7, [LAST])]
    assert (report.good, report.runs, report.points_missed) == (True, 3, [])
    assert report.kills == MANY.kills + 8


def test_a_point_that_nobody_ever_reaches_is_named_and_is_no_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    again = [ran(["any moment"] * 4, missed=[LAST]) for _ in range(chaos_module.MORE_RUNS)]
    monkeypatch.setattr(chaos_module, "_run", Runs(ran(ALL_BUT_ONE, missed=[LAST]), *again))
    report = chaos(MANY, ran([]), Display(None))
    assert (report.good, report.points_missed) == (True, [LAST])


def test_kills_that_did_not_take_place_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(ran(["any moment"] * 6), ran(["any moment"] * 4))
    monkeypatch.setattr(chaos_module, "_run", runs)
    assert chaos(MANY._replace(kills=10), ran([]), Display(None)).good
    assert [kills for kills, _, _ in runs.asked] == [10, 4]
    monkeypatch.setattr(chaos_module, "_run", Runs(*[ran([]) for _ in range(1 + chaos_module.MORE_RUNS)]))
    report = chaos(MANY._replace(kills=10), ran([]), Display(None))
    assert report.problems == ["only 0 of 10 kills took place: nothing is said of the rest"]


def test_what_goes_wrong_in_any_run_is_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(ran(["any moment"] * 6), ran(["any moment"] * 2, problems=["standstill"]), ran(["any moment"] * 2))
    monkeypatch.setattr(chaos_module, "_run", runs)
    report = chaos(MANY._replace(kills=10), ran([]), Display(None))
    assert (report.good, report.runs) == (False, 2)
    assert "standstill" in report.problems


@pytest.mark.parametrize("good", [True, False])
def test_a_good_run_leaves_no_folder_behind(
    good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    problems = [] if good else ["standstill"]
    monkeypatch.setattr(chaos_module, "_run", Runs(ran([]), ran(["any moment"], problems=problems)))
    assert main(["chaos", "--kills", "1"]) == (0 if good else 1)
    assert len(list(tmp_path.iterdir())) == (0 if good else 1)
    assert ("logs, traces and states are in" in capsys.readouterr().out) is not good


# The real thing.


@pytest.fixture(scope="module")
def quick_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory, if there is room: every step of a training is synced here, and no power is cut."""
    memory = Path("/dev/shm")
    has_room = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 256 * 2**20
    with tempfile.TemporaryDirectory(dir=memory if has_room else tmp_path_factory.mktemp("chaos")) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def options(quick_disk: Path) -> Iterator[Options]:
    """Jobs of fewer steps than those of the command, and a patience that nobody needs: other tests are busy."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("steady", "steered", "loose"):
            patched.setattr(chaos_stage, name, _shorter(getattr(chaos_stage, name)))
        yield Options(quick_disk / "run", devices=4, rounds=3, kills=4, seed=3, minutes=30.0, standstill_s=600.0)


def _shorter(make: Callable[..., JobSpec]) -> Callable[..., JobSpec]:
    def made(*counts: int) -> JobSpec:
        spec = make(*counts)
        return structs.replace(spec, train=structs.replace(spec.train, epochs=3, batch_size=8))

    return made


@pytest.fixture(scope="module")
def before(options: Options) -> ChaosRun:
    return undisturbed(options, Display(None))


@pytest.mark.long
def test_a_fleet_that_is_killed_again_and_again_makes_the_same_models(options: Options, before: ChaosRun) -> None:
    report = chaos(options, before, Display(None))
    assert report.problems == []
    assert report.kills >= options.kills
    assert report.identical
    assert report.versions_identical == report.versions == 2 * (options.rounds + 1)
    assert (report.retrained_epochs, report.lost_updates, report.duplicated_updates) == (0, 0, 0)
    assert msgspec.json.decode(msgspec.json.encode(report), type=ChaosReport) == report


@pytest.mark.long
def test_a_fleet_whose_aggregator_forgets_its_verdicts_is_found_out(options: Options, quick_disk: Path) -> None:
    options = options._replace(out=quick_disk / "sabotaged", devices=5, rounds=3, kills=8)
    report = chaos(options._replace(sabotage="ledger"), undisturbed(options, Display(None)), Display(None))
    assert not report.good
    assert report.duplicated_updates
    shown = io.StringIO()
    show(report, Display(shown))
    assert f"NOT AS PROMISED: {report.duplicated_updates} updates were counted twice" in shown.getvalue()
    assert json.loads(chaos_accounts.as_json(report))["sabotage"] == "ledger"
