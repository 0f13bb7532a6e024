from __future__ import annotations

import math
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator import evaluation
from aggregator.config import AggregatorConfig
from aggregator.convergence import best_of
from aggregator.store import UpdateRow
from broker.messages import Metrics
from models.contract import ContractSpec
from models.data.dataset import Dataset, DatasetError
from models.data.source import DataSource
from models.job import JobSpec, ModelSpec, RoundsSpec, StopSpec
from models.lattice import Model, initial
from models.measures import exact
from models.nets import table as nets
from models.nets.net import ModelError

MODEL = ModelSpec(inputs=2, outputs=2)
NET = nets.build(MODEL)
SPEC = JobSpec("toy", MODEL)
TEST = Dataset(np.eye(2, dtype=np.float32), np.arange(2))


def knows() -> Model:
    """A model that gets every row of TEST right."""
    first = initial(NET.spec, 0)
    return Model((np.eye(2, dtype=np.int32) * 2**27, first.ints[1]), first.exponents)


def row(device: str, n: int, loss: float | None) -> UpdateRow:
    return UpdateRow(device, n, n, 1.0, loss, None, None, 0, b"")


def test_a_version_is_scored_on_the_test_split() -> None:
    metrics = evaluation.evaluate(NET, knows(), TEST)
    assert metrics["accuracy"] == 1.0
    assert metrics["loss"] < 0.01


def test_without_a_test_split_there_is_no_score() -> None:
    assert evaluation.evaluate(NET, knows(), None) == {}


def test_a_loss_that_is_not_finite_is_no_metric() -> None:
    wild = Dataset(np.array([[np.inf, 1.0], [0.0, 1.0]], np.float32), np.arange(2))
    with np.errstate(all="ignore"):
        found = evaluation.evaluate(NET, knows(), wild)
    assert "loss" not in found
    assert all(math.isfinite(value) for value in found.values())


def test_the_loss_of_devices_is_their_upper_median_whatever_they_claim_to_have_trained_on() -> None:
    rows = [row("a", 2**20, 0.0), row("b", 30, 3.0), row("c", 10, 2.0)]
    assert evaluation.reported_loss(rows) == {"loss": 2.0}
    assert evaluation.reported_loss([*rows, row("d", 10, 4.0)]) == {"loss": 3.0}, "of an even number the larger one"


def test_one_device_by_itself_says_nothing_and_of_two_the_worse() -> None:
    assert evaluation.reported_loss([row("a", 2**20, 0.0)]) == {}
    assert evaluation.reported_loss([row("a", 2**20, 0.0), row("b", 10, 2.0)]) == {"loss": 2.0}


def test_a_device_whose_late_update_counts_as_well_has_one_voice() -> None:
    assert evaluation.reported_loss([row("a", 10, 0.0), row("a", 10, 0.0), row("b", 10, 2.0)]) == {"loss": 2.0}
    assert evaluation.reported_loss([row("a", 10, 0.0), row("a", 10, 0.0)]) == {}


def test_devices_that_report_nothing_or_nonsense_hinder_the_others_only_where_they_are_half() -> None:
    told = [row("a", 10, 1.0), row("b", 10, 1.5)]
    assert evaluation.reported_loss([*told, row("c", 10, None)]) == {"loss": 1.5}
    assert evaluation.reported_loss([*told, row("c", 10, 1.7e308)]) == {"loss": 1.5}
    assert evaluation.reported_loss([*told, row("c", 10, None), row("d", 10, math.nan)]) == {}


@pytest.mark.parametrize("losses", [[], [None, None], [1.7e308, 1.7e308], [math.nan, math.inf]])
def test_losses_that_make_no_number_make_no_metric(losses: list[float | None]) -> None:
    assert evaluation.reported_loss([row(f"d{k}", 2**20, loss) for k, loss in enumerate(losses)]) == {}


def test_a_version_is_measured_by_the_split_where_there_is_one_and_by_its_devices_where_not() -> None:
    rows = [row("a", 10, 1.0), row("b", 30, 3.0), row("c", 10, 2.5)]
    told = evaluation.measured(None, rows)
    assert told == {"participants": 3.0, "examples": 50.0, "device_loss": 2.5, "loss": 2.5}
    held = evaluation.measured(evaluation.evaluate(NET, knows(), TEST), rows)
    assert (held["participants"], held["examples"], held["device_loss"], held["accuracy"]) == (3.0, 50.0, 2.5, 1.0)
    assert held["loss"] < 0.01


def test_everybody_sees_the_score_in_four_digits_and_nothing_else() -> None:
    metrics = {"accuracy": 1 / 3, "loss": math.pi * 100, "participants": 7.0, "examples": 123456.0, "device_loss": 1.0}
    assert evaluation.announced(metrics) == {"accuracy": 0.3333, "loss": 314.2, "participants": 7.0}


def test_the_split_is_the_one_of_the_jobs_data_source(tmp_path: Path) -> None:
    file = tmp_path / "test.npz"
    np.savez(file, X=TEST.X, y=TEST.y)
    config = AggregatorConfig(fleet="f", tests={"eyes": DataSource(str(file))})
    assert evaluation.prepare(SPEC, config)[1] is None
    net, test = evaluation.prepare(JobSpec("toy", MODEL, data="eyes"), config)
    assert net.spec == NET.spec
    assert test is not None
    assert np.array_equal(test.X, TEST.X)


