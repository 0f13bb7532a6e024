"""A whole fleet in one process: it learns, it repeats itself, and it says what is wrong."""

from __future__ import annotations

import gc
import hashlib
import json
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from msgspec import structs

import fleet.simulation.simulate
from aggregator.store import Store
from broker.memory import MemoryBroker
from broker.transport import Packet
from broker.wire import Wire
from edge_agent.config import ModelSettings
from edge_agent.home import Home
from edge_agent.service import Agent
from fleet.cli import main
from fleet.problems.partition import PartitionError, deal
from fleet.problems.problem import Problem, for_all, read_problem
from fleet.simulation.shared import SharedResources, SharedWire
from fleet.simulation.simulate import Result, RoundRow, SimulationError, simulate
from models import steering
from models.chain import Chain, Held
from models.codec.terms import terms_for
from models.contract import ContractSpec
from models.data.dataset import Dataset, DatasetError
from models.frozen import Find
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec, StopSpec, TrainSpec
from models.nets import losses
from models.nets import table as nets
from models.nets.losses import LOSSES
from models.nets.net import Net
from runtime.settings import SettingsError

JOB = """
name = "blobs"
compression = "{compression}"
[model]
inputs = 4
hidden = [8]
outputs = 3
[train]
learning_rate = 0.1
[rounds]
max_rounds = 4
quorum = 2
"""


