from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleet.console.measure import MeasureError, Row, measure, table


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "update.npz",
        w=rng.standard_normal((30, 3)) @ rng.standard_normal((3, 40)),
        conv=rng.standard_normal((4, 3, 2, 2)),
        b=rng.standard_normal(30).astype(np.float32),
        s=np.float64(0.5),
    )
    return tmp_path / "update.npz"


D = 1200 + 48 + 30 + 1
BASELINES = [
    *(("sketch", 64, 1), ("sketch", 256, 1), ("sketch", 1280, 1), ("sketch", 1280, 2), ("sketch", 1280, 4)),
    *(("float32", None, None), ("int8", None, None), ("eden-1", None, None), ("eden-2", None, None)),
]


def kinds(rows: list[Row]) -> list[tuple[str, int | None, int | None]]:
    return [(row["codec"], row["buckets"], row["bits"]) for row in rows]


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ({}, ("sketch", 256, 1)),
        ({"codec": "sketch", "buckets": 384}, ("sketch", 384, 1)),
        ({"buckets": 100}, ("sketch", 128, 1)),
        ({"buckets": 2**26, "bits": 3}, ("sketch", 1280, 3)),
        ({"codec": "float32"}, ("float32", None, None)),
        ({"codec": "int8", "buckets": 64}, ("int8", None, None)),
    ],
)
def test_the_asked_codec_comes_first_and_every_baseline_follows_once(
    npz: Path, asked: dict[str, Any], first: tuple[str, int | None, int | None]
) -> None:
    found = kinds(measure(npz, **asked))
    assert found == [first, *(other for other in BASELINES if other != first)]


def test_of_what_is_too_small_for_a_sketch_int8_is_measured(tmp_path: Path) -> None:
    np.savez(tmp_path / "u.npz", x=np.arange(63.0))
    assert [kind[0] for kind in kinds(measure(tmp_path / "u.npz"))] == ["int8", "float32", "eden-1", "eden-2"]


def test_rows_say_bytes_bits_and_error(npz: Path) -> None:
    found = measure(npz)
    rows = {row["codec"]: row for row in found if row["buckets"] is None}
    assert rows["float32"]["nmse"] < 1e-12
    assert rows["float32"]["bits_per_coordinate"] == pytest.approx(32, abs=0.1)
    assert rows["int8"]["nmse"] < 1e-3
    errors = {(row["buckets"], row["bits"]): row["nmse"] for row in found}
    assert errors[256, 1] > errors[1280, 1] > errors[1280, 2] > errors[1280, 4]
    assert errors[1280, 2] < 0.2
    assert errors[1280, 4] < 0.02
    for row in found:
        assert list(row) == [
            *("codec", "step", "buckets", "bits", "bytes", "bits_per_coordinate", "nmse", "encode_ms", "decode_ms")
        ]
        assert row["step"] is None
        assert row["bits_per_coordinate"] == pytest.approx(8 * row["bytes"] / D)
        assert row["encode_ms"] > 0
        assert row["decode_ms"] > 0


def test_the_rotated_quantiser_has_its_published_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "u.npz", x=np.random.default_rng(1).laplace(size=2**15))
    rows = {row["codec"]: row["nmse"] for row in measure(tmp_path / "u.npz")}
    assert rows["eden-1"] == pytest.approx(0.571, rel=0.03)
    assert rows["eden-2"] == pytest.approx(0.133, rel=0.03)


def test_a_table_has_a_line_for_each_row(npz: Path) -> None:
    rows = measure(npz)
    assert len(table(rows).splitlines()) == len(rows) + 1


def test_all_zeros_and_a_single_scalar_are_updates_too(tmp_path: Path) -> None:
    for value in (np.zeros((5, 5)), np.zeros(500), np.float32(3.0), np.full((9, 9), 1e30)):
        np.savez(tmp_path / "u.npz", x=value)
        assert all(np.isfinite(row["nmse"]) for row in measure(tmp_path / "u.npz"))


def test_anything_else_is_refused_in_a_sentence(tmp_path: Path, npz: Path) -> None:
    with pytest.raises(MeasureError, match="codec"):
        measure(npz, "zip")
    for buckets in (0, 63, 2**26 + 1, -5):
        with pytest.raises(MeasureError, match=f"{buckets} buckets are not 64 to"):
            measure(npz, buckets=buckets)
    for bits in (0, 5, -1):
        with pytest.raises(MeasureError, match=f"{bits} bits a bucket are not 1 to 4"):
            measure(npz, bits=bits)
    with pytest.raises(MeasureError, match="NPZ"):
        measure(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(MeasureError, match="NPZ"):
        measure(tmp_path / "text.npz")
    np.savez(tmp_path / "nan.npz", x=np.array([1.0, np.nan]))
    with pytest.raises(MeasureError, match="finite"):
        measure(tmp_path / "nan.npz")
    np.savez(tmp_path / "huge.npz", x=np.array([1.0, 1e300]))
    with pytest.raises(MeasureError, match="finite"):
        measure(tmp_path / "huge.npz")
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 3)))
    with pytest.raises(MeasureError, match="coordinates"):
        measure(tmp_path / "none.npz")
