from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.codec import CodecError
from models.codec.decoded import Decoded
from models.codec.frame import write_integers
from models.downlink import (
    HYSTERESIS,
    LADDER,
    DownlinkError,
    Offset,
    ServerState,
    Way,
    advance,
    install,
    start,
)
from models.job import CompressionSpec
from models.lattice import initial
from models.params import Spec, TensorSpec

Float64 = npt.NDArray[np.float64]
SPEC = (TensorSpec("w", (9, 7)), TensorSpec("b", (9,)), TensorSpec("s", ()), TensorSpec("none", (0, 3)))
SEED = 5
COARSE, LOSSLESS = CompressionSpec(), CompressionSpec(downlink_step=0.0)
STAYING = CompressionSpec(downlink_lead=0.0)
STATES: list[ServerState] = []
"""A plain trajectory: a state for each version from 0 on; see `states`."""


def a_step(number: int, size: float = 0.01, spec: Spec = SPEC) -> list[Float64]:
    rng = np.random.default_rng(number)
    return [np.asarray(size * rng.standard_normal(tensor.shape)) for tensor in spec]


def states(n: int) -> list[ServerState]:
    if not STATES:
        STATES.append(start(SPEC, SEED))
    while len(STATES) <= n:
        STATES.append(advance(STATES[-1], a_step(STATES[-1].version), SPEC, COARSE))
    return STATES[: n + 1]


# Trajectories: how far each step goes, as a power of ten, or not at all; and which tensors never move.

paces = st.lists(st.none() | st.floats(-5.0, 0.5), min_size=1, max_size=20)
stills = st.sets(st.integers(0, 2), max_size=2)
grids = st.sampled_from([0.0, 0.25, 4.0, 64.0])


def trajectory(powers: list[float | None], still: set[int], seed: int) -> list[list[Float64]]:
    rng = np.random.default_rng(seed)
    means = []
    for power in powers:
        size = 0.0 if power is None else 10.0**power
        whole = [np.asarray(size * rng.standard_normal(tensor.shape)) for tensor in SPEC]
        means.append([np.zeros_like(m) if k in still else m for k, m in enumerate(whole)])
    return means


@settings(max_examples=20, deadline=None)
@given(paces, stills, grids, st.integers(0, 100))
@example([None, -2.0, None, -2.0], set(), 4.0, 0)  # the first step moves nothing
@example([-2.0] * 20, {1, 2}, 4.0, 3)
def test_every_way_of_every_version_leads_to_the_same_model(
    powers: list[float | None], still: set[int], grid: float, taken: int
) -> None:
    coding = CompressionSpec(downlink_step=grid)
    state = start(SPEC, SEED)
    held: dict[int, Offset] = {0: ()}
    for mean in trajectory(powers, still, len(powers)):
        state = advance(state, mean, SPEC, coding)
        number, found = state.version, []
        near = [number - back for back in LADDER if back < number] if grid else []
        assert [way.start for way in state.ways] == [*near, 0]
        for way in state.ways:
            model, offset = install(SPEC, SEED, way.body, held[way.start])
            found.append(offset)
            assert model == state.model
            assert model.sha256() == state.model.sha256()
        held[number] = found[taken % len(found)]  # whichever way it took, a device goes on from there


@settings(max_examples=20, deadline=None)
@given(paces, stills, st.sampled_from([0.25, 4.0, 64.0]), st.sampled_from([0.0, 1.0]))
@example([None, -2.0, -4.0], set(), 4.0, 0.0)
@example([0.0], set(), 0.25, 1.0)
def test_what_one_version_leaves_out_a_later_one_carries(
    powers: list[float | None], still: set[int], grid: float, lead: float
) -> None:
    state = start(SPEC, SEED)
    sums = drift = [np.zeros(tensor.shape) for tensor in SPEC]
    for mean in trajectory(powers, still, 7):
        state = advance(state, mean, SPEC, CompressionSpec(downlink_step=grid, downlink_lead=lead))
        sums = [old + m for old, m in zip(sums, mean, strict=True)]
        drift = [(old + m) / 2 for old, m in zip(drift, mean, strict=True)]
        published = zip(sums, drift, state.offset, state.model.values(), initial(SPEC, SEED).values(), strict=True)
        for wanted, ahead, offset, now, first in published:
            slack = HYSTERESIS * state.unit * 2.0**offset.exponent + lead * np.abs(ahead)
            assert (np.abs(wanted - offset.values()) <= slack * (1 + 1e-12)).all()
            assert (np.abs(first + wanted - now) <= slack * (1 + 1e-12) + 2.0**-24).all()


