import pytest

from broker.framing import Answer, Delivery, TooLong
from broker.turns import may_come

OURS = [Delivery("t", b"", False, 0, None), Answer(1, 0), TooLong(1, 9)]


@pytest.mark.parametrize("packet", OURS)
def test_packets_and_answers_come_behind_the_welcome(packet: Delivery | Answer | TooLong) -> None:
    assert not may_come(packet, welcome=False)
    assert may_come(packet, welcome=True)


@pytest.mark.parametrize("kind", range(16))
def test_of_all_other_kinds_two_may_come_before_it_and_one_may_not_come_again(kind: int) -> None:
    packet = bytes((kind << 4, 0))
    assert may_come(packet, welcome=False) == (kind in (2, 14))
    assert may_come(packet, welcome=True) == (kind != 2)


@pytest.mark.parametrize("flags", range(16))
def test_nothing_comes_at_qos_2(flags: int) -> None:
    assert may_come(bytes((0x30 | flags, 0)), welcome=True) == (not flags & 4)
    assert may_come(bytes((0x60 | flags, 0)), welcome=True)
