from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from models.job import ModelSpec
from models.measures import curves, values
from models.measures import tally as tallies
from models.measures.scores import scores
from models.measures.tally import (
    LEAST_PROBABILITY,
    Tally,
    TallyError,
    empty,
    from_bytes,
    max_bytes,
    merged,
    rounded,
    tally,
    to_bytes,
)
from models.nets import losses

MODELS = {
    "two classes": ModelSpec(outputs=2),
    "three classes": ModelSpec(outputs=3),
    "one class": ModelSpec(outputs=1),
    "more than are drawn": ModelSpec(outputs=40),
    "more than are confused": ModelSpec(outputs=100),
    "a value": ModelSpec(outputs=1, loss="mse"),
    "three values": ModelSpec(outputs=3, loss="mse"),
    "more values than are kept apart": ModelSpec(outputs=100, loss="mse"),
    "two classes by one output": ModelSpec(outputs=1, loss="binary"),
    "two labels a row": ModelSpec(outputs=2, loss="multilabel"),
    "more labels than have histograms": ModelSpec(outputs=40, loss="multilabel"),
    "two values of three quantiles": ModelSpec(outputs=6, loss="quantile"),
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def rows(model: ModelSpec, n: int, seed: int = 0) -> tuple[np.ndarray, Any]:
    """Return answers, some of them not finite, and labels."""
    rng = np.random.default_rng(seed)
    outputs = 2 * rng.normal(size=(n, model.outputs)).astype(np.float32)
    loss = losses.of(model)
    if not model.classifies:
        y = (loss.judged(outputs) + rng.normal(size=(n, loss.n_columns)) + 20).astype(np.float32)
        answers = outputs + 20
    elif loss.applies == "sigmoid":
        y = rng.integers(0, 2, (n, loss.n_columns))
        y = y[:, 0] if loss.task == "classes" else y.astype(np.float32)
        answers = loss.answer(outputs + 2 * y.reshape(outputs.shape).astype(np.float32))
    else:
        y = rng.integers(0, model.outputs, n)
        outputs[np.arange(n), y] += 1
        answers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        answers /= answers.sum(axis=1, keepdims=True)
    answers[rng.random(n) < 0.05] = np.nan
    return answers, y


def some(model: ModelSpec, n: int = 200, seed: int = 0, **how: bool) -> Tally:
    return tally(model, *rows(model, n, seed), **how)


def same(one: Tally, other: Tally) -> bool:
    return one._replace(counts=0) == other._replace(counts=0) and np.array_equal(one.counts, other.counts)  # type: ignore[arg-type]


@models
@pytest.mark.parametrize("with_curves", [True, False])
def test_a_tally_is_what_its_bytes_say(model: ModelSpec, with_curves: bool) -> None:
    for one in (some(model, curves=with_curves), rounded(some(model, curves=with_curves)), empty(model)):
        data = to_bytes(one)
        found = from_bytes(data, model)
        assert same(found, one)
        assert to_bytes(found) == data
        assert len(data) <= max_bytes(model, one.n)


@models
@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), random=st.randoms(use_true_random=False))
def test_tallies_of_parts_merge_in_any_order_and_grouping_to_the_bytes_of_all_rows(
    model: ModelSpec, sizes: list[int], random: Random
) -> None:
    answers, y = rows(model, sum(sizes), seed=sum(sizes))
    ends = np.cumsum([0, *sizes])
    parts = [tally(model, answers[a:b], y[a:b]) for a, b in pairwise(ends)]
    whole = to_bytes(tally(model, answers, y))
    while len(parts) > 1:
        random.shuffle(parts)
        n = random.randint(2, len(parts))
        parts = [merged(parts[:n]), *parts[n:]]
    assert to_bytes(parts[0]) == whole


def test_merging_changes_none_of_the_parts() -> None:
    one = some(MODELS["two classes"])
    before = to_bytes(one)
    merged([one, one, one])
    assert to_bytes(one) == before


def test_tallies_of_different_models_do_not_merge() -> None:
    with pytest.raises(TallyError, match="different models"):
        merged([some(MODELS["two classes"]), some(MODELS["three classes"])])
    with pytest.raises(TallyError, match="different models"):
        merged([some(MODELS["two classes"]), some(MODELS["two classes"], curves=False)])


def test_many_rows_are_taken_apart_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["three classes"]
    whole = some(model)
    monkeypatch.setattr(tallies, "_CELLS_AT_ONCE", 21)
    assert same(some(model), whole)


