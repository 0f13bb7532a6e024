"""Frozen tensors as bytes and as files: the same for everybody, and nothing else is taken for them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import frozen
from models.frozen import FrozenError
from models.params import TensorSpec

SPEC = (TensorSpec("0.weight", (2, 3)), TensorSpec("0.bias", (2,)))
PARAMS = {"0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "0.bias": np.array([-1, 0.5], np.float32)}
BYTES = b"".join(bytes(part) for part in frozen.parts(PARAMS, SPEC))
SHA256 = hashlib.sha256(BYTES).hexdigest()


def test_the_bytes_are_these() -> None:
    head = b'fedge frozen tensors 1\n[["0.weight",[2,3]],["0.bias",[2]]]'
    assert BYTES[:64] == head + b" " * (63 - len(head)) + b"\n"
    assert BYTES[64:] == np.array([0, 1, 2, 3, 4, 5, -1, 0.5], "<f4").tobytes()
    assert len(BYTES) == frozen.n_bytes(SPEC)
    assert frozen.sha256(PARAMS, SPEC) == SHA256


def test_what_was_written_is_read_and_mapped(tmp_path: Path) -> None:
    file = tmp_path / "some.base"
    file.write_bytes(BYTES)
    found = frozen.read(file, SPEC, SHA256)
    assert list(found) == ["0.weight", "0.bias"]
    for name, value in PARAMS.items():
        np.testing.assert_array_equal(found[name], value)
    found["0.bias"][0] = 7  # its own page, never the file's
    assert file.read_bytes() == BYTES


def test_an_npz_with_more_arrays_says_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", head=np.zeros(9), **{k: v.astype(np.float64) for k, v in PARAMS.items()})
    found = frozen.read(tmp_path / "net.npz", SPEC, SHA256)
    assert frozen.sha256(found, SPEC) == SHA256


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_other_bytes_are_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(BYTES) - 1))
    changed = bytearray(BYTES)
    changed[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(BYTES) - 1))
    for wrong in (changed, bytearray(BYTES[:cut]), bytearray(BYTES + b"\0")):
        with pytest.raises(FrozenError):
            frozen.from_bytes(wrong, SPEC, SHA256)


def test_values_that_are_not_finite_are_refused_whatever_their_hash() -> None:
    wrong = {**PARAMS, "0.bias": np.array([np.nan, 0], np.float32)}
    data = bytearray(b"".join(bytes(part) for part in frozen.parts(wrong, SPEC)))
    with pytest.raises(FrozenError, match=r"0\.bias has values that are not finite"):
        frozen.from_bytes(data, SPEC, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"0.weight": np.zeros((2, 3))}, r"no array '0.bias'; the frozen tensors are 0.weight \(2, 3\), 0.bias"),
        ({"0.weight": np.zeros((3, 2)), "0.bias": np.zeros(2)}, r"'0.weight' is float64 of shape \(3, 2\)"),
        ({"0.weight": np.zeros((2, 3)), "0.bias": np.array(["a", "b"])}, "'0.bias' is <U1"),
        ({"0.weight": np.zeros((2, 3)), "0.bias": np.array([1e300, 0])}, "not finite"),
        ({"0.weight": np.zeros((2, 3)), "0.bias": np.zeros(10_000)}, "more numbers than the net's"),
        ({"0.weight": np.zeros((2, 3)), "0.bias": np.array([None, 1])}, "cannot be read as NPZ"),
    ],
)
def test_an_npz_of_something_else_is_refused(arrays: dict[str, object], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(FrozenError, match=words):
        frozen.read(tmp_path / "net.npz", SPEC)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.npz").write_bytes(b"no")
    with pytest.raises(FrozenError, match="cannot be read as NPZ"):
        frozen.read(tmp_path / "net.npz", SPEC)
