from __future__ import annotations

import contextlib
import math
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from models import deltas as ways
from models.agreement import Agreed
from models.chain import (
    SPAN,
    WHOLE,
    Chain,
    Grids,
    Held,
    Late,
    Step,
    grouped,
    max_step_bytes,
    max_way_bytes,
    max_way_bytes_of,
    read,
    write,
)
from models.codec import FLOAT32, INT8, CodecError, Terms
from models.codec.coding import max_body_bytes
from models.codec.decoded import Decoded
from models.codec.plain import Floats, write_float32
from models.codec.plan import shape
from models.codec.planes import max_bytes as widest_planes
from models.codec.steps import step_near, step_value
from models.contract import ContractSpec
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec
from models.lattice import LIMIT, Model, add
from models.params import Params, Spec, TensorSpec
from models.rows import carved, params_of, row_of
from models.strategies.state import State

SPEC: Spec = (
    TensorSpec("0.weight", (9, 7)),
    TensorSpec("0.bias", (9,)),
    TensorSpec("s", ()),
    TensorSpec("none", (0, 3)),
)
D = 73
FOLDED, FULL = Terms(64, 1), Terms(128, 3)
Row = npt.NDArray[np.float64]


ADAM = AggregateSpec(strategy="fedadam", server_learning_rate=0.01)
Optimizer = float | AggregateSpec
"""Which optimizer the server has: this momentum, or another strategy."""
EVERY: list[Optimizer] = [0.0, 0.9, ADAM]


def chain_of(momentum: Optimizer = 0.0, spec: Spec = SPEC) -> Chain:
    rules = momentum if isinstance(momentum, AggregateSpec) else AggregateSpec(server_momentum=momentum)
    return Chain(spec, JobSpec("j", ModelSpec(), seed=4, aggregate=rules))


def delta(seed: int, scale: float = 0.01, spec: Spec = SPEC) -> Params:
    rng = np.random.default_rng(seed)
    return {t.name: np.asarray(scale * rng.standard_normal(t.shape), np.float32) for t in spec}


def body(chain: Chain, number: int, terms: Terms = FOLDED, scale: float = 0.01, seed: int | None = None) -> bytes:
    update = delta(number if seed is None else seed, scale, chain.spec)
    return chain.coding(number, terms).encode(update, np.random.default_rng(0))


def grids_for(momentum: Optimizer, step: float = 0.004) -> Grids:
    if isinstance(momentum, AggregateSpec):
        return Grids(step_near(step), step_near(step / 50))
    return Grids(step_near(step), step_near(step * (1 - momentum)) if momentum else 0)


def row(model: Model) -> Row:
    return np.asarray(row_of(model.values()), np.float64)


def same(a: Held, b: Held) -> bool:
    return a.number == b.number and a.model == b.model and a.sha256() == b.sha256() and a.state == b.state


# Everybody arrives at the same version.

momenta = st.sampled_from([0.0, 0.5, 0.9, ADAM])
links = st.fixed_dictionaries(
    {
        "terms": st.sampled_from([FOLDED, FOLDED, Terms(128, 1), FULL, INT8, FLOAT32]),
        "scale": st.sampled_from([0.0, 1e-9, 0.01, 0.01, 1.0, 30.0]),
        "grid": st.sampled_from([0.0, 0.0, 0.004, 0.3]),
        "late": st.lists(
            st.tuples(st.integers(1, 3), st.sampled_from([FOLDED, FULL, INT8]), st.floats(1e-3, 2)), max_size=2
        ),
    }
)
Link = dict[str, object]


def steps_of(chain: Chain, history: list[Link], momentum: Optimizer) -> list[Step]:
    steps = []
    for number, link in enumerate(history):
        terms, scale, grid, late = link["terms"], link["scale"], link["grid"], link["late"]
        assert isinstance(terms, Terms)
        assert isinstance(scale, float)
        assert isinstance(grid, float)
        assert isinstance(late, list)
        lates = tuple(
            Late(back, step_near(share), theirs, body(chain, number - back, theirs, scale, 100 + back))
            for back, theirs, share in late
            if back <= number
        )
        grids = grids_for(momentum, grid) if grid else None
        steps.append(Step(terms, body(chain, number, terms, scale), lates, grids))
    return steps


@settings(max_examples=35, deadline=None)
@given(momenta, st.lists(links, min_size=SPAN, max_size=SPAN))
def test_steps_one_by_one_a_group_and_a_snapshot_with_steps_lead_to_the_same(
    momentum: Optimizer, history: list[Link]
) -> None:
    server, device = chain_of(momentum), chain_of(momentum)
    held, written = [server.first()], []
    for step in steps_of(server, history, momentum):
        held.append(server.step(held[-1], step))
        written.append(write(step))
        assert read(written[-1]) == step
        assert same(device.take(held[-2], held[-1].number, written[-1]), held[-1])
    assert same(chain_of(momentum).take(chain_of(momentum).first(), SPAN, grouped(written)), held[-1])
    for number, link in enumerate(history, 1):
        if link["grid"]:
            grids = grids_for(momentum, float(str(link["grid"])))
            there = chain_of(momentum).take(chain_of().first(), number, server.snapshot(held[number], grids))
            assert same(there, held[number])
            for later in range(number, SPAN):
                there = device.take(there, later + 1, written[later])
            assert same(there, held[-1])