def marching(n: int, sign: float, lead: float) -> list[ServerState]:
    """Steps of which each goes on as the last (sign 1), or undoes it (sign -1)."""
    found, mean = [start(SPEC, SEED)], a_step(0)
    for _ in range(n):
        found.append(advance(found[-1], mean, SPEC, CompressionSpec(downlink_lead=lead)))
        mean = [np.asarray(sign * m) for m in mean]
    return found


def behind(state: ServerState) -> float:
    """Say how far a version is behind the sum of the steps, in steps; less than 0: ahead."""
    ahead = [(offset.values() - fine).ravel() for offset, fine in zip(state.offset, state.fine, strict=True)]
    step = np.concatenate([m.ravel() for m in a_step(0)])
    return -float(np.concatenate(ahead) @ step / (step @ step))


def test_versions_lead_by_a_round_where_steps_go_on() -> None:
    late, leading = (np.mean([behind(s) for s in marching(20, 1.0, lead)[5:]]) for lead in (0.0, 1.0))
    assert late > 0.05
    assert leading == pytest.approx(late - 1.0, abs=0.3)


def test_versions_do_not_lead_where_each_step_undoes_the_last() -> None:
    state = marching(8, -1.0, 1.0)[-1]
    assert state.persistence < 0.1
    assert state.model == marching(8, -1.0, 0.0)[-1].model


def test_when_the_steps_end_the_version_arrives_at_their_sum() -> None:
    state = marching(6, 1.0, 1.0)[-1]
    for _ in range(60):
        state = advance(state, [np.zeros(tensor.shape) for tensor in SPEC], SPEC, CompressionSpec())
    for fine, offset in zip(state.fine, state.offset, strict=True):
        slack = HYSTERESIS * state.unit * 2.0**offset.exponent
        assert np.abs(fine - offset.values()).max(initial=0) <= slack * (1 + 1e-9)


def test_a_state_that_was_stored_before_versions_led_is_read() -> None:
    state = marching(3, 1.0, 0.0)[-1]
    older = msgspec.msgpack.encode(msgspec.msgpack.decode(state.to_bytes())[:7])
    again = ServerState.from_bytes(older, SPEC)
    assert again.model == state.model
    assert again.drift == ()
    assert advance(again, a_step(9), SPEC, COARSE).version == 4


def test_many_small_steps_arrive_where_one_large_one_does() -> None:
    state, whole = advance(start(SPEC, SEED), a_step(0), SPEC, COARSE), a_step(0)
    for _ in range(50):  # each of them a twentieth of a grid step
        drift = [
            np.full(tensor.shape, np.ldexp(0.05 * state.unit, o.exponent))
            for tensor, o in zip(SPEC, state.offset, strict=True)
        ]
        whole = [w + d for w, d in zip(whole, drift, strict=True)]
        state = advance(state, drift, SPEC, COARSE)
    for wanted, offset in zip(whole, state.offset, strict=True):
        assert (
            np.abs(np.ldexp(wanted, -offset.exponent) - offset.integers).max(initial=0)
            <= HYSTERESIS * state.unit + 1e-9
        )
    assert all((o.integers > 0).mean() > 0.9 for o in state.offset if o.integers.size)


def test_a_coordinate_on_an_edge_does_not_cross_it_back_and_forth() -> None:
    state = advance(start(SPEC, SEED), a_step(0), SPEC, STAYING)
    half = [np.full(t.shape, np.ldexp(0.5 * state.unit, o.exponent)) - (f - o.values()) for t, o, f in around(state)]
    state = advance(state, half, SPEC, STAYING)  # now everything stands on the edge between two grid points
    for sign in (1, -1) * 4:
        nudge = [
            np.full(t.shape, sign * state.unit * np.ldexp(0.9 * (HYSTERESIS - 0.5), o.exponent))
            for t, o, _ in around(state)
        ]
        before, state = state, advance(state, nudge, SPEC, STAYING)
        assert state.model == before.model


