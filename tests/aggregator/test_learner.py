"""The numbers of a job, without a store: bodies in, versions out."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from aggregator import learner as learners
from aggregator.gates import RefusedError
from aggregator.intake import LEAST_LATE, MOST_LATE, Counted, Intake
from aggregator.learner import (
    GRID_SHARE,
    LONGEST_IN_GROUP,
    MOST_STEPS,
    SNAPSHOT_BITS,
    SWALLOWED,
    Learner,
    LearnerError,
    _octave,
)
from aggregator.record import MOST_LEFT, PEERS, Next, Record, opened, start
from aggregator.rows import AMONG_BODIES
from models import chain, steering, sums
from models.chain import SPAN, Chain, Held
from models.codec import FLOAT32, INT8, Terms
from models.codec.steps import step_value
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec
from models.lattice import Model, initial
from models.nets import table as nets
from models.params import Params, n_parameters
from models.steering import MOST_REPORTS, Report
from models.strategies.state import State

MODEL = ModelSpec(inputs=6, hidden=(8,), outputs=3)
NET = nets.build(MODEL)
D = n_parameters(NET.spec)
FOLD = RoundsSpec(late="fold")
BUCKETS = CompressionSpec(buckets=64)


MEDIAN = AggregateSpec(strategy="median", server_momentum=0.5)
ADAM = AggregateSpec(strategy="fedadam", server_learning_rate=0.02)


def job(**changes: object) -> JobSpec:
    fields: dict[str, object] = {"aggregate": AggregateSpec(server_momentum=0.5), "compression": "strong"}
    return JobSpec("toy", MODEL, **(fields | changes))  # type: ignore[arg-type]  # the tests know the fields


def fresh(spec: JobSpec) -> Learner:
    return Learner(NET, spec, start(NET, spec).to_bytes())


def delta(seed: int, size: float = 0.01) -> Params:
    rng = np.random.default_rng(seed)
    return {tensor.name: (size * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET.spec}


def update(seed: int, learner: Learner, size: float = 0.01, number: int | None = None) -> bytes:
    """The body of an update to the current version, or to one before it."""
    base = learner.now.held.number if number is None else number
    terms = learner.terms_of(base)
    assert terms is not None
    return Chain(NET.spec, learner._spec).coding(base, terms).encode(delta(seed, size), np.random.default_rng(seed))


class Told(NamedTuple):
    """An update as the store remembers it."""

    body: bytes
    counted: Counted


def report(number: int, k: int) -> Report:
    return Report(0.5 + 0.01 * k, 0.02 + 0.001 * k if number else None)


def admit(learner: Learner, seed: int, weight: int, said: Report | None = None, number: int | None = None) -> Told:
    body = update(seed, learner, number=number)
    admitted = learner.admit(body, weight, said, number)
    return Told(body, Counted(admitted.weight, admitted.norm, said, number))


def take_round(learner: Learner, number: int, n: int = 3) -> list[Told]:
    """Admit n updates, and give what the store would remember of them."""
    return [admit(learner, 100 * number + k, 10 + k, report(number, k)) for k in range(n)]


def versions(learner: Learner, n: int) -> Iterator[Next]:
    """Make n versions, and give each before it is taken."""
    for _ in range(n):
        take_round(learner, learner.now.held.number)
        following = learner.next()
        yield following
        learner.take(following)


# Restoring.


SPECS = {
    "strong": job(),
    "light": job(compression="light"),
    "off": job(compression="off"),
    "int8": job(compression=CompressionSpec(codec="int8")),
    "buckets": job(compression=CompressionSpec(buckets=128, bits=2, bits_down=3)),
    "without momentum": job(aggregate=AggregateSpec()),
    "late": job(rounds=FOLD),
    "late without momentum": job(rounds=FOLD, aggregate=AggregateSpec()),
    "late, off": job(rounds=FOLD, compression="off"),
    "fedadam": job(aggregate=ADAM),
    "fedadam, extreme": job(aggregate=ADAM, compression="extreme"),
    "fedadam, late": job(aggregate=ADAM, rounds=FOLD),
    "fedadam, late, int8": job(aggregate=ADAM, rounds=FOLD, compression=CompressionSpec(codec="int8")),
    "fedadam, off": job(aggregate=ADAM, compression="off"),
    "median, off": job(aggregate=MEDIAN, compression="off"),
    "median, late, int8": job(aggregate=MEDIAN, rounds=FOLD, compression=CompressionSpec(codec="int8")),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_learner_made_from_what_is_durable_goes_on_as_if_nothing_had_been(spec: JobSpec) -> None:
    """Whatever the order in which the updates came, and come back."""
    through = fresh(spec)
    blob = start(NET, spec).to_bytes()
    for number in range(6):
        told = take_round(through, number)
        if spec.rounds.late == "fold" and number >= 3:
            told += [admit(through, 1000 + number + k, 5 + k, number=number - 1 - k) for k in range(2)]
        following = through.next()
        for order in (told[::-1], told[1:] + told[:1], random.Random(number).sample(told, len(told))):  # noqa: S311
            resumed = Learner(NET, spec, blob)
            for body, counted in order:
                resumed.restore(body, counted)
            assert resumed.terms == through.terms
            again = resumed.next()
            assert (again.to_bytes(), again.ways, again.metrics) == (
                following.to_bytes(),
                following.ways,
                following.metrics,
            )
        blob = following.to_bytes()
        through.take(following)
    assert through.now.held.number == 6
    assert len(through.now.record.history) == 6


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_learner_made_from_an_earlier_state_and_the_steps_since_is_the_same(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.learner.MOST_BEHIND", 3)
    monkeypatch.setattr("aggregator.learner.STATE_SHARE", 100.0)
    through = fresh(spec)
    state, steps = start(NET, spec).to_bytes(), list[bytes]()
    n_states = 0
    for number in range(8):
        take_round(through, number)
        if spec.rounds.late == "fold" and number >= 3:
            admit(through, 1000 + number, 5, number=number - 1)
        following = through.next()
        kept = through.kept(following)
        if kept.state == AMONG_BODIES:
            state, steps = b"", [following.step]
        elif kept.state:
            state, steps, n_states = kept.state, [], n_states + 1
        else:
            steps.append(kept.step)
        through.take(following)
        told = number + 1, following.sha256
        again = Learner(NET, spec, state, *told, steps=steps, record=kept.record)
        assert again.now.to_bytes() == through.now.to_bytes()
        assert again._behind == through._behind
    whole = 8 if through.now.held.state else 0
    assert n_states == (whole if spec.compression == "off" else 2)


@pytest.mark.parametrize("damage", ["record", "a step", "no record", "the record of another version", "too few steps"])
def test_steps_that_do_not_lead_to_the_version_are_damage(damage: str) -> None:
    through, spec = fresh(job()), job()
    state, steps, records = start(NET, spec).to_bytes(), list[bytes](), list[bytes]()
    for number in range(3):
        take_round(through, number)
        following = through.next()
        steps.append(following.step)
        records.append(following.beside())
        through.take(following)
    record = records[-1]
    match damage:
        case "record":
            record = record[:-1] + bytes((record[-1] ^ 1,))
        case "no record":
            record = b""
        case "the record of another version":
            record = records[1]
        case "a step":
            steps[1] = steps[1][:-1] + bytes((steps[1][-1] ^ 1,))
        case "too few steps":
            steps.pop()
    with pytest.raises(LearnerError):
        Learner(NET, spec, state, 3, through.now.sha256, steps=steps, record=record)


def test_the_order_of_arrival_changes_nothing_of_late_updates_either() -> None:
    found = set()
    for order in itertools.permutations(((0, 7), (1, 8))):
        learner = fresh(job(rounds=FOLD))
        for _ in versions(learner, 2):
            pass
        take_round(learner, 2)
        for number, seed in order:
            admit(learner, seed, 9, number=number)
        following = learner.next()
        found.add((following.to_bytes(), following.ways))
    assert len(found) == 1


@pytest.mark.parametrize("coding", ["off", CompressionSpec(codec="int8")])
def test_five_devices_of_which_two_lie_grossly_come_to_the_same_median_in_every_order(coding: object) -> None:
    """Within what the honest three say, coordinate by coordinate; a restart in between collects the same again."""
    spec = job(compression=coding, aggregate=AggregateSpec(strategy="median", max_norm_ratio=1e9))
    learner = fresh(spec)
    told = [(update(k, learner), 10 + k) for k in range(3)]
    told += [(update(7, learner, 10.0), 2**20), (update(8, learner, 10.0), 2**20)]
    found = set()
    for order in itertools.permutations(told):
        learner = fresh(spec)
        for body, weight in order[:3]:
            learner.admit(body, weight)
        again = Learner(NET, spec, learner.now.to_bytes())
        for (body, _), counted in zip(order[:3], learner.intake.counted, strict=True):
            again.restore(body, counted)
        for body, weight in order[3:]:
            again.admit(body, weight)
        following = again.next()
        found.add((following.sha256, following.ways))
    assert len(found) == 1
    honest = [np.concatenate([values.reshape(-1) for values in delta(k).values()]) for k in range(3)]
    moved = [a - b for a, b in zip(following.model.values(), start(NET, spec).model.values(), strict=True)]
    row, slack = np.concatenate([values.reshape(-1) for values in moved]), 1e-7 if coding == "off" else 1e-3
    assert (row >= np.min(honest, axis=0) - slack).all()
    assert (row <= np.max(honest, axis=0) + slack).all()
    mean = fresh(structs.replace(spec, aggregate=AggregateSpec(max_norm_ratio=1e9)))
    for body, weight in told:
        mean.admit(body, weight)
    assert mean.next().model.norm > 10 * following.model.norm


def test_a_median_takes_no_more_updates_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.strategies.median.MOST_BYTES", 4 * D * 3)
    learner = fresh(job(compression="off", aggregate=MEDIAN))
    take_round(learner, 0)
    before = learner.next().sha256
    with pytest.raises(RefusedError, match=r"does not fit the sum .* say target = 3 or less"):
        admit(learner, 9, 10)
    assert learner.next().sha256 == before


def test_a_version_that_is_not_taken_changes_nothing() -> None:
    learner = fresh(job())
    take_round(learner, 0)
    before = learner.now.to_bytes()
    first, second = learner.next(), learner.next()
    assert (first.to_bytes(), first.ways) == (second.to_bytes(), second.ways)
    assert learner.now.to_bytes() == before


def test_a_version_that_is_taken_begins_with_an_empty_sum() -> None:
    spec = job(rounds=FOLD)
    learner = fresh(spec)
    for _ in versions(learner, 1):
        pass
    take_round(learner, 1)
    admit(learner, 9, 5, number=0)
    learner.take(learner.next())
    one = Learner(NET, spec, learner.now.to_bytes())
    for both in (learner, one):
        take_round(both, 2)
    assert learner.next().to_bytes() == one.next().to_bytes()
    assert (learner.now.ways, learner.now.metrics) == ((), ())


def test_version_0_is_drawn_from_the_seed() -> None:
    assert start(NET, job()).model == initial(NET.spec, 0)
    assert start(NET, job(seed=4)).held == Held(0, initial(NET.spec, 4))


# What is made when.


def test_taking_a_version_makes_nothing_for_the_next_one_and_preparing_does(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    begin = Intake.__init__

    def noted(self: Intake, *args: object) -> None:
        begun.append(self)
        begin(self, *args)  # type: ignore[arg-type]  # as they came

    learner = fresh(job())
    monkeypatch.setattr(Intake, "__init__", noted)
    for _ in versions(learner, 1):
        assert begun == []
    assert (begun, learner.is_prepared) == ([], False)
    learner.prepare()
    assert (begun, learner.is_prepared) == ([learner.intake], True)
    assert "hash" in vars(learner.intake.sum.coding)


# The bodies of a version.


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_bodies_of_a_version_lead_to_its_sha256(spec: JobSpec) -> None:
    learner, chain_ = fresh(spec), Chain(NET.spec, spec)
    held = {0: chain_.first()}
    kinds = set()
    for following in versions(learner, 40):
        number = following.held.number
        assert following.ways
        starts = [begin for begin, _ in following.ways]
        assert len(set(starts)) == len(starts)
        for begin, body in following.ways:
            kinds.add(body[0])
            found = chain_.take(held.get(begin, chain_.first()), number, body)
            assert found.sha256() == following.sha256
            if body[0] != chain.WHOLE:
                assert found.state == following.held.state
        held[number] = following.held
    wanted = {chain.WHOLE} if spec.compression == "off" else {chain.STEP, chain.GROUP, chain.SNAPSHOT}
    assert kinds == wanted


def test_every_eighth_version_has_a_group_of_the_eight_steps_before_it() -> None:
    learner = fresh(job(compression=BUCKETS))
    steps: list[bytes] = []
    for following in versions(learner, 41):
        number = following.held.number
        steps.append(following.ways[0][1])
        groups = [(begin, body) for begin, body in following.ways if body[0] == chain.GROUP]
        assert groups == ([(number - SPAN, chain.grouped(steps[-SPAN:]))] if number % SPAN == 0 else [])
    assert len(learner.now.record.recent) == 41 % SPAN


def test_steps_that_are_long_are_in_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = fresh(job(compression=BUCKETS))
    lengths = [len(body) for following in versions(learner, 5) for begin, body in following.ways if begin]
    monkeypatch.setattr(learners, "LONGEST_IN_GROUP", min(lengths) - 1)
    kinds = {body[0] for following in versions(learner, 30) for _, body in following.ways}
    assert kinds == {chain.STEP, chain.SNAPSHOT}
    assert learner.now.record.recent == ()
    assert LONGEST_IN_GROUP == 8192


def test_a_snapshot_at_the_end_of_the_first_group_leaves_no_other_body_of_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both would lead from version 0."""
    monkeypatch.setattr(learners, "SNAPSHOT_BITS", 10**6)
    monkeypatch.setattr(learners, "MOST_STEPS", SPAN - 1)
    learner = fresh(job())
    for following in versions(learner, 2 * SPAN):
        starts = [begin for begin, _ in following.ways]
        assert len(starts) == len(set(starts))
        if following.held.number == SPAN:
            assert [body[0] for _, body in following.ways] == [chain.STEP, chain.SNAPSHOT]