@pytest.mark.parametrize("momentum", EVERY)
def test_nothing_of_what_is_held_counts_for_a_body_that_begins_anywhere(momentum: Optimizer) -> None:
    chain = chain_of(momentum)
    held = chain.step(chain.first(), Step(FOLDED, body(chain, 0), (), grids_for(momentum)))
    snapshot = chain.snapshot(held, grids_for(momentum))
    other = chain.step(held, Step(FOLDED, body(chain, 1, scale=40.0)))
    assert same(chain.take(other, 1, snapshot), held)


@pytest.mark.parametrize("momentum", EVERY)
def test_what_is_held_is_left_alone(momentum: Optimizer) -> None:
    chain = chain_of(momentum)
    held = chain.step(chain.first(), Step(FOLDED, body(chain, 0)))
    sha256, velocity = held.model.sha256(), [v.tolist() for v in held.state.arrays]
    chain.step(held, Step(FOLDED, body(chain, 1, scale=50.0), (), grids_for(momentum)))
    assert held.model.sha256() == sha256
    assert [v.tolist() for v in held.state.arrays] == velocity
    assert chain.first().model == chain_of().first().model


def test_a_step_adds_its_sum_and_late_updates_by_their_share() -> None:
    chain = chain_of()
    held = chain.step(chain.step(chain.first(), Step(FOLDED, body(chain, 0))), Step(FOLDED, body(chain, 1)))
    share = step_near(0.37)
    late = Late(1, share, FULL, body(chain, 1, FULL, seed=77))
    after = chain.step(held, Step(FOLDED, body(chain, 2), (late, late)))
    ours, theirs = chain.coding(2, FOLDED), chain.coding(1, FULL)
    said = row_of([t.values() for t in ours.tensors(ours.decode(body(chain, 2)))])
    of_late = row_of([t.values() for t in theirs.tensors(theirs.decode(late.body))])
    assert np.abs(row(after.model) - row(held.model) - said - 2 * step_value(share) * of_late).max() <= 2.0**-24


def test_a_sum_and_a_late_update_that_are_far_apart_are_added() -> None:
    chain = chain_of()
    held = Held(1, chain.first().model)
    far = delta(1, 1e-15)
    far["0.weight"][2, 3] = 3.0  # beside the buckets, whose lattice is some 60 bits finer
    bodies_ = [chain.coding(0, FOLDED).encode(far, np.random.default_rng(0)), body(chain, 0, FLOAT32, 3.0)]
    for terms, content in zip((FOLDED, FLOAT32), bodies_, strict=True):
        coding = chain.coding(0, terms)
        said = row_of([t.values() for t in coding.tensors(coding.decode(content))])
        share = step_near(255 / 256)
        for own in (0.0, 1e-25, 1e-9):
            step = Step(INT8, body(chain, 1, INT8, own), (Late(1, share, terms, content),))
            moved = row(chain.step(held, step).model) - row(held.model)
            assert np.abs(moved - step_value(share) * said).max() <= 2.0**-23


def test_with_momentum_steps_go_on() -> None:
    chain, momentum = chain_of(0.9), round(0.9 * 2**16) / 2**16
    held = chain.first()
    moved = np.zeros(D)
    for number in range(6):
        coding = chain.coding(number, FOLDED)
        said = row_of([t.values() for t in coding.tensors(coding.decode(body(chain, number)))])
        moved = momentum * moved + said
        after = chain.step(held, Step(FOLDED, body(chain, number)))
        assert np.abs(row(after.model) - row(held.model) - moved).max() <= 2.0**-24
        held = after


def test_an_exponent_that_rises_on_the_way_rises_for_everybody() -> None:
    chain = chain_of()
    steps = [Step(FLOAT32, body(chain, k, FLOAT32, 25.0)) for k in range(SPAN)]
    held = chain.first()
    for step in steps:
        held = chain.step(held, step)
    assert max(held.model.exponents) > -24
    assert same(chain.take(chain.first(), SPAN, grouped([write(step) for step in steps])), held)


def test_another_base_leads_elsewhere() -> None:
    chain = chain_of()
    first = chain.step(chain.first(), Step(FOLDED, body(chain, 0)))
    step = write(Step(FOLDED, body(chain, 1)))
    ours = chain.take(first, 2, step)
    assert chain.take(Held(1, chain.first().model), 2, step).model != ours.model
    with pytest.raises(CodecError, match="leads to version 1 where 2 was wanted"):
        chain.take(chain.first(), 2, step)


