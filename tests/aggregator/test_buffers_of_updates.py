"""The buffers of a net, from devices' updates to the versions that everybody holds: with BatchNorm, as Torch has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec import structs
from torch import nn

from aggregator.gates import RefusedError
from aggregator.intake import Counted
from aggregator.learner import Learner, LearnerError
from aggregator.record import Next, start
from aggregator.rows import AMONG_BODIES
from models import buffers, chain, sections
from models.buffers import Buffers, first_of, for_training, named
from models.chain import Chain, Held
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, TrainSpec
from models.nets.buffered import buffered
from models.nets.mlp import Mlp
from models.nets.torch_net import TorchNet
from models.training import train

MODEL = ModelSpec("mlp", inputs=4, hidden=(8,), outputs=3)
HOW = TrainSpec(epochs=1, batch_size=16, learning_rate=0.1)
N_DEVICES = 3


def module(n: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, n), nn.BatchNorm1d(n), nn.ReLU(), nn.Linear(n, 3))


NET, WIDE = TorchNet(MODEL, module(8)), TorchNet(MODEL, module(96))
TRUE = np.random.default_rng(7).standard_normal((4, 3))


def job(compression: str = "strong", **more: Any) -> JobSpec:
    return structs.replace(JobSpec("toy", MODEL, compression=compression, train=HOW), **more)  # type: ignore[arg-type]


def rows(seed: int, n: int = 64) -> Dataset:
    X = np.random.default_rng(seed).standard_normal((n, 4)) + 3
    return Dataset(X.astype(np.float32), ((X - 3) @ TRUE).argmax(axis=1), "made up")


def fresh(spec: JobSpec, net: TorchNet = NET) -> Learner:
    return Learner(net, spec, start(net, spec).to_bytes())


def trained(net: TorchNet, spec: JobSpec, held: Held, coding: Any, seed: int) -> tuple[bytes, Buffers]:
    """Return the body of the update of a device, and its buffers as it has them."""
    begun = held.model.params(net.spec)
    state = train.begin(begun, train.seed_for(0, held.number, f"d{seed}"), for_training(net, held.buffers))
    state = train.finish(train.steps(net, state, rows(seed), spec.train, version_number=held.number), state)
    delta = {name: state.params[name] - begun[name] for name in begun}
    now = named(state.buffers, net.buffers)
    said = buffers.encode(now, held.buffers, whole=spec.coding.codec == "float32")
    coded = coding.encode(delta, np.random.default_rng(seed))
    return sections.join({sections.DELTA: coded, sections.BUFFERS: said}), now


def round_of(learner: Learner, net: TorchNet = NET, n: int = N_DEVICES) -> list[tuple[bytes, Counted]]:
    spec, held = learner._spec, learner.now.held
    coding = Chain(net.spec, spec).coding(held.number, learner.terms)
    told = []
    for seed in range(n):
        body, _ = trained(net, spec, held, coding, seed)
        assert len(body) <= learner.max_body_bytes
        admitted = learner.admit(body, 10 + seed, None, None, f"d{seed}")
        told.append((body, Counted(admitted.weight, admitted.norm, device=f"d{seed}")))
    return told


def variances(held: Held) -> np.ndarray[Any, Any]:
    return held.buffers.params()["1.running_var"]


def accuracy(net: TorchNet, held: Held) -> float:
    test = rows(99, 600)
    found = buffered(net, held.buffers).evaluate(held.model.params(net.spec), test.X, test.y).accuracy
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("compression", "n_rounds", "least"), [("strong", 50, 0.85), ("extreme", 50, 0.8), ("off", 15, 0.7)]
)
def test_rounds_leave_every_variance_above_zero_and_all_ways_lead_to_the_same_version(
    compression: str, n_rounds: int, least: float
) -> None:
    spec, net = job(compression), WIDE if compression == "extreme" else NET
    learner, walk = fresh(spec, net), Chain(net.spec, spec, first_of(net))
    held: dict[int, Held] = {0: walk.first()}
    kinds = set()
    for number in range(1, n_rounds + 1):
        round_of(learner, net)
        following = learner.next()
        for begin, body in following.ways:
            kinds.add(chain.kind_of(body))
            assert len(body) <= chain.max_way_bytes_of(spec, net.spec, net.buffers)
            assert walk.take(held[begin], number, body).sha256() == following.sha256
            if chain.begins_anywhere(body):  # somebody who has nothing
                assert walk.take(walk.first(), number, body).buffers == following.held.buffers
        assert walk.take(walk.first(), number, walk.exact(following.held)).sha256() == following.held.sha256()
        assert (variances(following.held) > 0).all()
        held[number] = walk.take(held[following.ways[0][0]], number, following.ways[0][1])
        learner.take(following)
    assert kinds == ({chain.WHOLE} if compression == "off" else {chain.STEP, chain.GROUP, chain.SNAPSHOT})
    last = held[n_rounds]
    assert accuracy(net, last) > least > accuracy(net, last._replace(buffers=first_of(net))) + 0.1


def test_they_are_the_mean_by_weight_and_a_version_goes_by_them() -> None:
    spec, learner = job("off"), fresh(job("off"))
    held = learner.now.held
    coding = Chain(NET.spec, spec).coding(0, learner.terms)
    told = [trained(NET, spec, held, coding, seed) for seed in range(N_DEVICES)]
    for seed, (body, _) in enumerate(told):
        learner.admit(body, 10 + seed, None, None, f"d{seed}")
    following = learner.next()
    for at in (0, 1):
        said = np.array([now.values[at] for _, now in told], np.float64)
        right = np.average(said, axis=0, weights=[10, 11, 12])
        np.testing.assert_allclose(following.held.buffers.values[at], right, rtol=1e-7)
    assert following.held._replace(buffers=first_of(NET)).sha256() != following.sha256
    assert learner.now.sha256 == start(NET, spec).sha256


@pytest.mark.parametrize("compression", ["strong", "off"])
def test_a_start_at_any_moment_goes_on_as_if_nothing_had_been(compression: str) -> None:
    spec = job(compression)
    through, state, steps = fresh(spec), start(NET, spec).to_bytes(), list[bytes]()
    for number in range(1, 5):
        told, now = round_of(through), through.now
        following = through.next()
        for order in (told[::-1], told[1:] + told[:1]):
            resumed = Learner(NET, spec, now.to_bytes())
            for body, counted in order:
                resumed.restore(body, counted)
            assert resumed.next().sha256 == following.sha256
        assert Learner(NET, spec, following.to_bytes(), number, following.sha256).now.held == following.held
        state, steps = gone_on(through, following, state, steps)
        through.take(following)
        again = Learner(
            NET, spec, state, number, following.sha256, steps=steps, record=following.beside() if steps else b""
        )
        assert again.now.held.buffers == following.held.buffers


def gone_on(learner: Learner, following: Next, state: bytes, steps: list[bytes]) -> tuple[bytes, list[bytes]]:
    """Return what a store has then: the state of a version, and the steps from there on."""
    kept = learner.kept(following)
    if kept.state == AMONG_BODIES:
        return b"", [following.step]
    return (kept.state, []) if kept.state else (state, [*steps, following.step])


def test_an_update_without_them_is_refused_and_so_is_one_with_what_nobody_asked_for() -> None:
    learner = fresh(job())
    coding = Chain(NET.spec, learner._spec).coding(0, learner.terms)
    body, _ = trained(NET, learner._spec, learner.now.held, coding, 0)
    found = sections.split(body, sections.allowed(learner._spec, NET.spec, NET.buffers))
    for said, why in (
        ({"delta": found["delta"]}, 'section "buffers" is missing'),
        (found | {"buffers": b"\7"}, 'section "buffers": buffer "1.running_mean" is said in no way'),
        (found | {"buffers": b"\0\3" + np.full(8, -1, "<f4").tobytes()}, '"1.running_var" has a variance below 0'),
    ):
        with pytest.raises(RefusedError, match=why):
            learner.admit(sections.join(said), 10, None, None, "d0")
    assert learner.intake.weight == 0
    plain = Learner(Mlp(MODEL), job(), start(Mlp(MODEL), job()).to_bytes())
    with pytest.raises(RefusedError, match='section "buffers" is not wanted by this job'):
        plain.admit(body, 10, None, None, "d0")


def test_one_device_with_absurd_numbers_moves_nobody_else() -> None:
    honest, attacked = fresh(job()), fresh(job())
    told = round_of(honest, n=5)
    round_of(attacked, n=5)
    limits = sections.allowed(honest._spec, NET.spec, NET.buffers)
    liar = sections.split(told[0][0], limits) | {"buffers": b"\3" + np.full(8, 1e30, "<f4").tobytes() + b"\0"}
    attacked.admit(sections.join(liar), 10, None, None, "liar")
    assert attacked.next().held.buffers == honest.next().held.buffers


def test_a_device_that_is_capped_weighs_less_in_them_too() -> None:
    spec = job("off")
    told = round_of(fresh(spec))
    bodies = {counted.device: body for body, counted in told}
    heavy, light = fresh(spec), fresh(spec)
    for body, counted in told:
        heavy.admit(body, 10_000 if counted.device == "d0" else counted.weight, None, None, counted.device)
    capped = heavy.cap(0.4, lambda one: bodies[one.device])
    assert capped.keys() == {"d0"}
    for body, counted in told:
        light.admit(body, capped["d0"][1] if counted.device == "d0" else counted.weight, None, None, counted.device)
    assert heavy.next().held.buffers == light.next().held.buffers


def test_a_late_update_has_no_say_in_them() -> None:
    spec = job("off")
    learner = fresh(structs.replace(spec, rounds=structs.replace(spec.rounds, late="fold")))
    late = round_of(learner)[0][0]
    learner.take(learner.next())
    alone = fresh(learner._spec)
    round_of(alone)
    alone.take(alone.next())
    round_of(learner)
    round_of(alone)
    learner.admit(late, 10, None, 0, "slow")
    assert learner.next().held.buffers == alone.next().held.buffers
    assert learner.next().sha256 != alone.next().sha256


def test_a_version_that_is_restored_has_those_that_it_had() -> None:
    learner = fresh(job())
    round_of(learner)
    learner.take(learner.next())
    kept, first = learner.exact(), learner.now.held
    round_of(learner)
    learner.take(learner.next())
    again = learner.jump(learner.read_exact(kept))
    assert again.held.buffers == first.buffers != learner.now.held.buffers


def test_a_job_without_them_is_written_as_an_older_fedge_reads_it() -> None:
    plain = start(Mlp(MODEL), job())
    assert plain.to_bytes()[4:6] == b"\x95\x02"
    assert start(NET, job()).to_bytes()[4:6] == b"\x97\x04"
    bare = TorchNet(MODEL, nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(1, 8), nn.ReLU(), nn.Linear(8, 3)))
    with pytest.raises(LearnerError, match="64 bytes of buffers, where the net has 0 numbers"):
        Learner(bare, job(), start(NET, job()).to_bytes())
