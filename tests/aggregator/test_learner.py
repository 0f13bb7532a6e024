from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aggregator.learner import Counted, observe

UPDATES = st.lists(
    st.builds(
        Counted,
        weight=st.integers(1, 2**20),
        norm=st.floats(0.0, 1e6),
        nmse=st.none() | st.floats(0.0, 10.0),
    ),
    min_size=2,
    max_size=12,
)


@given(st.data())
def test_what_the_steering_sees_of_a_round_does_not_depend_on_the_order_of_arrival(data: st.DataObject) -> None:
    updates = data.draw(UPDATES)
    other = data.draw(st.permutations(updates))
    assert observe(updates, 1.0, 0.5) == observe(other, 1.0, 0.5)