# Whole versions.


def test_a_whole_version_leads_there_within_a_float() -> None:
    chain = chain_of(0.9)
    model = add(chain.first().model, [Decoded(np.full(t.shape, 3**k, np.int64), -20) for k, t in enumerate(SPEC)])
    found = chain.take(chain.first(), 7, chain.whole(model))
    assert (found.number, found.state) == (7, State())
    assert np.abs(row(found.model) - row(model)).max() <= np.abs(row(model)).max() * 2.0**-23


def test_a_published_whole_version_says_itself_again() -> None:
    chain = chain_of()
    model = add(chain.first().model, [Decoded(np.full(t.shape, 12345, np.int64), -27) for t in SPEC])
    there = chain.take(chain.first(), 1, chain.whole(model))
    assert same(chain.take(chain.first(), 1, chain.whole(there.model)), there)


# Rounding and snapshots.


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("step", [1e-6, 0.004, 0.5])
def test_rounding_moves_a_version_by_half_a_grid_step_at_most(momentum: float, step: float) -> None:
    chain, grids = chain_of(momentum), grids_for(momentum, step)
    before = chain.step(chain.first(), Step(FLOAT32, body(chain, 0, FLOAT32, 1.0)))
    after = chain.step(chain.first(), Step(FLOAT32, body(chain, 0, FLOAT32, 1.0), (), grids))
    size = step_value(grids.model)
    counts = (row(after.model) - row(chain.first().model)) / size
    assert np.abs(row(after.model) - row(before.model)).max() <= size / 2 + 2.0**-24
    assert np.abs(counts - np.rint(counts)).max() <= 2.0**-24 / size
    for ours, exact in zip(after.state.arrays, before.state.arrays, strict=True):
        assert np.abs(ours - exact).max(initial=0) * 2.0**-36 <= step_value(grids.state) / 2 + 2.0**-36


def test_counts_go_to_the_nearest_and_halves_up() -> None:
    chain = chain_of()
    first = chain.first().model
    grid = step_near(2.0**-20)  # 16 units of the lattice
    for units, wanted in ((7, 0), (8, 16), (9, 16), (-7, 0), (-8, 0), (-9, -16), (24, 32), (-24, -16)):
        moved = Model(tuple((i + units).astype(np.int32) for i in first.ints), first.exponents)
        found = chain._rounded(Held(1, moved), Grids(grid)).model
        assert {int(v) for a, b in zip(found.ints, first.ints, strict=True) for v in (a - b).reshape(-1)} == {wanted}


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_snapshot_leads_to_its_version_wherever_the_model_is(momentum: float) -> None:
    """As the server chooses them: a grid of eight units or more of the coarsest tensor before the step."""
    for trial in range(300):
        chain, rng = chain_of(momentum), np.random.default_rng(trial)
        far = [
            Decoded((rng.standard_normal(t.shape) * 2.0 ** rng.integers(10, 33)).astype(np.int64), -24) for t in SPEC
        ]
        model = add(chain.first().model, far)
        if trial % 2:
            ints = [i.copy() for i in model.ints]
            ints[0].flat[0] = LIMIT - int(rng.integers(1, 6))
            model = Model(tuple(ints), model.exponents)
        size = 2.0 ** (max(model.exponents) + 3 + rng.uniform(0, rng.choice([0.01, 1, 10])))
        grids = Grids(step_near(size), step_near(2.0 ** (-36 + rng.uniform(0, 20))) if momentum else 0)
        velocity = tuple(rng.integers(-(2**20), 2**20, t.shape) for t in SPEC) if momentum else ()
        step = Step(FLOAT32, body(chain, 3, FLOAT32, 2.0 ** rng.integers(-10, 4)), (), grids)
        held = chain.step(Held(3, model, State(velocity)), step)
        assert same(chain.take(chain.first(), 4, chain.snapshot(held, grids)), held)


WALK: Spec = (TensorSpec("w", (40, 30)),)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_snapshots_of_a_random_walk_stay_small_and_add_half_of_a_rounds_noise_at_most(momentum: float) -> None:
    chain = chain_of(momentum, WALK)
    noise, d, terms = 1200 * 1e-4 / (1 - momentum) ** 2, 1200, Terms(1280, 2)
    grids = grids_for(momentum, 0.99 * math.sqrt(12 * 0.5 * noise / d))
    held, added, sizes = chain.first(), list[float](), dict[int, float]()
    for number in range(500):
        step = Step(terms, body(chain, number, terms))
        if (number + 1) % 25:
            held = chain.step(held, step)
            continue
        exact = chain.step(held, step)
        held = chain.step(held, step._replace(grids=grids))
        added.append(float(np.square(row(held.model) - row(exact.model)).sum()))
        sizes[number + 1] = 8 * len(chain.snapshot(held, grids)) / (d * (1 + bool(momentum)))
    assert np.mean(added) <= 0.5 * noise
    assert max(added) <= 0.55 * noise
    assert sizes[50] <= 4
    assert sizes[500] <= 6


