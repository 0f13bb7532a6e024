"""What comes of the updates to one base: the gate, the sum, and what one device may weigh."""

from __future__ import annotations

import itertools
import random
import zlib
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from msgspec import structs

from aggregator.gates import ABSURD, RefusedError
from aggregator.intake import Counted
from aggregator.learner import Learner, LearnerError
from aggregator.peers import MOST
from aggregator.record import opened, start
from aggregator.refusals import told
from models.chain import Chain
from models.contract import ContractSpec
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec
from models.nets import table as nets

MODEL = ModelSpec(inputs=6, hidden=(8,), outputs=3)
NET = nets.build(MODEL)
SPECS = {
    "off": JobSpec("toy", MODEL, compression="off"),
    "light": JobSpec("toy", MODEL, compression="light"),
    "extreme": JobSpec("toy", MODEL, compression="extreme"),
    "buckets": JobSpec("toy", MODEL, compression=CompressionSpec(buckets=64)),
    "int8": JobSpec("toy", MODEL, compression=CompressionSpec(codec="int8")),
    "off, FedAvgM": JobSpec("toy", MODEL, compression="off", aggregate=AggregateSpec(server_momentum=0.5)),
    "light, FedAvgM": JobSpec("toy", MODEL, compression="light", aggregate=AggregateSpec(server_momentum=0.5)),
    "light, FedAdam": JobSpec(
        "toy", MODEL, compression="light", aggregate=AggregateSpec(strategy="fedadam", server_learning_rate=0.02)
    ),
    "off, median": JobSpec("toy", MODEL, compression="off", aggregate=AggregateSpec(strategy="median")),
    "late": JobSpec("toy", MODEL, rounds=RoundsSpec(late="fold")),
    "late, int8": JobSpec("toy", MODEL, compression=CompressionSpec(codec="int8"), rounds=RoundsSpec(late="fold")),
}


class Sent(NamedTuple):
    device: str
    body: bytes
    weight: int
    number: int | None = None


def fresh(spec: JobSpec) -> Learner:
    return Learner(NET, spec, start(NET, spec).to_bytes())


def body(learner: Learner, seed: int, size: float = 0.01, number: int | None = None) -> bytes:
    base = learner.now.held.number if number is None else number
    terms = learner.terms_of(base)
    assert terms is not None
    rng = np.random.default_rng(seed)
    delta = {tensor.name: (size * rng.standard_normal(tensor.shape)).astype(np.float32) for tensor in NET.spec}
    return Chain(NET.spec, learner._spec).coding(base, terms).encode(delta, rng)


def admit(learner: Learner, *sent: Sent) -> None:
    for one in sent:
        learner.admit(one.body, one.weight, None, one.number, one.device)


def versions(learner: Learner, n: int, size: float = 0.01, devices: int = 4) -> None:
    for _ in range(n):
        for k in range(devices):
            admit(learner, Sent(f"d{k}", body(learner, 100 * learner.now.held.number + k, size), 10))
        learner.take(learner.next())


def sent_to(learner: Learner, liar: int, size: float = 0.01) -> list[Sent]:
    """What four devices send, and a liar who claims to weigh so much."""
    honest = [Sent(f"d{k}", body(learner, 900 + k, size), 10 + k) for k in range(4)]
    return [*honest, Sent("liar", body(learner, 950, size), liar)]


def capped(learner: Learner, share: float, sent: list[Sent]) -> dict[str, tuple[int, int]]:
    bodies = {(one.device, one.number): one.body for one in sent}
    asked: list[str] = []

    def body_of(counted: Counted) -> bytes:
        asked.append(counted.device)
        return bodies[counted.device, counted.number]

    found = learner.cap(share, body_of)
    assert set(asked) <= set(found)
    assert len(found) < max(2, 1 / share)
    return found


# What one device may weigh.


@pytest.mark.parametrize("name", [name for name in SPECS if "median" not in name])
def test_a_device_that_is_capped_counts_as_if_it_had_come_with_as_much_less(name: str) -> None:
    claims, honest = fresh(SPECS[name]), fresh(SPECS[name])
    versions(claims, 2)
    versions(honest, 2)
    sent = sent_to(claims, 2**20)
    admit(claims, *sent)
    (device, (before, after)), *others = capped(claims, 0.25, sent).items()
    assert (device, before, others) == ("liar", 2**20, [])
    assert after == 15, "a quarter of what it makes with the 46 of the others"
    admit(honest, *sent[:-1], sent[-1]._replace(weight=after))
    assert claims.next().to_bytes() == honest.next().to_bytes()
    assert capped(claims, 0.25, sent) == {}, "once is enough"


