from __future__ import annotations

from aggregator.convergence import reason_to_end
from models.job import RoundsSpec, StopSpec


def ends(history: list[dict[str, float]], max_rounds: int = 100, **stop: object) -> str | None:
    return reason_to_end(history, RoundsSpec(max_rounds=max_rounds, stop=StopSpec(**stop)))  # type: ignore[arg-type]


def accuracies(*values: float) -> list[dict[str, float]]:
    return [{"accuracy": value} for value in values]


def test_a_job_goes_on_until_something_says_otherwise() -> None:
    assert ends(accuracies(0.1, 0.5)) is None


def test_max_rounds_are_counted_from_version_1() -> None:
    assert ends([{}] * 3, max_rounds=3) is None
    assert ends([{}] * 4, max_rounds=3) == "max_rounds = 3 are done"


def test_a_target_is_reached_from_below() -> None:
    assert ends(accuracies(0.1, 0.89), target=0.9) is None
    assert ends(accuracies(0.1, 0.9), target=0.9) == "accuracy 0.9000 has reached the target 0.9"


def test_a_target_on_the_loss_is_reached_from_above() -> None:
    assert ends([{"loss": 2.3}, {"loss": 0.6}], metric="loss", target=0.5) is None
    assert ends([{"loss": 2.3}, {"loss": 0.4}], metric="loss", target=0.5) == "loss 0.4000 has reached the target 0.5"


def test_a_target_that_is_reached_by_less_than_min_delta_is_reached() -> None:
    assert ends(accuracies(0.895, 0.9), target=0.9, min_delta=0.05)


def test_a_target_that_was_passed_and_left_is_reached() -> None:
    assert ends(accuracies(0.95, 0.1), target=0.9)


def test_patience_counts_the_rounds_since_the_best() -> None:
    assert ends(accuracies(0.1, 0.5, 0.4), patience=2) is None
    assert ends(accuracies(0.1, 0.5, 0.4, 0.5), patience=2) == "no better accuracy than 0.5000 for 2 rounds"


def test_steps_below_min_delta_are_no_improvement() -> None:
    assert ends(accuracies(0.5, 0.504, 0.508), patience=2, min_delta=0.01)
    assert ends(accuracies(0.5, 0.504, 0.512), patience=2, min_delta=0.01) is None


def test_patience_does_not_run_before_there_is_a_metric() -> None:
    assert ends([{}] * 9, patience=2) is None


def test_a_version_that_has_lost_its_metric_is_no_improvement() -> None:
    assert ends([{"loss": 1.0}, {}, {}], metric="loss", patience=2)


def test_versions_that_were_not_evaluated_in_time_do_not_use_up_the_patience() -> None:
    history = [*accuracies(0.5, 0.4), {"unscored": 1.0}, {"unscored": 1.0}, *accuracies(0.4)]
    assert ends(history, patience=3) is None
    assert ends([*history, *accuracies(0.4)], patience=3) == "no better accuracy than 0.5000 for 3 rounds"
    assert ends([*accuracies(0.5), {}, {}, {}], patience=3) == "no better accuracy than 0.5000 for 3 rounds"