class Server:
    """Publishes versions and keeps what is needed of their bodies, as the aggregator does."""

    def __init__(self, momentum: Optimizer) -> None:
        self.chain, self.momentum = chain_of(momentum), momentum
        self.held = [self.chain.first()]
        self.steps: list[bytes] = []
        self.bodies: dict[tuple[int, int], bytes] = {}

    def publish(self, *, snapshot: bool) -> None:
        number = len(self.steps)
        grids = grids_for(self.momentum) if snapshot else None
        step = Step(FOLDED, body(self.chain, number), (), grids)
        self.held.append(self.chain.step(self.held[-1], step))
        self.steps.append(write(step))
        self.bodies[number, number + 1] = self.steps[-1]
        if grids:
            self.bodies[0, number + 1] = self.chain.snapshot(self.held[-1], grids)
        if (number + 1) % SPAN == 0:
            self.bodies[number + 1 - SPAN, number + 1] = grouped(self.steps[-SPAN:])
        whole = {way: ways.is_snapshot(content) for way, content in self.bodies.items()}
        snapshots = [n for (_, n), is_whole in whole.items() if is_whole]
        groups = {n for (start, n), is_whole in whole.items() if not is_whole and start + SPAN == n}
        self.bodies = {
            way: content
            for way, content in self.bodies.items()
            if ways.Needs(number + 1, snapshots, groups).include(way, whole=whole[way])
        }


@pytest.mark.parametrize("momentum", EVERY)
def test_a_device_that_missed_forty_versions_and_two_snapshots_arrives(momentum: Optimizer) -> None:
    server = Server(momentum)
    for number in range(1, 61):
        server.publish(snapshot=number in (22, 45))
    for held in (0, 3, 18, 22, 30, 44, 45, 47, 56, 59):
        device, there = chain_of(momentum), server.held[held]
        along = ways.path((ways.Delta(*way, len(content)) for way, content in server.bodies.items()), held, 60)
        assert along
        if along[0].start == 0:
            there = device.first()
        for way in along:
            there = device.take(there, way.number, server.bodies[way.start, way.number])
        assert same(there, server.held[60])


# Bodies.


def test_a_group_has_its_steps_in_their_order_and_no_others() -> None:
    chain = chain_of()
    held, steps = chain.first(), []
    for number in range(3):
        steps.append(write(Step(FOLDED, body(chain, number))))
        held = chain.take(held, number + 1, steps[-1])
    assert same(chain.take(chain.first(), 3, grouped(steps)), held)
    assert not same(chain.take(chain.first(), 3, grouped([steps[1], steps[0], steps[2]])), held)
    last = len(grouped(steps[:2]))
    for length in (len(steps[2]) + 1, 2**32 - 1):
        with pytest.raises(CodecError, match="made of its steps"):
            chain.take(chain.first(), 3, grouped(steps[:2]) + struct.pack("<I", length) + grouped(steps)[last + 4 :])
    for wrong in ([], steps[:2], [*steps, steps[0]], steps * 3, [grouped(steps)]):
        with pytest.raises(CodecError):
            chain.take(chain.first(), 3, grouped(wrong))


def late_body(
    back: int = 1, share: int = 201 << 7, terms: int = 1 << 26 | 64, length: int = 10, content: bytes = bytes(10)
) -> bytes:
    head = bytes((0x20, 4)) + struct.pack("<HHII", back, share, terms, length) + content
    return head + struct.pack("<I", 1 << 26 | 64) + bytes(10)


def test_a_late_update_of_zeros_is_fine() -> None:
    chain = chain_of()
    held = Held(1, chain.first().model)
    assert chain.take(held, 2, late_body()).model == held.model


@pytest.mark.parametrize(
    "absurd",
    [
        late_body(back=0),
        late_body(back=2),
        late_body(back=65_535),
        late_body(share=0),
        late_body(share=65_535),
        late_body(terms=0),
        late_body(terms=2**32 - 1),
        late_body(terms=1 << 26 | 2**26 - 1),
        late_body(terms=5 << 26 | 64),
        late_body(length=0),
        late_body(length=9),
        late_body(length=11),
        late_body(length=2**32 - 1),
        late_body(content=bytes(11)),
        late_body(content=b""),
    ],
)
def test_a_late_update_that_makes_no_sense_is_refused(absurd: bytes) -> None:
    with pytest.raises(CodecError):
        chain_of().take(Held(1, chain_of().first().model), 2, absurd)


