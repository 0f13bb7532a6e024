"""What operators are told of how good a version is: its measures, the best one, and what has learnt nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import structs

from aggregator import commands, notes
from aggregator.commands import Commands
from broker.messages import Show
from fleet.console.operator import JobDetails
from models.contract import ContractSpec
from models.data.dataset import DatasetError
from models.data.source import DataSource
from models.job import JobSpec, ModelSpec, RoundsSpec, StopSpec

Fleet = Any
SpecMaker = Callable[..., JobSpec]
CLASSES = ContractSpec(classes=tuple("ab"))


@pytest.fixture
def tested(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet whose aggregator has a test split, of which 97 % are of the first class."""
    rng = np.random.default_rng(0)
    y = np.where(np.arange(200) % 100 < 97, 0, 1)
    np.savez(tmp_path / "test.npz", X=0.01 * rng.normal(size=(200, 4)).astype(np.float32), y=y)
    fleet.kill_aggregator()
    fleet.tests = {"toy": DataSource(str(tmp_path / "test.npz"))}
    fleet.start_aggregator()
    fleet.lead()
    return fleet


def show(fleet: Fleet) -> dict[str, Any]:
    reply = Commands(fleet.aggregator).obey(Show("cli", "s", "toy"))
    assert reply is not None
    assert len(msgspec.json.encode(reply)) < 65_536
    return reply.data


def test_an_operator_is_shown_all_measures_of_the_current_version_and_of_the_best(
    tested: Fleet, spec: SpecMaker
) -> None:
    stop = StopSpec("recall:b", patience=1000)
    tested.submit(spec(contract=CLASSES, rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=3, stop=stop)))
    run = tested.finish()
    details = msgspec.convert(show(tested), JobDetails)
    scores = details.scores
    assert scores is not None
    assert scores.classes == list("ab")
    assert scores.current.number == 3
    assert scores.current.measures == {n: v for n, v in run.metrics.items() if not n.startswith("confusion")}
    assert sum(map(sum, scores.current.confusion)) == 200
    assert [sum(row) for row in scores.current.confusion] == [194, 6]
    history = tested.store.history(run.job)
    recalls = [metrics["recall:b"] for metrics in history[1:]]  # version 0 is drawn, not trained
    assert scores.best.number == 1 + recalls.index(max(recalls))
    assert scores.best.measures["recall:b"] == max(recalls)
    assert details.job.metrics.keys() == {"accuracy", "loss", "participants", "recall:b"}


def test_what_an_operator_is_shown_of_many_classes_with_long_names_fits_a_page(tested: Fleet, spec: SpecMaker) -> None:
    long = ContractSpec(classes=tuple(f"{index:0200d}" for index in range(16)))
    model = ModelSpec(inputs=4, outputs=16)
    tested.submit(structs.replace(spec(), contract=long, model=model))
    tested.finish()
    scores = show(tested)["scores"]
    assert len(msgspec.json.encode(scores)) <= commands.PAGE_BYTES // 2
    assert "macro_f1" in scores["current"]["measures"]


def test_a_version_that_always_answers_one_class_is_named_in_notes_also_after_a_restart(
    tested: Fleet, spec: SpecMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    y = np.zeros(200, np.int64)
    np.savez(tested.folder / "always.npz", X=np.zeros((200, 4), np.float32), y=y)
    tested.kill_aggregator()
    tested.tests = {"toy": DataSource(str(tested.folder / "always.npz"))}
    tested.start_aggregator()
    tested.lead()
    job = tested.submit(spec(contract=CLASSES))
    run = tested.job()
    assert run.no_better == "", "of version 0 nobody expects anything"
    run = tested.finish()
    always = run.metrics["always"]
    words = f"version {run.version} is as good as always answering '{'ab'[int(always)]}'"
    assert words in notes.of(run)
    assert any(line.endswith(words.removeprefix("version 1.3 ")) for line in caplog.messages)
    assert run.reason.endswith(f", but the model {words.removeprefix('version 1.3 ')}")
    tested.kill_aggregator()
    tested.start_aggregator()
    tested.lead()
    assert words in notes.of(tested.aggregator.runs[job])


def test_a_version_that_finds_no_row_of_a_class_says_so(tested: Fleet, spec: SpecMaker) -> None:
    y = np.arange(200) % 2
    X = np.zeros((200, 4), np.float32)  # what is a 1 here looks like a 0
    y[:40], X[:40] = 0, 4.0
    np.savez(tested.folder / "odd.npz", X=X, y=y)
    tested.kill_aggregator()
    tested.tests = {"toy": DataSource(str(tested.folder / "odd.npz"))}
    tested.start_aggregator()
    tested.lead()
    tested.submit(spec(contract=CLASSES, rounds=RoundsSpec(quorum=3, min_devices=3, max_rounds=12)))
    run = tested.finish()
    assert run.metrics["recall:b"] == 0.0
    assert f"version {run.version} finds no row of 'b'" in notes.of(run)


@pytest.mark.parametrize("metric", ["recall:b", "auc", "f1:b"])
def test_a_job_is_refused_whose_measure_is_not_defined_on_the_rows_of_the_test_split(
    tested: Fleet, spec: SpecMaker, metric: str
) -> None:
    np.savez(tested.folder / "one.npz", X=np.zeros((9, 4), np.float32), y=np.zeros(9))
    tested.kill_aggregator()
    tested.tests = {"toy": DataSource(str(tested.folder / "one.npz"))}
    tested.start_aggregator()
    tested.lead()
    one = spec(contract=CLASSES)
    with pytest.raises(DatasetError, match=f"{metric}, which .* is not defined on its 9 rows: none is of that class"):
        tested.submit(structs.replace(one, rounds=structs.replace(one.rounds, stop=StopSpec(metric, target=0.9))))
    assert tested.store.jobs() == []


def test_of_former_versions_no_measures_of_single_classes_are_kept_in_memory(tested: Fleet, spec: SpecMaker) -> None:
    job = tested.submit(spec(contract=CLASSES))
    run = tested.finish()
    stored = tested.store.history(job)
    assert all(any(name.startswith("confusion:") for name in metrics) for metrics in stored)
    assert run.metrics == stored[-1]
    assert [any(":" in name for name in metrics) for metrics in run._history] == [False, False, False, True]
    assert not any(":" in name for metrics in run.coordinator.history for name in metrics)
    tested.kill_aggregator()
    tested.start_aggregator()
    tested.lead()
    again = tested.aggregator.runs[job]
    assert again._history == run._history
    assert again.coordinator.history == run.coordinator.history


def test_everybody_is_told_what_the_rule_to_stop_goes_by(tested: Fleet, spec: SpecMaker) -> None:
    job = spec(contract=CLASSES)
    stop = StopSpec("macro_f1", patience=1000)
    tested.submit(structs.replace(job, rounds=structs.replace(job.rounds, stop=stop)))
    run = tested.finish()
    (status,) = [message for message in run.retained() if type(message).__name__ == "Status"]
    assert status.metrics.keys() == {"accuracy", "loss", "participants", "macro_f1"}