def test_a_snapshot_is_due_when_the_steps_since_the_last_one_weigh_as_much() -> None:
    learner = fresh(job(compression=BUCKETS))
    since, last, count = 0, SNAPSHOT_BITS * D // 8, 0
    for following in versions(learner, 60):
        number, (_, step) = following.held.number, following.ways[0]
        whole = [body for begin, body in following.ways if body[0] == chain.SNAPSHOT]
        sum_bytes = len(chain.read(step).sum)
        assert bool(whole) == (number > 1 and since + sum_bytes >= last)
        assert (chain.read(step).grids is not None) == bool(whole)
        since += len(step)
        if whole:
            since, last, count = 0, len(whole[0]), count + 1
        record = following.record
        assert (record.since, record.snapshot_bytes) == (since, last if count else 0)
    assert count >= 2


def test_version_1_has_no_snapshot_which_would_have_the_name_of_its_step() -> None:
    learner = fresh(job(compression=CompressionSpec(buckets=D, bits=4, bits_down=4)))
    (first, *_) = versions(learner, 1)
    assert [body[0] for _, body in first.ways] == [chain.STEP]


def test_there_is_a_snapshot_after_so_many_steps_however_light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "SNAPSHOT_BITS", 10**6)
    monkeypatch.setattr(learners, "MOST_STEPS", 5)
    learner = fresh(job(compression=BUCKETS))
    first = [following.held.number for following in versions(learner, 7) if chain.read(following.ways[0][1]).grids]
    assert first == [6]
    assert learner.now.record.steps == 1
    assert MOST_STEPS == 320


