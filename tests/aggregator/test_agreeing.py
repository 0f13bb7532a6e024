"""The round in which a fleet agrees: what devices say, what follows from it, and that nothing of it is lost."""

from __future__ import annotations

import itertools
import random
from typing import Any, Literal

import numpy as np
import pytest
from msgspec import structs

from aggregator import agreeing
from aggregator.agreeing import NOBODY, Agreeing
from aggregator.gates import RefusedError
from aggregator.intake import Counted, Intake
from aggregator.learner import Learner, LearnerError
from aggregator.record import Next, start
from aggregator.rows import AMONG_BODIES
from models import chain, sections, statistic
from models.agreement import Agreed
from models.chain import Chain, Held
from models.codec import FLOAT32
from models.contract import ContractSpec
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec
from models.nets import table as nets
from models.params import Params
from tests.aggregator.test_learner import ADAM

MODEL = ModelSpec(inputs=6, hidden=(8,), outputs=3)
NET = nets.build(MODEL)
FOLD = RoundsSpec(late="fold")
INT8 = CompressionSpec(codec="int8")


def job(normalise: Literal["standard", "minmax"] = "standard", **changes: Any) -> JobSpec:
    contract = ContractSpec(normalise=normalise, class_weight="balanced")
    return JobSpec(**({"name": "toy", "model": MODEL, "contract": contract} | changes))


SPECS = {
    "strong": job(),
    "minmax, late": job("minmax", rounds=FOLD),
    "off": job(compression="off"),
    "int8": job(compression=INT8, rounds=FOLD),
    "fedadam": job(aggregate=ADAM),
    "fedadam, off": job(aggregate=ADAM, compression="off"),
    "momentum, off": job(aggregate=AggregateSpec(server_momentum=0.5), compression="off"),
    "median, int8": job(aggregate=AggregateSpec(strategy="median"), compression=INT8),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def fresh(spec: JobSpec) -> Learner:
    return Learner(NET, spec, start(NET, spec).to_bytes())


def rows(seed: int, n: int = 40) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 6)) * [1e5, 1, 1e-3, 1e4, 10, 0] + [0, 0, 0, 1e9, 0, 0.1]
    return X.astype(np.float32), rng.integers(0, 3, n)


def said(spec: JobSpec, seed: int, n: int = 40) -> bytes:
    return sections.join({sections.STATISTICS: statistic.to_bytes(statistic.of_rows(spec, *rows(seed, n)))})


def say(learner: Learner, seeds: range, n: int = 40) -> list[tuple[bytes, Counted]]:
    told = []
    for seed in seeds:
        body = said(learner._spec, seed, n)
        admitted = learner.admit(body, n, None, None, f"d{seed}")
        told.append((body, Counted(admitted.weight, admitted.norm, device=f"d{seed}")))
    return told