@pytest.mark.parametrize("name", ["off", "extreme", "int8", "light, FedAdam"])
def test_whoever_came_first_the_capped_mean_has_the_same_bits(name: str) -> None:
    found = set()
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
        learner = fresh(SPECS[name])
        versions(learner, 1)
        sent = [sent_to(learner, 2**20)[k] for k in order]
        admit(learner, *sent)
        capped(learner, 0.21, sent)
        found.add(learner.next().sha256)
    assert len(found) == 1


@pytest.mark.parametrize("name", ["late", "late, int8"])
def test_a_device_with_a_late_update_is_capped_at_what_both_weigh(name: str) -> None:
    claims, honest = fresh(SPECS[name]), fresh(SPECS[name])
    versions(claims, 2)
    versions(honest, 2)
    sent = [*sent_to(claims, 2**19), Sent("liar", body(claims, 77, number=1), 2**19, 1)]
    admit(claims, *sent)
    ((device, (before, after)),) = capped(claims, 0.25, sent).items()
    assert (device, before) == ("liar", 2**20)
    assert after == 14, "7 and 7, of the 15 that it may have"
    admit(honest, *sent[:-2], sent[-2]._replace(weight=7), sent[-1]._replace(weight=7))
    assert claims.next().to_bytes() == honest.next().to_bytes()


def test_where_weights_have_no_say_nobody_is_capped() -> None:
    learner = fresh(SPECS["off, median"])
    sent = sent_to(learner, 2**20)
    admit(learner, *sent)
    assert learner.cap(0.25, lambda _: b"") == {}
    assert learner.intake.weights == {}


def test_a_body_that_is_not_what_it_was_when_it_came_is_an_error_that_says_so() -> None:
    learner = fresh(SPECS["off"])
    admit(learner, *sent_to(learner, 2**20))
    with pytest.raises(LearnerError, match="a stored update"):
        learner.cap(0.25, lambda _: b"junk")


# The gate that clips.


@pytest.mark.parametrize("name", [name for name in SPECS if not name.startswith("late")])
def test_an_update_that_is_far_from_its_peers_and_larger_than_the_model_is_scaled_to_the_limit(name: str) -> None:
    learner = fresh(SPECS[name])
    versions(learner, 1)
    limit = learner.intake._limit
    far = body(learner, 9, 1.0)
    admitted = learner.admit(far, 9, device="small")
    assert admitted.norm > max(limit.most, learner.intake.model_norm)
    assert admitted.weight == 9
    assert admitted.factor is not None
    assert 0.98 * limit.most < learner.intake.counted[-1].moved <= limit.most
    assert learner.intake.clipped == {"small": admitted.factor.value}


@pytest.mark.parametrize("name", list(SPECS))
def test_clipped_updates_come_to_the_same_bits_in_any_order_and_after_a_start(name: str) -> None:
    found = set()
    for seed in range(4):
        learner = fresh(SPECS[name])
        versions(learner, 1)
        sent = [*sent_to(learner, 10), Sent("far", body(learner, 9, 1.0), 9), Sent("farther", body(learner, 8, 3.0), 9)]
        random.Random(seed).shuffle(sent)  # noqa: S311 -- an order, no secret
        again = Learner(NET, SPECS[name], learner.now.to_bytes())
        for one in sent:
            admitted = learner.admit(one.body, one.weight, None, None, one.device)
            again.restore(one.body, Counted(admitted.weight, admitted.norm, device=one.device))
        assert set(learner.intake.clipped) == {"far", "farther"}
        found |= {learner.next().to_bytes(), again.next().to_bytes()}
    assert len(found) == 1


def test_a_late_update_that_is_clipped_is_passed_on_with_as_much_less_of_a_rate() -> None:
    spec = SPECS["late"]
    learner, plain = fresh(spec), fresh(structs.replace(spec, aggregate=AggregateSpec(max_norm_ratio=1e9)))
    for one in (learner, plain):
        versions(one, 2)
        admit(one, *sent_to(one, 10))
        admit(one, Sent("far", body(one, 9, 1.0, 1), 9, 1))
    (late,) = learner.intake.late
    (whole,) = plain.intake.late
    assert late.factor is not None
    assert late.share_of(100) == whole.share_of(100) * late.factor.value
    learner.next()