def blobs(n: int, seed: int = 0) -> Dataset:
    """Three clouds of points that a small net separates."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    centres = 2.0 * np.eye(3, 4)
    return Dataset((centres[y] + rng.normal(size=(n, 4)) * 0.5).astype(np.float32), y.astype(np.int64))


def spec(**rounds: object) -> JobSpec:
    return JobSpec(
        "blobs",
        ModelSpec("mlp", 4, (8,), 3),
        compression="off",
        rounds=structs.replace(RoundsSpec(quorum=2, max_rounds=4), **rounds),
    )


def run(job: JobSpec, n_devices: int = 5, *, keys: bool = False) -> Result:
    data = blobs(200)
    shares = [Dataset(data.X[rows], data.y[rows]) for rows in deal("iid", data.y, n_devices, 0)]
    return simulate(job, shares, blobs(100, seed=1), keys=keys)


def test_a_fleet_with_keys_computes_the_same_and_a_round_costs_66_bytes_its_head_98_and_an_offer_18() -> None:
    """These rounds carry no way, so that each device reads the head."""
    few, many = spec(max_rounds=3), spec(max_rounds=6)
    bare, signed = ([run(job, keys=keys) for job in (few, many)] for keys in (False, True))
    assert [one.sha256 for one in bare] == [one.sha256 for one in signed]
    up, down = (
        [getattr(other, way) - getattr(one, way) for one, other in zip(bare, signed, strict=True)]
        for way in ("bytes_up", "bytes_down")
    )
    assert (up[1] - up[0], down[1] - down[0]) == (3 * 5 * 18, 3 * 5 * (66 + 98))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    data, test = blobs(200), blobs(60, seed=1)
    users = np.arange(200) % 7
    np.savez(tmp_path / "data.npz", X=data.X, y=data.y, user=users, few=np.zeros(3), F=data.X[:, :2])
    np.savez(tmp_path / "test.npz", X=test.X, y=test.y)
    (tmp_path / "job.toml").write_text(JOB.format(compression="off"), encoding="utf-8")
    return tmp_path


def read(files: Path, **how: object) -> Problem:
    return read_problem(files / "job.toml", str(files / "data.npz"), **how)  # type: ignore[arg-type]


def test_a_fleet_learns() -> None:
    result = run(spec(max_rounds=12))
    assert result.accuracy is not None
    assert result.accuracy > 0.9
    assert [row.round for row in result.rounds] == list(range(1, 13))
    assert result.reason == "max_rounds = 12 are done"


def test_a_job_that_serves_its_best_version_again_tells_of_every_version_and_counts_no_update_for_that_one() -> None:
    job = spec(max_rounds=200)
    patient = structs.replace(job.rounds, stop=StopSpec("accuracy", patience=3))
    result = run(structs.replace(job, rounds=patient))
    assert " again, the best" in result.reason
    assert [row.round for row in result.rounds] == list(range(1, len(result.rounds) + 1))
    *trained, again = [row.participants for row in result.rounds]
    assert (min(trained) > 0, again) == (True, 0)


ANY_LOSS = [kind for kind, row in nets.NETS.items() if row.loss is None]
EVERY_KIND = [
    pytest.param(kind, loss, coding, marks=[pytest.mark.long] * (loss == "mse"))
    for kind, loss, coding in product(ANY_LOSS, ("cross_entropy", "mse"), ("off", "strong"))
]
EVERY_LOSS = [("mlp", loss, "strong") for loss in LOSSES if loss not in ("cross_entropy", "mse", "reconstruction")]


@pytest.mark.parametrize(("kind", "loss", "compression"), [*EVERY_KIND, *EVERY_LOSS])
def test_a_fleet_may_mix_numpy_and_torch(
    kind: str, loss: Any, compression: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    class Mixed(SharedResources):
        def chain(self, job: str, spec: JobSpec, models: ModelSettings, find: Find | None = None) -> tuple[Net, Chain]:
            _, chain = super().chain(job, spec, models, find)
            made.append("numpy" if len(made) % 2 else "torch")
            return nets.build(spec.model, framework=made[-1]), chain

    def job_of(max_rounds: int) -> JobSpec:
        outputs = 1 if loss == "binary" else 3
        job = structs.replace(spec(max_rounds=max_rounds), model=ModelSpec(kind, inputs=4, outputs=outputs, loss=loss))
        return structs.replace(job, compression=compression)

    def run(job: JobSpec) -> Result:
        shares = [with_labels(blobs(40, seed), job.model) for seed in range(4)]
        return simulate(job, shares, with_labels(blobs(100, seed=9), job.model))

    alike = run(job_of(1))
    monkeypatch.setattr(fleet.simulation.simulate, "SharedResources", Mixed)
    mixed, first = run(job_of(8)), run(job_of(1))
    assert {"numpy", "torch"} == set(made)
    assert first.rounds[0].loss == pytest.approx(alike.rounds[0].loss, rel=1e-3)
    costs = [row.loss for row in mixed.rounds]
    assert None not in costs
    assert costs[-1] < 0.8 * costs[0]  # type: ignore[operator]


def with_labels(data: Dataset, model: ModelSpec) -> Dataset:
    """Return the labels that a loss takes: the classes 0, 1, 2, or two of them, or one; or as many numbers a row, of
    which one is 1.
    """
    loss = losses.of(model)
    if loss.task == "classes":
        return data._replace(y=np.minimum(data.y, loss.n_classes - 1))
    return data._replace(y=np.eye(3, dtype=np.float32)[data.y][:, : loss.n_columns])


def test_the_same_seed_gives_the_same_rounds_and_the_same_bits() -> None:
    def told(seed: int) -> tuple[list[dict[str, object]], str]:
        result = run(structs.replace(spec(fraction=0.5), seed=seed))
        return [structs.asdict(structs.replace(row, seconds=0.0)) for row in result.rounds], result.sha256

    assert told(1) == told(1)
    assert told(1)[1] != told(2)[1]


def test_a_fleet_of_one_equals_training_in_one_place_when_nothing_is_compressed() -> None:
    from fleet.problems.central import trained_centrally

    data, test = blobs(60), blobs(200, seed=1)
    job = structs.replace(spec(quorum=1), train=TrainSpec(learning_rate=0.05))
    fleet = simulate(job, [data], test)
    net, params = trained_centrally(job, data, 4)
    central = net.evaluate(params, test.X, test.y)
    # The order of the examples differs, hence not the same bits; the loss agrees.
    assert fleet.rounds[-1].loss == pytest.approx(central.loss, rel=0.05)


def test_only_as_many_devices_train_as_are_drawn() -> None:
    result = run(spec(target=3, quorum=2), n_devices=8)
    assert [row.participants for row in result.rounds] == [3, 3, 3, 3]


def test_bytes_are_of_every_device_and_bodies_are_a_part_of_them() -> None:
    # Too large to travel with the head, to whoever hears it.
    result = run(structs.replace(spec(), model=ModelSpec("mlp", 4, (64,), 3)), n_devices=5)
    size = 4 * result.parameters
    for row in result.rounds:
        assert 5 * size <= row.body_bytes_up < row.bytes_up
    assert result.bytes_up >= sum(row.bytes_up for row in result.rounds)
    assert result.body_bytes_up == sum(row.body_bytes_up for row in result.rounds)
    # float32 bodies are what this job sends: the comparison with float32 must come out even, up to the few bytes of
    # a body's own head.
    assert result.float32_bytes_up == pytest.approx(result.bytes_up, rel=0.01)
    assert result.float32_bytes_down == pytest.approx(result.bytes_down, rel=0.01)


def test_the_target_ends_the_job() -> None:
    result = run(spec(max_rounds=50, stop=StopSpec("accuracy", 0.8)))
    assert len(result.rounds) < 50
    assert "reached the target" in result.reason


def test_a_job_that_diverges_says_where() -> None:
    job = structs.replace(spec(), train=TrainSpec(learning_rate=1e6, weight_decay=1e3, epochs=3))
    with pytest.raises(SimulationError, match=r"5 of 5 devices cannot take part: device-00: training diverged"):
        run(job)


def two_kinds(n: int, share: float, seed: int) -> Dataset:
    """Rows of which a share is faults, which look a little different."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < share).astype(np.int64)
    return Dataset((rng.normal(size=(n, 4)) + y[:, None]).astype(np.float32), y)