def test_small_shares_are_a_few_bytes() -> None:
    two, three = MODELS["two classes"], MODELS["three classes"]
    assert len(to_bytes(some(two, 50, curves=False))) < 20
    assert len(to_bytes(some(two, 50))) < 60
    assert len(to_bytes(some(three, 50))) < 140
    assert len(to_bytes(rounded(some(MODELS["a value"], 50)))) < 45


def test_rounding_keeps_24_bits_and_what_holds_of_sums() -> None:
    model = MODELS["three values"]
    exact, coarse = some(model), rounded(some(model))
    for one, other in zip(exact.by_output, coarse.by_output, strict=True):
        assert (one.y, one.y_squared) == (other.y, other.y_squared)
        assert other.squared == pytest.approx(one.squared, rel=2**-23)
        assert other.absolute == pytest.approx(one.absolute, rel=2**-23)
    same_errors = tally(MODELS["a value"], np.full((9, 1), 0.1, np.float32), np.zeros((9, 1), np.float32))
    assert from_bytes(to_bytes(rounded(same_errors)), MODELS["a value"]).n == 9


@pytest.mark.parametrize("k", [2, 3, 40])
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
def test_losses_of_probabilities_are_scikit_learns(k: int) -> None:
    model = ModelSpec(outputs=k)
    answers, y = rows(model, 400)
    fine = np.isfinite(answers).all(axis=1)
    answers, y = answers[fine].astype(np.float64), y[fine]
    answers[0] = np.eye(k)[(y[0] + 1) % k]  # as wrong as can be
    found = tally(model, answers.astype(np.float32), y)
    clipped = np.clip(answers, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    right = clipped[np.arange(len(y)), y]
    assert found.log_loss == pytest.approx(-np.log(right).mean(), abs=1e-6)
    assert found.log_loss == pytest.approx(oracle.log_loss(y, answers.astype(np.float32), labels=range(k)), abs=1e-4)
    probabilities = answers[:, 1] if k == 2 else answers
    labels = {} if k == 2 else {"labels": range(k)}
    theirs = oracle.brier_score_loss(y, probabilities / (1 if k == 2 else answers.sum(axis=1, keepdims=True)), **labels)
    assert found.brier == pytest.approx(theirs, abs=2e-6)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("sharp", [0.3, 1.0, 8.0])
def test_the_auc_of_histograms_is_as_near_to_the_exact_one_as_is_said(k: int, sharp: float) -> None:
    model = ModelSpec(outputs=k)
    rng = np.random.default_rng(k)
    y = rng.integers(0, k, 3000)
    outputs = rng.normal(size=(3000, k)).astype(np.float32)
    outputs[np.arange(3000), y] += 0.7
    answers = np.exp(sharp * outputs)
    answers /= answers.sum(axis=1, keepdims=True)
    one = tally(model, answers, y)
    found = scores(one)
    for index, bins in zip([1] if k == 2 else range(k), one.histograms, strict=True):
        exact = curves.ranked(answers[:, index], y == index)
        negatives, positives = bins / bins.sum(axis=1, keepdims=True)
        auc, precision = curves.roc_auc(exact), curves.average_precision(exact)
        assert auc is not None
        assert abs(found[f"auc:{index}"] - auc) <= (negatives * positives).sum() / 2 + 1e-12
        assert found[f"auc:{index}"] == pytest.approx(auc, abs=0.002)
        assert found[f"average_precision:{index}"] == pytest.approx(precision, abs=0.01)


def test_a_row_without_an_answer_is_right_nowhere_and_as_wrong_as_can_be() -> None:
    model = MODELS["two classes"]
    one = tally(model, np.full((4, 2), np.nan, np.float32), np.array([0, 0, 1, 1]))
    assert one.broken == 4
    assert one.confusion is not None
    assert one.confusion.tolist() == [[0, 0, 2], [0, 0, 2]]
    assert one.outcomes.tolist() == [[0, 0], [0, 0], [2, 2]]
    assert one.log_loss == pytest.approx(tallies.LARGEST_LOG_LOSS, abs=1e-6)
    assert one.brier == 1.0
    assert one.histograms[0, :, 0].tolist() == [2, 2], "and has the lowest score"


# Hostile bytes.


@models
@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=400))
def test_whatever_the_bytes_there_is_a_tally_or_one_kind_of_error(model: ModelSpec, data: bytes) -> None:
    check(data, model)


@models
@settings(max_examples=80, deadline=None)
@given(changes=st.data())
def test_bytes_near_those_of_a_tally_are_one_or_one_kind_of_error(model: ModelSpec, changes: st.DataObject) -> None:
    data = bytearray(to_bytes(some(model, changes.draw(st.integers(0, 30)))))
    for _ in range(changes.draw(st.integers(1, 4))):
        data[changes.draw(st.integers(0, len(data) - 1))] ^= 1 << changes.draw(st.integers(0, 7))
    check(bytes(data[: changes.draw(st.integers(0, len(data)))]), model)