def test_a_job_that_stands_still_has_a_snapshot_too_after_so_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its bodies are more than a head can name, and nobody new finds in."""
    monkeypatch.setattr(learners, "MOST_STEPS", 5)
    spec = job()
    learner, chain_ = fresh(spec), Chain(NET.spec, spec)
    for _ in versions(learner, 2):
        pass
    kinds = []
    for _ in range(14):
        learner.admit(update(0, learner, size=0.0), 10)
        following = learner.next()
        kinds.append({body[0] for _, body in following.ways})
        for _, body in following.ways:
            if body[0] == chain.SNAPSHOT:
                found = chain_.take(chain_.first(), following.held.number, body)
                assert found.model == following.model
        learner.take(following)
    assert sum(chain.SNAPSHOT in found for found in kinds) >= 2


def test_the_rounding_of_a_snapshot_is_quieter_than_its_round() -> None:
    spec = job(compression=BUCKETS, aggregate=AggregateSpec())
    learner, chain_ = fresh(spec), Chain(NET.spec, spec)
    shares = []
    before = chain_.first()
    for following in versions(learner, 40):
        step = chain.read(following.ways[0][1])
        if step.grids is not None:
            free = chain_.step(before, step._replace(grids=None))
            pairs = zip(free.model.values(), following.model.values(), strict=True)
            moved = sum(float(np.square(a - b).sum()) for a, b in pairs)
            shares.append(moved / dict(following.metrics)["noise"])
            assert step.grids.state == 0
        before = following.held
    assert 0.2 * GRID_SHARE < statistics.fmean(shares) < 1.2 * GRID_SHARE


@pytest.mark.parametrize("coding", ["light", "strong", CompressionSpec(codec="int8")])
def test_with_fedadam_rounding_moves_the_models_that_follow_by_no_more_than_noise_does(coding: object) -> None:
    """What each snapshot rounds off of model and state, against the next versions without it."""
    spec = job(aggregate=ADAM, compression=coding)
    learner, chain_ = fresh(spec), Chain(NET.spec, spec)
    told, noises = list(versions(learner, 60)), []
    steps = [chain.read(following.ways[0][1]) for following in told]
    shares = []
    for at in range(20, 50):
        noises.append(2.0 ** told[at].record.octave)
        if steps[at].grids is None:
            continue
        rounded = told[at].held
        free = chain_.step(told[at - 1].held, steps[at]._replace(grids=None))
        for step in steps[at + 1 : at + 8]:
            rounded, free = (chain_.step(held, step._replace(grids=None)) for held in (rounded, free))
        pairs = zip(rounded.model.values(), free.model.values(), strict=True)
        shares.append(sum(float(np.square(a - b).sum()) for a, b in pairs) / noises[-1])
    assert shares
    assert statistics.fmean(shares) < 3 * GRID_SHARE


def test_a_version_whose_snapshot_would_lead_elsewhere_has_none_and_the_next_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = job(compression=BUCKETS, aggregate=AggregateSpec())
    learner, honest = fresh(spec), Chain.snapshot
    *_, last = (f for f in versions(learner, 60) if f.record.steps == 0)
    due = next(learner.now.held.number for f in versions(learner, 60) if _would_be_rounded(learner))
    assert last.held.number < due == learner.now.held.number
    assert _would_be_rounded(learner)
    for wrong in (lambda *_: b"\x22nonsense", lambda me, _, grids: honest(me, me.first(), grids)):
        with monkeypatch.context() as patch:
            patch.setattr(Chain, "snapshot", wrong)
            following = learner.next()
        assert chain.read(following.ways[0][1]).grids is None
        assert {body[0] for _, body in following.ways} <= {chain.STEP, chain.GROUP}
        assert following.record.since > learner.now.record.since
    learner.take(following)
    take_round(learner, learner.now.held.number)
    assert chain.read(learner.next().ways[0][1]).grids is not None


def _would_be_rounded(learner: Learner) -> bool:
    """Whether the next version, of any updates, would be a snapshot; they are in the sum then."""
    other = Learner(NET, learner._spec, learner.now.to_bytes())
    take_round(other, other.now.held.number)
    found = chain.read(other.next().ways[0][1]).grids is not None
    if found and not learner.intake.counted:
        take_round(learner, learner.now.held.number)
    return found


@pytest.mark.parametrize("size", [2.0**-23, 2.0**-25, 2.0**-27])
def test_a_snapshot_at_the_edge_of_the_lattice_leads_to_its_version(size: float) -> None:
    """Where the largest weight leaves its lattice in this very round, and the noise is no larger than that is fine."""
    model = ModelSpec(inputs=16, hidden=(), outputs=8)
    net, risen = nets.build(model), 0
    for seed in range(60):
        spec = JobSpec("toy", model, seed=seed, compression=CompressionSpec(buckets=64))
        first = start(net, spec)
        ints = tuple(values.copy() for values in first.model.ints)
        ints[0].flat[0] = 2**30 - 1
        held = Held(5, Model(ints, first.model.exponents))
        learner = Learner(net, spec, Next(held, structs.replace(first.record, since=10**6)).to_bytes())
        coding = Chain(net.spec, spec).coding(5, learner.terms)
        rng = np.random.default_rng(seed)
        values = {t.name: (size * rng.standard_normal(t.shape)).astype(np.float32) for t in net.spec}
        values[net.spec[0].name].flat[0] = max(2.0**-22, 8 * size)
        learner.admit(coding.encode(values, rng), 10)
        following = learner.next()
        risen += following.model.exponents[0] == first.model.exponents[0] + 1
        (snapshot,) = [body for begin, body in following.ways if begin == 0]
        chain_ = Chain(net.spec, spec)
        assert chain_.take(chain_.first(), 6, snapshot).model == following.model
    assert risen > 20


# What codes what.


def test_a_job_without_compression_publishes_every_version_whole() -> None:
    learner = fresh(job(compression="off"))
    assert learner.terms == FLOAT32
    for following in versions(learner, 3):
        ((begin, body),) = following.ways
        assert (begin, body[0], len(body)) == (0, chain.WHOLE, 1 + 4 * D)
        assert following.metrics == ()
        assert following.record.octave == 0
    assert learner.terms == FLOAT32


def test_a_job_without_compression_has_its_momentum_at_the_server_alone() -> None:
    spec = job(compression="off")
    learner, chain_ = fresh(spec), Chain(NET.spec, spec)
    for following in versions(learner, 3):
        assert len(following.held.state.arrays) == len(NET.spec)
        assert chain_.take(chain_.first(), following.held.number, following.ways[0][1]).state == State()
    still = fresh(job(compression="off", aggregate=AggregateSpec()))
    for following in versions(still, 3):
        assert following.held.state == State()
    moved = [
        sum(
            float(np.square(a - b).sum())
            for a, b in zip(one.now.model.values(), start(NET, spec).model.values(), strict=True)
        )
        for one in (learner, still)
    ]
    assert moved[0] > moved[1]


def test_int8_is_int8_both_ways() -> None:
    learner = fresh(job(compression=CompressionSpec(codec="int8")))
    for following in versions(learner, 4):
        assert learner.terms == INT8
        assert chain.read(following.ways[0][1]).terms == INT8
        assert following.record.octave != 0
        assert following.metrics == ()


def test_a_net_with_fewer_coordinates_than_a_sketch_is_worth_is_int8() -> None:
    tiny = ModelSpec(inputs=4, outputs=2)
    spec = JobSpec("toy", tiny)
    learner = Learner(nets.build(tiny), spec, start(nets.build(tiny), spec).to_bytes())
    assert learner.terms == INT8


def test_a_sketch_begins_as_the_steering_says() -> None:
    wide = ModelSpec(inputs=64, hidden=(64,), outputs=8)
    net = nets.build(wide)
    d = n_parameters(net.spec)
    assert start(net, JobSpec("toy", wide)).record.choice == steering.first(d)
    assert start(net, JobSpec("toy", wide)).record.terms == steering.first(d).terms


@pytest.mark.parametrize(
    ("coding", "terms", "down"),
    [
        (CompressionSpec(buckets=64), Terms(64, 1), 1),
        (CompressionSpec(buckets=64, bits=3, bits_down=2), Terms(64, 1), 2),
        (CompressionSpec(buckets=2**20, bits=3, bits_down=4), Terms(128, 3), 4),
        (CompressionSpec(buckets=D, bits=2), Terms(128, 2), 1),
    ],
)
def test_buckets_and_bits_that_are_named_are_obeyed_for_good(coding: CompressionSpec, terms: Terms, down: int) -> None:
    learner = fresh(job(compression=coding))
    for following in versions(learner, 12):
        assert learner.terms == terms
        assert chain.read(following.ways[0][1]).terms == Terms(terms.m, down)
        assert dict(following.metrics)["buckets"] == terms.m
        assert dict(following.metrics)["bits"] == terms.bits


def test_what_is_said_of_a_version_is_how_the_updates_in_it_were_coded() -> None:
    learner = fresh(job())
    for following in versions(learner, 12):
        told = dict(following.metrics)
        assert (told["buckets"], told["bits"]) == learner.terms
        assert _octave(told["noise"]) == following.record.octave


@pytest.mark.parametrize("coding", [CompressionSpec(buckets=64), CompressionSpec(codec="int8")])
@pytest.mark.parametrize("rate", [1.0, 0.125])
def test_the_noise_of_a_version_is_told_about_as_large_as_it_is(coding: CompressionSpec, rate: float) -> None:
    spec = job(compression=coding, aggregate=AggregateSpec(server_learning_rate=rate))
    told, true = [], []
    for number in range(8):
        learner = fresh(structs.replace(spec, seed=number))
        wanted = np.zeros(D)
        for k in range(3):
            admit(learner, 10 * number + k, 10)
            wanted += rate / 3 * np.concatenate([v.reshape(-1) for v in delta(10 * number + k).values()])
        following = learner.next()
        before = start(NET, learner._spec).model
        pairs = zip(following.model.values(), before.values(), strict=True)
        made = np.concatenate([(a - b).reshape(-1) for a, b in pairs])
        true.append(float(np.square(made - wanted).sum()))
        told.append(2.0**following.record.octave)
    assert 0.4 < statistics.fmean(told) / statistics.fmean(true) < 2.5


# The mean and the gates.


def test_a_version_is_the_weighted_mean_of_its_updates() -> None:
    learner = fresh(job(compression="off", aggregate=AggregateSpec()))
    total = [np.zeros(tensor.shape) for tensor in NET.spec]
    for k, weight in enumerate((1, 5)):
        admit(learner, k, weight)
        total = [t + weight * d for t, d in zip(total, delta(k).values(), strict=True)]
    made = zip(learner.next().model.values(), initial(NET.spec, 0).values(), total, strict=True)
    for value, first, wanted in made:
        assert np.abs(value - (first + wanted / 6)).max() < 1e-7


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_version_of_a_sketch_is_about_the_weighted_mean_too(rate: float) -> None:
    spec = job(
        compression=CompressionSpec(buckets=128, bits=4, bits_down=4),
        aggregate=AggregateSpec(server_learning_rate=rate),
    )
    learner = fresh(spec)
    wanted = np.zeros(D)
    for k, weight in enumerate((1, 5)):
        admit(learner, k, weight)
        wanted += rate * weight / 6 * np.concatenate([v.reshape(-1) for v in delta(k).values()])
    pairs = zip(learner.next().model.values(), initial(NET.spec, 0).values(), strict=True)
    made = np.concatenate([(after - before).reshape(-1) for after, before in pairs])
    assert np.square(made - wanted).sum() < 0.06 * np.square(wanted).sum()


def test_a_refused_update_leaves_no_trace() -> None:
    clean, tried = fresh(job()), fresh(job())
    for learner in (clean, tried):
        take_round(learner, 0)
    body = update(8, tried)
    for refused in (update(7, tried, 1e6), b"", b"\xffjunk", body[:-1], body + b"x"):
        with pytest.raises(RefusedError):
            tried.admit(refused, 10, Report(9.0, 9.0))
    with pytest.raises(RefusedError, match="does not fit the sum"):
        tried.admit(body, 2**20 + 1)
    assert tried.next().to_bytes() == clean.next().to_bytes()
    assert tried.admit(update(9, tried), 10) == clean.admit(update(9, clean), 10)


def test_the_gate_goes_by_the_norms_of_earlier_versions_and_not_by_who_came_first() -> None:
    spec = job(aggregate=AggregateSpec(gate="refuse"))
    learner = fresh(spec)
    for seed in range(3):
        learner.admit(update(seed, learner, 0.001), 10)
    large = update(9, learner, 1.0)
    assert fresh(spec).admit(large, 10) == learner.admit(large, 10)
    learner = fresh(spec)
    for seed in range(3):
        learner.admit(update(seed, learner, 0.001), 10)
    blob = learner.next().to_bytes()
    learner.take(learner.next())
    for later in (learner, Learner(NET, spec, blob)):
        with pytest.raises(RefusedError, match="far from its peers'"):
            later.admit(update(9, later, 1.0), 10)


def test_an_update_far_from_its_peers_and_smaller_than_the_model_weighs_less() -> None:
    spec = job(aggregate=AggregateSpec(max_norm_ratio=2.0))
    learner = fresh(spec)
    for _ in versions(learner, 2):
        pass
    usual = statistics.median(learner.now.record.peers)
    admitted = learner.admit(update(9, learner, 0.05), 1000)
    assert admitted.weight == int(1000 * (2.0 * usual / admitted.norm)) < 600
    assert learner.intake.counted[-1].weight == admitted.weight == learner.intake.sum.weight


def test_the_norm_of_an_update_is_about_what_it_was_before_it_was_coded() -> None:
    learner = fresh(job(compression=CompressionSpec(buckets=2**20)))
    true = math.sqrt(sum(float(np.square(v).sum()) for v in delta(5).values()))
    assert learner.admit(update(5, learner), 10).norm == pytest.approx(true, rel=0.15)


def test_the_norms_of_the_last_hundred_updates_are_remembered_and_those_of_the_latest_version_first() -> None:
    learner = fresh(job())
    for number in range(3):
        norms = sorted(told.counted.norm for told in take_round(learner, number, 40))
        learner.take(learner.next())
        assert list(learner.now.record.peers[:40]) == norms
    assert len(learner.now.record.peers) == PEERS


def test_a_step_that_the_model_cannot_take_is_a_learner_error() -> None:
    for coding in ("off", "strong", CompressionSpec(codec="int8")):
        spec = job(aggregate=AggregateSpec(server_learning_rate=1e35), compression=coding)
        learner = fresh(spec)
        take_round(learner, 0)
        before = learner.now.to_bytes()
        with pytest.raises(LearnerError, match=r"version 1 cannot be made: .*far too large"):
            learner.next()
        assert learner.now.to_bytes() == before


def test_a_version_of_no_updates_is_a_learner_error() -> None:
    with pytest.raises(LearnerError, match="there is no update"):
        fresh(job()).next()


def test_a_step_finer_than_the_lattice_is_an_alarm() -> None:
    spec = job(compression="off", aggregate=AggregateSpec(server_learning_rate=1e-6))
    learner = fresh(spec)
    learner.admit(update(0, learner, 1e-3), 10)
    assert learner.next().alarm == ""  # it publishes in float32, whose words are not these
    for compression in ("strong", CompressionSpec(codec="int8")):
        spec = job(compression=compression, aggregate=AggregateSpec(server_learning_rate=1e-6))
        learner = fresh(spec)
        learner.admit(update(0, learner, 1e-3), 10)
        following = learner.next()
        assert following.model == learner.now.model
        assert following.alarm == SWALLOWED
        learner.take(following)
        assert learner.now.alarm == ""
        still = fresh(spec)
        still.admit(update(0, still, 0.0), 10)
        assert still.next().alarm == ""  # nobody wanted to move


# Late updates.


def behind(n: int = 3, spec: JobSpec | None = None) -> Learner:
    """A learner at version n."""
    learner = fresh(spec or job(rounds=FOLD, aggregate=AggregateSpec()))
    for _ in versions(learner, n):
        pass
    return learner


def test_a_late_update_is_relayed_under_the_hash_of_its_own_base() -> None:
    learner = behind()
    take_round(learner, 3)
    late = admit(learner, 77, 11, number=1)
    following = learner.next()
    step = chain.read(following.ways[0][1])
    total = 10 + 11 + 12 + 11
    (relayed,) = step.late
    assert (relayed.back, relayed.terms, relayed.body) == (2, learner.terms_of(1), late.body)
    assert step_value(relayed.share) == pytest.approx(11 / total, rel=0.004)
    assert following.record.weight == total
    chain_ = Chain(NET.spec, learner._spec)
    assert chain_.take(learner.now.held, 4, following.ways[0][1]).model == following.model


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_a_late_update_moves_the_version_by_its_share(rate: float) -> None:
    coding = CompressionSpec(buckets=2**20, bits=4, bits_down=4)
    spec = job(rounds=FOLD, aggregate=AggregateSpec(server_learning_rate=rate), compression=coding)
    learner = behind(2, spec)
    admit(learner, 1, 30)
    admit(learner, 2, 10, number=0)
    wanted = sum(
        rate * weight / 40 * np.concatenate([v.reshape(-1) for v in delta(seed).values()])
        for seed, weight in ((1, 30), (2, 10))
    )
    following = learner.next()
    step = chain.read(following.ways[0][1])
    free = Chain(NET.spec, spec).step(learner.now.held, step._replace(grids=None))
    pairs = zip(free.model.values(), learner.now.model.values(), strict=True)
    made = np.concatenate([(after - before).reshape(-1) for after, before in pairs])
    assert np.square(made - wanted).sum() < 0.1 * np.square(wanted).sum()


def test_a_version_may_be_of_late_updates_alone() -> None:
    learner = behind()
    admit(learner, 77, 11, number=2)
    following = learner.next()
    chain_ = Chain(NET.spec, learner._spec)
    assert chain_.take(learner.now.held, 4, following.ways[0][1]).model == following.model != learner.now.model


def test_a_version_relays_two_late_updates_and_refuses_the_others() -> None:
    learner = behind()
    take_round(learner, 3)
    for k in range(MOST_LATE):
        admit(learner, 70 + k, 11, number=k)
    with pytest.raises(RefusedError, match=f"{MOST_LATE} late updates are in the next version already"):
        admit(learner, 79, 11, number=2)
    assert len(chain.read(learner.next().ways[0][1]).late) == MOST_LATE == 2
    learner.take(learner.next())
    take_round(learner, 4)
    admit(learner, 79, 11, number=2)


def test_a_late_update_that_weighs_next_to_nothing_is_not_worth_its_bytes() -> None:
    learner = fresh(job(rounds=FOLD))
    admit(learner, 1, 1000)
    learner.take(learner.next())
    assert learner.now.record.weight == 1000
    with pytest.raises(RefusedError, match="less than 2% of a round"):
        admit(learner, 2, 19, number=0)
    admit(learner, 2, 20, number=0)
    assert LEAST_LATE == 0.02


@pytest.mark.parametrize("compression", ["off", CompressionSpec(codec="int8")])
def test_a_late_update_that_is_not_sketched_is_in_the_sum_like_any_other(compression: object) -> None:
    spec = job(rounds=FOLD, aggregate=AggregateSpec(), compression=compression)
    learner, prompt = behind(2, spec), behind(2, spec)
    for k in range(4):
        admit(learner, 70 + k, 11, number=0)
        admit(prompt, 70 + k, 11)
    one, other = learner.next(), prompt.next()
    assert one.model == other.model
    assert one.ways == other.ways


def test_what_a_late_device_reports_and_how_large_it_is_is_not_asked_for_the_steering() -> None:
    learner = behind()
    take_round(learner, 3)
    before = learner.next().record.history[-1]
    admit(learner, 70, 11, Report(1e6, 1e6), number=1)
    after = learner.next().record.history[-1]
    assert after.reports == before.reports
    assert after.single < before.single
    assert after.mean < before.mean


def test_the_terms_of_a_base_are_remembered_as_long_as_late_updates_may_come_to_it() -> None:
    learner = behind(5)
    said = {5: learner.terms}
    learner = fresh(job(rounds=FOLD, aggregate=AggregateSpec()))
    said = {}
    for _ in range(8):
        said[learner.now.held.number] = learner.terms
        for _ in versions(learner, 1):
            pass
    again = Learner(NET, learner._spec, learner.now.to_bytes())
    for both in (learner, again):
        assert {number: both.terms_of(number) for number in said} == said
        assert both.terms_of(8) == both.terms
        assert (both.terms_of(9), both.terms_of(-1)) == (None, None)


def test_no_more_terms_are_remembered_than_there_is_room_for() -> None:
    learner = fresh(job(rounds=FOLD, compression="off"))
    record = structs.replace(learner.now.record, left=((0, 8),) * MOST_LEFT)
    held = Held(1000, learner.now.model)
    learner = Learner(NET, learner._spec, Next(held, record).to_bytes())
    for _ in versions(learner, 1):
        pass
    assert len(learner.now.record.left) == MOST_LEFT
    assert (learner.terms_of(1000), learner.terms_of(999), learner.terms_of(1001 - MOST_LEFT)) == (FLOAT32, INT8, INT8)
    assert learner.terms_of(1000 - MOST_LEFT) is None


def test_a_late_update_to_a_base_whose_terms_are_forgotten_is_refused() -> None:
    for rounds, numbers in ((RoundsSpec(), (0, 1, 2)), (FOLD, (-1, 4, 7))):
        learner = behind(3, job(rounds=rounds))
        body = update(1, learner)
        for number in numbers:
            with pytest.raises(RefusedError, match=f"version {number} are coded is not known any more"):
                learner.admit(body, 11, None, number)
            with pytest.raises(LearnerError, match="a stored update"):
                learner.restore(body, Counted(11, 1.0, None, number))
        assert learner.now.record.left == () or rounds is FOLD


def test_a_third_late_update_in_the_store_is_damage() -> None:
    learner = behind()
    bodies = [(update(k, learner, number=k), Counted(11, 0.1, None, k)) for k in range(3)]
    for told in bodies[:2]:
        learner.restore(*told)
    with pytest.raises(LearnerError, match="a stored update"):
        learner.restore(*bodies[2])


# Damage.


def test_any_damage_to_what_is_stored_is_a_learner_error() -> None:
    spec = job()
    learner = fresh(spec)
    take_round(learner, 0)
    blob = learner.next().to_bytes()
    for at in range(0, len(blob), 11):
        for damaged in (blob[:at], blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]):
            with pytest.raises(LearnerError):
                Learner(NET, spec, damaged)


@pytest.mark.parametrize("rules", [AggregateSpec(server_momentum=0.5), ADAM], ids=["momentum", "fedadam"])
def test_a_blob_with_a_right_checksum_and_hostile_contents_is_a_learner_error_or_a_learner_that_goes_on(
    rules: AggregateSpec,
) -> None:
    spec = job(rounds=FOLD, aggregate=rules)
    learner = behind(11, spec)
    blob, body, late = learner.now.to_bytes(), update(9, learner), update(8, learner, number=10)
    went_on = refused = 0
    for seed in range(HOSTILE):
        rng = random.Random(seed)  # noqa: S311 -- a schedule, no secret
        outer = msgspec.msgpack.decode(blob[4:])
        outer[2] = msgspec.msgpack.decode(outer[2])
        for _ in range(rng.choice([1, 1, 2])):
            spoil(outer, rng)
        if len(outer) > 2 and not isinstance(outer[2], bytes):
            outer[2] = msgspec.msgpack.encode(outer[2])
        packed = msgspec.msgpack.encode(outer)
        try:
            hostile = Learner(NET, spec, zlib.crc32(packed).to_bytes(4, "little") + packed)
            hostile.restore(body, Counted(10, 1.0, Report(0.5, 0.1)))
            hostile.restore(late, Counted(10, 1.0, None, hostile.now.held.number - 1))
            following = hostile.next()
            Learner(NET, spec, following.to_bytes())
            hostile.take(following)
            went_on += 1
        except LearnerError:
            refused += 1
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert min(went_on, refused) > HOSTILE / 20


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


def rewritten(learner: Learner, **changes: object) -> bytes:
    """The blob of a learner with another record, under a right checksum."""
    packed = msgspec.msgpack.decode(learner.now.to_bytes()[4:])
    record = dict(zip(Record.__struct_fields__, packed[4], strict=True))
    packed[4] = [(record | changes)[name] for name in Record.__struct_fields__]
    data = msgspec.msgpack.encode(packed)
    return zlib.crc32(data).to_bytes(4, "little") + data


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"terms": (5, 1)}, "codes updates in a way that there is not"),
        ({"terms": (2**53, 1)}, "codes updates in a way that there is not"),
        ({"terms": (64, 5)}, "codes updates in a way that there is not"),
        ({"terms": (0, 4)}, "codes updates in a way that there is not"),
        ({"down": 5}, "codes updates in a way that there is not"),
        ({"down": 0}, "damaged"),
        ({"allowed": -1.0}, "damaged"),
        ({"allowed": math.nan}, "damaged"),
        ({"octave": 201}, "damaged"),
        ({"since": 2**64 - 1}, "damaged"),
        ({"steps": -1}, "damaged"),
        ({"peers": [1.0] * 101}, "damaged"),
        ({"recent": [b""] * 9}, "damaged"),
        ({"left": [(64, 1)] * 257}, "damaged"),
        ({"history": [(1e31, 0.0, [])]}, "damaged"),
    ],
    ids=lambda value: str(next(iter(value.items())))[:40] if isinstance(value, dict) else "",
)
def test_a_state_that_no_learner_writes_is_a_learner_error(changes: dict[str, object], why: str) -> None:
    learner = fresh(job())
    assert Learner(NET, job(), rewritten(learner)).now.record == learner.now.record
    with pytest.raises(LearnerError, match=why):
        Learner(NET, job(), rewritten(learner, **changes))


@pytest.mark.parametrize(("stored", "allowed"), [(None, math.inf), (0.0, 0.0), (1e-9, 1e-9)])
def test_no_noise_that_is_allowed_is_another_thing_than_none_that_is_known(
    stored: float | None, allowed: float
) -> None:
    learner = Learner(NET, job(), rewritten(fresh(job()), allowed=stored))
    assert learner.now.record.choice.allowed == allowed
    assert learner._record(learner.now.record.choice, seen([Counted(1, 1.0)]), 1).allowed == stored


def test_a_state_of_an_older_format_is_refused_by_name() -> None:
    model = start(NET, job()).model.to_bytes()
    older = msgspec.msgpack.encode([msgspec.msgpack.encode([1, 0, model, [], []]), [], [], []])
    newer = msgspec.msgpack.decode(start(NET, job()).to_bytes()[4:])
    newer[0] = 5
    for packed, why in ((older, "format 1.* reads 2 to 4"), (msgspec.msgpack.encode(newer), "format 5.* reads 2 to 4")):
        with pytest.raises(LearnerError, match=why):
            Learner(NET, job(), zlib.crc32(packed).to_bytes(4, "little") + packed)


@pytest.mark.parametrize("velocity", [[b""], [bytes(8)] * 4, [bytes(8 * 48), bytes(8 * 8), bytes(8 * 24), bytes(16)]])
def test_a_velocity_of_other_shapes_is_a_learner_error(velocity: list[bytes]) -> None:
    packed = msgspec.msgpack.decode(start(NET, job()).to_bytes()[4:])
    assert [8 * t.size for t in NET.spec] == [8 * 48, 8 * 8, 8 * 24, 8 * 3]
    packed[3] = velocity
    data = msgspec.msgpack.encode(packed)
    with pytest.raises(LearnerError, match="velocity has other shapes"):
        Learner(NET, job(), zlib.crc32(data).to_bytes(4, "little") + data)


def test_a_state_survives_its_bytes() -> None:
    learner = behind(11, job(rounds=FOLD))
    found = opened(learner.now.to_bytes(), NET.spec, learner._spec)
    assert (found.record, found.model, found.held.number) == (learner.now.record, learner.now.model, 11)
    assert found.held.state == learner.now.held.state
    assert any(v.any() for v in found.held.state.arrays)
    assert len(found.record.recent) == 11 - SPAN


def test_a_blob_of_another_version_or_model_is_a_learner_error() -> None:
    spec = job()
    learner = fresh(spec)
    take_round(learner, 0)
    following = learner.next()
    blob, sha256 = following.to_bytes(), following.sha256
    assert Learner(NET, spec, blob, 1, sha256).now.model == following.model
    with pytest.raises(LearnerError, match="it is version 1, not 2"):
        Learner(NET, spec, blob, 2, sha256)
    with pytest.raises(LearnerError, match="another SHA-256"):
        Learner(NET, spec, blob, 1, "0" * 64)


def test_what_was_stored_for_another_net_is_a_learner_error() -> None:
    learner = fresh(job())
    take_round(learner, 0)
    other = nets.build(ModelSpec(inputs=6, hidden=(9,), outputs=3))
    for blob in (learner.now.to_bytes(), learner.next().to_bytes()):
        with pytest.raises(LearnerError):
            Learner(other, job(), blob)


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x10\0\0"])
def test_a_stored_update_that_has_rotted_is_a_learner_error(body: bytes) -> None:
    with pytest.raises(LearnerError, match="a stored update"):
        fresh(job()).restore(body, Counted(1, 1.0))


def test_a_stored_update_of_a_weight_that_there_is_not_is_a_learner_error() -> None:
    learner = fresh(job())
    for weight in (0, -1, 2**20 + 1):
        with pytest.raises(LearnerError, match="a stored update"):
            learner.restore(update(1, learner), Counted(weight, 1.0))


# Steering.


REPORTS = st.none() | st.builds(
    Report, st.floats(-1e12, 1e12, allow_nan=False), st.none() | st.floats(-1e12, 1e12, allow_nan=False)
)
UPDATES = st.lists(
    st.builds(Counted, weight=st.integers(1, 2**20), norm=st.floats(0.0, 1e6), report=REPORTS),
    min_size=2,
    max_size=24,
)


def seen(updates: list[Counted]) -> steering.RoundSummary:
    """What a learner sums these up to, without a sum."""
    learner = fresh(job())
    learner.intake.counted = updates
    return learner._seen(sum(counted.weight for counted in updates))


@settings(max_examples=60)
@given(st.data())
def test_what_the_steering_sees_of_a_round_does_not_depend_on_the_order_of_arrival(data: st.DataObject) -> None:
    updates = data.draw(UPDATES)
    assert seen(updates) == seen(data.draw(st.permutations(updates)))


@settings(max_examples=60)
@given(UPDATES)
def test_what_the_steering_sees_is_what_was_counted(updates: list[Counted]) -> None:
    found = seen(updates)
    weights = np.array([counted.weight for counted in updates], float)
    norms = np.array([counted.norm for counted in updates])
    assert found.single == pytest.approx(float(np.square(weights / weights.sum() * norms).sum()))
    told = [counted.report for counted in updates if counted.report is not None]
    assert len(found.reports) == min(len(told), MOST_REPORTS)
    assert set(found.reports) <= set(told)
    if len(told) <= MOST_REPORTS:
        assert sorted(map(repr, found.reports)) == sorted(map(repr, told))


def test_of_many_reports_some_of_every_size_are_remembered() -> None:
    found = seen([Counted(1, 1.0, Report(float(k))) for k in range(1000)])
    curvatures = [report.curvature for report in found.reports]
    assert len(curvatures) == MOST_REPORTS
    assert np.abs(np.array(curvatures) - np.linspace(31, 968, MOST_REPORTS)).max() < 2


def test_the_energy_of_the_mean_is_told_without_what_the_coding_added() -> None:
    wide = ModelSpec(inputs=64, hidden=(64,), outputs=8)
    net, spec = nets.build(wide), JobSpec("toy", wide, compression=CompressionSpec(buckets=2**20))
    learner = Learner(net, spec, start(net, spec).to_bytes())
    coding = Chain(net.spec, spec).coding(0, learner.terms)
    mean, single = np.zeros(coding.d), 0.0
    for k in range(4):
        rng = np.random.default_rng(k)
        values = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in net.spec}
        learner.admit(coding.encode(values, rng), 10)
        flat = np.concatenate([v.reshape(-1) for v in values.values()])
        mean, single = mean + flat / 4, single + float(np.square(flat / 4).sum())
    found = learner.next().record.history[-1]
    assert found.mean == pytest.approx(float(np.square(mean).sum()), rel=0.1)
    assert found.single == pytest.approx(single, rel=0.1)


def test_a_job_that_explodes_is_remembered_in_numbers_that_can_be_read_again() -> None:
    found = seen([Counted(1, 1e60, None), Counted(1, 1e200, None)])
    assert found.single == steering.LARGEST
    spec = job(aggregate=AggregateSpec(), compression=BUCKETS)
    first = start(NET, spec)
    huge = Held(5, Model(first.model.ints, (40,) * len(NET.spec)))
    learner = Learner(NET, spec, Next(huge, first.record).to_bytes())
    learner.admit(update(1, learner, 1e17), 10)
    following = learner.next()
    assert following.record.history[-1].single == following.record.history[-1].mean == steering.LARGEST
    assert Learner(NET, spec, following.to_bytes()).now.record == following.record


def test_the_terms_follow_the_rounds_and_are_durable_with_their_version() -> None:
    wide = ModelSpec(inputs=64, hidden=(64,), outputs=8)
    net, spec = nets.build(wide), JobSpec("toy", wide)
    d = n_parameters(net.spec)
    learner = Learner(net, spec, start(net, spec).to_bytes())
    found = [learner.terms]
    for number in range(8):
        coding = Chain(net.spec, spec).coding(number, learner.terms)
        for k in range(6):
            rng = np.random.default_rng(100 * number + k)
            values = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in net.spec}
            learner.admit(coding.encode(values, rng), 10, Report(50.0, 0.001 * (1 + k % 2)))
        following = learner.next()
        blob = following.to_bytes()
        before = learner.now.record
        learner.take(following)
        rate = 1.0
        energy = learner.now.model.norm**2 / rate
        told = steering.choose(d, before.choice, following.record.history, spec.coding.tolerance, energy)
        assert (learner.terms, learner.now.record.down) == (told.terms, told.down)
        assert Learner(net, spec, blob).terms == learner.terms
        found.append(learner.terms)
    assert len(set(found)) > 2
    assert found[-1].m * found[-1].bits > found[0].m


def test_the_steering_counts_in_units_of_the_step_that_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of a round is multiplied by the server's rate, and again and again by its momentum."""
    heard = []

    def choose(d: int, before: object, history: object, tolerance: float, energy: float) -> object:
        heard.append((tolerance, energy))
        return before

    monkeypatch.setattr(learners.steering, "choose", choose)
    spec = job(aggregate=AggregateSpec(server_learning_rate=0.5, server_momentum=0.75))
    learner = fresh(spec)
    for following in versions(learner, 1):
        energy = following.model.norm**2
    assert heard == [(pytest.approx(spec.coding.tolerance / 4), pytest.approx(energy / 4))]