def test_the_split_goes_by_the_jobs_contract_and_all_of_it_is_scored(tmp_path: Path) -> None:
    lines = [f"{at % 3},x,{('no', 'yes')[at % 2]},{at}" for at in range(40)]
    (tmp_path / "test.csv").write_text("\n".join(["v,note,label,t", *lines, ""]))
    config = AggregatorConfig("f", tests={"eyes": DataSource(str(tmp_path / "test.csv"))})
    contract = ContractSpec(features=("t", "v"), label="label", classes=("yes", "no"), validation=0.5)
    spec = JobSpec("toy", ModelSpec(inputs=2, outputs=2), data="eyes", contract=contract)
    _, test = evaluation.prepare(spec, config)
    assert test is not None
    assert test.held_out is None
    assert test.X.tolist() == [[at, at % 3] for at in range(40)]
    assert test.y.tolist() == [1 - at % 2 for at in range(40)]


def test_a_net_or_a_split_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    config = AggregatorConfig(fleet="f", tests={"toy": DataSource(str(tmp_path / "none.npz"))})
    with pytest.raises(DatasetError, match=r"none\.npz"):
        evaluation.prepare(SPEC, config)
    with pytest.raises(ModelError):
        evaluation.prepare(JobSpec("toy", ModelSpec(kind="somewhere:net")), config)


@given(
    honest=st.lists(st.floats(0.5, 3.0), min_size=2, max_size=9),
    lies=st.lists(st.one_of(st.none(), st.floats()), max_size=8),
    random=st.randoms(use_true_random=False),
)
def test_fewer_than_half_of_the_devices_cannot_move_the_loss_beyond_what_honest_ones_report(
    honest: list[float], lies: list[float | None], random: Random
) -> None:
    lies = lies[: (len(honest) - 1)]
    rows = [row(f"d{k}", 1 + 2**19 * (k >= len(honest)), loss) for k, loss in enumerate([*honest, *lies])]
    random.shuffle(rows)
    assert min(honest) <= evaluation.reported_loss(rows)["loss"] <= max(honest)


def test_a_version_has_every_measure_of_its_kind_and_its_confusion_matrix() -> None:
    found = evaluation.evaluate(NET, knows(), TEST, ("ok", "fault"))
    assert {"auc", "macro_f1", "recall:fault", "brier", "log_loss", "balanced_accuracy"} <= found.keys()
    assert evaluation.scores_of(3, found, SPEC)["confusion"] == [[1, 0, 0], [0, 1, 0]]


def test_loss_and_accuracy_are_the_nets_own_words_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    test = Dataset(rng.normal(size=(3000, 2)).astype(np.float32), rng.integers(0, 2, 3000))
    model = initial(NET.spec, 1)
    found, own = evaluation.evaluate(NET, model, test), NET.evaluate(model.params(NET.spec), test.X, test.y)
    assert (found["loss"], found["accuracy"]) == (own.loss, own.accuracy)


def test_a_test_split_that_is_too_large_to_go_through_at_once_has_the_same_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    test = Dataset(rng.normal(size=(3000, 2)).astype(np.float32), rng.integers(0, 2, 3000))
    model = initial(NET.spec, 1)
    whole = evaluation.evaluate(NET, model, test)
    monkeypatch.setattr(exact, "MOST_ROWS_AT_ONCE", 700)
    assert evaluation.evaluate(NET, model, test) == pytest.approx(whole, abs=1e-6)


def test_everybody_is_told_what_the_rule_to_stop_goes_by() -> None:
    metrics = {"accuracy": 0.5, "recall:fault": 1 / 3, "auc": 0.7, f"recall:{'x' * 99}": 0.25}
    assert evaluation.announced(metrics, StopSpec("recall:fault", target=0.5)) == {
        "accuracy": 0.5,
        "recall:fault": 0.3333,
    }
    assert evaluation.announced(metrics, StopSpec("auc")) == {"accuracy": 0.5}, "nothing is to end it"
    told = evaluation.announced(metrics, StopSpec(f"recall:{'x' * 99}", patience=3))
    assert told == {"accuracy": 0.5, "recall:" + "x" * 32 + "…": 0.25}
    assert msgspec.convert(told, Metrics) == told


def test_what_is_kept_in_memory_of_former_versions_is_not_of_single_classes() -> None:
    metrics = {"accuracy": 0.5, "f1:0": 0.1, "recall:fault": 0.2, "confusion:0:1": 3.0, "participants": 4.0}
    assert evaluation.lean(metrics, StopSpec("recall:fault", target=0.9)) == {
        "accuracy": 0.5,
        "recall:fault": 0.2,
        "participants": 4.0,
    }


def test_what_is_kept_of_former_versions_says_by_whom_they_are_scored() -> None:
    """A score on a test split is as good as any other, on however few rows devices have scored the version besides."""
    rounds = RoundsSpec(stop=StopSpec("recall:fault", target=0.95))
    rows = (10.0, 100.0)
    history = [
        {},
        *({"recall:fault": 1 - n / 1000, "federated_recall:fault": 0.5, "federated_rows": n} for n in rows),
    ]
    assert best_of(history, rounds) == 1
    assert best_of([evaluation.lean(metrics, rounds.stop) for metrics in history], rounds) == 1
