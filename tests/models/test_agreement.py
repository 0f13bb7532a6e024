from __future__ import annotations

import random
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from models import agreement, statistic
from models.agreement import Agreed, AgreementError, Voice, agreed_of, by_contract, from_bytes, identity
from models.contract import ContractSpec, WindowSpec
from models.job import JobSpec, ModelSpec

N_COLUMNS = 4
OFFSETS = np.array([0, 1e5, 1e9, 0.1])
SCALES = np.array([1e-3, 1e5, 1e4, 0])


def job(normalise: str = "standard", *, inputs: int = N_COLUMNS, **contract: Any) -> JobSpec:
    made = ContractSpec(normalise=normalise, **contract)  # type: ignore[arg-type]  # the test's own words
    return JobSpec(name="toy", model=ModelSpec(inputs=inputs, outputs=2), contract=made)


def rows(n: int, seed: int, times: float = 1.0) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal((n, N_COLUMNS)) * SCALES * times + OFFSETS).astype(np.float32)


def voice(spec: JobSpec, X: np.ndarray[Any, Any], name: str, weight: int | None = None) -> Voice:
    said = statistic.of_rows(spec, X, np.arange(len(X)) % 2)
    return Voice(name, weight or len(X), statistic.from_bytes(statistic.to_bytes(said), spec))


def voices(spec: JobSpec, sizes: tuple[int, ...] = (25, 300, 40, 1000, 21)) -> list[Voice]:
    return [voice(spec, rows(n, seed), f"d{seed}") for seed, n in enumerate(sizes)]


def test_standard_is_mean_and_deviation_over_the_rows_of_all() -> None:
    agreed = agreed_of(job(), voices(job())).agreed
    together = np.concatenate([rows(n, seed) for seed, n in enumerate((25, 300, 40, 1000, 21))]).astype(np.float64)
    np.testing.assert_allclose(agreed.offset, together.mean(axis=0), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(1 / agreed.scale[:3], together[:, :3].std(axis=0), rtol=1e-5)
    assert agreed.offset[3] == np.float32(0.1)  # to the bit: nothing of a column of one value is left
    assert agreed.scale[3] == 1


def test_very_many_columns_take_memory_by_what_was_said_of_them() -> None:
    columns, fleet = 4000, 30
    spec = job(inputs=columns)
    X = np.random.default_rng(0).standard_normal((25, columns)).astype(np.float32)
    said = [voice(spec, X, f"d{n}") for n in range(fleet)]
    tracemalloc.start()
    try:
        agreed_of(spec, said)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 * fleet * len(statistic.to_bytes(said[0].statistic)) + 4_000_000


def test_minmax_has_all_rows_within_0_to_1_and_fills_most_of_it() -> None:
    agreed = agreed_of(job("minmax"), voices(job("minmax"))).agreed
    for seed, n in enumerate((25, 300, 40, 1000, 21)):
        scaled = (rows(n, seed) - agreed.offset) * agreed.scale
        assert (scaled >= 0).all()
        assert (scaled <= 1).all()
    together = np.concatenate([rows(n, seed) for seed, n in enumerate((25, 300, 40, 1000, 21))])
    assert (np.ptp((together - agreed.offset) * agreed.scale, axis=0)[:3] > 0.7).all()


def test_classes_are_those_of_all() -> None:
    spec = job("none", class_weight="balanced")
    agreed = agreed_of(spec, voices(spec)).agreed
    assert agreed.class_counts == (13 + 150 + 20 + 500 + 11, 12 + 150 + 20 + 500 + 10)
    assert len(agreed.offset) == 0
    by_one_output = structs.replace(spec, model=structs.replace(spec.model, outputs=1, loss="binary"))
    assert agreed_of(by_one_output, voices(by_one_output)).agreed.class_counts == agreed.class_counts


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["standard", "minmax"]), st.booleans())
def test_the_order_of_devices_does_not_show_in_a_bit(order: random.Random, normalise: str, weighed: bool) -> None:
    spec = job(normalise, class_weight="balanced")
    all_ = [one._replace(weight=one.weight - 7 * weighed) for one in voices(spec)]
    before = agreed_of(spec, all_)
    order.shuffle(all_)
    assert agreed_of(spec, all_) == before


