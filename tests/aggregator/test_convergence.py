from __future__ import annotations

import pytest

from aggregator.convergence import AGREEING, RESTORED, STARTED, best_of, reason_to_end, to_serve
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


@pytest.mark.parametrize(
    ("metric", "values", "target", "reached"),
    [
        ("rmse", (3.0, 0.6), 0.5, None),
        ("rmse", (3.0, 0.4), 0.5, "rmse 0.4000 has reached the target 0.5"),
        ("brier", (0.3, 0.1), 0.2, "brier 0.1000 has reached the target 0.2"),
        ("r2", (-4.0, -0.5), -1.0, "r2 -0.5000 has reached the target -1, but the model is no better than always"),
        ("recall:fault", (0.1, 0.4), 0.5, None),
        ("recall:fault", (0.1, 0.6), 0.5, "recall:fault 0.6000 has reached the target 0.5"),
        ("auc", (0.5, 0.9), 0.8, "auc 0.9000 has reached the target 0.8"),
    ],
)
def test_a_target_on_any_measure_is_reached_from_its_own_side(
    metric: str, values: tuple[float, ...], target: float, reached: str | None
) -> None:
    found = ends([{metric: value} for value in values], metric=metric, target=target)
    assert (found or "").startswith(reached or "")
    assert (found is None) == (reached is None)


def test_patience_goes_by_the_direction_of_its_measure() -> None:
    falling = [{"rmse": value} for value in (1.0, 0.9, 0.8, 0.7)]
    assert ends(falling, metric="rmse", patience=2) is None
    assert ends(falling[::-1], metric="rmse", patience=2) == "no better rmse than 0.7000 for 2 rounds"


def test_a_target_that_a_constant_answer_reaches_is_named_as_that() -> None:
    rounds = RoundsSpec(stop=StopSpec(target=0.95))
    history = [{"accuracy": 0.5}, {"accuracy": 0.97, "always": 0.0}]
    reached = "accuracy 0.9700 has reached the target 0.95"
    assert reason_to_end(history, rounds, ("ok", "fault")) == (
        f"{reached}, but the model is as good as always answering 'ok'"
    )
    assert reason_to_end(history, rounds) == f"{reached}, but the model is as good as always answering '0'"


def test_the_other_ends_name_a_constant_answer_too() -> None:
    always = {"accuracy": 0.97, "always": 1.0}
    assert ends([always] * 4, patience=3) == (
        "no better accuracy than 0.9700 for 3 rounds, but the model is as good as always answering '1'"
    )
    assert ends([always] * 3, max_rounds=2) == (
        "max_rounds = 2 are done, but the model is as good as always answering '1'"
    )


def test_the_version_on_which_a_fleet_has_agreed_ends_no_job_for_nothing_is_trained_yet() -> None:
    agreed = {"recall:fault": 1.0, "always": 1.0, AGREEING: 3.0}
    rest = [{"recall:fault": value} for value in (0.5, 0.9, 0.8, 0.9)]
    rule = StopSpec(metric="recall:fault", target=0.95, patience=2)
    rounds = RoundsSpec(stop=rule)
    assert reason_to_end([{}, agreed], rounds) is None
    assert reason_to_end([{}, agreed, *rest[:3]], rounds) is None, "patience begins with what was trained"
    assert reason_to_end([{}, agreed, *rest], rounds) == "no better recall:fault than 0.9000 for 2 rounds"
    started = [{}, {STARTED: 1.0}, agreed]
    reached = "recall:fault 1.0000 has reached the target 0.95, but the model is as good as always answering '1'"
    assert reason_to_end(started, rounds) == reached, "of weights that were trained before"


# The best version, and what a job serves.


def best(history: list[dict[str, float]], **stop: object) -> int | None:
    return best_of(history, RoundsSpec(stop=StopSpec(**stop)))  # type: ignore[arg-type]


def served(history: list[dict[str, float]], max_rounds: int = 100, **stop: object) -> int | None:
    return to_serve(history, RoundsSpec(max_rounds=max_rounds, stop=StopSpec(**stop)))  # type: ignore[arg-type]


def test_the_best_version_is_the_first_of_equal_ones_and_was_trained() -> None:
    assert best(accuracies(0.9, 0.5, 0.8, 0.8)) == 2
    assert best([{"loss": 1.0}, {"loss": 3.0}, {"loss": 2.0}], metric="loss") == 2
    assert best([{}, {"loss": 2.0}, {"loss": 1.0}]) == 2, "by the loss where nobody measures accuracy"
    assert best([{"accuracy": 0.5}, {}, {}]) is None
    assert best([]) is None