def test_a_fleet_that_grows_is_clipped_for_a_version_and_then_counts_as_it_is() -> None:
    learner = fresh(SPECS["off"])
    versions(learner, 3)
    for k in range(4):
        admit(learner, Sent(f"d{k}", body(learner, k, 1.0), 10))
    assert len(learner.intake.clipped) == 4
    following = learner.next()
    assert "4 of 4 updates are far from what was usual, and were scaled down" in following.alarm
    assert "not one device is to blame" in following.alarm
    learner.take(following)
    for k in range(4):
        admit(learner, Sent(f"d{k}", body(learner, 10 + k, 1.0), 10))
    assert learner.intake.clipped == {}
    assert learner.next().alarm == ""


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("normalise", ["none", "pixels"])
def test_a_first_round_in_which_everybody_is_far_says_what_to_do_and_blames_no_peers(n: int, normalise: str) -> None:
    spec = structs.replace(SPECS["off"], contract=ContractSpec(normalise=normalise))  # type: ignore[arg-type]
    learner = fresh(spec)
    far = 100 * learner.intake.model_norm
    admit(learner, *(Sent(f"d{k}", body(learner, k, far), 10) for k in range(n)))
    assert learner.intake.usual == "the model's"
    assert len(learner.intake.clipped) == n
    alarm = learner.next().alarm
    assert alarm.startswith(f"updates far from the model, {n} of {n}, were scaled down: ")
    assert ("scale the data, or normalise" in alarm) == (normalise == "none")
    assert "lower learning_rate" in alarm
    with pytest.raises(RefusedError, match=r"far from the model's: (scale the data, or normalise|lower)") as refused:
        learner.admit(body(learner, 9, 10_000 * ABSURD), 10, device="far")
    assert "peers" not in str(refused.value)


def test_one_of_many_that_is_far_from_the_model_alarms_nobody() -> None:
    learner = fresh(SPECS["off"])
    admit(learner, *sent_to(learner, 10), Sent("far", body(learner, 9, 100 * learner.intake.model_norm), 9))
    assert list(learner.intake.clipped) == ["far"]
    assert learner.next().alarm == ""


def test_one_device_that_is_far_alarms_nobody() -> None:
    learner = fresh(SPECS["off"])
    versions(learner, 3)
    admit(learner, *sent_to(learner, 10), Sent("far", body(learner, 9, 1.0), 9))
    assert learner.next().alarm == ""


def test_what_no_training_comes_to_is_refused_and_leaves_its_norm_to_the_next_versions() -> None:
    learner = fresh(SPECS["off"])
    versions(learner, 1)
    clean = Learner(NET, SPECS["off"], learner.now.to_bytes())
    with pytest.raises(RefusedError, match="far from its peers'") as refused:
        learner.admit(body(learner, 9, ABSURD), 10, device="far")
    assert refused.value.norm > ABSURD
    learner.refuse("far", refused.value.norm)
    for one in (learner, clean):
        admit(one, *sent_to(one, 10))
    assert learner.next().sha256 == clean.next().sha256
    assert refused.value.norm in learner.next().record.peers


@pytest.mark.parametrize("spec", [SPECS["off"], SPECS["int8"], SPECS["buckets"], SPECS["extreme"]])
@pytest.mark.parametrize("usual", [1e-6, 1e-36])
def test_a_fleet_that_had_converged_goes_on_when_its_data_change(spec: JobSpec, usual: float) -> None:
    learner = fresh(spec)
    versions(learner, 3, usual)
    norms = [norm for norm in learner.now.record.peers if norm > 0]
    assert all(1024 * 10 * norm < learner.now.model.norm for norm in norms)
    again = Learner(NET, spec, learner.now.to_bytes())
    for k in range(4):
        sent = body(learner, k, 5.0)
        admitted = learner.admit(sent, 10, device=f"d{k}")
        assert admitted.norm > learner.now.model.norm
        again.restore(sent, Counted(10, admitted.norm, device=f"d{k}"))
    following = learner.next()
    assert following.sha256 == again.next().sha256
    learner.take(following)
    admit(learner, *(Sent(f"d{k}", body(learner, 10 + k, 5.0), 10) for k in range(4)))
    assert learner.intake.clipped == {}, "by now that is usual"