def test_whoever_comes_first_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The property above can fail: so it would, if of too many those were heard who came first."""
    came = iter(range(1000))
    monkeypatch.setattr(agreement, "MOST_VOICES", 2)
    monkeypatch.setattr(agreement, "precedence", lambda _device: next(came).to_bytes(2, "big"))
    assert agreed_of(job(), voices(job())) != agreed_of(job(), voices(job())[::-1])


def test_a_hash_has_the_first_say_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "MOST_VOICES", 2)
    outcome = agreed_of(job(), voices(job()))
    assert outcome.n_voices == 2
    assert outcome == agreed_of(job(), voices(job())[::-1])


def test_a_device_weighs_what_its_update_would() -> None:
    spec = job()
    loud, quiet = voice(spec, rows(1000, 0) + 5, "loud", 40), voice(spec, rows(40, 1), "quiet", 40)
    agreed = agreed_of(spec, [loud, quiet]).agreed
    middle = (rows(1000, 0).astype(np.float64)[:, 0].mean() + 5 + rows(40, 1).astype(np.float64)[:, 0].mean()) / 2
    assert agreed.offset[0] == pytest.approx(middle, rel=1e-5)


@pytest.mark.parametrize("normalise", ["standard", "minmax"])
def test_one_hostile_device_in_five_does_not_poison_the_fleet(normalise: str) -> None:
    spec = job(normalise)
    fleet = voices(spec)
    honest = agreed_of(spec, fleet)
    assert not honest.far
    for times in (1e3, 1e9, 1e25):
        liar = voice(spec, (rows(1000, 9, 1.0) * np.float32(times)).astype(np.float32), "liar")
        outcome = agreed_of(spec, [*fleet, liar])
        assert (0, ("liar",)) in outcome.far
        for column in (0, 1, 2):
            ratio = outcome.agreed.scale[column] / honest.agreed.scale[column]
            assert 1 / agreement.FAR / 2 < ratio < 2
            moved = abs(outcome.agreed.offset[column] - honest.agreed.offset[column]) * honest.agreed.scale[column]
            assert moved <= agreement.FAR


@pytest.mark.parametrize("normalise", ["standard", "minmax"])
@pytest.mark.parametrize("times", [1e3, 1e25])
def test_one_hostile_device_in_three_is_left_out_and_named(normalise: str, times: float) -> None:
    spec = job(normalise)
    fleet = voices(spec, (300, 400))
    honest = agreed_of(spec, fleet)
    liar = voice(spec, (rows(1000, 9) * np.float32(times)).astype(np.float32), "liar")
    outcome = agreed_of(spec, [*fleet, liar])
    assert {0, 1, 2} <= {column for column, who in outcome.far if who == ("liar",)}
    assert outcome.agreed.offset[:3].tolist() == honest.agreed.offset[:3].tolist()
    assert outcome.agreed.scale[:3].tolist() == honest.agreed.scale[:3].tolist()
    assert not outcome.apart


def test_of_two_that_lie_far_apart_both_count_and_it_is_told() -> None:
    spec = job()
    fleet = voices(spec, (300, 400))
    assert not agreed_of(spec, fleet).apart
    for other in (rows(400, 9, 1e3), rows(400, 9) + np.float32(1e12), rows(400, 9, 1e-2)):
        outcome = agreed_of(spec, [fleet[0], voice(spec, other.astype(np.float32), "other")])
        assert set(outcome.apart) >= {0, 1, 2}
        assert not outcome.far
    idle = np.tile(np.float32(OFFSETS), (400, 1))
    assert not agreed_of(spec, [fleet[0], voice(spec, idle, "idle")]).apart


def test_without_the_rule_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "FAR", 1e300)
    spec = job()
    liar = voice(spec, (rows(1000, 9) * np.float32(1e9)).astype(np.float32), "liar")
    poisoned, honest = (agreed_of(spec, found).agreed for found in ([*voices(spec), liar], voices(spec)))
    assert poisoned.scale[0] < 1e-6 * honest.scale[0]


def test_two_machines_of_four_are_not_left_out_for_being_larger() -> None:
    spec = job()
    fleet = [voice(spec, rows(100, seed, 1.0 if seed < 2 else 1e4), f"d{seed}") for seed in range(4)]
    assert not agreed_of(spec, fleet).far


def test_a_column_that_most_have_as_zeros_keeps_who_has_more() -> None:
    spec = job()
    fleet = [voice(spec, np.zeros((50, N_COLUMNS), np.float32), f"d{seed}") for seed in range(9)]
    outcome = agreed_of(spec, [*fleet, voice(spec, rows(50, 1), "one")])
    assert not outcome.far
    assert outcome.agreed.scale[1] != 1


def test_where_nobody_has_anything_to_say_nothing_is_changed() -> None:
    spec = job(class_weight="balanced")
    outcome = agreed_of(spec, [voice(spec, rows(5, 0), "d0")])
    assert outcome.n_voices == 0
    assert outcome.agreed == identity(spec)
    assert (outcome.agreed.offset.tolist(), outcome.agreed.scale.tolist()) == ([0] * N_COLUMNS, [1] * N_COLUMNS)


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1e-44, 0.0])
@pytest.mark.parametrize("normalise", ["standard", "minmax"])
def test_the_ends_of_float32_come_to_numbers(normalise: str, value: float) -> None:
    spec = job(normalise)
    X = np.zeros((40, N_COLUMNS), np.float32)
    X[::2] = value
    agreed = agreed_of(spec, [voice(spec, X, "d0")]).agreed
    assert np.isfinite(agreed.offset).all()
    assert np.isfinite(agreed.scale).all()
    assert (agreed.scale > 0).all()


def test_masks_and_times_stay_as_they_are() -> None:
    spec = job(features=("a",), missing="mask", time_features=("hour",), inputs=4)
    agreed = agreed_of(spec, [voice(spec, rows(50, 0) + 7, "d0")]).agreed
    assert (agreed.offset[1:].tolist(), agreed.scale[1:].tolist()) == ([0, 0, 0], [1, 1, 1])
    assert agreed.offset[0] != 0


def test_a_file_may_say_it_alone() -> None:
    pixels = by_contract(ContractSpec(normalise="pixels"), 3)
    assert pixels is not None
    assert pixels.scale.tolist() == [np.float32(1 / 255)] * 3
    stated = ContractSpec(
        features=("a", "b"), normalise="minmax", ranges={"a": (0.0, 10.0), "b": (-1e308, 1e308)}, missing="mask"
    )
    ranges = by_contract(stated, 4)
    assert ranges is not None
    assert ranges.scale.tolist() == [np.float32(0.1), 1, 1, 1]
    assert by_contract(ContractSpec(normalise="standard"), 3) is None
    assert by_contract(ContractSpec(), 3) is None


def test_windows_are_agreed_on_by_column() -> None:
    spec = job(inputs=2 * N_COLUMNS, window=WindowSpec(length=2))
    agreed = agreed_of(spec, [voice(spec, rows(60, 0).reshape(30, -1), "d0")]).agreed
    flat = agreed_of(job(), [voice(job(), rows(60, 0), "d0")]).agreed
    assert agreed == flat


def test_it_goes_by_its_bytes() -> None:
    spec = job(class_weight="balanced")
    agreed = agreed_of(spec, voices(spec)).agreed
    read = from_bytes(agreed.to_bytes(), spec)
    assert (read, read.digest, hash(read)) == (agreed, agreed.digest, hash(agreed))
    assert read != Agreed(agreed.offset, agreed.scale, (1, 2))
    assert len(agreed.to_bytes()) == agreement.max_bytes(spec)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_an_agreement_or_one_error(data: st.DataObject) -> None:
    spec = job(class_weight="balanced")
    body = bytearray(agreed_of(spec, voices(spec)).agreed.to_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.sampled_from([len(body), len(body), len(body) - 1, 3, 0]))]
    try:
        agreed = from_bytes(bytes(body), spec)
    except AgreementError:
        return
    assert np.isfinite(agreed.offset).all()
    assert (agreed.scale > 0).all()
    assert agreed.to_bytes() == bytes(body)


def test_a_job_that_agrees_on_nothing_reads_none() -> None:
    with pytest.raises(AgreementError, match="agrees in 0"):
        from_bytes(b"", job("none"))


GOLDEN = {
    "standard": "01 03000000 02000000 00002841 000000bf 00000000 8995313e 0000803f 0000803f",
    "minmax": "01 03000000 02000000 00000000 000000bf 00000000 cdcc4c3d 0000803f 0000803f",
}
"""What a fleet of one device with the rows of test_statistic.py agrees on, without its classes, ten of each."""


@pytest.mark.parametrize("normalise", GOLDEN)
def test_the_bytes_are_these(normalise: str) -> None:
    spec = job(normalise, inputs=3, class_weight="balanced")
    X = np.array([[1 + k, -0.5, 0] for k in range(20)], np.float32)
    found = agreed_of(spec, [voice(spec, X, "d0")]).agreed.to_bytes()
    assert found == bytes.fromhex(GOLDEN[normalise] + 2 * "0a00000000000000")


@pytest.mark.parametrize("normalise", ["standard", "minmax"])
def test_of_two_devices_both_count_and_of_three_the_stranger_is_left_out(normalise: str) -> None:
    spec = job(normalise)
    for seeds in ((0, 1), (0, 1, 2)):
        honest = [voice(spec, rows(40, seed), f"d{seed}") for seed in seeds]
        assert agreed_of(spec, honest).apart == ()
        other = rows(40, 9)
        other[:, 1] *= 100
        for at in range(len(seeds)):
            mixed = [*honest[:at], voice(spec, other, f"d{at}"), *honest[at + 1 :]]
            found = agreed_of(spec, mixed)
            told = ((1,), ()) if len(seeds) == 2 else ((), ((1, (f"d{at}",)),))
            assert (found.apart, found.far) == told
    assert agreed_of(spec, honest[:1]).apart == ()
    assert agreed_of(spec, [*mixed, *(voice(spec, rows(40, seed), f"e{seed}") for seed in range(3))]).apart == ()