@pytest.mark.parametrize("flags", [2, 16, 32, 64, 128, 255])
def test_a_step_with_other_flags_is_refused(flags: int) -> None:
    step = bytearray(write(Step(FOLDED, body(chain_of(), 0))))
    step[1] = flags
    with pytest.raises(CodecError):
        chain_of().take(chain_of().first(), 1, bytes(step))


@pytest.mark.parametrize("kind", [0x00, 0x11, 0x1F, 0x23, 0xFF])
def test_a_body_of_another_kind_is_refused(kind: int) -> None:
    with pytest.raises(CodecError, match="unknown kind"):
        chain_of().take(chain_of().first(), 1, bytes((kind,)) + bytes(60))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_snapshot_of_a_job_with_another_momentum_is_refused(momentum: float) -> None:
    chain, other = chain_of(momentum), chain_of(0.9 - momentum)
    held = chain.step(chain.first(), Step(FOLDED, body(chain, 0), (), grids_for(momentum)))
    with pytest.raises(CodecError, match="another kind"):
        other.take(other.first(), 1, chain.snapshot(held, grids_for(momentum)))


@pytest.mark.parametrize("grid", [0, 127, 65_535, (201 + 130) << 7, (201 - 200) << 7])
def test_a_grid_that_no_version_can_have_is_refused(grid: int) -> None:
    chain = chain_of()
    with pytest.raises(CodecError):
        chain.take(chain.first(), 1, write(Step(FLOAT32, body(chain, 0, FLOAT32), (), Grids(grid))))


def test_with_momentum_a_step_has_a_grid_for_the_velocity_too() -> None:
    chain = chain_of(0.9)
    with pytest.raises(CodecError):
        chain.take(chain.first(), 1, write(Step(FOLDED, body(chain, 0), (), Grids(step_near(0.004)))))


def test_a_velocity_that_leaves_its_lattice_is_refused_not_wrapped() -> None:
    chain = chain_of(0.9)
    for scale in (1e4, 1e30):
        with pytest.raises(CodecError):
            chain.take(chain.first(), 1, write(Step(FLOAT32, body(chain, 0, FLOAT32, scale))))


def test_a_step_beyond_every_lattice_is_refused() -> None:
    terms = struct.pack("<I", 1 << 26 | 64)
    step = bytes((0x20, 0)) + terms + struct.pack("<H", (201 + 130) << 7 | 127) + bytes(8)
    found = chain_of().take(chain_of().first(), 1, step)
    assert max(found.model.exponents) > 80
    huge = bytes((0x20, 4)) + struct.pack("<HHII", 1, (201 + 130) << 7, 1 << 26 | 64, 10) + step[6:] + step[2:]
    with pytest.raises(CodecError, match="leads nowhere"):
        chain_of().take(Held(1, chain_of().first().model), 2, huge)


def test_a_snapshot_too_far_away_is_refused() -> None:
    cells = zlib.compress(bytes([255] * D))
    planes = bytes((6,)) + (len(cells).to_bytes(4, "little") + cells) * 6
    for grid in (step_near(1.0), step_near(2.0**-24)):
        with pytest.raises(CodecError, match="too far"):
            chain_of().take(chain_of().first(), 1, struct.pack("<BBH", 0x22, 1, grid) + planes)


@pytest.mark.parametrize("grid", [0, step_near(2.0**12), step_near(2.0**100)])
def test_a_snapshot_with_a_velocity_beyond_its_lattice_is_refused(grid: int) -> None:
    chain = chain_of(0.9)
    cells = zlib.compress(bytes(D) + bytes([200] * D))
    planes = bytes((1,)) + len(cells).to_bytes(4, "little") + cells
    with pytest.raises(CodecError):
        chain.take(chain.first(), 1, struct.pack("<BBHH", 0x22, 3, step_near(0.01), grid) + planes)


@pytest.mark.parametrize("momentum", EVERY)
@pytest.mark.parametrize("codec", ["sketch", "int8", "float32"])
def test_no_body_that_a_job_writes_is_longer_than_the_most_of_that_job(momentum: float, codec: str) -> None:
    large = (TensorSpec("w", (700, 300)),)
    job = JobSpec(
        "j", ModelSpec(), compression=CompressionSpec(codec), aggregate=AggregateSpec(server_momentum=momentum)
    )
    n, most = 210_000, max_way_bytes_of(job, large)
    terms = {"sketch": Terms(shape(n)[0], 4), "int8": INT8, "float32": FLOAT32}[codec]
    body_ = bytes(max_body_bytes(large, terms))
    if codec == "float32":
        assert 1 + len(body_) <= most
    else:
        late = Late(1, step_near(0.5), terms, body_)
        assert len(write(Step(terms, body_, (late,) * 3, grids_for(momentum)))) <= most
        assert len(grouped([bytes(8192)] * SPAN)) <= most
        assert widest_planes(n * (2 if momentum else 1)) <= most
    assert most < max_way_bytes(large) / 5


