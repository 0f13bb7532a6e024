import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codec import CodecError, decode, max_body_bytes
from models.codec.decoded import BUDGET, Decoded
from models.codec.frame import write
from models.params import Spec, TensorSpec

SPEC = (
    TensorSpec("0.weight", (24, 40)),
    TensorSpec("0.bias", (24,)),
    TensorSpec("conv.weight", (3, 4, 2, 2)),
    TensorSpec("gain", ()),
    TensorSpec("none", (0, 4)),
)
CODECS = ["float32", "int8", "adaptive", "stochastic"]
Tensors = tuple[np.ndarray, ...]


def update(spec: Spec = SPEC, scale: float = 0.01, rank: int = 3) -> Tensors:
    rng = np.random.default_rng(11)
    tensors = [np.asarray(scale * rng.laplace(size=t.shape), np.float32) for t in spec]
    for i, t in enumerate(spec):
        if len(t.shape) == 2 and t.size:
            U, V = rng.standard_normal((rank, t.shape[0])), rng.standard_normal((rank, t.shape[1]))
            tensors[i] += np.float32(3 * scale) * (U.T @ V).astype(np.float32)
    return tuple(tensors)


def body(codec: str, tensors: Tensors | None = None, step: float = 1.0) -> bytes:
    stochastic, rng = codec == "stochastic", np.random.default_rng(5)
    name = "adaptive" if stochastic else codec
    tensors = tensors or update()
    return write(tensors, tensors, name, step, rng, stochastic=stochastic)


def nmse(tensors: Tensors, decoded: tuple[Decoded, ...]) -> float:
    lost = sum(float(np.square(t - d.values()).sum()) for t, d in zip(tensors, decoded, strict=True))
    return lost / sum(float(np.square(t.astype(float)).sum()) for t in tensors)


@pytest.mark.parametrize("codec", CODECS)
def test_a_body_decodes_near_its_update(codec: str) -> None:
    decoded = decode(body(codec), SPEC)
    assert [d.integers.shape for d in decoded] == [t.shape for t in SPEC]
    assert all(d.integers.dtype == np.int64 for d in decoded)
    assert nmse(update(), decoded) < {"float32": 1e-15, "int8": 1e-3, "adaptive": 0.1, "stochastic": 0.3}[codec]


@pytest.mark.parametrize("codec", CODECS)
def test_no_body_is_longer_than_the_most(codec: str) -> None:
    for tensors in (update(), update(scale=1e-30), tuple(np.zeros_like(t) for t in update())):
        for step in (1e-12, 1e-3, 1.0, 1e5):
            assert len(body(codec, tensors, step)) <= max_body_bytes(SPEC)


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_decode_to_zeros_for_next_to_nothing(codec: str) -> None:
    zeros = tuple(np.zeros_like(t) for t in update())
    encoded = body(codec, zeros)
    assert not any(d.integers.any() for d in decode(encoded, SPEC))
    assert codec == "float32" or len(encoded) <= 12


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 30), (30, 1), (2, 1, 1, 3), (17, 18)])
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30])
def test_any_shape_and_size_survives_within_its_step(codec: str, shape: tuple[int, ...], scale: float) -> None:
    spec = (TensorSpec("x", shape),)
    tensors = update(spec, scale, rank=1)
    encoded = body(codec, tensors, 0.25)
    (decoded,) = decode(encoded, spec)
    rms = float(np.sqrt(np.mean(np.square(tensors[0].astype(float)))))
    worst = float(np.abs(tensors[0] - decoded.values()).max())
    assert worst <= max(0.8 * rms, 2.0**-149)
    assert len(encoded) <= max_body_bytes(spec)


@pytest.mark.parametrize("step", [0.02, 0.1, 0.5, 2.0])
def test_the_error_of_a_coordinate_stays_below_a_step(step: float) -> None:
    spec = (TensorSpec("x", (400,)),)
    tensors = update(spec)
    (decoded,) = decode(body("adaptive", tensors, step), spec)
    rms = float(np.sqrt(np.mean(np.square(tensors[0].astype(float)))))
    assert np.abs(tensors[0] - decoded.values()).max() <= 0.61 * 1.01 * step * rms


def test_rounding_at_random_has_no_bias() -> None:
    tensors = update()
    rng, runs = np.random.default_rng(0), 100
    steps = np.linspace(2.0, 2.4, runs)  # a little apart, as those of devices are: the step seeds the dither too
    bodies = [write(tensors, tensors, "adaptive", step, rng, stochastic=True) for step in steps]
    decoded = [decode(one, SPEC) for one in bodies]
    single = np.mean([nmse(tensors, one) for one in decoded])
    means = tuple(np.mean([one[k].values() for one in decoded], axis=0) for k in range(len(SPEC)))
    lost = sum(float(np.square(t - m).sum()) for t, m in zip(tensors, means, strict=True))
    energy = sum(float(np.square(t.astype(float)).sum()) for t in tensors)
    assert single > 0.05
    assert lost / energy < 1.5 * single / runs


