"""What is frozen of jobs' nets, at the aggregator: given, kept by its SHA-256, and said to devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aggregator import bases, evaluation
from aggregator.config import AggregatorConfig, ModelSettings, ServerLimits
from aggregator.creation import create
from aggregator.starting import Given
from aggregator.store import Leaving, Store
from broker.ceilings import MOST_CHUNKS
from broker.messages import BaseAt
from fleet.console.versions import Weights, read_weights
from models import frozen
from models.chain import Chain, Held
from models.job import AdapterSpec, JobSpec, ModelSpec, TrainSpec
from models.lattice import initial, of_params
from models.nets import table as nets
from models.nets.finetune import Tuned
from models.nets.net import ModelError
from models.params import Params

MODEL = ModelSpec("mlp", 4, (8,), 3)
PLAIN = nets.build(MODEL)
RNG = np.random.default_rng(0)
WHOLE = {t.name: RNG.normal(size=t.shape).astype(np.float32) for t in PLAIN.spec}
FREEZES = JobSpec("part", MODEL, train=TrainSpec(freeze=("0",)))
JOB = "part-1f"


@pytest.fixture
def config(tmp_path: Path) -> AggregatorConfig:
    return AggregatorConfig("plant", state_dir=str(tmp_path / "state"))


@pytest.fixture
def store(config: AggregatorConfig) -> Iterator[Store]:
    found = Store(Path(config.state_dir), synced=False)
    yield found
    found.close()


def file_of(folder: Path, params: Params = WHOLE) -> Path:
    np.savez(folder / "net.npz", **params)  # type: ignore[arg-type]
    return folder / "net.npz"


def sent(weights: Weights) -> Given:
    return Given(weights.said, "the file", begins_with_base=True)


def values(spec: JobSpec, config: AggregatorConfig, sha256: str) -> Params:
    net = bases.net_of(spec, config, bases.finder(spec, config, sha256))
    assert isinstance(net, Tuned)
    return net.frozen


def body_of(params: Params, spec: JobSpec) -> bytes:
    """What says a version of a job exactly."""
    net = nets.of_job(spec)
    return Chain(net.spec, spec).exact(Held(1, of_params(params, net.spec)))


def test_what_follows_from_the_seed_lies_nowhere(store: Store, config: AggregatorConfig) -> None:
    create(JOB, FREEZES, store, config)
    assert store.base_at(JOB) is None
    assert not (Path(config.state_dir) / "bases").exists()


def test_what_is_sent_is_kept_and_lies_at_the_broker_and_the_job_begins_with_the_rest(
    store: Store, config: AggregatorConfig, tmp_path: Path
) -> None:
    weights = read_weights(file_of(tmp_path), FREEZES)
    create(JOB, FREEZES, store, config, given=sent(weights))
    at = store.base_at(JOB)
    assert at == BaseAt(weights.base, len(weights.frozen), config.limits.chunk_bytes)
    assert store.base(JOB) == weights.frozen
    assert [row.number for row in store.bodies(JOB)] == [1]
    np.testing.assert_array_equal(values(FREEZES, config, weights.base)["0.weight"], WHOLE["0.weight"])
    bases.path_of(config, weights.base).unlink()
    bases.restore(config, weights.base, lambda: store.base(JOB))
    evaluation.Scorer(FREEZES, config, weights.base)


def test_what_is_sent_and_is_something_else_is_refused(store: Store, config: AggregatorConfig, tmp_path: Path) -> None:
    weights = read_weights(file_of(tmp_path), FREEZES)
    for wrong, words in (
        (weights.said[:100], "bytes, where the frozen tensors have"),
        (b"x" + weights.said[1:], "other names or shapes"),
        (weights.frozen + b"\xff", "it cannot start from the file"),
    ):
        with pytest.raises(ModelError, match=words):
            create(JOB, FREEZES, store, config, given=Given(wrong, "the file", begins_with_base=True))
    named = JobSpec("part", MODEL, train=TrainSpec(freeze=("0",), base="0" * 64))
    with pytest.raises(ModelError, match=r"base = 0000.*the file are others"):
        create(JOB, named, store, config, given=sent(weights))


def test_a_base_that_is_named_is_looked_for_in_the_files_of_aggregator_toml(
    store: Store, config: AggregatorConfig, tmp_path: Path
) -> None:
    weights = read_weights(file_of(tmp_path), FREEZES)
    named = JobSpec("part", MODEL, train=TrainSpec(freeze=("0",), base=weights.base))
    with pytest.raises(ModelError, match=r"submit the job with --base FILE, or name a file .* in bases, in \[models\]"):
        create(JOB, named, store, config)
    models = ModelSettings(bases=(str(tmp_path / "net.npz"),))
    known = AggregatorConfig("plant", state_dir=config.state_dir, models=models)
    create(JOB, named, store, known)
    assert store.base(JOB) == weights.frozen


def test_a_job_that_starts_from_another_freezes_what_that_has(store: Store, config: AggregatorConfig) -> None:
    of = JobSpec("whole", MODEL)
    create(JOB, FREEZES, store, config, given=Given(body_of(WHOLE, of), "whole-1 version 3", of))
    at = store.base_at(JOB)
    assert at is not None
    np.testing.assert_allclose(values(FREEZES, config, at.sha256)["0.weight"], WHOLE["0.weight"], atol=1e-7)


def test_adapters_go_on_from_those_of_a_job_like_it_and_are_put_into_one_that_has_none(
    store: Store, config: AggregatorConfig, tmp_path: Path
) -> None:
    adapts = JobSpec("part", MODEL, train=TrainSpec(adapter=AdapterSpec(2), only=("2",)))
    weights = read_weights(file_of(tmp_path), adapts)
    create(JOB, adapts, store, config, given=sent(weights))
    net = nets.of_job(adapts, find=lambda spec, _: frozen.from_bytes(bytearray(weights.frozen), spec, weights.base))
    assert isinstance(net, Tuned)
    trained = {t.name: RNG.normal(size=t.shape).astype(np.float32) for t in net.spec}
    given = Given(body_of(trained, adapts), "part-1f version 9", adapts, weights.base)
    create("part-2f", adapts, store, config, given=given)
    assert store.bases() == {JOB: weights.base, "part-2f": weights.base}
    plain = JobSpec("plain", MODEL)
    begins = given.held(PLAIN, plain, config)
    assert begins is not None
    for name, value in net.served(trained).items():
        np.testing.assert_allclose(begins.model.params(PLAIN.spec)[name], value, atol=1e-6)


def test_a_new_head_is_drawn_where_the_other_job_has_another(config: AggregatorConfig) -> None:
    of = JobSpec("whole", MODEL)
    wider = JobSpec("part", ModelSpec("mlp", 4, (8,), 5), train=TrainSpec(freeze=("0",)))
    given = Given(body_of(WHOLE, of), "whole-1 version 3", of)
    net = bases.net_of(wider, config, given.finder(wider, config) or bases.finder(wider, config))
    begins = given.held(net, wider, config)
    assert begins is not None
    assert begins.model == initial(net.spec, 0)
    taller = JobSpec("part", ModelSpec("mlp", 4, (9,), 3), train=TrainSpec(freeze=("0",)))
    with pytest.raises(ModelError, match=r"this job freezes 0.weight of shape \(9, 4\), where that has 0.weight"):
        bases.net_of(taller, config, given.finder(taller, config) or bases.finder(taller, config))


def test_files_that_no_job_needs_are_removed_and_those_of_replaced_ones_stay(
    store: Store, config: AggregatorConfig, tmp_path: Path
) -> None:
    weights = read_weights(file_of(tmp_path), FREEZES)
    create(JOB, FREEZES, store, config, given=sent(weights))
    bases.note(store, JOB)
    create("part-2f", JobSpec("part", MODEL), store, config, replaces=[JOB], leaving=[Leaving(JOB)])
    bases.sweep(store, config)
    assert bases.path_of(config, weights.base).exists()
    assert bases.of_job(store, JOB) == weights.base
    store.forget_past(JOB)
    bases.sweep(store, config)
    assert not bases.path_of(config, weights.base).exists()


def test_what_is_too_long_to_travel_is_refused(config: AggregatorConfig, store: Store, tmp_path: Path) -> None:
    wide = JobSpec("part", ModelSpec("mlp", 1000, (1100,), 3), train=TrainSpec(freeze=("0",)))
    params = initial(nets.build(wide.model).spec, 1).params(nets.build(wide.model).spec)
    weights = read_weights(file_of(tmp_path, params), wide)
    small = AggregatorConfig("plant", state_dir=config.state_dir, limits=ServerLimits(chunk_bytes=1024))
    with pytest.raises(ModelError, match=f"where {MOST_CHUNKS * 1024:,} can travel: raise chunk_bytes"):
        create(JOB, wide, store, small, given=sent(weights))