def faults_found(contract: ContractSpec, weights: Callable[[Dataset], npt.NDArray[np.float32]] | None = None) -> float:
    shares = [two_kinds(300, 0.05, seed) for seed in range(4)]
    if weights is not None:
        shares = [share._replace(weights=weights(share)) for share in shares]
    model = ModelSpec("linear", 4, outputs=2)
    job = structs.replace(spec(quorum=4, max_rounds=6), model=model, contract=contract)
    faults = two_kinds(2000, 1.0, 99)  # of which accuracy is how many are found
    found = simulate(job, shares, faults).accuracy
    assert found is not None
    return found


def test_a_fleet_finds_more_of_a_rare_class_that_weighs_more_by_its_class_or_by_its_rows() -> None:
    names = ("ok", "fault")
    plain = faults_found(ContractSpec(classes=names))
    assert plain < 0.3
    assert faults_found(ContractSpec(classes=names, class_weight={"fault": 19.0})) > plain + 0.4
    by_row = faults_found(ContractSpec(), lambda data: np.where(data.y == 1, 38, 2).astype(np.float32))
    assert by_row > plain + 0.4
    alike = faults_found(ContractSpec(), lambda data: np.full(len(data.y), 3600, np.float32))
    assert alike == pytest.approx(plain, abs=0.01)


@pytest.mark.parametrize("n_devices", [1, 5])
@pytest.mark.parametrize("learning_rate", [0.1, 1e-3])
def test_raw_features_of_a_hundred_thousand_are_to_be_scaled_or_normalised(
    n_devices: int, learning_rate: float, caplog: pytest.LogCaptureFixture
) -> None:
    """At the one rate training diverges, at the other it ends far away."""
    raw = blobs(60)._replace(X=blobs(60).X * np.float32(1e5))
    job = structs.replace(spec(quorum=min(2, n_devices)), train=TrainSpec(learning_rate=learning_rate))
    with pytest.raises(SimulationError, match="scale the data, or normalise"):
        simulate(job, [raw] * n_devices, blobs(100, seed=1))
    who = "the one device that has" if n_devices == 1 else "all 5 devices that have"
    assert f"{who} trained on version 1.0" in caplog.text
    assert "far from the model: scale the data, or normalise" in caplog.text
    assert "peers" not in caplog.text