def test_a_job_that_ends_by_its_patience_serves_its_best_version() -> None:
    assert served(accuracies(0.1, 0.5, 0.4, 0.5), patience=2) == 1
    assert served(accuracies(0.1, 0.5, 0.4, 0.505), patience=2, min_delta=0.1) is None, "the last is the best"


def test_a_job_that_ends_otherwise_serves_its_last_version() -> None:
    assert served(accuracies(0.1, 0.5, 0.4, 0.4), max_rounds=3, patience=2) is None
    assert served(accuracies(0.1, 0.95, 0.4, 0.4), target=0.9, patience=2) is None
    assert served(accuracies(0.1, 0.5, 0.4, 0.5)) is None
    assert served([{}, {}, {}], patience=2) is None


def test_a_version_that_is_the_best_again_is_not_restored_again() -> None:
    history = [*accuracies(0.1, 0.5, 0.4, 0.5), {"accuracy": 0.5, RESTORED: 1.0}]
    assert served(history, patience=2) is None


def test_patience_begins_anew_with_a_version_that_was_restored() -> None:
    history = [*accuracies(0.1, 0.5, 0.4), {"accuracy": 0.5, RESTORED: 1.0}, {"accuracy": 0.5}]
    assert ends(history, patience=2) is None
    assert ends([*history, {"accuracy": 0.5}], patience=2) == "no better accuracy than 0.5000 for 2 rounds"
    better = [*accuracies(0.1, 0.9, 0.2), {"accuracy": 0.2, RESTORED: 2.0}, *accuracies(0.3, 0.4)]
    assert ends(better, patience=2) is None, "by what has come since"


def test_versions_that_no_round_has_made_are_no_rounds() -> None:
    history: list[dict[str, float]] = [{}, {STARTED: 1.0}, {}, {RESTORED: 1.0}, {}]
    assert ends(history, max_rounds=3) is None
    assert ends([*history, {}], max_rounds=3) == "max_rounds = 3 are done"


def test_the_best_version_is_that_of_the_rule_to_stop() -> None:
    history = [
        {"accuracy": 0.5, "loss": 1.0, "recall:1": 0.1},
        {"accuracy": 0.9, "loss": 0.8, "recall:1": 0.0},
        {"accuracy": 0.9, "loss": 0.4, "recall:1": 0.7},
        {"accuracy": 0.8, "loss": 0.4, "recall:1": 0.7},
    ]
    assert best(history) == 1
    assert best(history, metric="loss") == 2
    assert best(history, metric="recall:1", patience=3) == 2


def test_the_version_on_which_a_fleet_has_agreed_is_not_the_best_unless_it_was_trained_before() -> None:
    agreed = {"accuracy": 0.9, AGREEING: 3.0}
    history: list[dict[str, float]] = [{}, agreed, *accuracies(0.5, 0.6)]
    assert best(history) == 3
    assert best([*history, agreed | {RESTORED: 1.0}]) is None
    assert best([*history, {"accuracy": 0.9, RESTORED: 0.0}, {"accuracy": 0.4}]) == 5
    assert best([{}, {STARTED: 1.0}, agreed, *accuracies(0.5, 0.6)]) == 2


def test_what_was_rolled_back_is_not_served_again_by_patience() -> None:
    history = [*accuracies(0.1, 0.5, 0.9, 0.8), {"accuracy": 0.5, RESTORED: 1.0}]
    assert best(history) == 1
    history += accuracies(0.6, 0.55)
    assert best(history) == 5
    assert served([*history, {"accuracy": 0.5}], patience=2) == 5
    assert best([*history, {"accuracy": 0.9, RESTORED: 2.0}]) == 7, "an operator may think again"
    assert best([*accuracies(0.1, 0.7, 0.3), {"accuracy": 0.3, RESTORED: 2.0}, *accuracies(0.4)]) == 1


def test_a_target_that_devices_said_was_reached_when_it_was_left_serves_the_version_that_reached_it() -> None:
    history = [{}, {"accuracy": 0.5}, {"accuracy": 0.93}, {"unscored": 1.0}]
    assert served(history, target=0.9) == 2
    assert served([*history, {"accuracy": 0.93, RESTORED: 2.0}], target=0.9) is None
    assert served(history, target=0.95) is None


def test_a_score_on_few_rows_is_held_against_none_on_many() -> None:
    few, many = {"federated_rows": 40.0}, {"federated_rows": 100.0}
    history = [{}, {"accuracy": 0.99} | few, {"accuracy": 0.8} | many, {"accuracy": 0.9} | many]
    assert best(history) == 3
    assert ends(history, target=0.95) is None
    assert best([*history, {"accuracy": 0.95} | {"federated_rows": 60.0}]) == 4
    tested = [one | {"federated_accuracy": 0.5} for one in history[1:]]
    assert best([{}, *tested]) == 1, "a test split is the same for all"
