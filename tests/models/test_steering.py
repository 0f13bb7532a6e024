from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec.levels import ADDED
from models.codec.plan import FEWEST, shape
from models.codec.terms import INT8, Terms, terms_for
from models.steering import (
    CLIP,
    EARLY_OF_MODEL,
    FEWEST_REPORTS,
    FULL,
    MOST_OF_MODEL,
    PERSISTS,
    WINDOWS,
    Choice,
    Report,
    RoundSummary,
    allowed,
    choose,
    clipped,
    first,
    noise,
)

D = 20_000
TOLERANCE = 0.1
HUGE_MODEL = 1e12
OLD = max(WINDOWS)
"""Rounds of a job that is as old as one counts."""
AT_LAST = TOLERANCE * OLD / PERSISTS
"""The share of a round's gain that its noise may cost then."""


def seen(
    mean: float = 1.0, single: float = 0.2, curvature: float = 0.05, gain: float = 2.0, n: int = 8
) -> RoundSummary:
    """Return a round of n devices that agree but for a tenth; by default noise of four times the mean is allowed."""
    around = [1 + 0.1 * (k - (n - 1) / 2) / n for k in range(n)]
    return RoundSummary(mean, single, tuple(Report(curvature * f, gain * f) for f in around))


def size(d: int, choice: Choice) -> int:
    """Return the bits of an update, by the buckets that say something."""
    return min(choice.terms.m, d) * choice.terms.bits


def after(d: int, choice: Choice, rounds: list[RoundSummary], model_energy: float = HUGE_MODEL) -> Choice:
    for number in range(len(rounds)):
        choice = choose(d, choice, rounds[max(0, number + 1 - OLD) : number + 1], TOLERANCE, model_energy)
    return choice


def settled(d: int = D, one: RoundSummary | None = None, model_energy: float = HUGE_MODEL) -> Choice:
    return after(d, first(d), [one or seen()] * 40, model_energy)


# The noise, and where it settles.


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_noise_is_what_folding_and_bits_add(bits: int) -> None:
    told = RoundSummary(2.0, 0.5)
    assert noise(D, Terms(5120, 1), bits, told) == pytest.approx(
        D / 5120 * (1 + ADDED[bits]) * (2.0 + ADDED[1] * 0.5) - 2.0
    )
    assert noise(D, terms_for(D, D, bits), bits, told) == pytest.approx(
        (1 + ADDED[bits]) * (2.0 + ADDED[bits] * 0.5) - 2.0
    )


def test_the_first_round_has_a_bucket_for_every_coordinate() -> None:
    assert first(D) == Choice(terms_for(D, D), 1, math.inf)
    assert first(FEWEST).terms == Terms(64, 1)
    assert first(FEWEST - 1).terms == INT8


def test_it_settles_on_the_fewest_buckets_whose_noise_is_allowed() -> None:
    found = settled()
    limit = allowed([seen()] * 2, AT_LAST)
    assert limit == pytest.approx(AT_LAST * 2.0 / 0.05, rel=0.02)
    assert limit is not None
    assert noise(D, found.terms, found.down, seen()) <= limit
    assert noise(D, Terms(found.terms.m - shape(found.terms.m)[1], 1), 1, seen()) > limit


@pytest.mark.parametrize("gain", [2.0, 0.5, 0.1, 0.02, 0.004, 0.001, 1e-9])
def test_less_gain_takes_more_bits_until_there_are_no_more(gain: float) -> None:
    found = settled(one=seen(gain=gain))
    limit = allowed([seen(gain=gain)] * 2, AT_LAST)
    assert limit is not None
    fits = noise(D, found.terms, found.down, seen(gain=gain)) <= limit
    assert fits or (found.terms, found.down) == (terms_for(D, D, 4), 4)
    longer = [up for up, down in FULL if noise(D, terms_for(D, D, up), down, seen(gain=gain)) > limit]
    assert found.terms.bits >= max(longer, default=1)


def test_late_rounds_may_be_held_up_by_as_many_more_as_they_are_older() -> None:
    def limit(n: int) -> float:
        loud = Choice(Terms(64, 1), 1, math.inf)  # so that nothing but the age says what is allowed
        return choose(D, loud, [seen()] * n, TOLERANCE, HUGE_MODEL).allowed

    young = limit(PERSISTS)
    assert young == pytest.approx(limit(2))
    assert [limit(n) / young for n in (PERSISTS, 2 * PERSISTS, 3 * PERSISTS)] == pytest.approx([1, 2, 3])
    assert limit(2 * OLD) == limit(OLD)