def test_the_noise_of_a_version_is_that_of_the_step_which_fedadam_makes() -> None:
    """Coded alike, the sum has the same noise as in federated averaging; the step makes another of it."""
    noises = []
    for rules in (AggregateSpec(), structs.replace(ADAM, server_beta1=0.5)):
        learner = fresh(job(aggregate=rules))
        take_round(learner, 0)
        following = learner.next()
        noises.append(dict(following.metrics)["noise"])
    at_once = (1 - 0.5) * 0.02 / (1e-3 + 1e-3)
    assert noises[1] == pytest.approx(noises[0] * at_once**2)


def test_the_steering_counts_in_units_of_the_step_that_fedadam_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []

    def choose(d: int, before: object, history: object, tolerance: float, energy: float) -> object:
        heard.append((tolerance, energy))
        return before

    monkeypatch.setattr(learners.steering, "choose", choose)
    learner = fresh(job(aggregate=ADAM))
    for following in versions(learner, 1):
        rate = dict(following.metrics)["server_gain"]
        energy = following.model.norm**2
    assert 0.02 / 3e-3 < rate < 0.02 / 1e-3, "updates of 0.01 a weight, of which a hundredth is in the first root"
    assert heard == [(pytest.approx(0.05 / rate**2), pytest.approx(energy / rate**2))]


