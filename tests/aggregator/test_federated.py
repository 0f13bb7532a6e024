"""How good a version is by its devices: means, spread and worst, whatever one of them claims."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest

from aggregator import federated
from aggregator.federated import FACTOR, TallyError, Voice
from models.contract import ContractSpec
from models.job import JobSpec, ModelSpec, RoundsSpec, StopSpec
from models.measures import tally

MODEL = ModelSpec(inputs=4, outputs=3)
SPEC = JobSpec("j", MODEL, contract=ContractSpec(validation=0.2, classes=("ok", "worn", "broken")))


def said(y: list[int], answers: list[int], model: ModelSpec = MODEL) -> bytes:
    """The section of a device whose model answers so."""
    sure = np.eye(model.outputs, dtype=np.float32)[answers]
    return tally.to_bytes(tally.tally(model, sure, np.array(y), curves=False))


def voice(device: str, weight: int, **scores: float) -> Voice:
    return Voice(device, weight, scores, {})


def mean(voices: list[Voice], measure: str, share: float = 1.0) -> float:
    found = federated.together(voices, share)
    assert found is not None
    return found.metrics[measure]


def test_a_device_weighs_its_rows() -> None:
    assert mean([voice("a", 10, accuracy=0.5), voice("b", 30, accuracy=0.9)], "accuracy") == pytest.approx(0.8)


def test_nobody_says_anything() -> None:
    assert federated.together([], 0.5) is None


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("claim", [1, 100, 2**40])
@pytest.mark.parametrize("says", [0.0, 1.0])
def test_a_claim_moves_a_bounded_measure_by_no_more_than_its_share(share: float, claim: int, says: float) -> None:
    honest = [voice(f"d{n}", 20, accuracy=0.6) for n in range(9)]
    moved = mean([*honest, voice("liar", claim, accuracy=says)], "accuracy", share) - 0.6
    assert 0 < abs(moved) <= share * abs(says - 0.6) + 1e-12


def test_the_rows_that_count_are_no_more_than_those_it_says_it_trains_on() -> None:
    content = said([0] * 50, [0] * 50)
    assert federated.heard(SPEC, "d", 20, content).weight == 20
    assert federated.heard(SPEC, "d", 2**20, content).weight == 50


@pytest.mark.parametrize("measure", ["rmse", "mae", "log_loss"])
def test_one_absurd_claim_counts_as_so_many_times_the_median(measure: str) -> None:
    honest = [voice(f"d{n}", 20, **{measure: 1.0 + n / 10}) for n in range(4)]
    found = mean([*honest, voice("liar", 20, **{measure: 1e30})], measure, 0.2)
    assert found == pytest.approx((1.0 + 1.1 + 1.2 + 1.3 + FACTOR * 1.2) / 5)


def test_so_does_r2_which_has_no_lower_bound() -> None:
    honest = [voice(f"d{n}", 20, r2=0.9) for n in range(4)]
    assert mean([*honest, voice("liar", 20, r2=-1e30)], "r2", 0.2) == pytest.approx((4 * 0.9 + 1 - FACTOR * 0.1) / 5)


@pytest.mark.parametrize(
    ("measure", "honest", "perfect"), [("rmse", 1.0, 0.0), ("log_loss", 1.0, 0.0), ("r2", 0.2, 1.0)]
)
@pytest.mark.parametrize("n_honest", [1, 2, 4])
def test_a_claim_of_perfection_makes_the_errors_of_others_no_smaller(
    measure: str, honest: float, perfect: float, n_honest: int
) -> None:
    voices = [voice(f"d{n}", 20, **{measure: honest}) for n in range(n_honest)]
    found = mean([*voices, voice("liar", 20, **{measure: perfect})], measure, 0.5)
    assert found == pytest.approx((n_honest * honest + perfect) / (n_honest + 1))


def test_where_two_are_there_both_count_as_they_are() -> None:
    assert mean([voice("a", 1, rmse=1.0), voice("b", 1, rmse=99.0)], "rmse") == pytest.approx(50.0)


def test_a_measure_is_the_mean_of_those_who_have_it() -> None:
    voices = [voice("a", 10, accuracy=0.5, auc=0.9), voice("b", 30, accuracy=0.7)]
    assert mean(voices, "auc") == 0.9
    assert mean(voices, "accuracy") == pytest.approx(0.65)


def test_spread_quartiles_and_worst_are_of_devices_one_voice_each() -> None:
    values = [0.5, 0.7, 0.8, 0.9, 0.95]
    found = federated.together([voice(f"d{n}", 10**n, accuracy=value) for n, value in enumerate(values)], 1.0)
    assert found is not None
    assert found.told["spread"]["accuracy"] == pytest.approx(statistics.pstdev(values))
    assert found.told["quartiles"]["accuracy"] == pytest.approx([0.7, 0.8, 0.9])
    assert found.told["worst"]["accuracy"] == ["d0", 0.5]
    assert (found.told["devices"], found.told["rows"]) == (5, 11111)


def test_the_worst_of_a_loss_is_the_highest_and_the_first_by_name_of_several() -> None:
    found = federated.together(
        [voice(name, 1, rmse=value) for name, value in (("b", 2.0), ("a", 2.0), ("c", 1.0))], 1.0
    )
    assert found is not None
    assert found.told["worst"]["rmse"] == ["a", 2.0]


def test_labels_are_told_with_their_rows_those_first_that_are_found_least() -> None:
    a = federated.heard(SPEC, "a", 99, said([0, 0, 0, 1], [0, 0, 0, 2]))
    b = federated.heard(SPEC, "b", 99, said([0, 0, 1, 1], [0, 1, 1, 1]))
    found = federated.together([a, b], 1.0)
    assert found is not None
    labels = found.told["labels"]
    assert list(labels) == ["worn", "ok"]  # "broken" has no rows
    assert labels["worn"] == {"rows": 3, "recall": pytest.approx(2 / 3), "worst": ["a", 0.0]}
    assert labels["ok"] == {"rows": 5, "recall": pytest.approx((3 * 1.0 + 2 * 0.5) / 5), "worst": ["b", 0.5]}
    assert found.metrics["recall:worn"] == labels["worn"]["recall"]


def test_a_job_stopped_by_one_of_very_many_classes_has_that_measure() -> None:
    model = ModelSpec(inputs=4, outputs=50)
    spec = JobSpec("j", model, contract=ContractSpec(validation=0.2))
    found = federated.together([federated.heard(spec, "a", 99, said([7, 7, 3], [7, 3, 3], model))], 1.0)
    assert found is not None
    assert found.told["labels"]["7"]["recall"] == 0.5
    assert len(found.told["labels"]) == 2


def test_very_many_labels_are_told_of_up_to_a_bound() -> None:
    model = ModelSpec(inputs=4, outputs=50)
    spec = JobSpec("j", model, contract=ContractSpec(validation=0.2))
    y = list(range(50))
    found = federated.together([federated.heard(spec, "a", 99, said(y, [min(each, 40) for each in y], model))], 1.0)
    assert found is not None
    assert len(found.told["labels"]) == federated.MOST_LABELS
    assert [label["recall"] for label in found.told["labels"].values()][:10] == [0.0] * 9 + [1.0]
    assert not any(":" in name for name in found.metrics)


def test_a_model_that_always_answers_one_class_is_named_by_all_rows_together() -> None:
    worn = [federated.heard(SPEC, f"d{n}", 99, said([0] * 39 + [1], [0] * 40)) for n in range(3)]
    found = federated.together(worn, 1.0)
    assert found is not None
    assert found.metrics["always"] == 0
    assert found.metrics["accuracy"] == pytest.approx(0.975)
    better = federated.together([*worn, federated.heard(SPEC, "d9", 99, said([1] * 20, [1] * 20))], 1.0)
    assert better is not None
    assert "always" not in better.metrics


def test_values_have_no_labels() -> None:
    model = ModelSpec(inputs=4, outputs=1, loss="mse")
    spec = JobSpec(
        "j", model, contract=ContractSpec(validation=0.2), rounds=RoundsSpec(stop=StopSpec(metric="loss", target=1.0))
    )
    content = tally.to_bytes(
        tally.tally(model, np.array([[1.0], [2.0]], np.float32), np.array([[1.0], [4.0]], np.float32))
    )
    found = federated.together([federated.heard(spec, "a", 99, content)], 1.0)
    assert found is not None
    assert found.metrics["rmse"] == pytest.approx(2**0.5)
    assert "labels" not in found.told


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x02\x00", bytes(40), said([0], [0]) + b"\x00"])
def test_what_is_no_tally_of_the_model_is_one_error(content: bytes) -> None:
    with pytest.raises(TallyError):
        federated.heard(SPEC, "d", 9, content)


def test_very_many_classes_are_looked_at_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may have 100,000 of them: the square of that would hold the aggregator up for hours."""

    class Rows(dict[str, int]):
        def values(self) -> Any:
            raise AssertionError("all classes are gone through for one of them")

    model = ModelSpec(inputs=4, outputs=300)
    wanted: list[object] = []
    real = federated.scores
    monkeypatch.setattr(federated, "scores", lambda *args, also: wanted.append(also) or real(*args, also=also))
    one = federated.heard(
        JobSpec("j", model, contract=ContractSpec(validation=0.2)), "d", 9, said([5] * 9, [5] * 9, model)
    )
    assert isinstance(wanted[0], set)
    found = federated.together([one._replace(rows=Rows(one.rows)), one._replace(device="e")], 0.5)
    assert found is not None
    assert found.told["labels"]["5"]["recall"] == 1.0


def test_several_labels_a_row_are_told_each_and_one_output_for_two_classes_as_two() -> None:
    several = JobSpec("j", ModelSpec(outputs=2, loss="multilabel"), contract=ContractSpec(label=("smoke", "heat")))
    y, p = np.array([[1, 0], [1, 1]], np.float32), np.array([[0.9, 0.2], [0.8, 0.4]], np.float32)
    heard = federated.heard(several, "d", 2, tally.to_bytes(tally.tally(several.model, p, y, curves=False)))
    assert (heard.rows, heard.outcomes) == ({"smoke": 2, "heat": 1}, None)
    found = federated.together([heard], 1.0)
    assert found is not None
    assert (found.metrics["accuracy"], found.metrics["recall:heat"]) == (0.75, 0.0)
    assert found.told["labels"]["heat"]["rows"] == 1

    two = JobSpec("j", ModelSpec(outputs=1, loss="binary"), contract=ContractSpec(classes=("ok", "bad")))
    content = tally.to_bytes(tally.tally(two.model, np.array([[0.9], [0.6]], np.float32), np.array([1, 0])))
    heard = federated.heard(two, "d", 2, content)
    assert heard.rows == {"ok": 1, "bad": 1}
    assert heard.scores["recall:bad"] == 1.0
