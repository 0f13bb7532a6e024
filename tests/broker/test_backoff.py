from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.backoff import backoff_s


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    assert [backoff_s(n, 1.0, 120.0, 1.0) for n in (1, 2, 3, 7, 8, 9)] == [1, 2, 4, 64, 120, 120]


def test_half_the_chance_is_half_the_wait() -> None:
    assert backoff_s(3, 1.0, 120.0, 0.5) == 2.0
    assert backoff_s(3, 1.0, 120.0, 0.0) == 0.0


@given(st.integers(-5, 10**9), st.floats(0.001, 10), st.floats(10, 1000), st.floats(0, 1))
def test_no_number_of_failures_waits_longer_than_the_cap(
    failures: int, first_s: float, cap_s: float, chance: float
) -> None:
    assert 0 <= backoff_s(failures, first_s, cap_s, chance) <= cap_s
