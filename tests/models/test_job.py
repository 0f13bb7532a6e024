from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest

import models.nets.net
from aggregator.roster import Roster
from broker import payloads
from broker.messages import Presence
from models.job import MOST_JSON_BYTES, MOST_LABELS, PRESETS, CompressionSpec, JobSpec, ModelSpec, TrainSpec
from models.nets.mlp import Mlp
from models.params import n_parameters

TREE: dict[str, Any] = {"name": "digits", "model": {"inputs": 64, "outputs": 10}}


def read(**tables: Any) -> JobSpec:
    return msgspec.convert(TREE | tables, JobSpec)


def test_a_name_and_a_model_are_a_job() -> None:
    assert read().data_name == "digits"
    assert read().coding == PRESETS["strong"]


def test_a_job_is_what_its_own_json_says() -> None:
    job = read(compression={"codec": "int8"}, rounds={"deadline_s": "learned", "target": 3}, data="other")
    assert msgspec.json.decode(msgspec.json.encode(job), type=JobSpec) == job
    assert job.data_name == "other"
    assert job.coding == CompressionSpec(codec="int8")


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        (ModelSpec(inputs=64, hidden=(32,), outputs=10), b'{"inputs":64,"hidden":[32],"outputs":10}'),
        (
            ModelSpec("mlp", 2, (3, 4), 1, activation="tanh", loss="mse", framework="numpy"),
            b'{"inputs":2,"hidden":[3,4],"activation":"tanh","loss":"mse","framework":"numpy"}',
        ),
        (ModelSpec("mlp", options={"a": 1}), b'{"options":{"a":1}}'),
        (
            ModelSpec("nets:make", 2, (3,), activation="tanh", options={"width": 5}),
            b'{"kind":"nets:make","inputs":2,"hidden":[3],"activation":"tanh","options":{"width":5}}',
        ),
    ],
)
def test_a_model_travels_as_it_always_has(model: ModelSpec, sent: bytes) -> None:
    assert msgspec.json.encode(JobSpec("j", model)) == b'{"name":"j","model":' + sent + b"}"
    assert msgspec.json.decode(sent, type=ModelSpec) == model


def test_the_presets_are_sketches_of_ever_more_noise_but_for_the_one_that_is_off() -> None:
    assert list(PRESETS) == ["off", "light", "strong", "extreme"]
    off, *sketches = PRESETS.values()
    assert off.codec == "float32"
    assert all((spec.codec, spec.buckets) == ("sketch", None) for spec in sketches)
    tolerances = [spec.tolerance for spec in sketches]
    assert tolerances == sorted(set(tolerances))
    assert read(compression={}).coding == PRESETS["strong"]


def test_early_versions_are_deployed_as_they_are_and_later_ones_averaged_with_ever_more_before_them() -> None:
    job = read(deploy_average=4)
    assert [job.averaged_from(number) for number in (0, 1, 15, 16, 23, 24, 31, 32, 33, 1000)] == [
        *(0, 1, 15, 15, 22, 22, 29, 29, 30, 997)
    ]
    firsts = [job.averaged_from(number) for number in range(200)]
    assert firsts == sorted(firsts), "what is let go of is not wanted again"


def test_nothing_is_averaged_where_nothing_is_compressed_or_the_job_says_so() -> None:
    for job in (read(compression="off"), read(deploy_average=1)):
        assert (job.averaged, job.averaged_from(100)) == (1, 100)


@pytest.mark.parametrize("deadline_s", [0.1, 60, 1e9, "learned"])
def test_a_deadline_is_one_that_a_round_can_carry(deadline_s: float | str) -> None:
    assert read(rounds={"deadline_s": deadline_s}).rounds.deadline_s == deadline_s


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