@pytest.mark.parametrize(
    "said", [Report(1e12, 1e12), Report(-1e12, -1e12), Report(0.0, 0.0), Report(1e-300, 1e12), Report(1e12, 1e-300)]
)
def test_reports_that_lie_change_the_size_of_a_round_by_no_more_than_the_steering_allows(said: Report) -> None:
    wide = ModelSpec(inputs=64, hidden=(64,), outputs=8)
    net, spec = nets.build(wide), JobSpec("toy", wide)
    learner = Learner(net, spec, start(net, spec).to_bytes())
    d = n_parameters(net.spec)
    for number in range(12):
        coding = Chain(net.spec, spec).coding(number, learner.terms)
        for k in range(6):
            rng = np.random.default_rng(100 * number + k)
            values = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in net.spec}
            learner.admit(coding.encode(values, rng), 10, said)
        before = min(learner.terms.m, d) * learner.terms.bits
        following = learner.next()
        assert following.record.allowed is None or following.record.allowed >= 0
        Learner(net, spec, following.to_bytes())
        learner.take(following)
        after = min(learner.terms.m, d) * learner.terms.bits
        assert before / 2.2 <= after <= before * 2.2


def test_one_device_that_lies_among_honest_ones_changes_nothing_to_speak_of() -> None:
    wide = ModelSpec(inputs=64, hidden=(64,), outputs=8)
    net, spec = nets.build(wide), JobSpec("toy", wide)
    found = []
    for lie in (None, Report(1e12, 1e12), Report(-1e12, -1e12)):
        learner = Learner(net, spec, start(net, spec).to_bytes())
        for number in range(6):
            coding = Chain(net.spec, spec).coding(number, learner.terms)
            for k in range(8):
                rng = np.random.default_rng(100 * number + k)
                values = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in net.spec}
                honest = Report(5.0 + 0.01 * k, 0.05 + 0.001 * k)
                learner.admit(coding.encode(values, rng), 10, lie if lie and not k else honest)
            learner.take(learner.next())
        found.append(learner.terms.m * learner.terms.bits)
    assert max(found) <= 1.2 * min(found)