def around(state: ServerState) -> list[tuple[TensorSpec, Decoded, Float64]]:
    return list(zip(SPEC, state.offset, state.fine, strict=True))


def test_the_lossless_downlink_is_float32_and_has_one_way() -> None:
    state = start(SPEC, SEED)
    for number in range(4):
        state = advance(state, a_step(number), SPEC, LOSSLESS)
        assert [way.start for way in state.ways] == [0]
        first = initial(SPEC, SEED).values()
        for fine, value, zero in zip(state.fine, state.model.values(), first, strict=True):
            assert np.abs(zero + fine - value).max(initial=0) <= 2.0**-25 + 2.0**-28


def test_a_near_way_is_shorter_than_the_one_from_version_0() -> None:
    spec = (TensorSpec("w", (60, 80)),)
    state = start(spec, SEED)
    for number in range(12):
        state = advance(state, a_step(number, spec=spec), spec, COARSE)
    sizes = [len(way.body) for way in state.ways]
    assert sizes[0] < 0.5 * sizes[-1]
    assert all(near <= far for near, far in pairwise(sizes))


def test_a_first_step_that_moves_nothing_does_not_fix_the_grid() -> None:
    still = [np.zeros(tensor.shape) for tensor in SPEC]
    late = advance(advance(start(SPEC, SEED), still, SPEC, COARSE), a_step(3), SPEC, COARSE)
    early = advance(start(SPEC, SEED), a_step(3), SPEC, COARSE)
    assert late.model == early.model
    assert late.model != initial(SPEC, SEED)


def test_a_way_there_and_back_again_leaves_the_grid_alone() -> None:
    there, coding = a_step(0), CompressionSpec(downlink_step=0.25)
    state = start(SPEC, SEED)
    for mean in (there, [-m for m in there], a_step(1, 1e-5), a_step(2, 1.0)):
        before, state = state, advance(state, mean, SPEC, coding)
        assert not before.offset or [o.exponent for o in before.offset] == [o.exponent for o in state.offset]
        again = ServerState.from_bytes(state.to_bytes(), SPEC)
        assert again.to_bytes() == state.to_bytes()


# A restart.


@settings(max_examples=12, deadline=None)
@given(paces, stills, grids, st.integers(0, 20))
@example([None, -2.0, -2.0], set(), 4.0, 1)
def test_going_on_after_a_restart_gives_the_same_bytes(
    powers: list[float | None], still: set[int], grid: float, restart: int
) -> None:
    coding = CompressionSpec(downlink_step=grid)
    through = resumed = start(SPEC, SEED)
    for number, mean in enumerate(trajectory(powers, still, 1)):
        if number >= restart:
            resumed = ServerState.from_bytes(resumed.to_bytes(), SPEC)
        through, resumed = advance(through, mean, SPEC, coding), advance(resumed, mean, SPEC, coding)
        assert through.ways == resumed.ways
        assert through.model == resumed.model
        assert through.to_bytes() == resumed.to_bytes()


def test_version_0_survives_a_restart() -> None:
    again = ServerState.from_bytes(start(SPEC, SEED).to_bytes(), SPEC)
    assert (again.version, again.model, again.ways) == (0, initial(SPEC, SEED), ())


# What goes wrong.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
def test_a_step_that_is_not_finite_or_far_too_large_is_refused(bad: float) -> None:
    for coding in (COARSE, LOSSLESS):
        mean = a_step(1)
        mean[1][4] = bad
        with pytest.raises(DownlinkError, match="tensor b"):
            advance(start(SPEC, SEED), mean, SPEC, coding)


@pytest.mark.parametrize("size", [1e5, 1e12, 1e29])
def test_a_step_beyond_what_the_grid_can_say_is_refused(size: float) -> None:
    state = advance(start(SPEC, SEED), a_step(0, 1e-6), SPEC, COARSE)
    with pytest.raises(DownlinkError, match="version 2 cannot be coded"):
        advance(state, a_step(1, size), SPEC, COARSE)