@pytest.mark.parametrize("size", [0, max_way_bytes(SPEC) + 1])
def test_a_body_of_no_length_or_too_great_a_one_is_refused_unread(size: int) -> None:
    with pytest.raises(CodecError, match=f"a body of {size} bytes"):
        chain_of().take(chain_of().first(), 1, b"\x20" * size)


def test_no_honest_body_is_longer_than_the_most() -> None:
    for momentum in EVERY:
        chain = chain_of(momentum)
        late = Late(1, step_near(0.5), FLOAT32, bytes(max_body_bytes(SPEC)))
        longest = Step(FLOAT32, bytes(max_body_bytes(SPEC)), (late,) * 3, grids_for(momentum))
        assert len(write(longest)) <= max_step_bytes(SPEC)
        assert len(grouped([write(longest)] * SPAN)) <= max_way_bytes(SPEC)
        held = chain.step(chain.first(), Step(FOLDED, body(chain, 0), (), grids_for(momentum, 2.0**-22)))
        assert len(chain.snapshot(held, grids_for(momentum, 2.0**-22))) <= max_way_bytes(SPEC)
        assert len(chain.whole(held.model)) <= max_way_bytes(SPEC)


def bodies(momentum: Optimizer) -> tuple[list[Held], list[tuple[int, int, bytes]]]:
    """Return versions, and ways to them: start, number, body."""
    chain, server = chain_of(momentum), chain_of(momentum)
    held, found, written = [chain.first()], [], []
    for number in range(5):
        late = (Late(1, step_near(0.2), FULL, body(chain, number - 1, FULL)),) if number > 1 else ()
        grids = grids_for(momentum) if number in (2, 3) else None
        step = Step((FOLDED, FULL, INT8, FOLDED, FLOAT32)[number], body(chain, number), late, grids)
        step = step._replace(sum=body(chain, number, step.terms))
        held.append(server.step(held[-1], step))
        written.append(write(step))
        found.append((number, number + 1, written[-1]))
    found.append((0, 5, grouped(written)))
    found.append((0, 4, server.snapshot(held[4], grids_for(momentum))))
    found.append((0, 5, server.whole(held[5].model)))
    return held, found


KNOWN = {momentum: bodies(momentum) for momentum in EVERY}


def holds(momentum: Optimizer, start: Held, number: int, damaged: bytes) -> None:
    """Lead to a version of the net, or raise CodecError; nothing else."""
    with suppress(CodecError):
        found = chain_of(momentum).take(start, number, damaged)
        assert [ints.shape for ints in found.model.ints] == [t.shape for t in SPEC]
        assert all(np.abs(ints).max(initial=0) <= LIMIT for ints in found.model.ints)
        assert all(np.abs(v).max(initial=0) < 2**46 for v in found.state.arrays)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(EVERY),
    st.integers(0, 7),
    st.lists(st.tuples(st.integers(0), st.integers(0, 7)), min_size=1, max_size=3),
)
def test_flipped_bits_are_harmless(momentum: Optimizer, which: int, flips: list[tuple[int, int]]) -> None:
    held, known = KNOWN[momentum]
    start, number, content = known[which]
    damaged = bytearray(content)
    for at, bit in flips:
        damaged[at % min(len(damaged), 80)] ^= 1 << bit  # where the heads are
    holds(momentum, held[start], number, bytes(damaged))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(EVERY), st.integers(0, 7), st.integers(0), st.binary(max_size=9))
def test_truncated_and_extended_bodies_are_harmless(momentum: Optimizer, which: int, cut: int, more: bytes) -> None:
    held, known = KNOWN[momentum]
    start, number, content = known[which]
    holds(momentum, held[start], number, content[: cut % (len(content) + 1)] + more)
    holds(momentum, held[start], number, content + more)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EVERY), st.sampled_from([0x10, 0x20, 0x21, 0x22]), st.binary(max_size=320))