def test_a_round_of_which_nothing_is_told_leaves_the_noise_that_is_allowed_as_it_is() -> None:
    learner = fresh(job())
    for _ in versions(learner, 6):
        pass
    allowed = learner.now.record.allowed
    assert allowed is not None
    quiet = Learner(NET, job(), rewritten(learner, history=[]))
    for k in range(3):
        admit(quiet, k, 10)
    assert quiet.next().record.allowed == allowed


@pytest.mark.parametrize(
    ("energy", "octave"),
    [
        (1.0, 1),
        (2.0, 1),
        (0.5, -1),
        (1.1, 1),
        (1024.0, 10),
        (1e-9, -30),
        (0.0, 0),
        (1e-80, 0),
        (1e80, 0),
        (math.inf, 0),
    ],
)
def test_the_noise_of_a_version_is_told_as_a_power_of_two(energy: float, octave: int) -> None:
    assert _octave(energy) == octave


# Exactness.


KERNELS = ("PRESCOTT", "SANDYBRIDGE", "HASWELL", "ZEN")
"""What OpenBLAS calls its ways to multiply on x86; all of these run wherever AVX2 does."""

OUTCOMES = """
import json, sys
import numpy as np
from aggregator.gates import RefusedError
from aggregator.learner import Learner
from aggregator.record import start
from models.nets import table as nets
from models.chain import Chain
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec
from models.steering import Report
from models.strategies.state import State

model = ModelSpec(inputs=100, hidden=(100, 50), outputs=10)
ratio, compression, bodies = json.load(sys.stdin)
coding = CompressionSpec(**compression)
spec = JobSpec("toy", model, compression=coding, aggregate=AggregateSpec(max_norm_ratio=ratio, server_momentum=0.5))
net = nets.build(model)
learner = Learner(net, spec, start(net, spec).to_bytes())
found = []
for number in range(3):
    coding = Chain(net.spec, spec).coding(number, learner.terms)
    for k in range(4):
        if bodies:
            body = bytes.fromhex(bodies[4 * number + k])
        else:
            rng = np.random.default_rng(4 * number + k)
            delta = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in net.spec}
            body = coding.encode(delta, rng)
        found.append(body.hex()[-60:])
        try:
            found.append(repr(learner.admit(body, 10, Report(0.5, 0.1 + 0.01 * k))))
        except RefusedError as error:
            found.append(str(error))
    found.append(repr(learner.intake.model_norm))
    following = learner.next()
    found += [repr(following.metrics), repr(following.record), following.model.sha256()]
    learner.take(following)
floats = np.random.default_rng(0).standard_normal(100_000)
print(json.dumps([found, repr(float(np.vdot(floats, floats)))]))
"""