def test_a_job_whose_updates_are_all_refused_says_that_it_stands_still() -> None:
    job = structs.replace(spec(), aggregate=AggregateSpec(max_examples=3))
    with pytest.raises(SimulationError, match="stands still at version 0"):
        run(job)


WIDE = ModelSpec("mlp", 4, (64,), 3)


def test_a_round_says_how_its_updates_were_coded() -> None:
    found = run(structs.replace(spec(max_rounds=8), model=WIDE, compression="strong"))
    assert [(row.buckets, row.bits) for row in found.rounds][:1] == [steering.first(found.parameters).terms]
    assert all(row.buckets is not None and row.buckets >= 64 and row.bits in (1, 2, 3, 4) for row in found.rounds)
    for row in found.rounds:
        assert row.buckets is not None
        assert row.bits is not None
        fewest = row.buckets * row.bits // 8
        assert 5 * fewest <= row.body_bytes_up <= 5 * (fewest + 2 * row.buckets // 64 + 16 * 8)
    assert found.bytes_up < found.float32_bytes_up / 5


def test_buckets_and_bits_that_a_job_names_are_those_of_every_round() -> None:
    coding = CompressionSpec(buckets=2**20, bits=2, bits_down=3)
    found = run(structs.replace(spec(), model=WIDE, compression=coding))
    assert {(row.buckets, row.bits) for row in found.rounds} == {terms_for(found.parameters, 2**20, 2)}


@pytest.mark.parametrize("compression", ["off", CompressionSpec(codec="int8")])
def test_what_is_not_sketched_has_no_buckets(compression: object) -> None:
    found = run(structs.replace(spec(), compression=compression))
    assert {(row.buckets, row.bits) for row in found.rounds} == {(None, None)}


@pytest.mark.parametrize("compression", ["light", "strong", "extreme", CompressionSpec(codec="int8")])
def test_a_compressed_fleet_learns_too(compression: object) -> None:
    job = structs.replace(spec(max_rounds=20), model=WIDE, compression=compression)
    result = run(structs.replace(job, aggregate=AggregateSpec(server_momentum=0.5)))
    assert result.accuracy is not None
    assert result.accuracy > 0.9
    assert run(structs.replace(job, aggregate=AggregateSpec(server_momentum=0.5))).sha256 == result.sha256


@pytest.mark.parametrize(
    "compression",
    [
        *("off", "strong"),
        *(
            pytest.param(coding, marks=pytest.mark.long)
            for coding in ("light", "extreme", CompressionSpec(codec="int8"))
        ),
    ],
)
def test_a_fleet_with_fedadam_learns_too(compression: object) -> None:
    rules = AggregateSpec(strategy="fedadam", server_learning_rate=0.03)
    job = structs.replace(spec(max_rounds=20), model=WIDE, compression=compression, aggregate=rules)
    result = run(job)
    assert result.accuracy is not None
    assert result.accuracy > 0.9
    assert run(job).sha256 == result.sha256


@pytest.mark.parametrize("compression", ["off", CompressionSpec(codec="int8")])
def test_a_fleet_with_a_median_learns_too(compression: object) -> None:
    rules = AggregateSpec(strategy="median")
    result = run(structs.replace(spec(max_rounds=20), model=WIDE, compression=compression, aggregate=rules))
    assert result.accuracy is not None
    assert result.accuracy > 0.9


@pytest.mark.parametrize("compression", ["strong", CompressionSpec(codec="int8")])
def test_a_simulation_says_how_good_the_mean_is_that_is_deployed(compression: object) -> None:
    averaged = structs.replace(spec(max_rounds=26), compression=compression, deploy_average=3)
    found, plain = run(averaged), run(structs.replace(averaged, deploy_average=1))
    assert {(row.deployed_accuracy, row.deployed_loss) for row in plain.rounds} == {(None, None)}
    assert plain.deployed_accuracy is None
    assert [row.loss for row in found.rounds] == [row.loss for row in plain.rounds], "training goes on as it was"
    same = [row.deployed_loss == row.loss for row in found.rounds]
    assert same == [True] * 15 + [False] * 11
    assert [row.deployed_accuracy for row in found.rounds[:15]] == [row.accuracy for row in found.rounds[:15]]
    assert found.deployed_accuracy == found.rounds[-1].deployed_accuracy
    assert found.deployed_accuracy is not None
    assert found.deployed_accuracy > 0.8


def test_the_command_says_how_good_the_mean_is_that_is_deployed(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = files / "job.toml"
    job.write_text("deploy_average = 2\n" + JOB.format(compression="strong"), encoding="utf-8")
    assert main(["simulate", str(job), "--data", str(files / "data.npz"), "--devices", "3", "--rounds", "16"]) == 0
    assert "deployed is the mean of the last versions: accuracy" in capsys.readouterr().out


def test_nothing_is_left_where_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(spec())
    assert not list(tmp_path.iterdir())


def test_a_quorum_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(SettingsError, match="quorum = 9 is more than the 5 devices"):
        run(spec(quorum=9))


def test_a_fifth_of_the_file_is_held_back_unless_there_is_a_test_file(files: Path) -> None:
    assert len(read(files).test.y) == 40
    whole = read(files, test=files / "test.npz")
    assert len(whole.test.y) == 60
    assert sum(len(share.y) for share in whole.shares) == 200


def test_a_column_gives_one_device_for_each_of_its_values(files: Path) -> None:
    assert len(read(files, how="column:user").shares) == 7


def test_the_features_may_have_another_name(files: Path) -> None:
    (files / "job.toml").write_text(JOB.format(compression="off").replace("inputs = 4", "inputs = 2"))
    assert read(files, features="F").shares[0].X.shape[1] == 2


def test_seed_rounds_and_target_stand_in_for_the_jobs_own(files: Path) -> None:
    job = read(files, seed=7, rounds=9, target=0.5).spec
    assert (job.seed, job.rounds.max_rounds, job.rounds.stop.target) == (7, 9, 0.5)


@pytest.mark.parametrize(
    ("how", "error", "why"),
    [
        ("column:owner", DatasetError, "no array owner; it has X, y, user, few, F"),
        ("column:few", DatasetError, "3 rows in few but 200 in y"),
        ("column:X", PartitionError, "shape"),
        ("shards:50", PartitionError, "10 devices x 50 shards are more than the 160 examples"),
        ("alphabetical", PartitionError, "none of iid"),
    ],
)
def test_data_that_cannot_be_dealt_out_are_explained(files: Path, how: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        read(files, how=how)


def test_data_that_do_not_fit_the_model_are_explained(files: Path) -> None:
    with pytest.raises(DatasetError, match="2 features an example where the model has inputs = 4"):
        read(files, features="F")


def test_a_data_set_by_name_has_no_columns(files: Path) -> None:
    with pytest.raises(SettingsError, match="name a file with --data"):
        read_problem(files / "job.toml", "breast_cancer", how="column:user")


def test_the_command_writes_what_scripts_read(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = files / "out.json"
    arguments = ["simulate", str(files / "job.toml"), "--data", str(files / "data.npz"), "--devices", "5"]
    assert main([*arguments, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {"rounds", "bytes_up", "bytes_down", "accuracy", "seconds"} <= set(found)
    assert {"round", "accuracy", "loss", "participants", "bytes_up", "bytes_down", "seconds"} <= set(found["rounds"][0])
    assert "ended after 4 rounds" in capsys.readouterr().out


def test_json_on_standard_output_is_alone_there(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(files / "job.toml"), "--data", str(files / "data.npz"), "--json", "-"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rounds"]) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--data", "nowhere.npz"], 1, "nowhere.npz"),
        (["--data", "digits", "--devices", "100000"], 1, "64 features"),
        (["--data", "DATA", "--devices", "1000"], 2, "1000 devices are more than the 160 examples"),
        (["--data", "DATA", "--json", "/nowhere/x.json"], 2, "there is no folder"),
        (["--data", "DATA", "--devices", "1"], 2, "quorum = 2 is more than the 1 device"),
    ],
)
def test_what_is_wrong_with_the_command_line_is_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, why: str
) -> None:
    where = [str(files / "data.npz") if word == "DATA" else word for word in arguments]
    assert main(["simulate", str(files / "job.toml"), *where]) == code
    said = capsys.readouterr().err
    assert why in said
    assert said.startswith("fedge: ")
    assert said.count("\n") == 1


def test_a_simulation_leaves_nothing_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet.simulation.simulate, "MEMORY_DISK", tmp_path)
    run(spec(max_rounds=1))
    assert list(tmp_path.iterdir()) == []


# What a simulation saves itself, and that nothing comes of that but speed.


def told(job: JobSpec, shares: list[Dataset]) -> tuple[list[RoundRow], str, str]:
    """Simulate; return the rounds, the last version, and a hash of all that was published, with made up nonces."""
    digest, drawn = hashlib.sha256(), iter(range(10**9))
    publish, result = MemoryBroker._publish, fleet.simulation.simulate._Simulation._result

    def tell(self: MemoryBroker, packet: Packet) -> None:
        digest.update(repr((packet.topic, packet.payload, packet.retain, packet.expiry_s)).encode())
        publish(self, packet)

    def end(self: Any, *rest: Any) -> Result:
        digests.append(digest.hexdigest())  # what follows are goodbyes
        return result(self, *rest)

    digests: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryBroker, "_publish", tell)
        patch.setattr(fleet.simulation.simulate._Simulation, "_result", end)
        patch.setattr("secrets.token_hex", lambda n=32: f"{next(drawn):0{2 * n}x}")
        patch.setattr(fleet.simulation.simulate, "Store", partial(Store, chance=lambda below: next(drawn) % below))
        found = simulate(job, shares, blobs(100, seed=1))
    return [structs.replace(row, seconds=0.0) for row in found.rounds], found.sha256, digests[0]