REFUSED: dict[str, dict[str, Any]] = {
    "without end": {"rounds": {"deadline_s": float("inf")}},
    "of more than thirty years": {"rounds": {"deadline_s": 1.1e9}},
    "that is no number": {"rounds": {"deadline_s": float("nan")}},
    "of no time": {"rounds": {"deadline_s": 0}},
    "of the time of a beam of light": {"rounds": {"deadline_s": 1e-9}},
    "with a grace without end": {"rounds": {"grace_s": float("inf")}},
    "with a rate without end": {"train": {"learning_rate": float("inf")}},
    "with a rate that overflows": {"train": {"learning_rate": 1e300}},
    "with a rate that a float32 does not see": {"train": {"learning_rate": 1e-300}},
    "with a momentum that never forgets": {"train": {"momentum": 0.9999999999}},
    "with momentum that its optimizer has not": {"train": {"optimizer": "adam", "momentum": 0.9}},
    "that looks ahead without momentum": {"train": {"nesterov": True}},
    "with averages that its optimizer has not": {"train": {"beta2": 0.99}},
    "with an epsilon that its optimizer has not": {"train": {"epsilon": 1e-6}},
    "with a decay apart from the gradient, and none": {"train": {"optimizer": "adamw"}},
    "with averages that never forget": {"train": {"optimizer": "adam", "beta2": 1.0}},
    "with a division by nothing": {"train": {"optimizer": "adam", "epsilon": 0.0}},
    "with gradients of no norm": {"train": {"clip_norm": 0.0}},
    "with an optimizer that nobody knows": {"train": {"optimizer": "rmsprop"}},
    "with a warmup of more than all steps": {"train": {"warmup": 1.5}},
    "with a server's rate beyond sense": {"aggregate": {"server_learning_rate": 1e35}},
    "with a gate that is none": {"aggregate": {"max_norm_ratio": float("inf")}},
    "with a gate that there is not": {"aggregate": {"gate": "shut"}},
    "with devices that weigh nothing": {"rounds": {"max_share": 0.0}},
    "with devices that weigh more than all": {"rounds": {"max_share": 1.1}},
    "with shares where no weight has a say": {
        "aggregate": {"strategy": "median"},
        "rounds": {"max_share": 0.5},
        "compression": "off",
    },
    "with a tolerance of no noise at all": {"compression": {"tolerance": 0.0}},
    "with a tolerance that is no number": {"compression": {"tolerance": float("nan")}},
    "with a tolerance of more noise than gain": {"compression": {"tolerance": 10.5}},
    "with fewer buckets than a sketch has": {"compression": {"buckets": 63}},
    "with more buckets than a round can say": {"compression": {"buckets": 2**26 + 1}},
    "with half a bucket": {"compression": {"buckets": 64.5}},
    "with buckets of no bits": {"compression": {"buckets": 64, "bits": 0}},
    "with buckets of too many bits": {"compression": {"buckets": 64, "bits": 5}},
    "with versions of too many bits": {"compression": {"buckets": 64, "bits_down": 5}},
    "with a codec of before": {"compression": {"codec": "adaptive"}},
    "with a step, which there is no more": {"compression": {"step": 1.0}},
    "with a grid, which there is no more": {"compression": {"downlink_step": 0.0}},
    "with a preset that nobody knows": {"compression": "medium"},
    "with a target beyond all accuracy": {"rounds": {"stop": {"target": 96}}},
    "with a target of no accuracy": {"rounds": {"stop": {"target": 0.0}}},
    "with a target on an accuracy that nobody has": {
        "model": {"loss": "mse"},
        "rounds": {"stop": {"metric": "accuracy", "target": 0.5}},
    },
    "with patience for an accuracy that nobody has": {"model": {"loss": "mse"}, "rounds": {"stop": {"patience": 3}}},
    "with a target that is no number": {"rounds": {"stop": {"metric": "loss", "target": float("nan")}}},
    "with gains that no accuracy makes": {"rounds": {"stop": {"min_delta": 1.0}}},
    "with more devices than there can be": {"rounds": {"min_devices": 100_001}},
    "with a round that cannot make a version": {"rounds": {"quorum": 3, "min_devices": 2}},
    "with more labels than a device has": {"rounds": {"labels": {f"k{n}": "v" for n in range(65)}}},
    "with a net of ten thousand million parameters": {"model": {"hidden": [100_000, 100_000]}},
    "with a net that is long and thin": {"model": {"hidden": [100_000, 1] * 2}},
    "with a factory that has no name": {"model": {"kind": "nets:"}},
    "with a factory that is a line of code": {"model": {"kind": "os:system('rm')"}},
    "with options without end": {"model": {"kind": "a:b", "options": {"rate": [0.1, float("inf")]}}},
    "with options that are no JSON": {"model": {"kind": "a:b", "options": {"since": datetime.date(2023, 1, 1)}}},
    "with options that JSON would round": {"model": {"kind": "a:b", "options": {"seed": 2**53 + 1}}},
    "with options that nobody can follow": {"model": {"kind": "a:b", "options": nested(20)}},
    "with options longer than a message": {"model": {"kind": "a:b", "options": {"words": "x" * 262_144}}},
    "that is a word": {"rounds": {"deadline_s": "soon"}},
    "with a quorum beyond its target": {"rounds": {"quorum": 3, "target": 2}},
    "with a net that nobody knows": {"model": {"kind": "transformer"}},
    "with layers beyond number": {"model": {"hidden": [1] * 65}},
    "with feedback, which there is no more": {"compression": {"error_feedback": True}},
    "with buckets that its codec has not": {"compression": {"codec": "int8", "buckets": 256}},
    "with bits that would do nothing": {"compression": {"bits": 2}},
    "with bits down that would do nothing": {"compression": {"bits_down": 2}},
    "with a mean of nothing": {"deploy_average": 0},
    "with a mean of more than fit a sum": {"deploy_average": 17},
    "with a mean where versions travel whole": {"deploy_average": 2, "compression": "off"},
    "with a mean where versions travel whole, in as many words": {
        "deploy_average": 16,
        "compression": {"codec": "float32"},
    },
    "with a name that is no level of a topic": {"name": "a/b"},
    "with a key that nobody knows": {"quorum": 3},
}