def test_where_noise_does_no_harm_there_are_the_fewest_buckets_in_the_end() -> None:
    for curvature in (0.0, -1.0, 1e-12):
        assert settled(one=seen(curvature=curvature)).terms == Terms(FEWEST, 1)


@pytest.mark.parametrize("d", [64, 97, 300, 3461, 4096, 20_000, 199_210])
def test_from_the_most_bits_it_comes_down_to_the_fewest_buckets_and_back_up(d: int) -> None:
    up = after(d, first(d), [seen(gain=1e-9)] * 40)
    assert (up.terms, up.down) == (terms_for(d, d, 4), 4)
    down = after(d, up, [seen(gain=1e9)] * 80)
    assert down.terms == Terms(FEWEST, 1)
    assert after(d, down, [seen(gain=1e-9)] * 40)[:2] == up[:2]


# How fast it goes.

numbers = st.floats(0, 1e30)
reports = st.builds(Report, st.floats(-1e12, 1e12), st.none() | st.floats(-1e12, 1e12))
rounds = st.builds(RoundSummary, numbers, numbers, st.lists(reports, max_size=12).map(tuple))
dimensions = st.sampled_from([64, 65, 100, 300, 385, 513, 3461, 4096, 199_210])


@settings(max_examples=80)
@given(dimensions, st.lists(rounds, min_size=1, max_size=10), st.floats(1e-3, 10), numbers)
def test_whatever_is_told_terms_are_valid_and_change_by_a_factor_of_two_at_most(
    d: int, history: list[RoundSummary], tolerance: float, model_energy: float
) -> None:
    choice = first(d)
    for number in range(len(history)):
        following = choose(d, choice, history[: number + 1], tolerance, model_energy)
        assert following.terms.are_for(d)
        assert 1 <= following.down <= 4
        assert following.allowed >= 0
        assert size(d, choice) / 2 <= size(d, following) <= size(d, choice) * 2
        choice = following


@given(st.lists(rounds, min_size=1, max_size=3))
def test_a_tiny_net_keeps_int8(history: list[RoundSummary]) -> None:
    assert choose(FEWEST - 1, first(FEWEST - 1), history, 0.1, 1.0) == first(FEWEST - 1)


def test_a_round_that_moves_nothing_changes_nothing() -> None:
    assert choose(D, settled(), [*[seen()] * 20, seen(mean=0.0)], TOLERANCE, HUGE_MODEL) == settled()


def test_updates_that_are_three_times_as_long_are_followed_within_four_rounds() -> None:
    louder = seen(mean=9.0, single=1.8)
    found, limit = settled(), allowed([seen()] * 2, AT_LAST)
    assert limit is not None
    for number in range(4):
        found = choose(D, found, [*[seen()] * OLD, *[louder] * (number + 1)], TOLERANCE, HUGE_MODEL)
        if number == 2:
            assert noise(D, found.terms, found.down, louder) <= 1.35 * limit
    assert noise(D, found.terms, found.down, louder) <= 1.01 * limit


def test_one_device_that_has_half_of_the_weight_is_followed_within_three_rounds() -> None:
    heavy, before = seen(mean=1.5, single=1.5), settled()
    found = after_history(before, [seen()] * OLD, [heavy] * 3)
    limit = allowed([seen()] * 2, AT_LAST)
    assert limit is not None
    assert noise(D, before.terms, before.down, heavy) > 1.3 * limit
    assert noise(D, found.terms, found.down, heavy) <= 1.01 * limit


def after_history(choice: Choice, before: list[RoundSummary], then: list[RoundSummary]) -> Choice:
    for number in range(len(then)):
        choice = choose(D, choice, [*before, *then[: number + 1]], TOLERANCE, HUGE_MODEL)
    return choice


def test_what_is_allowed_falls_at_once_and_rises_by_half_of_the_way() -> None:
    usual = settled()
    sharper = choose(D, usual, [seen(curvature=0.05 * 16)] * OLD, TOLERANCE, HUGE_MODEL)
    assert sharper.allowed == pytest.approx(usual.allowed / 16, rel=0.02)
    flatter = choose(D, usual, [seen(curvature=0.05 / 2)] * OLD, TOLERANCE, HUGE_MODEL)
    assert flatter.allowed == pytest.approx(usual.allowed * math.sqrt(2), rel=0.02)