# The gate that refuses.

REFUSES = JobSpec("toy", MODEL, compression="off", aggregate=AggregateSpec(gate="refuse"))


def refusal(learner: Learner, device: str, seed: int, size: float) -> str:
    """What is said of an update; "" where it counts. As a run does it."""
    try:
        learner.admit(body(learner, seed, size), 10, device=device)
    except RefusedError as error:
        learner.refuse(device, error.norm)
        return str(error)
    return ""


def test_a_fleet_that_grows_is_let_in_where_it_would_be_refused_as_soon_as_half_of_it_has_grown() -> None:
    learner = fresh(REFUSES)
    versions(learner, 3, devices=12)
    said = [refusal(learner, f"d{k}", k, 1.0) for k in range(9)]
    assert [bool(why) for why in said] == [True] * 5 + [False] * 4
    assert told(said[0]) == told(said[1]) == "its norm is far from its peers'"
    assert told(said[2]) == "its norm is far from what was usual, as those of most are now"
    assert "were refused at first" in learner.next().alarm
    learner.take(learner.next())
    assert [refusal(learner, f"d{k}", 10 + k, 1.0) for k in range(12)] == [""] * 12


def test_fewer_than_half_of_the_devices_do_not_let_each_other_in_however_early_they_come() -> None:
    learner = fresh(REFUSES)
    versions(learner, 3, devices=9)
    for number in range(3):
        assert all(refusal(learner, f"d{k}", 7 * number + k, 1.0) for k in range(4))
        assert not any(refusal(learner, f"d{k}", 7 * number + k, 0.01) for k in range(4, 9))
        learner.take(learner.next())


# What is stored.


def test_who_was_refused_in_a_row_is_known_of_every_version_until_it_is_counted() -> None:
    learner = fresh(SPECS["off"])
    for n in range(1, 4):
        learner.refuse("bad")
        assert learner.intake.streaks == {"bad": n}
        versions(learner, 1)
        learner = Learner(NET, SPECS["off"], learner.now.to_bytes())
        assert learner.intake.streaks == {"bad": n}
    admit(learner, Sent("bad", body(learner, 1), 10))
    assert learner.intake.streaks == {}


def test_a_record_that_an_older_fedge_wrote_has_norms_of_nobody_and_they_count_as_they_did() -> None:
    learner = fresh(SPECS["off"])
    versions(learner, 2)
    *before, record = msgspec.msgpack.decode(learner.now.to_bytes()[4:])
    packed = msgspec.msgpack.encode([*before, record[:12]])
    older = Learner(NET, SPECS["off"], zlib.crc32(packed).to_bytes(4, "little") + packed)
    assert older.now.record.whose == ()
    assert older.intake._limit == learner.intake._limit
    assert older.intake.streaks == {}
    for one in (older, learner):
        versions(one, 1)
    assert older.now == learner.now


@pytest.mark.parametrize(
    "changes",
    [
        {"whose": [["a", 1]]},
        {"whose": [["a" * 81, 1]], "peers": [1.0]},
        {"whose": [["a", -1]], "peers": [1.0]},
        {"whose": [["a", 1]] * (MOST + 1), "peers": [1.0] * (MOST + 1)},
        {"streaks": [["a", "b"]]},
        {"streaks": [["a", 1]] * 257},
    ],
)
def test_what_is_wrong_with_a_stored_record_is_damage(changes: dict[str, object]) -> None:
    learner = fresh(SPECS["off"])
    versions(learner, 1)
    *before, _ = msgspec.msgpack.decode(learner.now.to_bytes()[4:])
    record = list(structs.asdict(structs.replace(learner.now.record, peers=(), whose=())) | changes)
    values = structs.asdict(structs.replace(learner.now.record, peers=(), whose=())) | changes
    packed = msgspec.msgpack.encode([*before, [values[name] for name in record]])
    with pytest.raises(ValueError, match=r"damaged|norms of nobody"):
        opened(zlib.crc32(packed).to_bytes(4, "little") + packed, NET.spec, AggregateSpec())