def check(data: bytes, model: ModelSpec) -> None:
    try:
        one = from_bytes(data, model)
    except TallyError:
        return
    assert to_bytes(one) == data, "one content has one form"
    assert len(one.counts) == one.layout.n_counts
    assert one.counts.min(initial=0) >= 0
    found = scores(one)
    assert all(np.isfinite(value) for value in found.values())
    for name in ("accuracy", "auc", "macro_f1", "average_precision", "brier"):
        assert 0 <= found.get(name, 0.5) <= (2 if name == "brier" else 1) + 1e-9
    assert found.get("r2", 0.0) <= 1


def written(one: Tally, **changes: Any) -> bytes:
    return to_bytes(one._replace(**changes))


def test_what_does_not_go_together_is_refused_with_what_is_wrong() -> None:
    model = MODELS["two classes"]
    one = some(model)
    shifted = one.counts.copy()
    shifted[[0, 1]] += [1, -1]  # another answer to one row: the histograms do not know answers, so that is a claim
    assert from_bytes(written(one, counts=shifted), model).n == one.n
    moved = one.counts.copy()
    moved[[0, 3]] += [1, -1]  # a row of another class
    with pytest.raises(TallyError, match="histograms"):
        from_bytes(written(one, counts=moved), model)
    with pytest.raises(TallyError, match="201 rows"):
        from_bytes(written(one, n=one.n + 1), model)
    with pytest.raises(TallyError, match="without one"):
        from_bytes(written(one, broken=one.broken + 1), model)
    with pytest.raises(TallyError, match="below 0"):
        from_bytes(written(one, sums=(-1, 0)), model)
    with pytest.raises(TallyError, match="larger than it can be"):
        from_bytes(written(one, sums=(one.n * 17 << 20, 0)), model)


def test_sums_of_values_that_cannot_be_are_refused() -> None:
    model = MODELS["a value"]
    one = some(model)
    (sums,) = one.by_output
    for wrong, why in (
        (sums._replace(y=sums.y * 2), "above n times"),
        (sums._replace(squared=0), "above n times"),
        (sums._replace(squared=-1), "below 0"),
        (sums._replace(y_squared=2 ** (2 * values.UNIT + 300)), "larger than it can be"),
    ):
        with pytest.raises(TallyError, match=why):
            from_bytes(written(one, sums=tuple(wrong)), model)


def test_bytes_of_another_model_or_too_many_are_refused() -> None:
    with pytest.raises(TallyError):
        from_bytes(to_bytes(some(MODELS["two classes"])), MODELS["three classes"])
    with pytest.raises(TallyError, match="no histograms"):
        from_bytes(b"\x01\x80", MODELS["a value"])
    with pytest.raises(TallyError, match="begins with"):
        from_bytes(b"", MODELS["a value"])
    with pytest.raises(TallyError, match="at most"):
        from_bytes(bytes(max_bytes(MODELS["a value"]) + 1), MODELS["a value"])


def test_nothing_is_allocated_on_a_senders_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tally of 10,000 classes is refused for its length before its counts are made."""
    model = ModelSpec(outputs=10_000)
    monkeypatch.setattr(tallies, "Reader", None)
    with pytest.raises(TallyError, match="at most"):
        from_bytes(bytes(max_bytes(model) + 1), model)


def test_ten_thousand_classes_are_counted() -> None:
    model = ModelSpec(outputs=10_000)
    one = some(model, 30)
    assert one.confusion is None
    assert one.layout.n_counts == 30_000
    assert len(to_bytes(one)) < max_bytes(model, 30) < 1000


def test_sums_of_labels_that_cannot_be_are_refused() -> None:
    model = ModelSpec(outputs=2, loss="multilabel")
    answers = np.array([[0.9, 0.2], [0.8, np.nan]], np.float32)
    one = tally(model, answers, np.array([[1, 1], [0, 0]], np.float32))
    assert one.outcomes.tolist() == [[1, 0], [1, 1], [0, 1]]
    assert (one.n, one.broken) == (2, 1)
    for at, by, why in ((3, 1, "answers by label"), (2, -1, "answers by label"), (0, -1, "histograms")):
        counts = one.counts.copy()
        counts[at] += by
        with pytest.raises(TallyError, match=why):
            from_bytes(to_bytes(one._replace(counts=counts)), model)
    with pytest.raises(TallyError, match="below 0"):
        from_bytes(to_bytes(one._replace(sums=(-1, 0))), model)
