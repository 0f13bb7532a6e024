"""The benchmark of fleets: levels and their errors, cuts, what is kept, and what is said of bad input."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from msgspec import structs

from benchmarks.fleets import __main__ as command
from benchmarks.fleets import curves, data, plan, progress, report, runs, workers
from benchmarks.fleets.catalogue import FLEETS, Fleet
from benchmarks.fleets.curves import Float64
from benchmarks.fleets.runs import Cache, Kept, Task
from fleet.problems.partition import PartitionError
from models.data.dataset import Dataset, DatasetError
from models.job import ModelSpec
from runtime.settings import SettingsError

ROOT = Path(__file__).resolve().parent.parent.parent


def line(rounds_a_unit: float, n: int = 60) -> Float64:
    """A curve that rises by one in so many rounds."""
    return np.arange(1, n + 1) / rounds_a_unit


def seeds(*curve: Float64) -> Float64:
    return np.stack(curve)


# Levels, ratios and errors.


def test_a_curve_is_smoothed_over_its_last_three_rounds_and_over_fewer_at_first() -> None:
    assert curves.smooth(np.array([3.0, 5.0, 1.0, 6.0])) == pytest.approx([3.0, 4.0, 3.0, 4.0])


def test_a_level_is_reached_between_two_rounds_or_never() -> None:
    smoothed = np.array([1.0, 2.0, 4.0, 3.0, 5.0])
    assert curves.crossing(smoothed, 3.0) == pytest.approx(2.5)
    assert curves.crossing(smoothed, 4.0) == pytest.approx(3.0)
    assert curves.crossing(smoothed, 4.5) == pytest.approx(4.75)
    assert curves.crossing(smoothed, 0.5) == 1.0
    assert curves.crossing(smoothed, 5.1) is None


def test_levels_go_from_sixty_percent_of_the_rise_to_the_target() -> None:
    theirs = np.array([1.0, 5.0, 9.0, 12.0])
    levels = curves.levels(theirs, 11.0)
    assert [levels[0], levels[-1]] == pytest.approx([7.0, 11.0])


def test_levels_end_where_float32_ends_and_may_begin_at_a_round_of_it() -> None:
    theirs = np.array([1.0, 5.0, 9.0, 12.0])
    assert curves.levels(theirs, 50.0)[-1] == pytest.approx(12.0)
    assert curves.levels(theirs, 11.0, since=2)[0] == pytest.approx(5.0)


def test_a_baseline_that_does_not_rise_is_nothing_to_compare_with() -> None:
    with pytest.raises(curves.NoRiseError, match=r"does not rise from 1 to 0.9"):
        curves.levels(np.array([1.0, 1.2]), 0.9)
    with pytest.raises(curves.NoRiseError):
        curves.levels(np.array([1.0, 0.8]), 2.0)


def test_the_ratio_of_two_lines_is_known() -> None:
    theirs, ours = seeds(line(1.0), line(1.0)), seeds(line(1.2), line(1.2))
    found = curves.rounds_ratio(ours, theirs, target=31.0)
    middle = (1 + 0.6 * 30 + 31) / 2  # a level L is reached in round L + 1, or 1.2 L + 1, for the mean of three is late
    assert found.value == pytest.approx((1.2 * middle + 1) / (middle + 1))
    assert found.error == 0.0


def test_a_coding_that_is_float32_has_a_ratio_of_one_without_error() -> None:
    noisy = np.random.default_rng(0).normal(line(20.0), 0.3, (5, 60))
    found = curves.rounds_ratio(noisy, noisy, target=2.0)
    assert found == (1.0, 0.0)


def test_the_error_of_a_mean_is_the_one_of_the_book() -> None:
    values = np.array([1.0, 4.0, 2.0, 9.0, 5.0])
    found = curves.jackknife(lambda chosen: float(values[chosen].mean()), 5)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(5))


def test_the_error_of_the_ratio_comes_from_leaving_out_pairs() -> None:
    """Seeds that differ, but alike in both, say nothing against the ratio; seeds that differ in one do."""
    theirs = seeds(line(1.0), line(2.0), line(4.0))
    alike = curves.rounds_ratio(seeds(line(1.1), line(2.2), line(4.4)), theirs, target=15.0)
    unlike = curves.rounds_ratio(seeds(line(1.0), line(2.0), line(5.0)), theirs, target=15.0)
    assert alike.error < 0.01
    without = [
        curves.rounds_ratio(np.delete(seeds(line(1.0), line(2.0), line(5.0)), i, 0), np.delete(theirs, i, 0), 15.0)
        for i in range(3)
    ]
    values = np.array([one.value for one in without])
    assert unlike.error == pytest.approx(math.sqrt(2 / 3 * ((values - values.mean()) ** 2).sum()))
    assert unlike.error > alike.error


def test_one_seed_has_no_error_and_is_taken_at_its_word() -> None:
    found = curves.rounds_ratio(seeds(line(1.5)), seeds(line(1.0)), target=20.0)
    assert math.isnan(found.error)
    assert found.least == found.value


def test_a_level_that_is_never_reached_counts_as_one_round_more_than_there_are() -> None:
    found = curves.crossings(seeds(line(3.0, 30)), seeds(line(1.0, 30)), target=20.0)
    assert [one.ours for one in found if not one.reached] == [31.0] * sum(not one.reached for one in found)
    assert not found[-1].reached
    assert curves.rounds_ratio(seeds(line(30.0, 30)), seeds(line(1.0, 30)), target=20.0).value > 1.5


def test_the_end_is_the_mean_of_the_last_five_rounds() -> None:
    ours, theirs = np.zeros((2, 20)), np.zeros((2, 20))
    ours[:, -5:] = [[1.0] * 5, [3.0] * 5]
    ours[:, -6] = 100.0
    found = curves.end_gap(ours, theirs)
    assert found.value == pytest.approx(2.0)
    assert found.error == pytest.approx(1.0)


# Rows of the table.

PLAIN = FLEETS["classes-zipf"]


def kept(scores: Sequence[float], *, seed: int = 0, up: int = 100, down: int = 400, field: str = "accuracy") -> Kept:
    rows = [
        {field: float(score), "participants": 4, "bytes_up": up, "bytes_down": down}
        | {"body_bytes_up": up // 2, "body_bytes_down": down // 2}
        for score in scores
    ]
    return Kept("f", "c", {}, seed, "", "", 1.0, 7, "", rows)


def compared(fleet: Fleet, ours: Float64, theirs: Float64, **how: Any) -> report.Row:
    coded = {seed: kept(curve, seed=seed, **how) for seed, curve in enumerate(ours)}
    field = how.get("field", "accuracy")
    plain = {seed: kept(curve, seed=seed, up=1000, down=2000, field=field) for seed, curve in enumerate(theirs)}
    return report.row(fleet, "strong", coded, plain)


def fleet(**changes: Any) -> Fleet:
    return structs.replace(PLAIN, target=0.5, **changes)


def test_bytes_are_those_of_a_device_and_update_and_beside_float32() -> None:
    row = compared(fleet(), seeds(line(60.0)), seeds(line(60.0)))
    assert (row.bytes_up, row.bytes_down, row.body_bytes_up, row.body_bytes_down) == (25.0, 100.0, 12.5, 50.0)
    assert (row.fewer_up, row.fewer_down) == (10.0, 5.0)


def test_a_loss_that_falls_is_compared_as_an_accuracy_that_rises() -> None:
    ours, theirs = seeds(line(80.0)), seeds(line(60.0))
    net = structs.replace(PLAIN.net, loss="mse")
    falling = compared(fleet(net=net), 1 - ours, 1 - theirs, field="loss")
    rising = compared(fleet(), ours, theirs)
    assert falling.ratio == pytest.approx(rising.ratio)
    assert falling.target == pytest.approx(0.5)
    assert falling.end < 0


def test_a_row_passes_within_one_standard_error_of_its_bound() -> None:
    at = report.Row("f", "c", chosen=False, bound=1.06, seeds=4, rounds=9, ratio=1.1, ratio_error=0.05)
    assert at.passes
    assert not structs.replace(at, ratio_error=0.03).passes
    assert not structs.replace(at, ratio_error=math.nan).passes
    assert not structs.replace(at, failed="it stood still").passes


def test_a_row_passes_only_if_its_end_does_where_the_fleet_bounds_it() -> None:
    row = report.Row("f", "c", chosen=False, bound=1.06, seeds=4, rounds=9, ratio=1.0, ratio_error=0.0, end=-0.5)
    assert row.passes
    bounded = structs.replace(row, most_lost=0.3, end_error=0.1)
    assert not bounded.passes
    assert structs.replace(bounded, end_error=0.2).passes
    assert structs.replace(bounded, end=0.5).passes


def test_the_worst_row_comes_first_by_its_own_bound() -> None:
    def row(name: str, ratio: float, bound: float, failed: str = "") -> report.Row:
        return report.Row(name, "c", chosen=False, bound=bound, seeds=1, rounds=9, ratio=ratio, failed=failed)

    rows = [row("fine", 1.0, 1.06), row("large", 1.10, 1.08), row("worst", 1.07, 1.03), row("dead", 0.5, 1.0, "why")]
    assert [row.fleet for row in report.worst_first(rows)] == ["dead", "worst", "large", "fine"]
    table = report.markdown(rows).splitlines()
    assert table[2].startswith("| dead | c | reported | – | 1.00 | why |")
    assert table[3].startswith("| worst | c | reported | 1.070 | 1.03 | **no** |")
    assert {text.count("|") for text in table} == {len(report.HEADER) + 1}


def test_what_was_not_reached_is_said_to_be_at_least_so_much() -> None:
    row = compared(fleet(), seeds(line(600.0)), seeds(line(60.0)))
    assert not row.reached
    assert "| >" in report.markdown([row])


def test_a_target_that_float32_does_not_reach_is_lowered_and_marked() -> None:
    high = structs.replace(PLAIN, target=0.9)
    row = compared(high, seeds(line(120.0)), seeds(line(120.0)))
    assert row.target == pytest.approx(59 / 120)
    assert "| 0.4917* |" in report.markdown([row])
    assert "| 0.5 |" in report.markdown([compared(fleet(), seeds(line(60.0)), seeds(line(60.0)))])


def test_a_fleet_without_a_rise_is_a_row_that_says_so() -> None:
    row = compared(fleet(), seeds(line(60.0)), seeds(np.full(60, 0.7)))
    assert row.failed == "float32 does not rise from 0.7 to 0.5"
    assert not row.passes


# Cuts.


def source(n: int = 600, owners: Any = None) -> data.Source:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 5, n)
    rows = Dataset(rng.normal(size=(n, 3)).astype(np.float32), y.astype(np.int64), "made up")
    return data.Source(rows, rows, owners)


@pytest.mark.parametrize("how", ["iid", "shards:2", "dirichlet:0.1", "dirichlet:0.5", "zipf", "natural"])
def test_each_row_is_dealt_once_and_alike_for_one_seed(how: str) -> None:
    made = source(owners=np.arange(600) % 12)
    shares = data.cut(how, made, 12, 3)
    assert sorted(np.concatenate(shares)) == list(range(600))
    assert len(shares) == 12
    assert min(map(len, shares)) > 0
    again = data.cut(how, made, 12, 3)
    assert all(np.array_equal(one, other) for one, other in zip(shares, again, strict=True))


def test_zipf_amounts_go_as_one_by_rank_whoever_has_which() -> None:
    amounts = [[len(rows) for rows in data.cut("zipf", source(6000), 30, seed)] for seed in range(2)]
    for n in amounts:
        assert sorted(n, reverse=True) == pytest.approx(
            6000 / sum(1 / r for r in range(1, 31)) / np.arange(1, 31), abs=12
        )
    assert amounts[0] != amounts[1]


def test_zipf_leaves_nobody_without_a_row() -> None:
    assert min(len(rows) for rows in data.cut("zipf", source(100), 100, 0)) == 1
    with pytest.raises(PartitionError, match="101 devices are more than the 100 examples"):
        data.cut("zipf", source(100), 101, 0)


def test_natural_devices_are_those_of_the_file() -> None:
    owners = np.repeat([7, 3, 9], 200)
    shares = data.cut("natural", source(owners=owners), 3, 0)
    assert [set(owners[rows]) for rows in shares] == [{3}, {7}, {9}]
    with pytest.raises(PartitionError, match="rows of 3 devices, not of 4"):
        data.cut("natural", source(owners=owners), 4, 0)
    with pytest.raises(PartitionError, match="does not say whose"):
        data.cut("natural", source(), 3, 0)


def write_activity(folder: Path, n: int = 400) -> Path:
    rng = np.random.default_rng(0)
    device = np.sort(rng.integers(0, 4, n))
    execution = np.arange(n) // 10 % 12
    path = folder / "har_spsw.npz"
    F = rng.normal(3.0, 2.0, (n, 48)).astype(np.float32)
    F[0, 0] = 1e6
    np.savez(path, F=F, y=rng.integers(0, 5, n).astype(np.uint8), device=device, execution=execution)
    return path


def test_of_activity_whole_executions_are_held_out_and_features_standardised(tmp_path: Path) -> None:
    path = write_activity(tmp_path)
    found = data.read("activity", {"har_spsw": path})
    with np.load(path) as file:
        pairs = file["device"] * 100 + file["execution"]
        held = data._whole_executions(file["device"], file["execution"])
    assert not set(pairs[held]) & set(pairs[~held])
    assert 0.15 < held.mean() <= 0.35
    assert (len(found.train.y), len(found.test.y)) == (int((~held).sum()), int(held.sum()))
    assert found.owners is not None
    assert len(found.owners) == len(found.train.y)
    assert found.train.X[:, 1:].mean(axis=0) == pytest.approx(np.zeros(47), abs=1e-4)
    assert found.train.X[:, 1:].std(axis=0) == pytest.approx(np.ones(47), abs=1e-3)
    assert np.abs(found.train.X).max() <= 8.0


def test_an_execution_that_is_most_of_a_device_is_not_held_out() -> None:
    execution = np.repeat([0, 1, 2, 3], [70, 10, 10, 10])
    held = data._whole_executions(np.zeros(100), execution)
    assert 0 not in execution[held]
    assert held.sum() == 20


def write_air(folder: Path, n: int = 90, seed: int = 0) -> Path:
    """Rows of two classes that a net can tell apart, on three devices, every fourth to test on."""
    rng = np.random.default_rng(seed)
    y, path = rng.integers(0, 2, n), folder / "beijing_air.npz"
    X = rng.normal(size=(n, 4)) + y[:, np.newaxis]
    np.savez(path, X=X.astype(np.float32), y=y, device=np.arange(n) // 4 % 3, test=np.arange(n) % 4 == 0)
    return path


def test_air_has_its_own_test_split(tmp_path: Path) -> None:
    found = data.read("air", {"beijing_air": write_air(tmp_path, 80)})
    assert (len(found.train.y), len(found.test.y)) == (60, 20)


def test_a_file_that_is_not_what_it_should_be_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "beijing_air.npz"
    np.savez(path, X=np.zeros((4, 2)), y=np.zeros(3), device=np.zeros(4), test=np.zeros(4))
    with pytest.raises(DatasetError, match=r"y of shape \(3,\) has not a row for each of X"):
        data.read("air", {"beijing_air": path})
    np.savez(path, X=np.zeros((4, 2)), y=np.zeros(4), device=np.zeros(4), test=np.ones(4))
    with pytest.raises(DatasetError, match="nothing to train on"):
        data.read("air", {"beijing_air": path})


# The catalogue.


def test_the_catalogue_is_small_and_says_what_constants_are_chosen_on() -> None:
    assert len(FLEETS) <= 20
    assert {name for name, one in FLEETS.items() if one.chosen} == {"mnist-iid", "mnist-shards", "activity", "air"}
    assert {one.devices for one in FLEETS.values()} >= {3, 12, 46, 100}
    assert all(0 < one.drawn <= one.devices for one in FLEETS.values())


def test_a_job_asks_for_as_many_devices_and_rounds_as_the_fleet_says() -> None:
    job = FLEETS["mnist-epochs"].job(5, "strong")
    assert (job.seed, job.rounds.target, job.rounds.max_rounds) == (5, 10, FLEETS["mnist-epochs"].rounds)
    assert (job.train.epochs, job.train.learning_rate, job.compression) == (5, 0.1, "strong")


def test_fewer_fleets_seeds_and_rounds_are_quick() -> None:
    few = plan.quick(FLEETS.values())
    assert 0 < len(few) < len(FLEETS)
    assert all(one.rounds <= FLEETS[one.name].rounds and one.seeds <= 3 for one in few)


# What is kept.


TINY = Fleet(
    "tiny", "", "air", "natural", 3, 3, ModelSpec("mlp", 4, (8,), 2), learning_rate=0.05, rounds=3, target=1.0, seeds=2
)
ENDLESS = structs.replace(TINY, name="endless", rounds=1_000_000, seeds=1)


def tasks(folder: Path, *fleets: Fleet, codings: Sequence[str] = (), code: str = "code") -> list[Task]:
    files = {"beijing_air": folder / "beijing_air.npz"}
    return plan.planned(fleets, plan.codings(codings, []), None, files, code)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_air(tmp_path)
    (tmp_path / "cache").mkdir()
    return tmp_path


def test_a_run_is_found_again_by_all_that_determines_it(folder: Path) -> None:
    cache = Cache(folder / "cache")
    task, other_seed = tasks(folder, TINY)
    workers.run(task, {"beijing_air": folder / "beijing_air.npz"}, cache)
    found = cache.find(task)
    assert found is not None
    assert [row["round"] for row in found.rounds] == [1, 2, 3]
    assert cache.find(other_seed) is None
    assert cache.find(structs.replace(task, code="other code")) is None
    slower = structs.replace(TINY, learning_rate=0.04)
    assert cache.find(tasks(folder, slower)[0]) is None
    finer = structs.replace(task.coding, numbers=task.coding.numbers | {"step": 1.0})
    assert cache.find(structs.replace(task, coding=finer)) is None
    write_air(folder, seed=1)
    assert cache.find(tasks(folder, TINY)[0]) is None


def test_codings_are_float32_and_what_is_asked_for_in_explicit_numbers(tmp_path: Path) -> None:
    assert [one.name for one in plan.codings(["strong", "off", "strong"], [])] == ["off", "strong"]
    (tmp_path / "a.toml").write_text('codec = "float32"\n')
    (tmp_path / "b.toml").write_text("nonsense = 1\n")
    mine = plan.codings([], [f"a={tmp_path / 'a.toml'}"])[1]
    assert mine.name == "a"
    assert mine.numbers["codec"] == "float32"
    with pytest.raises(SettingsError, match='has no key "nonsense"'):
        plan.variant(f"b={tmp_path / 'b.toml'}")
    with pytest.raises(SettingsError, match="the name a is given twice"):
        plan.codings([], [f"a={tmp_path / 'a.toml'}"] * 2)


def test_how_a_run_is_read_does_not_make_it_another(folder: Path) -> None:
    read_otherwise = structs.replace(TINY, target=0.7, bound=1.5, seeds=2, about="same", chosen=True)
    assert [task.key for task in tasks(folder, TINY)] == [task.key for task in tasks(folder, read_otherwise)]


def test_a_trusted_coding_is_found_whatever_code_and_numbers_it_was_made_with(folder: Path) -> None:
    cache = Cache(folder / "cache")
    task = tasks(folder, TINY)[0]
    workers.run(task, {"beijing_air": folder / "beijing_air.npz"}, cache)
    later = structs.replace(task, code="later", coding=structs.replace(task.coding, numbers={"codec": "other"}))
    assert cache.find(later) is None
    assert cache.find(later, trusted=True) is not None
    slower = tasks(folder, structs.replace(TINY, learning_rate=0.04))[0]
    assert cache.find(slower, trusted=True) is None


def test_a_damaged_file_is_no_run(folder: Path) -> None:
    cache = Cache(folder / "cache")
    task = tasks(folder, TINY)[0]
    (cache.folder / task.file_name).write_bytes(b'{"fleet": "tiny", "rou')
    assert cache.find(task) is None
    assert cache.find(task, trusted=True) is None


def test_the_hash_of_code_goes_by_what_runs_pass_through(tmp_path: Path) -> None:
    for part in runs.CODE:
        path = tmp_path / part if part.endswith(".py") else tmp_path / part / "deep" / "file.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    before = runs.code_hash(tmp_path)
    (tmp_path / "fleet" / "cli.py").write_text("no run passes through it")
    assert runs.code_hash(tmp_path) == before
    (tmp_path / "models" / "deep" / "file.py").write_text("x = 1")
    assert runs.code_hash(tmp_path) != before


def test_the_longest_runs_come_first_and_what_has_run_says_how_long_others_take(folder: Path) -> None:
    slow = structs.replace(TINY, name="slow", seconds=100.0)
    quick, longer = tasks(folder, structs.replace(TINY, seconds=1.0))[0], tasks(folder, slow)[1]
    guessed = progress.Progress(2, "off")
    assert guessed.longest_first([quick, longer]) == [longer, quick]
    assert guessed.left([quick, longer]) == pytest.approx(50.5)
    guessed.ended(workers.Done(quick, structs.replace(kept([0.5] * 3), fleet="tiny", coding="off", seconds=2.0)), 1, [])
    assert guessed.seconds(longer) == pytest.approx(200.0)
    known = progress.Progress(1, "off", [structs.replace(kept([0.5] * 3), fleet="tiny", coding="off", seconds=300.0)])
    assert known.longest_first([quick, longer]) == [quick, longer]


def test_who_leaves_early_leaves_no_process_behind(folder: Path) -> None:
    files, cache = {"beijing_air": folder / "beijing_air.npz"}, Cache(folder / "cache")
    several = workers.run_all(tasks(folder, ENDLESS, structs.replace(TINY, seeds=1)), files, cache, 2)
    assert next(several).task.fleet.name == "tiny"
    assert any("spawn_main" in " ".join(one.cmdline()) for one in psutil.Process().children())
    several.close()
    assert not any("spawn_main" in " ".join(one.cmdline()) for one in psutil.Process().children())


def test_a_process_that_is_killed_is_a_failure_that_says_so(folder: Path) -> None:
    def kill() -> None:
        while not (workers := [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]):
            time.sleep(0.01)
        workers[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    files, cache = {"beijing_air": folder / "beijing_air.npz"}, Cache(folder / "cache")
    (done,) = workers.run_all(tasks(folder, ENDLESS), files, cache, 1)
    killer.join()
    assert done.kept == "its process ended with -9"


def test_a_job_that_cannot_go_on_is_a_failure_that_says_why(folder: Path) -> None:
    files, cache = {"beijing_air": folder / "beijing_air.npz"}, Cache(folder / "cache")
    diverging = structs.replace(TINY, learning_rate=1e6, epochs=9, net=structs.replace(TINY.net, loss="mse", outputs=1))
    (done,) = workers.run_all(tasks(folder, diverging)[:1], files, cache, 1)
    assert isinstance(done.kept, str)
    assert "training diverged" in done.kept
    assert not list(cache.folder.iterdir())


SCRIPT = """
import sys
from benchmarks.fleets import __main__ as command, catalogue
from msgspec import convert
catalogue.FLEETS.clear()
for text in sys.argv[1].split("\\n"):
    one = __import__("msgspec").json.decode(text, type=catalogue.Fleet)
    catalogue.FLEETS[one.name] = one