def test_one_round_of_good_luck_does_not_allow_more_than_four_times_its_noise() -> None:
    usual = settled()
    found = choose(D, usual, [seen(gain=1e9)] * 8, TOLERANCE, HUGE_MODEL)
    now = noise(D, usual.terms, usual.down, seen())
    assert found.allowed == pytest.approx(math.sqrt(4 * now * usual.allowed))


# What a round gains.


def test_one_round_alone_says_nothing_of_what_rounds_gain() -> None:
    assert allowed([seen()], TOLERANCE) is None
    assert allowed([RoundSummary(1.0, 0.2), seen(), RoundSummary(1.0, 0.2)], TOLERANCE) is None
    assert allowed([seen(), seen()], TOLERANCE) is not None


@pytest.mark.parametrize(
    ("before", "now", "wanted"), [(8.0, 2.0, 0.5), (8.0, 3.9, 3.9**2 / 8), (8.0, 4.2, 4.2), (1.0, 3.0, 3.0)]
)
def test_a_gain_that_falls_to_less_than_half_goes_on_falling(before: float, now: float, wanted: float) -> None:
    history = [seen(gain=before), seen(gain=now)]
    assert allowed(history, TOLERANCE) == pytest.approx(TOLERANCE * wanted / 0.05, rel=0.02)


# Plateaus, and few reports.


def plateau(seed: int) -> RoundSummary:
    told = random.Random(seed)  # noqa: S311
    return RoundSummary(1.0, 0.2, tuple(Report(0.05, told.gauss(0, 1)) for _ in range(8)))


def test_on_a_plateau_what_was_allowed_last_stays_allowed() -> None:
    choice = settled()
    flat = [plateau(seed) for seed in range(40)]
    for number in range(32, 40):
        assert allowed(flat[:number], TOLERANCE) is None
        assert choose(D, choice, flat[:number], TOLERANCE, HUGE_MODEL) == choice


def test_on_a_plateau_quieter_updates_do_not_make_fewer_buckets() -> None:
    choice = settled()
    quiet = [RoundSummary(0.1, 0.02, plateau(seed).reports) for seed in range(40)]
    assert choose(D, choice, quiet, TOLERANCE, HUGE_MODEL) == choice


def test_on_a_plateau_louder_updates_still_make_more() -> None:
    loud = [RoundSummary(2.0, 0.4, plateau(seed).reports) for seed in range(40)]
    found = choose(D, settled(), loud, TOLERANCE, HUGE_MODEL)
    assert found.terms.m > settled().terms.m
    assert found.allowed == settled().allowed


@pytest.mark.parametrize("n", range(FEWEST_REPORTS))
def test_fewer_than_five_reports_say_nothing(n: int) -> None:
    told = seen(n=n) if n else RoundSummary(1.0, 0.2)
    assert allowed([told], TOLERANCE) is None
    assert choose(D, settled(), [told], TOLERANCE, HUGE_MODEL) == settled()
    assert math.isinf(choose(D, first(D), [told], TOLERANCE, HUGE_MODEL).allowed)


def test_reports_of_several_rounds_count_together() -> None:
    assert allowed([seen(n=2)] * 4, TOLERANCE) == pytest.approx(TOLERANCE * 2.0 / 0.05, rel=0.1)
    assert allowed([seen(n=2)] * 2, TOLERANCE) is None
    assert allowed([seen(n=1)] * 4, TOLERANCE) is None


def test_reports_on_the_curvature_do_not_count_for_good() -> None:
    old = [seen()] * 3
    assert allowed([*old, *[RoundSummary(1.0, 0.2)] * 7], TOLERANCE) is not None
    assert allowed([*old, *[RoundSummary(1.0, 0.2)] * 8], TOLERANCE) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_report(bad: float) -> None:
    assert allowed([RoundSummary(1.0, 0.2, (Report(bad, 2.0),) * 8)] * 4, TOLERANCE) is None
    assert allowed([RoundSummary(1.0, 0.2, (Report(0.05, bad),) * 8)] * 4, TOLERANCE) is None


def test_a_small_gain_is_found_over_a_longer_window() -> None:
    told = random.Random(1)  # noqa: S311
    history = [RoundSummary(1.0, 0.2, tuple(Report(0.05, told.gauss(0.5, 1)) for _ in range(8))) for _ in range(32)]
    windows = [w for w in WINDOWS if allowed(history[-w:], TOLERANCE) is not None]
    assert allowed(history, TOLERANCE) is not None
    assert windows
    assert min(windows) > 2


# Who lies.

lies = st.sampled_from([1e12, -1e12, 0.0, math.nan, math.inf, -math.inf]) | st.floats(-1e12, 1e12)


