from pathlib import Path

import numpy as np
import pytest

from fleet.measure import CODECS, MeasureError, measure, table


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


def test_the_asked_codec_comes_first_and_every_baseline_follows(npz: Path) -> None:
    for codec in CODECS:
        rows = measure(npz, codec, 2.0)
        assert rows[0]["codec"] == codec
        assert sorted(row["codec"] for row in rows) == sorted([*CODECS, "eden-1", "eden-2"])


def test_rows_say_bytes_bits_and_error(npz: Path) -> None:
    rows = {row["codec"]: row for row in measure(npz)}
    assert rows["float32"]["nmse"] < 1e-12
    assert rows["float32"]["bits_per_coordinate"] == pytest.approx(32, abs=0.1)
    assert rows["int8"]["nmse"] < 1e-3
    assert rows["adaptive"]["step"] == 4.0
    assert rows["float32"]["step"] is None
    for row in rows.values():
        assert row["bits_per_coordinate"] == pytest.approx(8 * row["bytes"] / (1200 + 48 + 30 + 1))
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
    for value in (np.zeros((5, 5)), np.float32(3.0)):
        np.savez(tmp_path / "u.npz", x=value)
        assert all(row["nmse"] <= 1.01 for row in measure(tmp_path / "u.npz"))


def test_anything_else_is_refused_in_a_sentence(tmp_path: Path, npz: Path) -> None:
    with pytest.raises(MeasureError, match="codec"):
        measure(npz, "zip")
    with pytest.raises(MeasureError, match="step"):
        measure(npz, step=-1.0)
    with pytest.raises(MeasureError, match="NPZ"):
        measure(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(MeasureError, match="NPZ"):
        measure(tmp_path / "text.npz")
    np.savez(tmp_path / "nan.npz", x=np.array([1.0, np.nan]))
    with pytest.raises(MeasureError, match="finite"):
        measure(tmp_path / "nan.npz")
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 3)))
    with pytest.raises(MeasureError, match="coordinates"):
        measure(tmp_path / "none.npz")