@pytest.mark.parametrize("downlink_step", [1e-300, 1e-40, 1e-9, 1e60, 1e300, float("inf")])
def test_a_grid_that_is_out_of_all_proportion_is_refused_or_kept(downlink_step: float) -> None:
    coding = CompressionSpec(downlink_step=downlink_step)
    try:
        state = advance(start(SPEC, SEED), a_step(0), SPEC, coding)
    except DownlinkError:
        return
    assert install(SPEC, SEED, state.ways[-1].body)[0] == state.model


@pytest.mark.parametrize("size", [1e-200, 1e-60, 1e-30, 1e10, 1e29])
@pytest.mark.parametrize("coding", [COARSE, LOSSLESS])
def test_a_first_step_of_any_size_is_taken_or_refused(size: float, coding: CompressionSpec) -> None:
    try:
        state = advance(start(SPEC, SEED), a_step(0, size), SPEC, coding)
    except DownlinkError:
        return
    assert install(SPEC, SEED, state.ways[-1].body)[0] == state.model


def test_steps_of_another_net_are_refused() -> None:
    with pytest.raises(DownlinkError, match="shapes"):
        advance(start(SPEC, SEED), a_step(0)[:2], SPEC, COARSE)


def test_a_stored_state_of_another_net_is_refused() -> None:
    for state in states(3):
        for other in (SPEC[:2], (*SPEC, TensorSpec("more", (2,))), (TensorSpec("w", (9, 8)), *SPEC[1:])):
            with pytest.raises(DownlinkError):
                ServerState.from_bytes(state.to_bytes(), other)


def test_every_truncation_of_a_stored_state_is_refused() -> None:
    stored = states(3)[3].to_bytes()
    for cut in range(0, len(stored), 7):
        with pytest.raises(DownlinkError):
            ServerState.from_bytes(stored[:cut], SPEC)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 4), st.lists(st.tuples(st.integers(0), st.binary(max_size=3)), min_size=1, max_size=3))
def test_a_damaged_state_is_refused_or_a_state(number: int, wounds: list[tuple[int, bytes]]) -> None:
    damaged = states(4)[number].to_bytes()
    for at, put in wounds:
        at %= len(damaged)
        damaged = damaged[:at] + put + damaged[at + len(put) :]
    try:
        state = ServerState.from_bytes(damaged, SPEC)
    except DownlinkError:
        return
    assert [ints.shape for ints in state.model.ints] == [tensor.shape for tensor in SPEC]
    assert all(np.isfinite(values).all() for values in state.fine)


def stored(**changes: object) -> bytes:
    """Give the bytes of version 3 with other values in some places."""
    names = ("seed", "version", "grids", "unit", "fine", "trail", "ways", "drift", "persistence")
    whole = dict(zip(names, msgspec.msgpack.decode(states(3)[3].to_bytes()), strict=True))
    return msgspec.msgpack.encode(list((whole | changes).values()))


def floats(value: float) -> list[bytes]:
    return [np.full(tensor.size, value, "<f8").tobytes() for tensor in SPEC]


WHOLE = states(3)[3].ways[-1].body


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"persistence": float("nan")}, "damaged: Expected `float` >= 0.0"),
        ({"persistence": float("inf")}, "damaged: Expected `float` <= 1.0"),
        ({"fine": floats(float("nan"))}, "not finite or far too large"),
        ({"drift": floats(1e300)}, "not finite or far too large"),
        ({"trail": [WHOLE] * 17}, "damaged: Expected `array` of length <= 16"),
        ({"ways": [[start, WHOLE] for start in range(40, -1, -1)]}, "damaged: Expected `array` of length <= 11"),
        ({"ways": [[3, WHOLE], [0, WHOLE]]}, "its ways begin where none can"),
        ({"ways": [[1, WHOLE], [2, WHOLE], [0, WHOLE]]}, "its ways begin where none can"),
        ({"ways": [[-1, WHOLE], [0, WHOLE]]}, "its ways begin where none can"),
        ({"ways": [[2, b""], [0, WHOLE]]}, "a way is longer than any of this spec, or empty"),
        ({"ways": [[2, bytes(9999)], [0, WHOLE]]}, "a way is longer than any of this spec, or empty"),
        ({"version": 0}, "its ways begin where none can"),
        ({"grids": [100] * len(SPEC)}, "other grids than it says"),
        ({"grids": [-300] * len(SPEC)}, "other grids than it says"),
    ],
)
def test_a_stored_state_of_right_shape_and_wrong_contents_is_refused(changes: dict[str, object], why: str) -> None:
    assert ServerState.from_bytes(stored(), SPEC).version == 3
    with pytest.raises(DownlinkError, match=why):
        ServerState.from_bytes(stored(**changes), SPEC)