def test_any_bytes_are_a_version_or_an_error(momentum: Optimizer, kind: int, rest: bytes) -> None:
    held, _ = KNOWN[momentum]
    holds(momentum, held[3], 4, bytes((kind,)) + rest)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_snapshot_that_is_a_bomb_takes_no_more_memory_than_an_honest_one(momentum: float) -> None:
    chain = chain_of(momentum)
    bomb = zlib.compress(bytes(2**18), 9)
    head = struct.pack("<BBH", 0x22, 3 if momentum else 1, step_near(0.01)) + (
        struct.pack("<H", step_near(0.01)) if momentum else b""
    )
    tracemalloc.start()
    with pytest.raises(CodecError):
        chain.take(chain.first(), 1, head + bytes((6,)) + (len(bomb).to_bytes(4, "little") + bomb) * 6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**16


def test_the_hash_of_a_base_is_made_once_for_its_updates_and_their_sum() -> None:
    chain = chain_of()
    assert chain.coding(3, FOLDED).hash is chain.coding(3, FOLDED).hash
    assert chain.coding(3, FOLDED).hash is not chain.coding(4, FOLDED).hash
    assert chain.coding(4, FOLDED).hash.plan != chain.coding(3, FOLDED).hash.plan


def test_a_version_goes_by_its_model_and_its_velocity() -> None:
    chain = chain_of(0.9)
    held = chain.step(chain.first(), Step(FOLDED, body(chain, 0)))
    other = held._replace(state=State(tuple(v + (v.size > 1) for v in held.state.arrays)))
    assert held._replace(state=State()).sha256() == held.model.sha256()
    assert len({held.sha256(), other.sha256(), held.model.sha256(), chain.first().sha256()}) == 4
    assert held._replace(number=7).sha256() == held.sha256()


# The short way, in one pass over all coordinates.


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([FOLDED, Terms(128, 1), Terms(128, 2), FULL, Terms(128, 4), FLOAT32]),
    st.floats(1e-9, 30.0),
    st.lists(st.integers(-(2**30) + 1, 2**30 - 1), min_size=4, max_size=4),
    st.integers(0, 99),
)
def test_the_short_way_leads_where_the_long_one_does(
    terms: Terms, scale: float, corners: list[int], number: int
) -> None:
    chain = chain_of()
    ints = np.resize(np.array(corners, np.int32), D)
    model = Model(carved(ints, SPEC), (-24,) * len(SPEC))
    held, step = Held(number, model), Step(terms, body(chain, number, terms, scale))
    straight = chain._straight(held, step)
    if straight is not None:
        assert same(straight, chain._by_tensor(held, step))


def test_the_short_way_is_taken_where_it_can_be_and_nowhere_else() -> None:
    chain = chain_of()
    held = chain.first()
    step = Step(FOLDED, body(chain, 0))
    assert chain._straight(held, step) is not None
    assert chain_of(0.5)._straight(held, step) is None
    late = Late(1, step_near(0.5), FOLDED, body(chain, 0))
    assert chain._straight(held._replace(number=1), step._replace(late=(late,))) is None
    assert chain._straight(held, Step(INT8, body(chain, 0, INT8))) is None
    uneven = Model(held.model.ints, (-24, -24, -23, -24))
    assert chain._straight(held._replace(model=uneven), step) is None
    full = Model(tuple(np.full(i.shape, 2**30 - 1, np.int32) for i in held.model.ints), held.model.exponents)
    assert chain._straight(held._replace(model=full), step) is None


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**16 - 1),
    st.floats(1e-8, 2**7),
    st.lists(st.integers(-(2**30) + 1, 2**30 - 1), min_size=4, max_size=4),
)
def test_the_short_way_onto_a_grid_leads_where_the_long_one_does(word: int, coarse: float, corners: list[int]) -> None:
    chain = chain_of()
    model = Model(carved(np.resize(np.array(corners, np.int32), D), SPEC), (-24,) * len(SPEC))
    for grid in (word, step_near(coarse)):
        with contextlib.suppress(CodecError):
            near = chain._near(model, grid)
            if near is not None:
                assert near == chain._at(chain._counts(model, grid), grid)


def test_a_version_goes_onto_a_grid_by_the_short_way_where_it_can_and_nowhere_else() -> None:
    chain = chain_of()
    model = chain.step(chain.first(), Step(FOLDED, body(chain, 0))).model
    fine, coarse = step_near(2.0**-30), step_near(0.001)
    assert chain._near(model, coarse) == chain._at(chain._counts(model, coarse), coarse)
    assert chain._near(model, coarse) not in (None, model)
    assert chain._near(model, fine) is None
    assert chain._near(Model(model.ints, (-24, -24, -23, -24)), coarse) is None
    far = Model(tuple(np.full(i.shape, 2**30 - 1, np.int32) for i in model.ints), model.exponents)
    assert chain._near(far, step_near(100.0)) is None


@pytest.mark.parametrize("scale", [1e-6, 0.01, 1.0, 7.0, 9.0, 1e3])
def test_a_whole_body_leads_to_the_same_version_both_ways(scale: float) -> None:
    chain = chain_of()
    rng = np.random.default_rng(1)
    floats = Floats((scale * rng.uniform(-1, 1, D)).astype(np.float32))
    wanted = add(chain.first().model, floats.tensors(SPEC))
    assert chain._from_first(memoryview(b"?" + floats.row.tobytes())[1:]) == wanted
    again = chain.whole(wanted)
    assert chain.take(chain.first(), 7, again).number == 7
    long = bytes((WHOLE,)) + write_float32(
        [there - here for there, here in zip(wanted.values(), chain.first().model.values(), strict=True)]
    )
    assert again == long


# What the fleet agrees on.

AGREEING = ContractSpec(normalise="standard", class_weight="balanced")


