from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.messages import MAX_TICKET
from models import draw

names = st.sets(st.text("abcdef0123456789-_", min_size=1, max_size=12), min_size=1, max_size=40)


def test_a_ticket_is_the_same_on_every_machine() -> None:
    assert draw.ticket("0123456789abcdef", "pi-7") == 0xA7F251463C00


def test_a_salt_is_the_same_on_every_machine() -> None:
    assert draw.salt(7, 3) == "111c309fc0cfd2b7"


@given(names, st.text(max_size=8), st.integers(1, 50))
def test_the_threshold_draws_exactly_k(devices: set[str], salt: str, k: int) -> None:
    limit = draw.threshold(salt, devices, k)
    assert sum(draw.ticket(salt, device) <= limit for device in devices) == min(k, len(devices))


@given(names, st.text(max_size=8), st.integers(1, 50))
def test_a_larger_draw_drops_nobody(devices: set[str], salt: str, k: int) -> None:
    assert draw.threshold(salt, devices, k) <= draw.threshold(salt, devices, k + 1)


def test_nobody_is_drawn_of_nobody_or_for_nothing() -> None:
    assert draw.threshold("s", [], 3) == 0
    assert draw.threshold("s", ["a", "b"], 0) == 0


def test_the_largest_ticket_is_exact_in_every_json_reader() -> None:
    assert draw.MAX_TICKET == MAX_TICKET < 2**53
    assert max(draw.ticket("s", str(n)) for n in range(1000)) <= draw.MAX_TICKET


def test_another_base_draws_others() -> None:
    devices = [f"d{n}" for n in range(100)]
    drawn = []
    for number in range(2):
        salt = draw.salt(0, number)
        limit = draw.threshold(salt, devices, 10)
        drawn.append({device for device in devices if draw.ticket(salt, device) <= limit})
    assert drawn[0] != drawn[1]
