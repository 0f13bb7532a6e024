from __future__ import annotations

import itertools
import tracemalloc
from statistics import median

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import FLOAT32, INT8, Coding, Decoded, Terms
from models.codec.plain import Floats
from models.fold import FoldError
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec
from models.lattice import initial
from models.params import Spec, TensorSpec
from models.strategies import median as medians
from models.strategies.fedavg import FEDAVG
from models.strategies.median import MEDIAN, Collector

SPEC: Spec = (TensorSpec("w", (4, 3)), TensorSpec("b", ()))
D = 13
Row = npt.NDArray[np.float32]


def collector(terms: Terms = FLOAT32, spec: Spec = SPEC) -> Collector:
    found = MEDIAN.combine(Coding(spec, terms, "0:0"), initial(spec, 0))
    assert isinstance(found, Collector)
    return found


def rows(n: int, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(D).astype(np.float32) for _ in range(n)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from([0.0, -0.0, 1e-45, -3e38, 3e38]) | st.floats(width=32, allow_nan=False),
            min_size=D,
            max_size=D,
        ).map(lambda values: np.nan_to_num(np.array(values, np.float32), posinf=1.0, neginf=-1.0)),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_each_coordinate_is_the_median_of_its_own_and_the_order_has_no_say(updates: list[Row], random: object) -> None:
    found = collector()
    for number, row in enumerate(updates):
        found.add(Floats(row), 1 + number)
    wanted = [median(float(row[k]) for row in updates) + 0.0 for k in range(D)]
    assert found.mean().values.tolist() == wanted
    other = collector()
    for row in sorted(updates, key=lambda _: random.random()):  # type: ignore[attr-defined]
        other.add(Floats(row), 5)
    assert other.mean().values.tobytes() == found.mean().values.tobytes()
    assert repr(other.mean_energy()) == repr(found.mean_energy())
    other.add(Floats(updates[0]), 5)
    found.add(Floats(updates[0]), 5)
    wanted = [median(float(row[k]) for row in (*updates, updates[0])) + 0.0 for k in range(D)]
    assert other.mean().values.tolist() == found.mean().values.tolist() == wanted


def test_slabs_have_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for slab in (medians.SLAB, 5):
        monkeypatch.setattr(medians, "SLAB", slab)
        of_one = collector()
        for row in rows(4):
            of_one.add(Floats(row), 1)
        found.append(of_one.mean().values.tobytes())
    assert found[0] == found[1]


def test_weights_have_no_say_but_are_added_up() -> None:
    found, other = collector(), collector()
    for weight, row in zip((1, 2**20, 7), rows(3), strict=True):
        found.add(Floats(row), weight)
        other.add(Floats(row), 1)
    assert found.mean().values.tobytes() == other.mean().values.tobytes()
    assert (found.weight, other.weight) == (2**20 + 8, 3)


def test_of_int8_it_is_the_median_too() -> None:
    found, said = collector(INT8), []
    for number, row in enumerate(rows(5)):
        coding = found.coding
        delta = {"w": row[:12].reshape(4, 3), "b": row[12]}
        update = coding.decode(coding.encode(delta, np.random.default_rng(number)))
        said.append(np.concatenate([tensor.values().reshape(-1) for tensor in coding.tensors(update)]))
        found.add(update, 3)
    assert found.mean().values.tolist() == np.median(said, axis=0).tolist()


def test_a_mean_energy_is_that_of_the_median() -> None:
    found = collector()
    assert found.mean_energy() == 0.0
    for row in rows(3):
        found.add(Floats(row), 1)
    assert found.mean_energy() == pytest.approx(float(np.square(found.mean().values).sum()), rel=1e-5)
    assert not found.zero().values.any()
    assert found.zero().values.shape == (D,)


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    found = collector(INT8)
    small = tuple(Decoded(np.ones(tensor.shape, np.int64), 0) for tensor in SPEC)
    large = (small[0], Decoded(np.array(127 * 255), 120))
    found.add(small, 1)
    for update, weight in ((small, 0), (small, 2**20 + 1), (large, 1)):
        with pytest.raises(FoldError):
            found.add(update, weight)
    assert found.weight == 1
    assert found.mean().values.tolist() == [1.0] * D
    sketched = Coding((TensorSpec("w", (99,)),), Terms(64, 1), "0:0")
    sketch = sketched.decode(sketched.encode({"w": np.ones(99, np.float32)}, np.random.default_rng(0)))
    with pytest.raises(FoldError, match="a sketch by itself"):
        found.add(sketch, 1)
    with pytest.raises(FoldError, match="no median"):
        collector().mean()


def test_updates_beyond_its_room_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medians, "MOST_BYTES", 3 * 4 * D + 11)
    found = collector()
    for row in rows(3):
        found.add(Floats(row), 1)
    before = found.mean().values.tobytes()
    with pytest.raises(FoldError, match=r"room for 3 of this net: say target = 3 or less in \[rounds\]"):
        found.add(Floats(rows(1, 9)[0]), 1)
    assert found.mean().values.tobytes() == before


def test_its_memory_is_four_bytes_a_coordinate_and_update() -> None:
    n = 100_000
    wide: Spec = (TensorSpec("w", (n,)),)
    found = collector(INT8, wide)
    tracemalloc.start()
    for number in range(10):
        found.add((Decoded(np.full(n, number), -10),), 1)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    found.mean()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10 * 4 * n + 100_000
    assert peak < held + 8 * n + 4 * 10 * 8 * medians.SLAB


def test_all_orders_of_five_devices_of_which_two_lie_come_to_what_the_honest_ones_say() -> None:
    honest = rows(1)[0]
    lies = [np.full(D, 3e38, np.float32), np.full(D, -1e30, np.float32) * np.sign(honest)]
    found = set()
    for order in itertools.permutations([honest, honest, honest, *lies]):
        of_one = collector()
        for row in order:
            of_one.add(Floats(row), 1)
        found.add(of_one.mean().values.tobytes())
    assert found == {honest.astype(np.float64).tobytes()}


# What a job may say.


@pytest.mark.parametrize("compression", ["light", "strong", "extreme", CompressionSpec(tolerance=0.3)])
def test_a_sketch_is_refused_with_what_to_say_instead(compression: object) -> None:
    with pytest.raises(ValueError, match='is mostly noise: say compression = "off", or codec = "int8"'):
        JobSpec("j", ModelSpec(), compression=compression, aggregate=AggregateSpec(strategy="median"))  # type: ignore[arg-type]


@pytest.mark.parametrize("compression", ["off", CompressionSpec(codec="int8")])
def test_a_plain_coding_may_have_momentum_and_a_rate(compression: object) -> None:
    rules = AggregateSpec(strategy="median", server_momentum=0.9, server_learning_rate=0.5)
    assert JobSpec("j", ModelSpec(), compression=compression, aggregate=rules).aggregate == rules  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="server_beta1"):
        JobSpec("j", ModelSpec(), compression="off", aggregate=AggregateSpec(strategy="median", server_beta1=0.5))
    assert MEDIAN.step is FEDAVG.step