def share_nothing(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have every device read, decode and write for itself, on files of its own, as real ones do."""
    make = Agent.__init__

    def alone(
        self: Agent, config: Any, home: Home, link: Any, wire: Wire, *, marks: Any, resources: Any, **more: Any
    ) -> None:
        make(self, config, home, link, Wire(wire.fleet), **more)

    def at_home(_folder: Path, device: str, *, nonce: str, disk: Any) -> Home:
        home = Home(folder / device, device, nonce=nonce)
        home.close()
        return home

    patch.setattr(Agent, "__init__", alone)
    patch.setattr(fleet.simulation.simulate, "Home", at_home)
    patch.setattr(SharedWire, "heard_bytes", Wire.blob_bytes)


@pytest.mark.parametrize("how", [pytest.param("iid", marks=pytest.mark.long), "shards:2"])
@pytest.mark.parametrize("compression", ["off", "light", "strong", "extreme", CompressionSpec(codec="int8")])
def test_devices_that_share_what_they_read_and_decode_say_the_same_bytes_as_devices_that_share_nothing(
    compression: object, how: str, tmp_path: Path
) -> None:
    job = structs.replace(spec(max_rounds=10, fraction=0.4), model=WIDE, compression=compression)
    data = blobs(200)
    shares = [Dataset(data.X[rows], data.y[rows]) for rows in deal(how, data.y, 8, 0)]
    shared = told(job, shares)
    with pytest.MonkeyPatch.context() as patch:
        share_nothing(patch, tmp_path)
        alone = told(job, shares)
    assert (tmp_path / "device-07" / "jobs").is_dir(), "they were on their own"
    assert shared == alone
    assert len(shared[0]) == 10


@pytest.mark.parametrize("compression", ["off", "strong"])
def test_a_version_is_decoded_as_often_whether_many_devices_take_it_or_few(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    walk = Chain._walk

    def counted(self: Chain, held: Held, number: int, body: bytes) -> Iterator[Held]:
        decoded.append(number)
        return walk(self, held, number, body)

    monkeypatch.setattr(Chain, "_walk", counted)
    times = []
    for n_devices in (5, 40):
        decoded.clear()
        run(structs.replace(spec(), model=WIDE, compression=compression), n_devices)
        times.append(len(decoded))
    assert times[0] == times[1] > 0


def test_nobody_is_asked_who_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    step, idle = Agent.step, []

    def watched(self: Agent, timeout_s: float = 1.0) -> bool:
        link: Any = self._transport
        if not (link.waiting or self.busy or self.deadline <= self._clock()):
            idle.append(self.device)
        return step(self, timeout_s)

    monkeypatch.setattr(Agent, "step", watched)
    run(spec(target=2, max_rounds=6), n_devices=12)
    assert idle == []


def test_what_happens_to_one_device_costs_nobody_else_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = blobs(40)
    simulation = fleet.simulation.simulate._Simulation(for_all(spec(), 20), [data] * 20, data, tmp_path)
    simulation._aggregator.start()
    for agent in simulation._agents:
        agent.start()
    simulation._settle()
    looked: list[str] = []
    for name in ("busy", "deadline"):
        look = getattr(Agent, name).fget

        def counted(self: Agent, look: Any = look) -> Any:
            looked.append(self.device)
            return look(self)

        monkeypatch.setattr(Agent, name, property(counted))
    hand = simulation._broker.transport("hand")
    hand.open()
    hand.publish(Packet("fedge/1/simulation/want/j/device-07", b"garbage"))
    assert simulation._work()
    simulation._earliest()
    assert set(looked) == {"device-07"}
    assert not simulation._work()
    simulation.close()


def test_an_idle_device_weighs_little() -> None:
    def peak(n_devices: int) -> int:
        data = blobs(10 * n_devices)
        shares = [Dataset(data.X[10 * i : 10 * i + 10], data.y[10 * i : 10 * i + 10]) for i in range(n_devices)]
        gc.collect()
        tracemalloc.start()
        simulate(spec(max_rounds=1, target=2), shares, data)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(20)
    assert (peak(170) - peak(20)) / 150 < 12_000


@pytest.mark.parametrize("was_on", [True, False])
def test_the_garbage_collector_is_left_as_it_was_found(was_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.unfreeze()  # the tests themselves
    diverges = TrainSpec(learning_rate=1e6, weight_decay=1e3, epochs=3)
    during: list[bool] = []
    if not was_on:
        gc.disable()
    try:
        data = blobs(200)
        simulate(spec(), [data, data], data, lambda _: during.append(gc.isenabled()))
        assert during == [was_on] * 4
        assert (gc.isenabled(), gc.get_freeze_count()) == (was_on, 0)
        with pytest.raises(SimulationError):
            run(structs.replace(spec(), train=diverges))
        assert (gc.isenabled(), gc.get_freeze_count()) == (was_on, 0)
    finally:
        gc.freeze()
        gc.enable()


@pytest.mark.parametrize("compression", ["strong", "off"])
def test_a_simulated_fleet_agrees_before_it_trains(compression: Any) -> None:
    """On raw features, where without it no update is let in."""
    data, test = blobs(200), blobs(100, seed=1)
    raw, far = np.array([1e5, 1, 1e-2, 1e4], np.float32), np.array([1e5, 0, 0, 1e9], np.float32)
    shares = [Dataset(data.X[rows] * raw + far, data.y[rows]) for rows in deal("iid", data.y, 5, 0)]
    job = structs.replace(spec(max_rounds=12), compression=compression, contract=ContractSpec(normalise="standard"))
    result = simulate(job, shares, test._replace(X=test.X * raw + far))
    assert result.accuracy is not None
    assert result.accuracy > 0.9