def test_a_stored_state_without_a_way_from_version_0_is_refused() -> None:
    state = states(3)[3]
    for ways in ((), state.ways[:1]):
        with pytest.raises(DownlinkError, match="version 0"):
            ServerState.from_bytes(state._replace(ways=ways).to_bytes(), SPEC)


@pytest.mark.parametrize("body", [b"", b"\0", b"\x00junk", b"\x10" + bytes(9), b"\xff" * 40, bytes(10**6)])
def test_a_body_that_does_not_decode_is_a_codec_error(body: bytes) -> None:
    for held in ((), states(2)[2].offset):
        with pytest.raises(CodecError):
            install(SPEC, SEED, body, held)


def far(exponent: int) -> Offset:
    """Give an honest way to a place where no model can be."""
    return tuple(Decoded(np.full(tensor.shape, 3, np.int64), exponent) for tensor in SPEC)


@pytest.mark.parametrize("held", [-190, 0, 130])
@pytest.mark.parametrize("exponent", [-190, -100, 0, 60, 135])
def test_a_way_to_nowhere_is_taken_exactly_or_refused(held: int, exponent: int) -> None:
    body = write_integers(far(exponent))
    try:
        _, offset = install(SPEC, SEED, body, far(held))
    except CodecError:
        assert abs(held - exponent) > 50
        return
    first = 3 * 2 ** (held + 400) + 3 * 2 ** (exponent + 400)
    assert {number * 2 ** (t.exponent + 400) for t in offset for number in t.integers.reshape(-1).tolist()} == {first}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_hostile_body_is_refused_or_leads_to_some_model(data: st.DataObject) -> None:
    state = data.draw(st.sampled_from(states(4)[1:]))
    body = bytearray(data.draw(st.sampled_from([way.body for way in state.ways])))
    for at, bit in data.draw(st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 7)), max_size=4)):
        body[at] ^= 1 << bit
    held = data.draw(st.sampled_from([s.offset for s in states(4)] + [far(-190), far(100)]))
    try:
        model, offset = install(SPEC, SEED, bytes(body), held)
    except CodecError:
        return
    assert [ints.shape for ints in model.ints] == [tensor.shape for tensor in SPEC]
    assert [tensor.integers.shape for tensor in offset] == [tensor.shape for tensor in SPEC]


def test_no_body_is_version_0() -> None:
    assert install(SPEC, SEED, None) == (initial(SPEC, SEED), ())


def test_a_way_is_a_start_and_a_body() -> None:
    assert states(1)[1].ways == (Way(0, states(1)[1].ways[0].body),)


@pytest.mark.parametrize(
    ("asked", "unit", "exponent"), [(2.0, 1, 1), (2.4, 1, 1), (2.6, 3, 0), (3.4, 3, 0), (3.6, 1, 2), (4.0, 1, 2)]
)
def test_a_grid_is_a_power_of_two_or_three_of_one(asked: float, unit: int, exponent: int) -> None:
    spec = (TensorSpec("w", (2,)),)
    state = advance(start(spec, SEED), [np.array([1.0, -1.0])], spec, CompressionSpec(downlink_step=asked))
    assert (state.unit, state.offset[0].exponent) == (unit, exponent)
    assert not (state.offset[0].integers % unit).any()
    later = advance(state, [np.array([30.0, 70.0])], spec, CompressionSpec(downlink_step=asked))
    assert not (later.trail[0][0].integers % unit).any()
    assert ServerState.from_bytes(state.to_bytes(), spec).unit == unit
