"""Golden bodies: bytes in, integers out, the same on every machine, under every NumPy and in every implementation.

golden.json has three lists. `plans`: d, buckets, key and what follows from them. `updates`: bodies with the digest of
the integers they decode to (SHA-256 over int64 little-endian and an int32 exponent, tensor by tensor). `histories`:
jobs with bodies in order; each leads from a version to another, whose SHA-256 is given, and the digest of the server
optimizer's state. BODY.md says the rest. What a decoder reads must never change; where the format does, they are made
anew with

    python tests/models/codec/test_golden.py > tests/models/codec/golden.json
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.chain import Chain, Grids, Held, Late, Step, grouped, write
from models.codec import CodecError, Coding, Decoded, Terms
from models.codec.plan import Hash, plan
from models.codec.steps import step_near
from models.codec.terms import FLOAT32, INT8
from models.job import AggregateSpec, JobSpec, ModelSpec
from models.params import Params, Spec, TensorSpec

GOLDEN = Path(__file__).with_name("golden.json")
SMALL: Spec = (TensorSpec("0.weight", (12, 7)), TensorSpec("0.bias", (12,)), TensorSpec("s", ()))
LARGE: Spec = (TensorSpec("0.weight", (30, 20)), TensorSpec("0.bias", (30,)), TensorSpec("norm.weight", (70,)))
SEED = 5


def spec_from(found: list[list[Any]]) -> Spec:
    return tuple(TensorSpec(name, tuple(shape)) for name, shape in found)


def digest(tensors: Iterable[Decoded]) -> str:
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(tensor.integers.astype("<i8").tobytes() + tensor.exponent.to_bytes(4, "little", signed=True))
    return whole.hexdigest()


def velocity_digest(held: Held) -> str:
    return digest(Decoded(cells, -36) for cells in held.state.arrays)


ADAM = {"strategy": "fedadam", "server_learning_rate": 0.05}


def job(momentum: float, seed: int = SEED, aggregate: dict[str, Any] | None = None) -> JobSpec:
    rules = AggregateSpec(server_momentum=momentum, **(aggregate or {}))
    return JobSpec("golden", ModelSpec(), seed=seed, aggregate=rules)


def loaded() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(GOLDEN.read_text(encoding="ascii")) if GOLDEN.exists() else {}
    return {"plans": [], "updates": [], "histories": []} | found


def by_name(case: dict[str, Any]) -> str:
    return str(case["name"])


@pytest.mark.parametrize("case", loaded()["plans"], ids=lambda case: f"{case['d']}-{case['buckets']}")
def test_a_plan_is_drawn_as_ever(case: dict[str, Any]) -> None:
    assert plan_case(case["d"], case["buckets"], case["key"]) == case


@pytest.mark.parametrize("case", loaded()["updates"], ids=by_name)
def test_a_golden_update_decodes_to_its_integers(case: dict[str, Any]) -> None:
    coding = Coding(spec_from(case["spec"]), Terms(*case["terms"]), case["key"])
    tensors = coding.tensors(coding.decode(bytes.fromhex(case["body"])))
    assert digest(tensors) == case["digest"]
    assert [tensor.integers.reshape(-1)[:3].tolist() for tensor in tensors] == case["first"]
    assert [tensor.exponent for tensor in tensors] == case["exponents"]


@pytest.mark.parametrize("case", loaded()["histories"], ids=by_name)
def test_golden_bodies_lead_to_their_versions(case: dict[str, Any]) -> None:
    chain = Chain(spec_from(case["spec"]), job(case["momentum"], case["seed"], case.get("aggregate")))
    held = {0: chain.first()}
    assert held[0].sha256() == case["first"]
    for way in case["ways"]:
        found = chain.take(held[way["start"]], way["number"], bytes.fromhex(way["body"]))
        assert (found.sha256(), velocity_digest(found)) == (way["sha256"], way["velocity"]), way["name"]
        held[way["number"]] = found


@pytest.mark.parametrize("case", loaded()["histories"], ids=by_name)
def test_a_truncated_way_is_refused_or_leads_elsewhere(case: dict[str, Any]) -> None:
    chain = Chain(spec_from(case["spec"]), job(case["momentum"], case["seed"], case.get("aggregate")))
    held = {0: chain.first()}
    for way in case["ways"]:
        body = bytes.fromhex(way["body"])
        for cut in range(0, len(body), 1 + len(body) // 60):
            try:
                found = chain.take(held[way["start"]], way["number"], body[:cut])
            except CodecError:
                continue
            assert found.sha256() != way["sha256"]
            assert (len(body) - cut) % 8 == 0, "only coordinates beside may be missing unnoticed"
        held[way["number"]] = chain.take(held[way["start"]], way["number"], body)


# The generator.


def plan_case(d: int, buckets: int, key: str) -> dict[str, Any]:
    made = plan(d, buckets, key)
    hashed = Hash(made)
    bits = [np.packbits(sign < 0, bitorder="little").tobytes()[:8].hex() for sign in (hashed.sign, hashed.turn)]
    shown = sorted({0, 1, 2, min(made.m, d - 1), d - 1})
    whole = hashed.bucket.astype("<u4").tobytes() + hashed.sign.tobytes() + hashed.turn.tobytes()
    return {
        "d": d,
        "buckets": buckets,
        "key": key,
        "m": made.m,
        "block": made.block,
        "seed": str(made.seed),
        "bucket": {str(i): int(hashed.bucket[i]) for i in shown},
        "sign": bits[0],
        "turn": bits[1],
        "sha256": hashlib.sha256(whole).hexdigest(),
    }


def drawn(spec: Spec, seed: int, scale: float = 0.01, *, beside: int = 0) -> Params:
    rng = np.random.default_rng(seed)
    found = {t.name: np.asarray(scale * rng.standard_normal(t.shape), np.float32) for t in spec}
    for i in range(beside):
        found[spec[0].name].reshape(-1)[11 * i + 3] = (-1) ** i * scale * (30 + i)
    return found


def update_case(name: str, spec: Spec, terms: Terms, delta: Params) -> dict[str, Any]:
    coding = Coding(spec, terms, f"{SEED}:3")
    body = coding.encode(delta, np.random.default_rng(1))
    tensors = coding.tensors(coding.decode(body))
    return {
        "name": name,
        "spec": spec,
        "terms": terms,
        "key": f"{SEED}:3",
        "body": body.hex(),
        "exponents": [tensor.exponent for tensor in tensors],
        "first": [tensor.integers.reshape(-1)[:3].tolist() for tensor in tensors],
        "digest": digest(tensors),
    }


def updates() -> list[dict[str, Any]]:
    small, large = drawn(SMALL, 1), drawn(LARGE, 2)
    uneven = drawn(LARGE, 3)
    uneven["0.weight"][:] *= np.float32(1e-6)  # with buckets of their own, blocks differ
    found = [
        update_case("float32", SMALL, FLOAT32, small),
        update_case("int8", SMALL, INT8, small | {"0.bias": np.zeros(12, np.float32)}),
        update_case("zeros", SMALL, Terms(64, 1), {t.name: np.zeros(t.shape, np.float32) for t in SMALL}),
        update_case("beside alone", SMALL, Terms(64, 1), drawn(SMALL, 1, 0.0) | {"s": np.full((), 2.5, np.float32)}),
        update_case("uneven blocks", LARGE, Terms(768, 1), uneven),
        update_case("huge beside", SMALL, Terms(64, 1), drawn(SMALL, 7, 1e-6) | {"s": np.full((), -3e38, np.float32)}),
        update_case("folded", LARGE, Terms(384, 1), large),
        update_case("folded in blocks", LARGE, Terms(512, 1), large),
    ]
    for bits in (1, 2, 3, 4):
        found.append(update_case(f"{bits} bits", SMALL, Terms(128, bits), small))
        found.append(update_case(f"{bits} bits, beside", SMALL, Terms(128, bits), drawn(SMALL, 4, beside=3)))
    return found


def history(name: str, momentum: float, aggregate: dict[str, Any] | None = None) -> dict[str, Any]:
    chain = Chain(SMALL, job(momentum, aggregate=aggregate))
    has_state = momentum or aggregate

    def body(number: int, terms: Terms, seed: int, scale: float = 0.01, beside: int = 0) -> bytes:
        return chain.coding(number, terms).encode(drawn(SMALL, seed, scale, beside=beside), np.random.default_rng(1))

    fold, full, most = Terms(64, 1), Terms(128, 2), Terms(128, 4)
    grid = Grids(step_near(0.003), step_near(0.0007) if has_state else 0)
    lates = (
        Late(3, step_near(0.11), full, body(2, full, 21)),
        Late(1, step_near(0.3), fold, body(4, fold, 22, 0.1, 2)),
    )
    steps = [
        Step(fold, body(0, fold, 10)),
        Step(full, body(1, full, 11, beside=2)),
        Step(INT8, body(2, INT8, 12)),
        Step(most, body(3, most, 13), grids=grid),
        Step(fold, body(4, fold, 14)),
        Step(fold, body(5, fold, 15), late=lates),
        Step(FLOAT32, body(6, FLOAT32, 16, 40.0)),  # so far that exponents rise
        Step(fold, body(7, fold, 17, 2.0), late=lates[1:], grids=Grids(step_near(0.7), grid.state)),
    ]
    held, ways = [chain.first()], []

    def way(kind: str, start: int, number: int, content: bytes) -> Held:
        found = chain.take(held[start], number, content)
        told = {"sha256": found.sha256(), "velocity": velocity_digest(found), "body": content.hex()}
        ways.append({"name": kind, "start": start, "number": number} | told)
        return found

    for number, step in enumerate(steps):
        held.append(way("step", number, number + 1, write(step)))
    way("snapshot", 0, 4, chain.snapshot(held[4], grid))
    way("snapshot", 0, 8, chain.snapshot(held[8], Grids(step_near(0.7), grid.state)))
    way("group", 0, 8, grouped([write(step) for step in steps]))
    if not has_state:
        way("whole", 0, 5, chain.whole(held[5].model))
    head = {"name": name, "spec": SMALL, "seed": SEED, "momentum": momentum, "first": held[0].sha256()}
    return head | ({"aggregate": aggregate} if aggregate else {}) | {"ways": ways}


def generated() -> str:
    plans = [(64, 64, "0:0"), (97, 97, "5:3"), (3461, 865, "1:12"), (20_000, 300, "7:1"), (199_210, 12_000, "0:2")]
    found = {
        "plans": [plan_case(*case) for case in plans],
        "updates": updates(),
        "histories": [
            history("without momentum", 0.0),
            history("with momentum", 0.9),
            history("with FedAdam", 0.0, ADAM),
        ],
    }
    rows = [
        f'"{name}": [\n{",".join(chr(10) + json.dumps(case) for case in cases)[1:]}\n]' for name, cases in found.items()
    ]
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    sys.stdout.write(generated())
