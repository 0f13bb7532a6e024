from __future__ import annotations

import hashlib
import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import CodecError, Decoded
from models.codec.decoded import exact
from models.codec.steps import step_near, step_value
from models.job import AggregateSpec, JobSpec, ModelSpec
from models.params import Spec, TensorSpec
from models.strategies import fedadam
from models.strategies.fedadam import FEDADAM, FORM
from models.strategies.fixed import EXPONENT, MOST_BITS
from models.strategies.state import State, StateError

RULES = AggregateSpec(strategy="fedadam", server_learning_rate=0.03)
SPEC: Spec = (TensorSpec("w", (5, 3)), TensorSpec("b", ()), TensorSpec("none", (0,)))
Float64 = npt.NDArray[np.float64]


def oracle(deltas: list[Float64], eta: float, beta1: float, beta2: float, tau: float) -> list[Float64]:
    """The steps of Reddi et al. 2021, algorithm 2, FedAdam, line by line in float64."""
    m, v = np.zeros_like(deltas[0]), np.full_like(deltas[0], tau**2)
    steps = []
    for delta in deltas:
        m = beta1 * m + (1 - beta1) * delta
        v = beta2 * v + (1 - beta2) * delta**2
        steps.append(eta * m / (np.sqrt(v) + tau))
    return steps


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.floats(1e-6, 0.5),
    st.floats(0, 0.9999),
    st.floats(0, 0.9999),
    st.sampled_from([1e-4, 1e-3, 1e-2, 1.0]),
    st.sampled_from([1e-4, 1e-2, 1.0]),
)
def test_it_goes_the_steps_of_the_paper(
    seed: int, eta: float, beta1: float, beta2: float, tau: float, size: float
) -> None:
    rules = AggregateSpec(
        strategy="fedadam",
        server_learning_rate=eta,
        server_beta1=beta1,
        server_beta2=beta2,
        server_epsilon=tau,
    )
    rng = np.random.default_rng(seed)
    deltas = [size * rng.standard_normal((5, 3)) for _ in range(30)]
    spec = SPEC[:1]
    state = FEDADAM.init(spec, rules)
    for delta, wanted in zip(deltas, oracle(deltas, eta, beta1, beta2, tau), strict=True):
        (found,), state = FEDADAM.step((exact(delta),), state, rules)
        # The state is rounded to 2**-36, against a divisor of tau or more.
        error = 2.0**-36 * (1 + 60 * eta / tau * (1 + np.abs(wanted) / eta))
        assert (np.abs(found.values() - wanted) <= error).all()


def test_its_first_step_is_known() -> None:
    """m = 0.1 delta and v = 0.99 tau^2 + 0.01 delta^2, by hand."""
    (step,), state = FEDADAM.step(
        (exact(np.array([0.01, -0.01, 0.0])),), FEDADAM.init((TensorSpec("w", (3,)),), RULES), RULES
    )
    wanted = 0.03 * 0.001 / (math.sqrt(0.99e-6 + 1e-6) + 1e-3)
    assert step.values() == pytest.approx([wanted, -wanted, 0.0], abs=1e-9)
    assert state.arrays[0] * 2.0**EXPONENT == pytest.approx([0.001, -0.001, 0.0], abs=1e-10)
    assert state.arrays[1] * 2.0**EXPONENT == pytest.approx([math.sqrt(1.99e-6)] * 2 + [math.sqrt(0.99e-6)], abs=1e-10)


def published(seed: int, exponent: int = -40) -> tuple[Decoded, ...]:
    rng = np.random.default_rng(seed)
    return tuple(Decoded(rng.integers(-(2**34), 2**34, tensor.shape), exponent) for tensor in SPEC)


def walked(n: int = 20) -> State:
    state = FEDADAM.init(SPEC, RULES)
    for seed in range(n):
        _, state = FEDADAM.step(published(seed), state, RULES)
    return state


def test_its_bits_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    state = FEDADAM.init(SPEC, RULES)
    for seed in range(40):
        steps, state = FEDADAM.step(published(seed), state, RULES)
        for part in (*state.parts(), *(step.integers.astype("<i8").tobytes() for step in steps)):
            digest.update(part)
    assert digest.hexdigest()[:32] == "6a713e2121fa7c337ddb0dff19b91e83"