sys.exit(command.main(sys.argv[2:]))
"""


def workshops(pid: int) -> set[Path]:
    """The folders of the simulations that run below a process."""
    found = set()
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {Path(file.path).parent.parent for file in child.open_files()}
    return {path for path in found if path.name.startswith("fedge-simulate-")}


def test_a_stopped_benchmark_leaves_nothing_behind_but_what_has_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import msgspec

    fleets = "\n".join(msgspec.json.encode(one).decode() for one in (ENDLESS, structs.replace(TINY, seeds=1)))
    arguments = ["--data", str(folder), "--cache", str(folder / "cache"), "--codings", "off", "--jobs", "2"]
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, fleets, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            assert process.stderr is not None
            assert "0 runs are kept, 2 are to be done" in process.stderr.readline()
            assert "[1/2] tiny off seed 0" in process.stderr.readline()
            while not (left := workshops(process.pid)):
                time.sleep(0.01)
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == command.INTERRUPTED
            assert process.stderr.read().startswith("stopped by SIGINT: what has finished is kept in")
        finally:
            process.kill()
    _, alive = psutil.wait_procs(children, timeout=120)  # multiprocessing's own helper goes a little after its parent
    assert not alive
    assert not [path for path in left if path.exists()]
    assert [path.name.split(".")[0] for path in (folder / "cache").iterdir()] == ["tiny"]

    # The same command goes on: what has finished is not run again, what was stopped is.
    before = [path.stat().st_mtime_ns for path in (folder / "cache").iterdir()]
    monkeypatch.setattr(command, "FLEETS", {"tiny": structs.replace(TINY, seeds=1)})
    assert command.main(arguments) == 0
    assert "1 runs are kept, 0 are to be done" in capsys.readouterr().err
    assert [path.stat().st_mtime_ns for path in (folder / "cache").iterdir()] == before
    assert Cache(folder / "cache").find(tasks(folder, ENDLESS)[0]) is None


def test_the_command_compares_and_writes_what_it_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "FLEETS", {"tiny": TINY, "absent": structs.replace(TINY, name="absent", data="mnist")})
    (folder / "mine.toml").write_text('[compression]\ncodec = "float32"\n')
    arguments = ["--data", str(folder), "--cache", str(folder / "cache"), "--seeds", "1", "--jobs", "1"]
    chosen = ["--coding", f"mine={folder / 'mine.toml'}", "--json", str(folder / "found.json")]
    assert command.main([*arguments, *chosen, "--markdown", str(folder / "found.md")]) == 0
    printed = capsys.readouterr().out
    assert (folder / "found.md").read_text(encoding="utf-8") == printed
    assert "Left out: absent: no mnist_train.npz and no mnist_test.npz." in printed
    (row,) = json.loads((folder / "found.json").read_text())["rows"]
    assert (row["fleet"], row["coding"], row["ratio"], row["end"]) == ("tiny", "mine", 1.0, 0.0)
    assert row["fewer_up"] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("nohup", [False, True])
def test_a_hangup_stops_a_benchmark_but_under_nohup(nohup: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    try:
        with contextlib.nullcontext() if nohup else pytest.raises(KeyboardInterrupt), command._stoppable():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if nohup else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_table_of_what_is_kept_runs_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = structs.replace(TINY, name="other")
    monkeypatch.setattr(command, "FLEETS", {"tiny": TINY, "other": other})
    files, cache = {"beijing_air": folder / "beijing_air.npz"}, Cache(folder / "cache")
    for task in tasks(folder, TINY, codings=["strong"]):
        if task.seed == 0:
            workers.run(task, files, cache)
    arguments = ["--data", str(folder), "--cache", str(cache.folder), "--code-key", "code", "--kept"]
    assert command.main(arguments) == 0
    told = capsys.readouterr()
    assert "2 runs are kept, 0 are to be done" in told.err
    assert [line.split(" | ")[-1] for line in told.out.splitlines() if line.startswith("| tiny | strong")] == ["1 |"]
    assert "Left out: other: no coded run is kept." in told.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--fleets", "mnist-idd"], 'there is no fleet mnist-idd; did you mean "mnist-iid"?'),
        (["--fleets", "air"], "the fleet air cannot be run: no beijing_air.npz"),
        (["--data", "nowhere"], "--data nowhere: there is no such folder"),
        (["--mnist-train", "nowhere.npz"], "--mnist-train nowhere.npz: there is no such file"),
        (["--codings", "strange"], "there is no coding strange"),
        (["--coding", "strong=x.toml"], "--coding strong=x.toml: write NAME=FILE.toml"),
        (["--coding", "mine=nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--trust", "light", "--codings", "strong"], "--trust light: that coding is not run here"),
        (["--markdown", "nowhere/x.md"], "nowhere/x.md: there is no such folder"),
    ],
)
def test_bad_input_is_one_line_and_a_code_of_two(
    arguments: list[str],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main([*arguments, "--cache", str(tmp_path / "cache")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fleets: {why}")
    assert said.count("\n") == 1


def test_a_file_that_does_not_fit_its_fleet_is_one_line_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(folder), "--fleets", "air", "--cache", str(folder / "cache")]
    assert command.main(arguments) == 2
    assert "4 features an example where the model has inputs = 26" in capsys.readouterr().err