def outcomes(kernel: str, *given: object) -> tuple[list[str], str]:
    """Return what a learner makes of these bodies under this kernel, and what np.vdot makes of some floats."""
    done = subprocess.run(
        [sys.executable, "-c", OUTCOMES],
        input=json.dumps(given),
        env=os.environ | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found, product = json.loads(done.stdout)
    return found, product


def test_norms_verdicts_and_versions_have_the_same_bits_under_every_blas_kernel() -> None:
    model = ModelSpec(inputs=100, hidden=(100, 50), outputs=10)
    net, spec = nets.build(model), JobSpec("toy", model, compression="off")
    coding = Chain(net.spec, spec).coding(0, FLOAT32)
    bodies = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        values = {tensor.name: (0.01 * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in net.spec}
        bodies.append(coding.encode(values, rng))

    def norm(body: bytes) -> float:
        return sums.norm(coding.decode(body), coding)

    bodies.sort(key=norm)
    bodies[4:4] = bodies[-2:]
    norms = [norm(body) for body in bodies[:5]]
    # The fifth is on the very edge of what is let in, the sixth beyond: it weighs less.
    ratio = norms[4] / statistics.median(norms[:4])
    given = (ratio, {"codec": "float32"}, [body.hex() for body in bodies])
    found = [outcomes(kernel, *given) for kernel in KERNELS]
    assert all(outcome == found[0][0] for outcome, _ in found)
    assert any("weight=9," in line for line in found[0][0])
    if platform.machine() == "x86_64":
        assert len({product for _, product in found}) > 1  # else the kernels are one, and this test shows nothing


@pytest.mark.parametrize("compression", [{}, {"codec": "int8"}], ids=["sketch", "int8"])
def test_sketches_terms_and_versions_have_the_same_bits_under_every_blas_kernel(compression: dict[str, object]) -> None:
    found = [outcomes(kernel, 10.0, compression, []) for kernel in ("PRESCOTT", "HASWELL")]
    assert found[0][0] == found[1][0]