def test_the_adaptive_coding_never_costs_more_than_int8_at_its_error() -> None:
    for tensor in update():
        spec = (TensorSpec("x", tensor.shape),)
        plain = body("int8", (tensor,))
        for step in (0.02, 0.05, 0.3, 2.0):
            mine = body("adaptive", (tensor,), step)
            better = (
                nmse((tensor,), decode(plain, spec)) <= nmse((tensor,), decode(mine, spec)) if tensor.any() else False
            )
            assert not (better and len(mine) > len(plain))


def test_a_low_rank_update_costs_a_fraction_of_its_coordinates() -> None:
    spec = (TensorSpec("w", (100, 120)),)
    rng = np.random.default_rng(2)
    matrix = (rng.standard_normal((100, 2)) @ rng.standard_normal((2, 120))).astype(np.float32)
    encoded = body("adaptive", (matrix,), 1.0)
    assert 8 * len(encoded) < 0.25 * matrix.size
    assert nmse((matrix,), decode(encoded, spec)) < 0.03


def test_a_long_stream_is_coded_in_lanes() -> None:
    spec = (TensorSpec("w", (7, 12_000)),)
    tensors = update(spec)
    encoded = body("adaptive", tensors, 0.5)
    assert encoded[0] == 0x21
    assert nmse(tensors, decode(encoded, spec)) < 0.05


# Golden bodies: bytes in, integers out, the same on every machine, NumPy and BLAS.

GOLDEN = Path(__file__).with_name("golden")


def digest(decoded: tuple[Decoded, ...]) -> str:
    whole = hashlib.sha256()
    for tensor in decoded:
        whole.update(tensor.integers.astype("<i8").tobytes() + tensor.exponent.to_bytes(4, "little", signed=True))
    return whole.hexdigest()


def goldens() -> list[tuple[str, bytes, str]]:
    lines = [line.split() for line in GOLDEN.with_suffix(".txt").read_text(encoding="ascii").splitlines()]
    return [(name, bytes.fromhex(hexed), wanted) for name, hexed, wanted in lines]


@pytest.mark.parametrize(("name", "encoded", "wanted"), goldens())
def test_golden_bodies_decode_to_golden_integers(name: str, encoded: bytes, wanted: str) -> None:
    assert digest(decode(encoded, SPEC)) == wanted, name


@pytest.mark.parametrize("kernel", ["Prescott", "Haswell"])
def test_golden_bodies_do_not_depend_on_the_blas_kernel(kernel: str) -> None:
    environment = {**os.environ, "OPENBLAS_CORETYPE": kernel, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = (
        "import importlib.util as u, sys\n"
        "s = u.spec_from_file_location('frame', sys.argv[1]); m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "sys.exit(any(m.digest(m.decode(b, m.SPEC)) != w for _, b, w in m.goldens()))"
    )
    done = subprocess.run([sys.executable, "-c", script, __file__], env=environment, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(("name", "encoded", "wanted"), goldens())
def test_every_truncation_is_refused(name: str, encoded: bytes, wanted: str) -> None:
    for cut in range(len(encoded)) if len(encoded) < 1500 else range(0, len(encoded), 13):
        with pytest.raises(CodecError):
            decode(encoded[:cut], SPEC)


def survives(damaged: bytes) -> None:
    """Decode to something within the budget, or raise CodecError; nothing else."""
    try:
        decoded = decode(damaged, SPEC)
    except CodecError:
        return
    for tensor, values in zip(SPEC, decoded, strict=True):
        assert values.integers.shape == tensor.shape
        assert np.abs(values.integers).max(initial=0) <= 2**BUDGET


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(goldens()), st.lists(st.tuples(st.integers(0), st.integers(0, 7)), min_size=1, max_size=3))
def test_flipped_bits_are_harmless(golden: tuple[str, bytes, str], flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(golden[1])
    for at, bit in flips:
        damaged[at % len(damaged)] ^= 1 << bit
    survives(bytes(damaged))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([0x10, 0x11, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0]), st.binary(max_size=400))
def test_any_bytes_are_harmless(first: int, rest: bytes) -> None:
    survives(bytes([first]) + rest)
    lanes = {0x20: 4, 0x21: 512, 0x22: 4096}.get(first, 0)
    survives(bytes([first]) + b"\0\0\x01\0" * (lanes // 4) + rest)


def test_a_body_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(CodecError, match="bytes"):
        decode(bytes(max_body_bytes(SPEC) + 1), SPEC)


def test_a_float32_body_with_nan_is_refused() -> None:
    tensors = update()
    tensors[0][3, 3] = np.nan
    with pytest.raises(CodecError, match="finite"):
        decode(body("float32", tensors), SPEC)
