"""A version that follows another and is no step from it: what devices, a start and the next rounds make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregator.gates import RefusedError
from aggregator.learner import Learner
from aggregator.record import Next, start
from aggregator.rows import AMONG_BODIES
from models.chain import EXACT, SPAN, WHOLE, Chain, Held
from models.deltas import Delta, path
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec
from models.nets import table as nets
from models.trail import Trail

MODEL = ModelSpec(inputs=6, hidden=(8,), outputs=3)
NET = nets.build(MODEL)
ADAM = AggregateSpec(strategy="fedadam", server_learning_rate=0.02)
MOMENTUM = AggregateSpec(server_momentum=0.5)
INT8 = CompressionSpec(codec="int8")
KINDS: dict[str, dict[str, Any]] = {
    "sketch": {"compression": "strong"},
    "sketch, momentum": {"compression": "strong", "aggregate": MOMENTUM},
    "sketch, fedadam": {"compression": CompressionSpec(buckets=64), "aggregate": ADAM},
    "int8": {"compression": INT8},
    "int8, median": {"compression": INT8, "aggregate": AggregateSpec(strategy="median", server_momentum=0.5)},
    "float32": {"compression": "off"},
    "float32, momentum": {"compression": "off", "aggregate": MOMENTUM},
    "float32, fedadam": {"compression": "off", "aggregate": ADAM},
}


def job(**changes: Any) -> JobSpec:
    return JobSpec("toy", MODEL, **changes)


def update(learner: Learner, seed: int, number: int | None = None) -> bytes:
    rng, base = np.random.default_rng(seed), learner.now.held.number if number is None else number
    delta = {tensor.name: (0.01 * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET.spec}
    terms = learner.terms_of(base)
    assert terms is not None
    return Chain(NET.spec, learner._spec).coding(base, terms).encode(delta, rng)


def rounds(learner: Learner, n: int) -> list[Next]:
    made = []
    for _ in range(n):
        for k in range(3):
            learner.admit(update(learner, 10 * learner.now.held.number + k), 10 + k)
        made.append(learner.next())
        learner.take(made[-1])
    return made


def jumped(spec: JobSpec, before: int = 12, to: int = 4, after: int = 11) -> tuple[Learner, list[Next], Held]:
    """A job that goes back to a version and on from there; what it has made, and the version that it went back to."""
    learner = Learner(NET, spec, start(NET, spec).to_bytes())
    made = rounds(learner, before)
    kept = Chain(NET.spec, spec).exact(made[to - 1].held)
    held = learner.read_exact(kept)
    made.append(learner.jump(held))
    learner.take(made[-1])
    return learner, made + rounds(learner, after), held


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_version_again_with_the_state_of_then(kind: str) -> None:
    _, made, held = jumped(job(**KINDS[kind]))
    again = made[12]
    assert (again.held.number, again.model, again.held.state) == (13, made[3].model, made[3].held.state)
    assert again.sha256 == made[3].sha256
    ((begins, body),) = again.ways
    assert (begins, body[0]) == (0, WHOLE if "float32" in kind else EXACT)
    assert held.state == made[3].held.state


@pytest.mark.parametrize("kind", KINDS)
def test_devices_come_to_it_and_on_from_it_wherever_they_are(kind: str) -> None:
    spec = job(**KINDS[kind])
    _, made, _ = jumped(spec)
    chain = Chain(NET.spec, spec)
    bodies = {(begins, one.held.number): body for one in made for begins, body in one.ways}
    ways = [Delta(*at, len(body)) for at, body in bodies.items()]
    held = {0: chain.first()} | {one.held.number: one.held for one in made}
    for begin in (0, 3, 11, 12, 13, 14):
        for wanted in (13, 14, 16, 24):
            if begin >= wanted:
                continue
            at = held[begin]
            if "float32" in kind:
                at = Held(at.number, at.model)  # the server alone has the state
            for way in path(ways, begin, wanted):
                at = chain.take(at, way.number, bodies[way.start, way.number])
            assert (at.number, at.model) == (wanted, made[wanted - 1].model), (begin, wanted)
    assert not any(begins == 16 - SPAN and one.held.number == 16 for one in made for begins, _ in one.ways)


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_from_what_is_stored_comes_to_the_same(kind: str) -> None:
    spec = job(**KINDS[kind])
    learner = Learner(NET, spec, start(NET, spec).to_bytes())
    made = rounds(learner, 5)
    again = learner.jump(made[2].held)
    stored = learner.kept(again)
    assert stored.state
    learner.take(again)
    blob, steps = (b"", [again.step]) if stored.state == AMONG_BODIES else (stored.state, [])
    other = Learner(NET, spec, blob, 6, again.sha256, steps=steps, record=stored.record)
    assert other.now.record == learner.now.record
    for one, two in zip(rounds(learner, 4), rounds(other, 4), strict=True):
        assert (one.sha256, one.ways) == (two.sha256, two.ways)


def test_the_mean_of_what_is_deployed_mixes_nothing_from_before() -> None:
    spec = job(**KINDS["sketch"], deploy_average=4)
    _, made, _ = jumped(spec, before=40, to=20, after=20)
    chain = Chain(NET.spec, spec)
    trail, served = Trail(chain, chain.first()), []
    for one in made:
        number = one.held.number
        body = next(body for begins, body in one.ways if begins in (0, number - 1))
        trail.take(number, body, spec.averaged_from(number))
        served.append(trail.served(spec.averaged_from(number)))
    jump = 41
    assert served[jump - 2].since == 37
    for number in range(jump, jump + 3):
        assert (served[number - 1].since, served[number - 1].model) == (None, made[number - 1].model)
    assert served[jump + 2].since == jump


def test_a_late_update_from_before_is_refused() -> None:
    spec = job(**KINDS["sketch"], rounds=RoundsSpec(late="fold"))
    learner = Learner(NET, spec, start(NET, spec).to_bytes())
    made = rounds(learner, 4)
    late = update(learner, 7, number=3)
    learner.take(learner.jump(made[1].held))
    rounds(learner, 1)
    with pytest.raises(RefusedError, match="not known any more"):
        learner.admit(late, 10, number=3)
    assert learner.terms_of(5) is not None
    learner.admit(update(learner, 8, number=5), 30, number=5)


def test_what_is_known_of_devices_stays_and_of_the_training_does_not() -> None:
    spec = job(**KINDS["sketch"])
    learner = Learner(NET, spec, start(NET, spec).to_bytes())
    made = rounds(learner, 4)
    record = learner.jump(made[1].held).record
    before = learner.now.record
    assert (record.peers, record.whose, record.streaks, record.terms) == (
        *(before.peers, before.whose, before.streaks, before.terms),
    )
    assert (record.history, record.recent, record.octave, record.left) == ((), (), 0, ())
