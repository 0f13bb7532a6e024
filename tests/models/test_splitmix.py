from hypothesis import given
from hypothesis import strategies as st

from models import splitmix

GAMMA = 0x9E3779B97F4A7C15
TURN = 2**64


def output(seed: int, k: int) -> int:
    z = (seed + k * GAMMA) % TURN
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % TURN
    z = (z ^ z >> 27) * 0x94D049BB133111EB % TURN
    return z ^ z >> 31


def test_the_generator_is_splitmix64() -> None:
    # The first output from state 1234567 is published with the reference implementation.
    assert splitmix.outputs(1234567, 0, 2).tolist() == [6457827717110365317, 3203168211198807973]


@given(st.integers(0, 2**65), st.integers(0, 2**64), st.integers(0, 20))
def test_outputs_are_counted_from_one_and_all_is_modulo_two_to_64(seed: int, start: int, n: int) -> None:
    assert splitmix.outputs(seed, start, n).tolist() == [output(seed, start + 1 + k) for k in range(n)]