@pytest.mark.parametrize("tables", REFUSED.values(), ids=REFUSED)
def test_a_job_is_refused(tables: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(**with_model(tables))


ALLOWED: dict[str, dict[str, Any]] = {
    "with a net of twenty million parameters": {"model": {"inputs": 784, "hidden": [4096, 4096]}},
    "with a table of a million columns": {"model": {"inputs": 1_000_000, "hidden": [16]}},
    "with every key of SGD": {
        "train": {"momentum": 0.9, "nesterov": True, "clip_norm": 1.0, "schedule": "cosine", "warmup": 0.1}
    },
    "with every key of Adam": {"train": {"optimizer": "adam", "beta1": 0.0, "beta2": 0.99, "epsilon": 1e-6}},
    "with AdamW": {"train": {"optimizer": "adamw", "weight_decay": 0.01, "schedule": "linear"}},
    "that trains on all rows at once": {"train": {"batch_size": 2**31 - 1, "epochs": 100_000}},
    "that waits for a loss of money squared": {"rounds": {"stop": {"metric": "loss", "target": 1e9, "min_delta": 5.0}}},
    "that waits for every answer": {"rounds": {"stop": {"target": 1.0}}},
    "that predicts values": {"model": {"loss": "mse"}, "rounds": {"stop": {"metric": "loss", "patience": 3}}},
    "that predicts values till it is stopped": {"model": {"loss": "mse"}},
    "with options of every kind": {
        "model": {
            "kind": "my_nets.audio:small",
            "options": {"a": 1, "b": 0.5, "c": "x", "d": True, "e": [1, [2]], "f": {}},
        }
    },
    "of the whole roster": {"rounds": {"quorum": 100_000, "min_devices": 100_000, "target": 100_000}},
    "that publishes without loss": {"compression": "off"},
    "that publishes without loss, in as many words": {"compression": {"codec": "float32"}},
    "with a bucket for each parameter": {"compression": {"buckets": 2**26, "bits": 4, "bits_down": 4}},
    "with the fewest buckets": {"compression": {"buckets": 64}},
    "with a mean of as many as fit": {"deploy_average": 16},
    "with a mean of int8": {"deploy_average": 2, "compression": {"codec": "int8"}},
    "that says that it averages nothing": {"deploy_average": 1, "compression": "off"},
    "with a tolerance of its own": {"compression": {"tolerance": 1e-3}},
}


@pytest.mark.parametrize("tables", ALLOWED.values(), ids=ALLOWED)
def test_a_job_that_somebody_may_want_is_allowed(tables: dict[str, Any]) -> None:
    job = read(**with_model(tables))
    assert msgspec.json.decode(msgspec.json.encode(job), type=JobSpec) == job


def test_a_key_of_another_optimizer_is_refused_by_its_name_and_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r'momentum: optimizer = "adam" has none: .*it has beta1, beta2, epsilon'):
        TrainSpec(optimizer="adam", momentum=0.9)
    with pytest.raises(ValueError, match="nesterov = true wants momentum"):
        TrainSpec(nesterov=True)
    with pytest.raises(ValueError, match=r"say weight_decay, 0\.01 in Torch"):
        TrainSpec(optimizer="adamw")


def test_a_job_that_says_nothing_of_its_optimizer_travels_as_it_always_has() -> None:
    assert msgspec.json.encode(TrainSpec(momentum=0.9)) == b'{"momentum":0.9}'


def with_model(tables: dict[str, Any]) -> dict[str, Any]:
    return tables | {"model": TREE["model"] | tables.get("model", {})}


def test_what_a_job_does_not_say_of_gates_and_shares_does_not_travel() -> None:
    job = JobSpec("j", ModelSpec())
    assert (job.aggregate.gate, job.rounds.max_share) == ("clip", None)
    assert b"gate" not in msgspec.json.encode(job)
    assert b"max_share" not in msgspec.json.encode(job)


def test_a_net_that_is_too_large_says_how_large_it_is() -> None:
    with pytest.raises(msgspec.ValidationError, match="10,007,600,010 parameters are more than the 25,000,000"):
        read(model={"inputs": 64, "hidden": [100_000, 100_000], "outputs": 10})


def test_a_net_has_as_many_parameters_as_its_spec_counts() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.nets.net, "MOST_PARAMETERS", 0)
        with pytest.raises(ValueError, match="9,610 parameters"):
            ModelSpec(inputs=64, hidden=(128,), outputs=10)
    assert n_parameters(Mlp(ModelSpec(inputs=64, hidden=(128,), outputs=10)).spec) == 9610


def test_the_limits_are_those_of_the_wire_and_of_the_roster() -> None:
    assert MOST_JSON_BYTES + 4096 == payloads.MAX_CONTROL_BYTES
    labels = next(field for field in msgspec.inspect.type_info(Presence).fields if field.name == "labels")  # type: ignore[attr-defined]
    assert labels.type.max_length == MOST_LABELS
    assert read(rounds={"min_devices": Roster().most}).rounds.min_devices == Roster().most
