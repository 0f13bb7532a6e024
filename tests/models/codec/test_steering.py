import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.codec.steering import RANGE, Observed
from models.codec.steering import steer as steer_to

TARGET = 0.5


def steer(history: Sequence[Observed]) -> float:
    return steer_to(history, TARGET)


def seen(scale: float, share: float) -> Observed:
    nmse = 1.0
    return Observed(scale, 10.0, nmse, 1.0, 0.5 / (10 * share))


def test_a_first_round_has_the_jobs_own_step() -> None:
    assert steer([]) == 1.0


def test_at_the_target_the_step_stays() -> None:
    assert steer([seen(1.5, TARGET)]) == pytest.approx(1.5)


def test_too_much_noise_makes_the_step_finer_and_too_little_coarser() -> None:
    assert steer([seen(1.0, 0.8)]) < 1.0 < steer([seen(1.0, 0.3)])


def test_it_settles_where_the_share_is_the_target() -> None:
    history: list[Observed] = []
    for _ in range(40):
        scale = steer(history)
        history.append(seen(scale, 0.2 * scale))
    assert steer(history) == pytest.approx(TARGET / 0.2, rel=0.05)


def test_more_devices_bear_a_coarser_step() -> None:
    few = Observed(1.0, 10.0, 1.0, 1.0, 0.15)
    many = few._replace(n_effective=100.0, mean_energy=0.06)
    assert steer([many]) > steer([few])


def test_senseless_reports_change_nothing() -> None:
    for bad in (math.nan, math.inf, -1.0):
        assert steer([seen(1.2, TARGET), seen(1.2, TARGET)._replace(nmse=bad)]) == pytest.approx(1.2)


@given(st.lists(st.builds(Observed, *[st.floats()] * 5), max_size=5))
def test_the_scale_is_always_a_sane_number(history: list[Observed]) -> None:
    scale = steer(history)
    assert 1 / RANGE <= scale <= RANGE