def agreeing_job(compression: str = "strong", optimizer: AggregateSpec | None = None) -> JobSpec:
    return JobSpec(
        name="toy",
        model=ModelSpec(inputs=7, outputs=2),
        compression=compression,  # type: ignore[arg-type]  # one of the presets
        contract=AGREEING,
        aggregate=optimizer or AggregateSpec(),
    )


AGREED = Agreed(np.arange(7, dtype=np.float32), np.full(7, 0.5, np.float32), (3, 4))


@pytest.mark.parametrize("optimizer", [AggregateSpec(), ADAM])
def test_an_agreement_leads_to_a_version_of_the_same_numbers(optimizer: AggregateSpec) -> None:
    chain = Chain(SPEC, agreeing_job(optimizer=optimizer))
    held = chain.take(chain.first(), 1, chain.agreement(chain.first(), AGREED))
    assert (held.number, held.agreed) == (1, AGREED)
    assert held.model.sha256() == chain.first().model.sha256()
    assert held.sha256() != chain.first().sha256()
    other = held._replace(agreed=structs.replace(AGREED, class_counts=(3, 5)))
    assert other.sha256() != held.sha256()


def test_whatever_follows_keeps_the_agreement() -> None:
    chain = Chain(SPEC, agreeing_job())
    first = chain.agreement(chain.first(), AGREED)
    held, steps, grids = chain.take(chain.first(), 1, first), [first], Grids(step_near(2.0**-10))
    for number in range(2, SPAN + 1):
        update = params_of(np.random.default_rng(number).standard_normal(D, np.float32), SPEC)
        said = chain.coding(held.number, FOLDED).encode(update, np.random.default_rng(number))
        body = write(Step(FOLDED, said, (), grids if number == SPAN else None))
        held = chain.take(held, number, body)
        assert held.agreed == AGREED
        steps.append(body)
    for body in (grouped(steps), chain.snapshot(held, grids)):
        found = chain.take(chain.first(), SPAN, body)
        assert (found.sha256(), found.agreed) == (held.sha256(), AGREED)
    assert ways.is_snapshot(chain.snapshot(held, grids))


def test_a_whole_version_says_the_agreement_too() -> None:
    chain = Chain(SPEC, agreeing_job("off"))
    model = add(chain.first().model, [Decoded(np.ones(t.shape, np.int64), -3) for t in SPEC])
    body = chain.whole(model, AGREED)
    held = chain.take(chain.first(), 5, body)
    assert (held.model.sha256(), held.agreed) == (model.sha256(), AGREED)
    assert ways.is_snapshot(body)
    assert len(body) <= max_way_bytes_of(agreeing_job("off"), SPEC)


def test_a_job_without_an_agreement_takes_none() -> None:
    agreeing, without = Chain(SPEC, agreeing_job()), Chain(SPEC, JobSpec(name="toy", model=ModelSpec(inputs=7)))
    step, whole = agreeing.agreement(agreeing.first(), AGREED), agreeing.whole(agreeing.first().model, AGREED)
    for body in (step, whole):
        assert agreeing.take(agreeing.first(), 1, body).agreed == AGREED
        with pytest.raises(CodecError, match="unknown kind"):
            without.take(without.first(), 1, body)


def test_what_is_agreed_on_stays() -> None:
    chain = Chain(SPEC, agreeing_job())
    body = chain.agreement(chain.first(), AGREED)
    held = chain.take(chain.first(), 1, body)
    with pytest.raises(CodecError, match="has an agreement already"):
        chain.take(held, 2, body)
    with pytest.raises(CodecError, match="has an agreement already"):
        chain.agreement(held, AGREED)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bytes_of_an_agreement_lead_somewhere_or_are_one_error(data: st.DataObject) -> None:
    chain = Chain(SPEC, agreeing_job())
    start = data.draw(
        st.sampled_from([chain.agreement(chain.first(), AGREED), chain.whole(chain.first().model, AGREED)])
    )
    body = bytearray(start)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, min(len(body), 90) - 1))] = data.draw(st.integers(0, 255))
    nested = bytes((0x25,)) + struct.pack("<I", 4) + bytes(4)
    for hostile in (bytes(body), bytes(body[: data.draw(st.integers(1, len(body)))]), nested * 9):
        with suppress(CodecError):
            chain.take(chain.first(), 1, hostile)


def test_a_version_after_a_step_is_hashed_and_trained_on_without_another_copy_of_it() -> None:
    spec, terms, rng = (TensorSpec("w", (40, 20)), TensorSpec("b", (40,))), Terms(256, 1), np.random.default_rng(0)
    chain_ = Chain(spec, JobSpec("j", ModelSpec(), seed=3))
    delta = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in spec}
    model = chain_.step(chain_.first(), Step(terms, chain_.coding(0, terms).encode(delta, rng))).model
    assert all(np.shares_memory(model.row, ints) for ints in model.ints)
