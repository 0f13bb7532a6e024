"""The same bodies, versions and stored bytes from fixed updates as before strategies were rows of a table."""

from __future__ import annotations

import hashlib
import zlib

import msgspec
import numpy as np
import pytest

from aggregator.learner import Learner
from aggregator.record import Record, start
from models.chain import Chain
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec
from models.nets import table as nets
from models.steering import Report

MODEL = ModelSpec(inputs=6, hidden=(8,), outputs=3)
NET = nets.build(MODEL)
MOMENTUM = AggregateSpec(server_momentum=0.5)
FOLD = RoundsSpec(late="fold")
SPECS = {
    "strong": JobSpec("toy", MODEL, aggregate=MOMENTUM),
    "strong, plain": JobSpec("toy", MODEL),
    "buckets, fast": JobSpec(
        "toy",
        MODEL,
        compression=CompressionSpec(buckets=128, bits=2, bits_down=3),
        aggregate=AggregateSpec(server_learning_rate=0.7, server_momentum=0.9),
    ),
    "late": JobSpec("toy", MODEL, aggregate=MOMENTUM, rounds=FOLD),
    "int8": JobSpec("toy", MODEL, aggregate=MOMENTUM, compression=CompressionSpec(codec="int8")),
    "int8, plain": JobSpec("toy", MODEL, compression=CompressionSpec(codec="int8")),
    "off": JobSpec("toy", MODEL, aggregate=MOMENTUM, compression="off"),
    "off, plain": JobSpec("toy", MODEL, compression="off"),
}
GOLDEN = {
    "strong": "eecafa14cd923eee693092459ed90733",
    "strong, plain": "a51059a8041e95ce6afb840d5bd35bb6",
    "buckets, fast": "ca4305343556baeadac756fc40fba4a0",
    "late": "b6c43e043a10ed89909b3c6f7b298c45",
    "int8": "a1f7c35cd3ef505a6ed5dbacf4b2f917",
    "int8, plain": "2501f33678b33036e7a7190d6003d1d2",
    "off": "e4af6495f7c74f722e94bb999308028e",
    "off, plain": "02f1ae6f4267f6f3adbc50cef43f3ea3",
}
"""Of 20 versions each, as the code made them that knew no strategy but this one."""


FIELDS = 12
"""Of the record, that there were then."""


HISTORY = list(Record.__struct_fields__).index("history")


def as_then(blob: bytes, *, steered: bool = True) -> bytes:
    """Return what is stored of a version without the fields that have come behind the others since.

    steered: whether the coding is; of a round of others the energy of the mean is not worked out any more.
    """
    *before, record = msgspec.msgpack.decode(blob[4:])
    if not steered:
        record[HISTORY] = [[0.0, *rest] for _, *rest in record[HISTORY]]
    packed = msgspec.msgpack.encode([*before, record[:FIELDS]])
    return zlib.crc32(packed).to_bytes(4, "little") + packed


def outcome(spec: JobSpec) -> str:
    """Return a digest of all that 20 versions are: what is stored of each, its SHA-256 and its bodies."""
    learner, chain = Learner(NET, spec, start(NET, spec).to_bytes()), Chain(NET.spec, spec)
    steered = spec.coding.codec != "float32"
    whole = hashlib.sha256(as_then(start(NET, spec).to_bytes()))
    for number in range(20):
        bases = [None, None, None, *([number - 1] if spec.rounds.late == "fold" and number % 3 == 2 else [])]
        for k, base in enumerate(bases):
            terms = learner.terms if base is None else learner.terms_of(base)
            assert terms is not None
            rng = np.random.default_rng(10 * number + k)
            # Whole multiples of a power of two: nothing hangs on how a machine draws or adds floats.
            delta = {
                t.name: (rng.integers(-999, 1000, t.shape) * 2.0**-15 + 2.0**-8).astype(np.float32) for t in NET.spec
            }
            body = chain.coding(number if base is None else base, terms).encode(delta, rng)
            learner.admit(body, 10 + k, Report(0.5 + 2.0**-7 * k, (0.02 + 2.0**-10 * k) if number else None), base)
        following = learner.next()
        for piece in (
            as_then(following.to_bytes(), steered=steered),
            following.sha256.encode(),
            *(body for _, body in following.ways),
        ):
            whole.update(piece)
        learner.take(following)
    return whole.hexdigest()[:32]


@pytest.mark.parametrize("name", SPECS)
def test_federated_averaging_comes_to_the_bytes_that_it_always_came_to(name: str) -> None:
    assert outcome(SPECS[name]) == GOLDEN[name]


BEFORE = bytes.fromhex(
    "3fb54c8b950203c4219292e8e892c410367f740111e8e3ff1b9c7cfec215c201c408987420009874200092c4200040ba8d0000000000001b8e"
    "000000000040ba8d0000000000c01a8e00000000c41000805b8d0000000000805b8d000000009c92000808c0e69393cb3f8a2ba219e87d63cb"
    "3f7c5b9a32df7df89093cb3f6a2ba219e87d63cb3f5c5b9a32df7df89093cb3f4a2ba219e87d63cb3f3c5b9a32df7df89096cb3f93a3347b5f"
    "3886cb3fa395cca00e4fe6cb3fa3a3347b5f3886cb3fb395cca00e4fe6cb3fb3a3347b5f3886cb3fc395cca00e4fe61593c410200000000020"
    "415b7e7e7e7d405b7e7ec4142003815a015a00000020c15a7d7e7d7ec05a7e7ec410200000000020415a7d7d7d7e405a7d7d10013890"
)
"""Version 3 of a job with a velocity, as it was stored then."""


def test_a_velocity_that_was_stored_before_strategies_were_rows_is_read_and_written_again() -> None:
    model = ModelSpec(inputs=2, outputs=2)
    spec = JobSpec("old", model, compression=CompressionSpec(codec="int8"), aggregate=MOMENTUM)
    sha256 = "00d21627cf275c2d51da42084efceec0d698c810f71397cc3f7cfadcf1cbde32"
    now = Learner(nets.build(model), spec, BEFORE, 3, sha256).now
    assert [v.tolist() for v in now.held.state.arrays] == [
        [[2377793536, 2384134144], [2377793536, 2384117760]],
        [2371584000, 2371584000],
    ]
    assert as_then(now.to_bytes()) == BEFORE
