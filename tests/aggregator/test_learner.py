"""The numbers of a job, without a store: bodies in, versions out."""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.gates import RefusedError
from aggregator.learner import OBSERVED, Counted, Learner, LearnerError, _norm, observe, start
from models import codec, fold, nets
from models.codec.steering import steer
from models.job import PRESETS, AggregateSpec, CompressionSpec, JobSpec, ModelSpec
from models.lattice import Model, initial

MODEL = ModelSpec(inputs=6, hidden=(8,), outputs=3)
NET = nets.build(MODEL)


def job(**changes: object) -> JobSpec:
    fields: dict[str, object] = {"aggregate": AggregateSpec(server_momentum=0.5), "compression": "strong"}
    return JobSpec("toy", MODEL, **(fields | changes))  # type: ignore[arg-type]  # the tests know the fields


def fresh(spec: JobSpec) -> Learner:
    return Learner(NET, spec, start(NET, spec).to_bytes())


def update(seed: int, spec: JobSpec, size: float = 0.01) -> tuple[bytes, float]:
    """Give the body of an update, and what its coding lost."""
    rng = np.random.default_rng(seed)
    delta = {tensor.name: (size * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET.spec}
    encoded = codec.encode(delta, NET.spec, spec.coding, rng=rng)
    return encoded.body, float(encoded.nmse)


def take_round(learner: Learner, spec: JobSpec, number: int, n: int = 3) -> list[tuple[bytes, Counted]]:
    """Admit n updates, and give what the store would remember of them."""
    told = []
    for k in range(n):
        body, nmse = update(100 * number + k, spec)
        norm = learner.admit(body, 10 + k, nmse).norm
        told.append((body, Counted(10 + k, norm, nmse)))
    return told


# Restoring.


SPECS = {
    "strong": job(),
    "light": job(compression="light"),
    "off": job(compression="off"),
    "without momentum": job(aggregate=AggregateSpec()),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_learner_made_from_what_is_durable_goes_on_as_if_nothing_had_been(spec: JobSpec) -> None:
    through = fresh(spec)
    blob = start(NET, spec).to_bytes()
    for number in range(5):
        told = take_round(through, spec, number)
        resumed = Learner(NET, spec, blob)
        for body, counted in reversed(told):
            resumed.restore(body, counted)
        assert resumed.step_scale == through.step_scale
        following = through.next()
        assert resumed.next().to_bytes() == following.to_bytes()
        blob = following.to_bytes()
        through.take(following)
    assert through.now.state.version == 5
    assert len(through.now.observed) == OBSERVED


def test_a_version_that_is_not_taken_changes_nothing() -> None:
    spec = job()
    learner = fresh(spec)
    take_round(learner, spec, 0)
    before = learner.now.to_bytes()
    first, second = learner.next(), learner.next()
    assert first.to_bytes() == second.to_bytes()
    assert learner.now.to_bytes() == before


def test_a_version_that_is_taken_begins_with_an_empty_sum() -> None:
    spec = job()
    learner = fresh(spec)
    take_round(learner, spec, 0)
    learner.take(learner.next())
    one = Learner(NET, spec, learner.now.to_bytes())
    for both in (learner, one):
        take_round(both, spec, 1)
    assert learner.next().to_bytes() == one.next().to_bytes()


def test_version_0_is_drawn_from_the_seed() -> None:
    assert start(NET, job()).model == initial(NET.spec, 0)


# The mean and the gates.


def test_a_version_is_the_weighted_mean_of_its_updates() -> None:
    spec = job(compression="off", aggregate=AggregateSpec())
    learner = fresh(spec)
    total = [np.zeros(tensor.shape) for tensor in NET.spec]
    for k, weight in enumerate((1, 5)):
        body, _ = update(k, spec)
        learner.admit(body, weight, None)
        total = [t + weight * d.values() for t, d in zip(total, codec.decode(body, NET.spec), strict=True)]
    made = zip(learner.next().model.values(), initial(NET.spec, 0).values(), total, strict=True)
    for value, first, wanted in made:
        assert np.abs(value - (first + wanted / 6)).max() < 1e-7


def test_a_refused_update_leaves_no_trace() -> None:
    spec = job()
    clean, tried = fresh(spec), fresh(spec)
    for learner in (clean, tried):
        take_round(learner, spec, 0)
    absurd, nmse = update(7, spec, 1e6)
    for body in (absurd, b"", b"\xffjunk", update(8, spec)[0][:-1]):
        with pytest.raises(RefusedError):
            tried.admit(body, 10, nmse)
    assert tried.next().to_bytes() == clean.next().to_bytes()
    assert tried.admit(update(9, spec)[0], 10, nmse) == clean.admit(update(9, spec)[0], 10, nmse)


def test_the_gate_goes_by_the_norms_of_earlier_versions_and_not_by_who_came_first() -> None:
    spec = job()
    learner = fresh(spec)
    for seed in range(3):
        learner.admit(update(seed, spec, 0.001)[0], 10, None)
    large, _ = update(9, spec, 1.0)
    assert fresh(spec).admit(large, 10, None) == learner.admit(large, 10, None)
    learner = fresh(spec)
    for seed in range(3):
        learner.admit(update(seed, spec, 0.001)[0], 10, None)
    blob = learner.next().to_bytes()
    learner.take(learner.next())
    for later in (learner, Learner(NET, spec, blob)):
        with pytest.raises(RefusedError, match="far from its peers'"):
            later.admit(large, 10, None)


def test_a_step_that_the_model_cannot_take_is_a_learner_error() -> None:
    spec = job(aggregate=AggregateSpec(server_learning_rate=1e35))
    learner = fresh(spec)
    take_round(learner, spec, 0)
    before = learner.now.to_bytes()
    with pytest.raises(LearnerError, match="far too large"):
        learner.next()
    assert learner.now.to_bytes() == before


# Damage.


def test_any_damage_to_what_is_stored_is_a_learner_error() -> None:
    spec = job()
    learner = fresh(spec)
    take_round(learner, spec, 0)
    blob = learner.next().to_bytes()
    for at in range(0, len(blob), 11):
        for damaged in (blob[:at], blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]):
            with pytest.raises(LearnerError):
                Learner(NET, spec, damaged)


def test_a_blob_with_a_right_checksum_and_hostile_contents_is_a_learner_error_or_a_learner_that_goes_on() -> None:
    spec = job()
    learner = fresh(spec)
    for number in range(3):
        take_round(learner, spec, number)
        learner.take(learner.next())
    blob, body = learner.now.to_bytes(), update(9, spec)[0]
    opened = refused = 0
    for seed in range(HOSTILE):
        rng = random.Random(seed)  # noqa: S311 -- a schedule, no secret
        outer = msgspec.msgpack.decode(blob[4:])
        outer[0] = msgspec.msgpack.decode(outer[0])
        for _ in range(rng.choice([1, 1, 2])):
            spoil(outer, rng)
        outer[0] = outer[0] if isinstance(outer[0], bytes) else msgspec.msgpack.encode(outer[0])
        packed = msgspec.msgpack.encode(outer)
        try:
            hostile = Learner(NET, spec, zlib.crc32(packed).to_bytes(4, "little") + packed)
            hostile.restore(body, Counted(10, 1.0, 0.1))
            hostile.take(hostile.next())
            opened += 1
        except LearnerError:
            refused += 1
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert min(opened, refused) > HOSTILE / 20


HOSTILE = int(os.environ.get("DAMAGE_CASES", "250"))
NASTY: tuple[object, ...] = (
    *(None, True, 0, -1, 1, 2**40, 2**63, 2**64 - 1, -(2**63), 0.5, -1.0, 1e300, math.inf, -math.inf, math.nan),
    *("", "text", b"", b"\xff" * 9, [], [[]], [0, b""], [[0, b"\x10"]] * 3, [b"\x20"] * 400, {"a": 1}),
)


def spoil(tree: object, rng: random.Random) -> None:
    """Change something somewhere in nested lists."""
    while isinstance(tree, list) and tree:
        at = rng.randrange(len(tree))
        inner = tree[at]
        if isinstance(inner, list) and inner and rng.random() < 0.8:
            tree = inner
            continue
        match rng.randrange(6):
            case 0:
                tree[at] = copy.deepcopy(rng.choice(NASTY))
            case 1:
                del tree[at]
            case 2:
                tree.insert(at, copy.deepcopy(inner))
            case 3:
                tree[at] = copy.deepcopy(tree[rng.randrange(len(tree))])
            case _ if isinstance(inner, bytes) and inner:
                k = rng.randrange(len(inner))
                tree[at] = inner[:k] + bytes([inner[k] ^ 1 << rng.randrange(8)]) + inner[k + 1 :]
            case _ if isinstance(inner, int):
                tree[at] = min(inner + rng.choice([-1, 1, 7, 100, 2**52]), 2**63)
            case _:
                tree[at] = copy.deepcopy(rng.choice(NASTY))
        return


def test_a_blob_of_another_version_model_or_seed_is_a_learner_error() -> None:
    spec = job()
    learner = fresh(spec)
    take_round(learner, spec, 0)
    following = learner.next()
    blob, sha256 = following.to_bytes(), following.model.sha256()
    assert Learner(NET, spec, blob, 1, sha256).now.model == following.model
    with pytest.raises(LearnerError, match="it is version 1, not 2"):
        Learner(NET, spec, blob, 2, sha256)
    with pytest.raises(LearnerError, match="another SHA-256"):
        Learner(NET, spec, blob, 1, "0" * 64)
    with pytest.raises(LearnerError, match="seed 0, the job with 7"):
        Learner(NET, job(seed=7), blob)


def test_what_was_stored_for_another_net_is_a_learner_error() -> None:
    spec = job()
    learner = fresh(spec)
    take_round(learner, spec, 0)
    other = nets.build(ModelSpec(inputs=6, hidden=(9,), outputs=3))
    for blob in (learner.now.to_bytes(), learner.next().to_bytes()):
        with pytest.raises(LearnerError):
            Learner(other, spec, blob)


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x10\0\0"])
def test_a_stored_update_that_has_rotted_is_a_learner_error(body: bytes) -> None:
    with pytest.raises(LearnerError, match="a stored update"):
        fresh(job()).restore(body, Counted(1, 1.0, None))


def test_an_absurd_word_of_a_device_on_its_coding_is_not_asked_for_the_steering() -> None:
    spec = job()
    learner = fresh(spec)
    for k, nmse in enumerate((1.7e308, 1.7e308, 0.25)):
        learner.admit(update(k, spec)[0], 10, nmse)
    (seen,) = learner.next().observed
    assert seen.nmse == 0.25


# Steering.


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


def test_a_device_that_says_it_lost_everything_a_thousand_times_over_is_not_listened_to() -> None:
    honest = [Counted(10, 1.0, 0.5), Counted(10, 1.0, None)]
    boasting = [Counted(10, 1.0, 1.7e308), Counted(10, 1.0, 1.7e308)]
    seen = observe([*honest, *boasting], 1.0, 0.5)
    assert seen is not None
    assert seen.nmse == 0.5
    assert observe(boasting, 1.0, 0.5) is None


@settings(max_examples=50)
@given(UPDATES)
def test_what_the_steering_sees_stays_within_what_was_counted(updates: list[Counted]) -> None:
    seen = observe(updates, 2.0, 0.5)
    told = [u.nmse for u in updates if u.nmse is not None]
    if not told:
        assert seen is None
        return
    assert seen is not None
    assert (seen.step_scale, seen.mean_energy) == (2.0, 0.5)
    assert 1 - 1e-9 <= seen.n_effective <= len(updates) + 1e-9
    assert min(told) * (1 - 1e-9) <= seen.nmse <= max(told) * (1 + 1e-9)
    norms = [u.norm**2 for u in updates]
    assert min(norms) * (1 - 1e-9) <= seen.energy <= max(norms) * (1 + 1e-9)


def test_the_step_follows_the_rounds_and_is_what_devices_are_told() -> None:
    spec = job()
    learner = fresh(spec)
    assert learner.step_scale == 1.0
    scales = []
    for number in range(4):
        take_round(learner, spec, number)
        learner.take(learner.next())
        assert learner.step_scale == float(f"{steer(learner.now.observed, learner._spec.coding.noise_share):.3g}")
        scales.append(learner.step_scale)
    assert scales[-1] != 1.0
    assert [seen.step_scale for seen in learner.now.observed] == scales[:3]


def test_a_round_that_tells_nothing_leaves_the_step_as_it_is() -> None:
    spec = job()
    learner = fresh(spec)
    take_round(learner, spec, 0)
    learner.take(learner.next())
    before = learner.step_scale, learner.now.observed
    for k in range(3):
        learner.admit(update(k, spec)[0], 10, None)
    learner.take(learner.next())
    assert (learner.step_scale, learner.now.observed) == before


@pytest.mark.parametrize("coding", [CompressionSpec(codec="int8"), CompressionSpec(steered=False)])
def test_a_job_whose_step_is_not_steered_keeps_it(coding: CompressionSpec) -> None:
    spec = job(compression=coding)
    learner = fresh(spec)
    for number in range(3):
        take_round(learner, spec, number)
        learner.take(learner.next())
        assert learner.step_scale == 1.0


# Exactness.


KERNELS = ("PRESCOTT", "SANDYBRIDGE", "HASWELL", "ZEN")
"""What OpenBLAS calls its ways to multiply on x86; all of these run wherever AVX2 does."""

OUTCOMES = """
import json, sys
import numpy as np
from aggregator.gates import RefusedError
from aggregator.learner import Learner, start
from models import nets
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec

model = ModelSpec(inputs=100, hidden=(100, 50), outputs=10)
ratio, bodies = json.load(sys.stdin)
coding = CompressionSpec(downlink_step=0.0)  # without a grid: what the downlink leads by still goes by BLAS
spec = JobSpec("toy", model, compression=coding, aggregate=AggregateSpec(max_norm_ratio=ratio))
net = nets.build(model)
learner = Learner(net, spec, start(net, spec).to_bytes())
found = []
for number in range(3):
    for body in bodies[4 * number : 4 * number + 4]:
        try:
            found.append(repr(learner.admit(bytes.fromhex(body), 10, 0.5)))
        except RefusedError as error:
            found.append(str(error))
    found.append(repr(learner._model_norm))
    learner.take(learner.next())
    found += [repr(learner.step_scale), repr(learner.now.observed), repr(learner.now.peers), learner.now.model.sha256()]
floats = np.random.default_rng(0).standard_normal(100_000)
print(json.dumps([found, repr(float(np.vdot(floats, floats)))]))
"""


def outcomes(kernel: str, ratio: float, bodies: list[str]) -> tuple[list[str], str]:
    """Give what a learner makes of these bodies under this kernel, and what np.vdot makes of some floats."""
    done = subprocess.run(
        [sys.executable, "-c", OUTCOMES],
        input=json.dumps([ratio, bodies]),
        env=os.environ | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found, product = json.loads(done.stdout)
    return found, product


def test_norms_verdicts_and_the_step_have_the_same_bits_under_every_blas_kernel() -> None:
    model = ModelSpec(inputs=100, hidden=(100, 50), outputs=10)
    net = nets.build(model)
    bodies = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        delta = {tensor.name: (0.01 * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in net.spec}
        bodies.append(codec.encode(delta, net.spec, PRESETS["off"], rng=rng).body)
    bodies.sort(key=lambda body: fold.norm(codec.decode(body, net.spec)))
    bodies[4:4] = bodies[-2:]
    norms = [fold.norm(codec.decode(body, net.spec)) for body in bodies[:5]]
    # The fifth is on the very edge of what is let in, the sixth beyond: it weighs less.
    ratio = norms[4] / statistics.median(
        norms[:4]
    )  # the fifth is on the very edge of what is let in, the sixth beyond, and weighs less
    found = [outcomes(kernel, ratio, [body.hex() for body in bodies]) for kernel in KERNELS]
    assert all(outcome == found[0][0] for outcome, _ in found)
    assert any("weight=9)" in line for line in found[0][0])
    if platform.machine() == "x86_64":
        assert len({product for _, product in found}) > 1  # else the kernels are one, and this test shows nothing


def test_the_norm_of_a_model_is_exact_where_floats_would_lose_the_small_ones() -> None:
    ints = np.ones(2**16 + 1, np.int32)
    ints[0] = 2**30
    assert _norm(Model((ints,), (-3,))) == math.sqrt(2**60 + 2**16) / 8
