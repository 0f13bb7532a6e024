from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker import chunks
from broker.messages import Offer, Verdict, Version, echo
from edge_agent import files
from edge_agent.outbox import Outbox, OutboxFullError
from models import codec
from models.codec import Pending
from models.job import CompressionSpec
from models.params import TensorSpec

SPEC = (TensorSpec("w", (8, 4)), TensorSpec("b", (8,)))
CODING = CompressionSpec(codec="int8", error_feedback=True)
V0, V1 = Version(1, 0), Version(1, 1)


def encoded(seed: int = 0, state: codec.State | None = None) -> codec.Encoded:
    rng = np.random.default_rng(seed)
    delta = {tensor.name: rng.standard_normal(tensor.shape).astype(np.float32) for tensor in SPEC}
    return codec.encode(delta, SPEC, CODING, state=state or codec.drop(), rng=rng)


def offer(body: bytes, base: Version = V0) -> Offer:
    return Offer("j", "d", base, 10, chunks.digest(body), len(body))


def verdict(one: Offer, refused: str = "") -> Verdict:
    return Verdict("d", "j", one.base, echo(one), refused)


def filled(folder: Path, base: Version = V0) -> tuple[Outbox, Offer, Pending]:
    outbox, made = Outbox(folder, SPEC), encoded()
    one = offer(made.body, base)
    outbox.put(one, made.pending)
    return outbox, one, made.pending


def raws(state: codec.State) -> list[bytes]:
    return [array.tobytes() for array in state.residual]


def test_an_update_survives(tmp_path: Path) -> None:
    _, one, pending = filled(tmp_path / "j")
    again = Outbox(tmp_path / "j", SPEC)
    assert again.offer == one
    assert again.body() == pending.body
    assert again.trained == V0
    assert again.settled is None


def test_an_empty_outbox_has_trained_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "j", SPEC)
    assert (outbox.offer, outbox.trained, outbox.body()) == (None, None, b"")
    assert outbox.state(V0, 20) == codec.drop()


@pytest.mark.parametrize("refused", ["", "stale"])
def test_a_verdict_settles_the_residual_for_good(tmp_path: Path, refused: str) -> None:
    outbox, one, pending = filled(tmp_path / "j")
    outbox.settle(verdict(one, refused))
    expected = codec.settle(pending, counted=not refused, spec=SPEC)
    for each in (outbox, Outbox(tmp_path / "j", SPEC)):
        assert each.offer is None
        assert each.trained == V0
        assert raws(each.state(V1, 20)) == raws(expected)


def test_a_cut_between_the_two_writes_of_a_settlement_settles_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, one, pending = filled(tmp_path / "j")
    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", cut)
        with pytest.raises(PowerCutError):
            outbox.settle(verdict(one))
    assert (tmp_path / "j" / "update.bin").exists()
    again = Outbox(tmp_path / "j", SPEC)
    assert again.offer is None
    assert again.trained == V0
    assert not (tmp_path / "j" / "update.bin").exists()
    assert raws(again.state(V1, 20)) == raws(codec.settle(pending, counted=True, spec=SPEC))


class PowerCutError(Exception):
    pass


def cut(*_: object) -> None:
    raise PowerCutError


def test_a_cut_before_the_first_write_leaves_the_update_to_be_offered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, one, pending = filled(tmp_path / "j")
    with monkeypatch.context() as patch:
        patch.setattr(files, "seal", cut)
        with pytest.raises(PowerCutError):
            outbox.settle(verdict(one))
    again = Outbox(tmp_path / "j", SPEC)
    assert again.offer == one
    again.settle(verdict(one))
    assert raws(again.state(V1, 20)) == raws(codec.settle(pending, counted=True, spec=SPEC))


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    made = encoded(1)
    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.files.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            outbox.put(offer(made.body, V1), made.pending)
        with pytest.raises(OSError, match="No space left"):
            outbox.settle(verdict(one))
    assert outbox.offer == Outbox(tmp_path / "j", SPEC).offer == one
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["update.bin"]


def full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_an_update_larger_than_the_outbox_is_not_taken(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "j", SPEC, most_bytes=100)
    made = encoded()
    with pytest.raises(OutboxFullError, match="outbox_bytes = 100"):
        outbox.put(offer(made.body), made.pending)
    assert outbox.offer is None


@pytest.mark.parametrize("keep", [0, 3, 50, -1])
def test_a_rotted_update_is_treated_as_absent(tmp_path: Path, keep: int) -> None:
    filled(tmp_path / "j")
    file = tmp_path / "j" / "update.bin"
    file.write_bytes(file.read_bytes()[:keep])
    again = Outbox(tmp_path / "j", SPEC)
    assert (again.offer, again.trained) == (None, None)


def test_a_rotted_residual_starts_from_nothing(tmp_path: Path) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    outbox.settle(verdict(one))
    file = tmp_path / "j" / "residual.bin"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    again = Outbox(tmp_path / "j", SPEC)
    assert again.trained is None
    assert again.state(V1, 20) == codec.drop()


def test_a_residual_of_another_net_is_dropped(tmp_path: Path) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    outbox.settle(verdict(one))
    assert Outbox(tmp_path / "j", (TensorSpec("w", (2, 2)),)).state(V1, 20) == codec.drop()


def test_an_update_that_rots_before_its_verdict_is_settled_without_a_residual(tmp_path: Path) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    (tmp_path / "j" / "update.bin").write_bytes(b"rot")
    assert outbox.body() == b""
    outbox.settle(verdict(one))
    assert outbox.trained == V0
    assert outbox.state(V1, 20) == codec.drop()


@pytest.mark.parametrize(("base", "kept"), [(Version(1, 20), True), (Version(1, 21), False), (Version(2, 1), False)])
def test_a_residual_that_is_too_old_is_dropped(tmp_path: Path, base: Version, kept: bool) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    outbox.settle(verdict(one))
    assert bool(outbox.state(base, 20).residual) is kept


def test_a_deleted_job_leaves_nothing(tmp_path: Path) -> None:
    outbox, _, _ = filled(tmp_path / "j")
    outbox.delete()
    assert not (tmp_path / "j").exists()