def test_its_bits_are_those_of_pythons_own_floats() -> None:
    """Coordinate by coordinate, in the order of BODY.md: no vector unit has a say."""
    state, unit = FEDADAM.init(SPEC[:1], RULES), 2.0**36
    moments, roots = [0] * 15, [round(1e-3 * unit)] * 15
    for seed in range(15):
        (said, *_) = published(seed, -62)
        (step,), state = FEDADAM.step((said,), state, RULES)
        wanted = []
        for at, integer in enumerate(said.integers.reshape(-1).tolist()):
            delta = math.ldexp(float(integer), -62 + 36)
            moments[at] = round(0.9 * moments[at] + (1.0 - 0.9) * delta)
            squared = float(roots[at]) * float(roots[at])
            roots[at] = round(math.sqrt(0.99 * squared + (1.0 - 0.99) * (delta * delta)))
            wanted.append(round((0.03 * unit) * moments[at] / (roots[at] + 1e-3 * unit)))
        assert step.integers.reshape(-1).tolist() == wanted
        assert [array.reshape(-1).tolist() for array in state.arrays] == [moments, roots]


def test_a_tensor_is_no_other_in_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = walked()
    monkeypatch.setattr(fedadam, "SLAB", 4)
    assert walked() == whole
    assert FEDADAM.gains(whole, RULES) == pytest.approx(FEDADAM.gains(walked(), RULES))


def test_the_state_before_is_left_alone() -> None:
    before = walked(2)
    kept = [array.copy() for array in before.arrays]
    before.freeze()
    FEDADAM.step(published(9), before, RULES)
    assert all(map(np.array_equal, before.arrays, kept))


@pytest.mark.parametrize("exponent", [-10_000, -1_000, 1_000, 10_000])
def test_zeros_are_zeros_whatever_their_exponent(exponent: int) -> None:
    zeros = tuple(Decoded(np.zeros(tensor.shape, np.int64), exponent) for tensor in SPEC)
    steps, state = FEDADAM.step(zeros, FEDADAM.init(SPEC, RULES), RULES)
    assert not any(step.integers.any() for step in steps)
    assert not any(moment.any() for moment in state.arrays[: len(SPEC)])


def test_what_is_far_below_the_lattice_is_nothing() -> None:
    steps, _ = FEDADAM.step(published(1, -1100), FEDADAM.init(SPEC, RULES), RULES)
    assert not any(step.integers.any() for step in steps)