@settings(max_examples=150)
@given(st.lists(st.builds(Report, lies, st.none() | lies), max_size=3), st.integers(2, 8))
def test_a_minority_moves_what_is_allowed_by_no_more_than_the_clipping(lying: list[Report], n: int) -> None:
    honest = seen().reports
    told = [RoundSummary(1.0, 0.2, (*honest, *lying))] * n
    found = allowed(told, TOLERANCE)
    if found is None:
        return
    gains, curvatures = [float(r.gain or 0) for r in honest], [r.curvature for r in honest]
    spread = max(gains) - min(gains)
    least, most = min(gains) - CLIP * spread, max(gains) + CLIP * spread
    assert TOLERANCE * least / max(curvatures) <= found <= TOLERANCE * most / min(curvatures)


@settings(max_examples=100)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9), st.floats(-1e300, 1e300))
def test_clipping_leaves_the_middle_and_bounds_the_ends(values: list[float], lie: float) -> None:
    found = clipped([*values, lie])
    assert len(found) == len(values) + 1
    if len(values) > 2:
        assert min(values) - CLIP * (max(values) - min(values)) <= min(found)
        assert max(found) <= max(values) + CLIP * (max(values) - min(values))


def test_what_is_near_the_median_is_not_moved() -> None:
    assert clipped([1.0, 2.0, 3.0, 4.0, 100.0]) == [1.0, 2.0, 3.0, 4.0, 3.0 + CLIP]
    assert clipped([-100.0, 2.0, 3.0, 4.0, 5.0]) == [3.0 - CLIP, 2.0, 3.0, 4.0, 5.0]


def of_devices(seed: int, n_rounds: int, lie: float | None = None) -> list[RoundSummary]:
    """Rounds of eight devices whose gains spread twice as wide as they are large; one of them may lie in all."""
    told = random.Random(seed)  # noqa: S311
    rounds = []
    for _ in range(n_rounds):
        gains = [told.gauss(1.0, 2.0) for _ in range(8)]
        if lie is not None:
            gains[3] = lie
        reports = tuple(Report(0.05, gain, who) for who, gain in enumerate(gains, 1))
        rounds.append(RoundSummary(1.0, 0.2, reports))
    return rounds


@pytest.mark.parametrize("lie", [1e12, -1e12, 0.0])
def test_one_device_of_eight_that_lies_in_every_round_hardly_moves_what_is_allowed(lie: float) -> None:
    shifts = []
    for seed in range(20):
        honest, lying = (allowed(of_devices(seed, 32, told), TOLERANCE) for told in (None, lie))
        assert honest is not None
        assert lying is not None
        shifts.append(lying / honest)
    assert 0.8 < statistics.median(shifts) < 1.25


def test_three_devices_are_enough_once_they_have_reported_twice() -> None:
    rounds = [RoundSummary(1.0, 0.2, tuple(Report(0.05, 2.0 + 0.01 * who, who) for who in (1, 2, 3)))] * 2
    assert allowed(rounds, TOLERANCE) == pytest.approx(TOLERANCE * 2.02 / 0.05, rel=0.01)


def test_gains_too_small_to_be_true_are_forgotten() -> None:
    nothing = [seen(gain=1e-170)] * 3
    choice = after(D, first(D), [*[seen()] * 40, *nothing, *[seen()] * 60])
    assert choice.allowed == pytest.approx(settled().allowed, rel=0.05)


# The model's own energy.


@given(st.floats(0.05, 1e6), st.floats(0, 1), st.floats(1e-3, 1e4))
def test_noise_never_stays_above_a_tenth_of_the_models_energy_where_a_coding_keeps_it_below(
    model_energy: float, single: float, gain: float
) -> None:
    told = seen(1.0, single, gain=gain)
    for one in (told, RoundSummary(1.0, single)):
        found = settled(one=one, model_energy=model_energy)
        longest = noise(D, terms_for(D, D, 4), 4, one)
        assert noise(D, found.terms, found.down, one) <= max(longest, MOST_OF_MODEL * model_energy) * 1.0001


def test_before_anything_is_known_noise_goes_by_the_models_own_energy() -> None:
    quiet = RoundSummary(1.0, 0.2)
    here = noise(D, first(D).terms, 1, quiet)
    assert choose(D, first(D), [quiet], TOLERANCE, 2 * here / EARLY_OF_MODEL).terms.m < first(D).terms.m
    louder = choose(D, first(D), [quiet], TOLERANCE, here / 2 / EARLY_OF_MODEL)
    assert noise(D, louder.terms, louder.down, quiet) <= here / 2