def delta(seed: int, size: float = 0.01) -> Params:
    rng = np.random.default_rng(seed)
    return {tensor.name: (size * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET.spec}


def train(learner: Learner) -> Next:
    number = learner.now.held.number
    coding = Chain(NET.spec, learner._spec).coding(number, learner.terms)
    for seed in range(3):
        body = coding.encode(delta(10 * number + seed), np.random.default_rng(seed))
        learner.admit(body, 10 + seed, None, None, f"d{seed}")
    return learner.next()


def agreed(spec: JobSpec) -> Learner:
    learner = fresh(spec)
    say(learner, range(4))
    learner.take(learner.next())
    return learner


@every_spec
def test_the_first_version_has_the_same_numbers_and_what_they_agree_on(spec: JobSpec) -> None:
    learner = fresh(spec)
    assert isinstance(learner.intake, Agreeing)
    say(learner, range(4))
    following = learner.next()
    X = np.concatenate([rows(seed)[0] for seed in range(4)]).astype(np.float64)
    counts = np.bincount(np.concatenate([rows(seed)[1] for seed in range(4)]), minlength=3)
    assert following.held.number == 1
    assert following.model.sha256() == learner.now.model.sha256()
    assert following.sha256 != learner.now.sha256
    assert following.held.agreed is not None
    assert following.held.agreed.class_counts == tuple(counts.tolist())
    if spec.contract.normalise == "standard":
        np.testing.assert_allclose(following.held.agreed.offset, X.mean(axis=0), rtol=1e-5, atol=1e-2)
    assert dict(following.metrics)["agreeing"] == 4
    assert following.alarm == ""
    learner.take(following)
    assert type(learner.intake) is Intake
    assert learner.terms == fresh(spec).terms
    assert learner.now.record.peers == ()


@every_spec
def test_whoever_comes_later_comes_to_the_same_versions_whatever_way_it_takes(spec: JobSpec) -> None:
    learner, walk = fresh(spec), Chain(NET.spec, spec)
    held: dict[int, Held] = {0: walk.first()}
    say(learner, range(4))
    kinds = set()
    for number in range(1, 21):
        following = learner.next() if number == 1 else train(learner)
        for begin, body in following.ways:
            kinds.add(chain.kind_of(body))
            found = walk.take(held[begin], number, body)
            assert found.agreed == following.held.agreed
            assert following.sha256 == found.sha256()
            assert len(body) <= chain.max_way_bytes_of(spec, NET.spec)
            if chain.begins_anywhere(body):  # somebody who has nothing
                assert walk.take(walk.first(), number, body).sha256() == following.sha256
        held[number] = walk.take(held[following.ways[0][0]], number, following.ways[0][1])
        learner.take(following)
    whole = {chain.AGREEMENT, chain.WHOLE}
    steps = {chain.AGREEMENT, chain.STEP, chain.SNAPSHOT, chain.GROUP}
    assert kinds == (whole if learner.terms == FLOAT32 else steps)


@every_spec
def test_a_start_at_any_moment_goes_on_as_if_nothing_had_been(spec: JobSpec) -> None:
    through, blob = fresh(spec), start(NET, spec).to_bytes()
    told = say(through, range(4))
    for order in (told[::-1], random.Random(0).sample(told, 4)):  # noqa: S311
        resumed = Learner(NET, spec, blob)
        for body, counted in order:
            resumed.restore(body, counted)
        assert resumed.next().sha256 == through.next().sha256
        assert resumed.next().beside() == through.next().beside()
    state, steps = blob, []
    for number in range(1, 6):
        following = through.next() if number == 1 else train(through)
        whole = Learner(NET, spec, following.to_bytes(), number, following.sha256)
        assert whole.now.held.agreed == following.held.agreed
        kept = through.kept(following)
        if kept.state and kept.state != AMONG_BODIES:
            state, steps = kept.state, []
        else:
            body = following.step
            if chain.kind_of(body) == chain.WHOLE:
                state, steps = b"", []
            steps.append(body)
        through.take(following)
        if steps:
            again = Learner(NET, spec, state, number, following.sha256, steps=steps, record=following.beside())
        else:
            again = Learner(NET, spec, state, number, following.sha256)
        assert again.now.sha256 == following.sha256
        assert again.now.held.agreed == following.held.agreed
        assert again.now.record == through.now.record


def test_a_job_without_an_agreement_is_written_as_an_older_fedge_reads_it() -> None:
    spec = JobSpec("toy", MODEL)
    assert fresh(spec).now.to_bytes()[4:6] == b"\x95\x02"
    learner = agreed(job())
    assert learner.now.to_bytes()[4:6] == b"\x96\x03"
    with pytest.raises(LearnerError, match="agrees in 0"):
        Learner(NET, spec, learner.now.to_bytes())


def test_an_update_of_another_kind_is_refused_on_either_side() -> None:
    spec = job()
    learner = fresh(spec)
    update = Chain(NET.spec, spec).coding(0, learner.terms).encode(delta(1), np.random.default_rng(1))
    both = sections.join({"delta": update, "statistics": statistic.to_bytes(statistic.of_rows(spec, *rows(0)))})
    for body in (update, both):
        with pytest.raises(RefusedError, match="has other sections"):
            learner.admit(body, 40)
    say(learner, range(3))
    learner.take(learner.next())
    with pytest.raises(RefusedError, match='section "delta" is missing'):
        learner.admit(said(spec, 0), 40)
    with pytest.raises(RefusedError, match="comes too late"):
        learner.admit(both, 40)


def test_a_late_statistic_is_refused() -> None:
    spec = job(rounds=FOLD)
    learner = agreed(spec)
    with pytest.raises(RefusedError, match='section "delta" is missing'):
        learner.admit(said(spec, 9), 40, None, 0, "d9")
    warm = fresh(spec)
    with pytest.raises(RefusedError, match="its base has been left"):
        warm.admit(said(spec, 9), 40, None, 3, "d9")


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff\xff\x01\x01\x04\x01\x00\x00\x00\x07", bytes(500)])
def test_rubbish_is_refused_and_changes_nothing(body: bytes) -> None:
    learner = fresh(job())
    say(learner, range(3))
    before = learner.next().sha256
    with pytest.raises(RefusedError):
        learner.admit(body, 40, None, None, "d9")
    assert learner.next().sha256 == before


def test_a_device_holds_no_more_than_its_share() -> None:
    spec = job()
    found = {}
    for n in (40, 4000):
        learner = fresh(spec)
        say(learner, range(4))
        learner.admit(said(spec, 4, n), n, None, None, "d4")
        capped = learner.cap(0.2, lambda _: b"")
        assert capped == ({} if n == 40 else {"d4": (4000, 40)})
        found[n] = learner.next().held.agreed
    alone, heavy = found[40], found[4000]
    assert alone is not None
    assert heavy is not None
    assert sum(heavy.class_counts) == pytest.approx(200, abs=2)
    assert np.abs((heavy.offset - alone.offset) * alone.scale).max() < 0.2


def test_a_device_that_claims_all_rows_and_one_class_has_half_of_what_is_agreed_on_at_most() -> None:
    spec = job()
    learner = fresh(spec)
    say(learner, range(6))
    X, y = rows(9)
    said = statistic.of_rows(spec, X, np.zeros_like(y))
    learner.admit(sections.join({"statistics": statistic.to_bytes(said)}), 2**20, None, None, "liar")
    agreed = learner.next().held.agreed
    assert agreed is not None
    assert agreed.class_counts[0] < 5 * agreed.class_counts[1]


def test_a_stranger_is_left_out_and_named() -> None:
    spec = job()
    learner = fresh(spec)
    say(learner, range(6))
    X, y = rows(9)
    X[:, 0] *= 1e20
    body = sections.join({"statistics": statistic.to_bytes(statistic.of_rows(spec, X, y))})
    learner.admit(body, 40, None, None, "liar")
    following = learner.next()
    assert "column 0 of 1 device(s)" in following.alarm
    assert following.held.agreed is not None
    assert 1 / following.held.agreed.scale[0] < 1e6


def test_one_of_three_is_left_out_and_one_of_two_is_told_of() -> None:
    spec = job()
    X, y = rows(9)
    X[:, 0] *= 1e20
    body = sections.join({"statistics": statistic.to_bytes(statistic.of_rows(spec, X, y))})
    for n_honest, told in ((2, "column 0 of 1 device(s)"), (1, "very different values in column(s) 0, and nothing")):
        learner = fresh(spec)
        say(learner, range(n_honest))
        learner.admit(body, 40, None, None, "liar")
        following = learner.next()
        assert told in following.alarm
        assert following.held.agreed is not None
        assert (1 / following.held.agreed.scale[0] < 1e6) == (n_honest == 2)


def test_where_all_have_too_few_rows_nothing_changes_and_it_is_said() -> None:
    learner = fresh(job())
    say(learner, range(4), n=5)
    following = learner.next()
    assert following.alarm == NOBODY
    assert following.held.agreed is not None
    assert following.held.agreed.scale.tolist() == [1] * 6


def test_no_more_statistics_are_held_than_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreeing, "MOST_VOICES", 3)
    results = set()
    for order in itertools.permutations(range(5)):
        learner = fresh(job())
        for seed in order:
            say(learner, range(seed, seed + 1))
        assert isinstance(learner.intake, Agreeing)
        assert len(learner.intake._said) == 3
        results.add(learner.next().sha256)
    assert len(results) == 1


def test_the_first_that_is_trained_is_not_rounded_away() -> None:
    """A snapshot of version 2 would be due, on a grid as coarse as the noise of its one round."""
    learner = agreed(job(aggregate=ADAM))
    following = train(learner)
    assert following.model.sha256() != learner.now.model.sha256()
    assert [chain.kind_of(body) for _, body in following.ways] == [chain.STEP]


def test_a_version_that_begins_with_an_agreement_needs_no_round_for_it() -> None:
    spec = job()
    learner = agreed(spec)
    held = learner.now.held._replace(number=1)
    assert not agreeing.is_due(spec, held)
    assert agreeing.is_due(spec, held._replace(agreed=None))
    assert not agreeing.is_due(structs.replace(spec, contract=ContractSpec()), held._replace(agreed=None))
    assert isinstance(held.agreed, Agreed)
