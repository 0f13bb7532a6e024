"""The numbers of a job, without a store: bodies in, versions out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.gates import RefusedError
from aggregator.learner import OBSERVED, Counted, Learner, LearnerError, observe, start
from models import codec, nets
from models.codec.steering import steer
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec
from models.lattice import initial

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
    encoded = codec.encode(delta, NET.spec, spec.coding, state=codec.drop(), rng=rng)
    return encoded.body, float(encoded.nmse)


def take_round(learner: Learner, spec: JobSpec, number: int, n: int = 3) -> list[tuple[bytes, Counted]]:
    """Admit n updates, and give what the store would remember of them."""
    told = []
    for k in range(n):
        body, nmse = update(100 * number + k, spec)
        norm = learner.admit(body, 10 + k, nmse)
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