def test_what_leaves_the_lattice_is_refused_not_wrapped() -> None:
    spec = SPEC[1:2]
    begun = FEDADAM.init(spec, RULES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for integer, exponent in ((2**MOST_BITS, EXPONENT), (1, EXPONENT + MOST_BITS), (2**60, 0), (1, 10_000)):
            with pytest.raises(CodecError, match="too large for the server's optimizer"):
                FEDADAM.step((Decoded(np.array(integer), exponent),), begun, RULES)
        # A state that only a hostile snapshot has: far, and hardly divided.
        fast = AggregateSpec(strategy="fedadam", server_learning_rate=0.5, server_beta2=0.0, server_epsilon=1e-6)
        far = State((np.array(2**MOST_BITS - 1), np.array(0)), FORM)
        with pytest.raises(CodecError, match="too large for the server's optimizer"):
            FEDADAM.step((Decoded(np.array(0), 0),), far, fast)


# Snapshots.


@pytest.mark.parametrize("size", [2.0**-30, 1e-6, 1e-3])
def test_a_rounded_state_is_within_half_a_grid_step_and_stays_there(size: float) -> None:
    state, word = walked(), step_near(size)
    rounded = FEDADAM.restored(FEDADAM.counts(state, word, RULES), word, SPEC, RULES)
    again = FEDADAM.restored(FEDADAM.counts(rounded, word, RULES), word, SPEC, RULES)
    assert again == rounded
    n = len(SPEC)
    grids = [step_value(word)] * n + [min(step_value(word), step_value(step_near(RULES.server_epsilon / 16)))] * n
    for ours, exact_, grid in zip(rounded.arrays, state.arrays, grids, strict=True):
        assert np.abs(ours - exact_).max(initial=0) * 2.0**EXPONENT <= grid / 2 + 2.0**EXPONENT


def test_a_snapshot_with_a_root_below_0_is_refused() -> None:
    word = step_near(1e-6)
    counts = list(FEDADAM.counts(walked(), word, RULES))
    counts[-2] = counts[-2] * 0 - 1
    with pytest.raises(CodecError, match="root below 0"):
        FEDADAM.restored(counts, word, SPEC, RULES)


def test_the_grid_is_such_that_later_versions_move_by_a_step_of_the_model_at_most() -> None:
    """Of all versions that come of an m which is off by a grid step: their moves, added up."""
    state, size = walked(), 1e-4
    grid = step_value(FEDADAM.grid(size, state, RULES))
    in_all = FEDADAM.gains(state, RULES).in_all * grid / (1 - RULES.server_beta1)
    assert in_all == pytest.approx(size, rel=0.01)


def test_its_gains_are_how_far_a_small_update_moves_the_model() -> None:
    """By a second run in which one update is a little larger: what the model moves by, at once and in the end."""
    spec, rng = (TensorSpec("w", (400,)),), np.random.default_rng(0)
    rules = AggregateSpec(strategy="fedadam", server_learning_rate=0.2, server_beta2=0.9999)
    before = FEDADAM.init(spec, rules)
    for _ in range(200):
        _, before = FEDADAM.step((exact(0.01 * rng.standard_normal(400)),), before, rules)
    more, zero = 1e-5 * rng.standard_normal(400), np.zeros(400)
    moved, first, states = np.zeros(400), None, [before, before]
    for number in range(150):
        told = [zero if number else more, zero]
        stepped = [FEDADAM.step((exact(delta),), state, rules) for delta, state in zip(told, states, strict=True)]
        states = [state for _, state in stepped]
        moved += stepped[0][0][0].values() - stepped[1][0][0].values()
        first = moved.copy() if first is None else first
    gains = FEDADAM.gains(before, rules)
    length = np.sqrt(np.square(more).sum())
    assert first is not None
    assert np.sqrt(np.square(first).sum()) / length == pytest.approx(gains.published * gains.at_once, rel=0.15)
    assert np.sqrt(np.square(moved).sum()) / length == pytest.approx(gains.in_all, rel=0.15)


# What is stored.


def test_a_state_survives_its_bytes_and_says_whose_it_is() -> None:
    state = walked()
    assert state.parts()[0] == b"fedadam 1"
    assert FEDADAM.read(state.parts(), SPEC) == state
    assert FEDADAM.read([], SPEC) == State()
    _, velocity = state.parts()[0], State(state.arrays[: len(SPEC)]).parts()
    with pytest.raises(StateError, match='of the form "fedadam 2", where this fedge reads "fedadam 1"'):
        FEDADAM.read([b"fedadam 2", *state.parts()[1:]], SPEC)
    for damaged in (velocity, state.parts()[:-1], [state.parts()[0]], [b"\xff" * 99]):
        with pytest.raises(StateError):
            FEDADAM.read(damaged, SPEC)


def test_numbers_that_no_state_has_are_refused() -> None:
    state, last = walked(), len(SPEC) + 1
    for at, value, why in ((last, -1, "root below 0"), (1, 2**46, "beyond its lattice"), (last, 2**46, "beyond its")):
        arrays = [array.copy() for array in state.arrays]
        arrays[at][...] = value
        with pytest.raises(StateError, match=why):
            FEDADAM.read(State(tuple(arrays), FORM).parts(), SPEC)


# What a job may say.


def job(**aggregate: object) -> JobSpec:
    return JobSpec("j", ModelSpec(), aggregate=AggregateSpec(**aggregate))  # type: ignore[arg-type]


def test_a_key_of_another_strategy_is_refused_with_those_that_it_has() -> None:
    job(strategy="fedadam", server_learning_rate=0.01, server_beta1=0.5, server_beta2=0.5, server_epsilon=0.1)
    with pytest.raises(
        ValueError, match=r'server_momentum = 0.5: strategy = "fedadam" has no use for it.*server_beta1'
    ):
        job(strategy="fedadam", server_learning_rate=0.01, server_momentum=0.5)
    for key in ("server_beta1", "server_beta2", "server_epsilon"):
        with pytest.raises(ValueError, match=rf'{key} = 0.5: strategy = "fedavg" has no use for it.*server_momentum'):
            job(**{key: 0.5})


def test_a_rate_of_another_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"server_learning_rate = 1: .* such as 0.01"):
        job(strategy="fedadam")
