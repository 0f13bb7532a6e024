from __future__ import annotations

import contextlib
import errno
import os
import random
import zlib
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from broker import chunks
from broker.ceilings import MOST_GENERATION, MOST_NUMBER
from broker.messages import Offer, Version
from edge_agent import files
from edge_agent.outbox import LARGEST, Outbox, OutboxFullError, Probed, forget, leftovers
from models.codec import FLOAT32, INT8, Coding, Terms
from models.job import TrainSpec
from models.params import TensorSpec
from models.training import checkpoint
from models.training.checkpoint import TrainingState

SPEC = (TensorSpec("w", (16, 4)), TensorSpec("b", (8,)))
SKETCH = Terms(64, 1)
V0, V1 = Version(1, 0), Version(1, 1)


def encoded(seed: int = 0, terms: Terms = SKETCH) -> bytes:
    rng = np.random.default_rng(seed)
    delta = {tensor.name: rng.standard_normal(tensor.shape).astype(np.float32) for tensor in SPEC}
    return Coding(SPEC, terms, "0:0").encode(delta, rng)


def offer(body: bytes, base: Version = V0) -> Offer:
    return Offer("j", "d", base, 10, chunks.digest(body), len(body))


def filled(folder: Path, base: Version = V0, terms: Terms = SKETCH) -> tuple[Outbox, Offer, bytes]:
    outbox, body = Outbox(folder, SPEC), encoded(terms=terms)
    one = offer(body, base)
    outbox.put(one, body, terms, Probed(base, 0.5))
    return outbox, one, body


def settle(outbox: Outbox, base: Version) -> None:
    outbox.settle(base)
    outbox.flush()


@pytest.mark.parametrize("terms", [SKETCH, Terms(128, 3), INT8, FLOAT32])
def test_an_update_survives_however_it_is_coded(tmp_path: Path, terms: Terms) -> None:
    _, one, body = filled(tmp_path / "j", terms=terms)
    again = Outbox(tmp_path / "j", SPEC)
    assert again.offer == one
    assert again.body() == body
    assert again.trained == V0
    assert again.settled is None


def test_an_empty_outbox_has_trained_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "j", SPEC)
    assert (outbox.offer, outbox.trained, outbox.body()) == (None, None, b"")


def test_a_base_that_is_settled_is_so_for_good(tmp_path: Path) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    settle(outbox, one.base)
    for each in (outbox, Outbox(tmp_path / "j", SPEC)):
        assert (each.offer, each.settled, each.trained) == (None, V0, V0)
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["settled.bin"]


def test_an_update_to_a_former_name_of_its_base_is_settled_under_the_present_one_for_good(tmp_path: Path) -> None:
    """What is remembered decides whether the base is trained again."""
    outbox, _, _ = filled(tmp_path / "j")
    settle(outbox, Version(9, 0))
    for each in (outbox, Outbox(tmp_path / "j", SPEC)):
        assert (each.offer, each.settled, each.trained) == (None, Version(9, 0), Version(9, 0))


def test_a_cut_between_the_two_writes_of_a_settlement_settles_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.outbox.reach", cut)
        with pytest.raises(PowerCutError):
            settle(outbox, one.base)
    assert (tmp_path / "j" / "update.bin").exists()
    again = Outbox(tmp_path / "j", SPEC)
    assert again.offer is None
    assert again.trained == V0
    assert not again.is_flushed
    again.flush()
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["settled.bin"]
    assert (Outbox(tmp_path / "j", SPEC).trained, Outbox(tmp_path / "j", SPEC).is_flushed) == (V0, True)


def test_the_name_of_a_file_is_on_disk_before_an_update_counts_whoever_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, body = Outbox(tmp_path / "j", SPEC), encoded()
    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync_data", cut)  # the power goes before the folder is synced
        with pytest.raises(PowerCutError):
            outbox.put(offer(body), body, SKETCH)
    (torn,) = [path for path in (tmp_path / "j").iterdir() if path.name.startswith("update")]
    torn.write_bytes(torn.read_bytes()[:-9])
    synced: list[str] = []
    monkeypatch.setattr(files, "sync_folder", lambda path: synced.append(path.name))
    again = Outbox(tmp_path / "j", SPEC)
    assert again.offer is None
    again.put(offer(body), body, SKETCH)
    assert "j" in synced


class PowerCutError(Exception):
    pass


def cut(*_: object) -> None:
    raise PowerCutError


def test_a_cut_before_the_first_write_leaves_the_update_to_be_offered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    with monkeypatch.context() as patch:
        patch.setattr(files, "seal", cut)
        with pytest.raises(PowerCutError):
            settle(outbox, one.base)
    again = Outbox(tmp_path / "j", SPEC)
    assert again.offer == one
    settle(again, one.base)
    assert Outbox(tmp_path / "j", SPEC).settled == V0


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    made = encoded(1)
    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.files.os.fsync", full)
        patch.setattr("edge_agent.files._sync_data", full)
        with pytest.raises(OSError, match="No space left"):
            outbox.put(offer(made, V1), made, SKETCH)
        assert outbox.offer == Outbox(tmp_path / "j", SPEC).offer == one
        with pytest.raises(OSError, match="No space left"):
            settle(outbox, one.base)
    assert Outbox(tmp_path / "j", SPEC).offer == one
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["update.bin"]
    outbox.flush()
    assert Outbox(tmp_path / "j", SPEC).settled == V0


def test_a_disk_that_fails_in_the_middle_of_a_later_update_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    for number in (1, 2):
        outbox.settle(Version(1, number - 1))
        made = encoded(number)
        outbox.put(offer(made, Version(1, number)), made, SKETCH)
    assert Outbox(tmp_path / "j", SPEC).settled == V1
    outbox.settle(Version(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.files._sync_data", full)
        with pytest.raises(OSError, match="No space left"):
            outbox.put(offer(made, Version(1, 3)), made, SKETCH)
    again = Outbox(tmp_path / "j", SPEC)
    assert outbox.settled == Version(1, 2)
    assert again.trained in (Version(1, 2), Version(1, 3))  # what was written before it failed may be there, or not
    assert one.base < Version(1, 2)


@pytest.mark.parametrize("keep", [0, 3, 11, 12, 60, -1])
def test_a_torn_update_leaves_the_one_before_it(tmp_path: Path, keep: int) -> None:
    outbox, _, _ = filled(tmp_path / "j")
    outbox.settle(V0)
    later = encoded(1)
    outbox.put(offer(later, V1), later, SKETCH)
    assert Outbox(tmp_path / "j", SPEC).offer == offer(later, V1)
    file = tmp_path / "j" / "update2.bin"
    file.write_bytes(file.read_bytes()[:keep])
    again = Outbox(tmp_path / "j", SPEC)
    assert (again.trained, again.settled) == (V0, None)
    again.settle(V0)
    again.put(offer(later, V1), later, SKETCH)
    assert Outbox(tmp_path / "j", SPEC).offer == offer(later, V1)


def test_updates_are_written_over_one_another_in_turn_and_a_longer_one_leaves_nothing_behind(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "j", SPEC)
    for number, terms in enumerate((FLOAT32, SKETCH, INT8, SKETCH, FLOAT32, INT8)):
        body = encoded(number, terms)
        outbox.put(offer(body, Version(1, number)), body, terms)
        again = Outbox(tmp_path / "j", SPEC)
        assert (again.offer, again.body()) == (offer(body, Version(1, number)), body)
        assert again.settled == (Version(1, number - 1) if number else None)
        outbox.settle(Version(1, number))
    assert sorted(path.name for path in (tmp_path / "j").iterdir()) == ["update.bin", "update2.bin"]


def test_a_settlement_is_on_disk_with_the_next_update_or_when_it_is_flushed(tmp_path: Path) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    outbox.settle(V0)
    assert not outbox.is_flushed
    assert Outbox(tmp_path / "j", SPEC).offer == one
    made = encoded(1)
    outbox.put(offer(made, V1), made, SKETCH)
    assert outbox.is_flushed
    assert Outbox(tmp_path / "j", SPEC).settled == V0
    outbox.settle(V1)
    outbox.flush()
    assert outbox.is_flushed
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["settled.bin"]
    outbox.flush()
    assert Outbox(tmp_path / "j", SPEC).settled == V1


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_an_update_larger_than_the_outbox_is_not_taken(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "j", SPEC, most_bytes=100)
    made = encoded()
    with pytest.raises(OutboxFullError, match="outbox_bytes = 100"):
        outbox.put(offer(made), made, SKETCH)
    assert outbox.offer is None


@pytest.mark.parametrize("keep", [0, 3, 50, -1])
def test_a_rotted_update_is_treated_as_absent(tmp_path: Path, keep: int) -> None:
    filled(tmp_path / "j")
    file = tmp_path / "j" / "update.bin"
    file.write_bytes(file.read_bytes()[:keep])
    again = Outbox(tmp_path / "j", SPEC)
    assert (again.offer, again.trained) == (None, None)


def test_a_base_whose_settlement_has_rotted_may_be_trained_again(tmp_path: Path) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    settle(outbox, one.base)
    file = tmp_path / "j" / "settled.bin"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    again = Outbox(tmp_path / "j", SPEC)
    assert again.trained is None


def test_an_update_that_rots_before_its_verdict_is_settled_all_the_same(tmp_path: Path) -> None:
    _, one, _ = filled(tmp_path / "j")
    outbox = Outbox(tmp_path / "j", SPEC)
    (tmp_path / "j" / "update.bin").write_bytes(b"rot")
    assert outbox.body() == b""
    settle(outbox, one.base)
    assert outbox.trained == V0


def test_what_the_next_report_builds_on_survives_with_the_update_and_its_settlement(tmp_path: Path) -> None:
    outbox, body = Outbox(tmp_path / "j", SPEC), encoded()
    assert outbox.probed is None
    outbox.put(offer(body), body, SKETCH, Probed(V0, 0.75))
    assert outbox.probed == Outbox(tmp_path / "j", SPEC).probed == Probed(V0, 0.75)
    settle(outbox, V0)
    assert outbox.probed == Outbox(tmp_path / "j", SPEC).probed == Probed(V0, 0.75)
    outbox.put(offer(body, V1), body, SKETCH, Probed(V1, 0.5))
    assert Outbox(tmp_path / "j", SPEC).probed == Probed(V1, 0.5)
    settle(outbox, V1)
    outbox.put(offer(body, Version(1, 2)), body, SKETCH, None)
    assert outbox.probed is Outbox(tmp_path / "j", SPEC).probed is None


def test_what_the_next_report_builds_on_is_that_of_the_update_on_disk_wherever_the_power_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, made = filled(tmp_path / "j")[0], encoded(1)
    settle(outbox, V0)
    with monkeypatch.context() as patch:
        patch.setattr(files, "overwrite", cut)
        with pytest.raises(PowerCutError):
            outbox.put(offer(made, V1), made, SKETCH, Probed(V1, 0.25))
    assert outbox.probed == Outbox(tmp_path / "j", SPEC).probed == Probed(V0, 0.5)
    outbox.put(offer(made, V1), made, SKETCH, Probed(V1, 0.25))
    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.outbox.reach", cut)
        with pytest.raises(PowerCutError):
            settle(outbox, V1)
    again = Outbox(tmp_path / "j", SPEC)
    assert (again.offer, again.settled, again.probed) == (None, V1, Probed(V1, 0.25))


def test_what_an_update_that_has_rotted_was_reported_by_is_forgotten_with_it(tmp_path: Path) -> None:
    outbox, made = filled(tmp_path / "j")[0], encoded(1)
    settle(outbox, V0)
    outbox.put(offer(made, V1), made, SKETCH, Probed(V1, 0.25))
    (tmp_path / "j" / "update.bin").write_bytes(b"rot")
    assert Outbox(tmp_path / "j", SPEC).probed == Probed(V0, 0.5)


def test_an_update_is_understood_by_its_own_terms(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox, body = Outbox(tmp_path / "j", SPEC), encoded(terms=Terms(128, 1))
    for terms, kept in ((Terms(128, 1), True), (SKETCH, False), (INT8, False)):
        outbox.put(offer(body), body, terms)
        assert (Outbox(tmp_path / "j", SPEC).offer is not None) is kept
    assert "update.bin is not understood and is ignored: CodecError" in caplog.text


def test_a_deleted_job_leaves_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    forget(tmp_path / "j")
    assert not (tmp_path / "j").exists()


# What an older agent has left.


def aged(folder: Path) -> None:
    """Have a folder be as an agent has left it that kept what its updates had lost."""
    update, settled = folder / "update.bin", folder / "settled.bin"
    whole = [np.zeros(tensor.shape, "<f4").tobytes() for tensor in SPEC]
    if update.exists():
        tree = msgspec.msgpack.decode(files.overwritten(update) or b"")
        pending = sealed(msgspec.msgpack.encode([whole, tree["body"]]))
        files.seal(update, msgspec.msgpack.encode({"offer": tree["offer"], "pending": pending}))
    if settled.exists():
        tree = msgspec.msgpack.decode(files.unseal(settled) or b"")
        state = sealed(msgspec.msgpack.encode([whole]))
        files.seal(folder / "residual.bin", msgspec.msgpack.encode(tree | {"state": state}))
        settled.unlink()


def test_a_base_that_an_older_agent_has_settled_is_not_trained_again(tmp_path: Path) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    settle(outbox, one.base)
    aged(tmp_path / "j")
    again = Outbox(tmp_path / "j", SPEC)
    assert (again.offer, again.settled, again.trained) == (None, V0, V0)
    made = encoded(1)
    again.put(offer(made, V1), made, SKETCH)
    settle(again, V1)
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["settled.bin"]
    assert Outbox(tmp_path / "j", SPEC).settled == V1


def test_of_what_an_older_and_a_newer_agent_have_settled_the_later_base_counts(tmp_path: Path) -> None:
    """As where an older agent ran once more in between."""
    outbox, _, _ = filled(tmp_path / "j", V1)
    settle(outbox, V1)
    aged(tmp_path / "j")
    files.seal(tmp_path / "j" / "settled.bin", msgspec.msgpack.encode({"settled": [1, 0]}))
    assert Outbox(tmp_path / "j", SPEC).settled == V1


def test_an_update_of_an_older_agent_is_in_a_code_that_nobody_reads_and_its_base_is_trained_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path / "j")
    aged(tmp_path / "j")
    again = Outbox(tmp_path / "j", SPEC)
    assert (again.offer, again.body(), again.trained) == (None, b"", None)
    assert "update.bin is not understood and is ignored" in caplog.text


def test_a_cut_before_an_older_settlement_is_removed_leaves_the_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, one, _ = filled(tmp_path / "j")
    settle(outbox, one.base)
    aged(tmp_path / "j")
    again, made = Outbox(tmp_path / "j", SPEC), encoded(1)
    again.put(offer(made, V1), made, SKETCH)
    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.outbox.reach", cut)
        with pytest.raises(PowerCutError):
            settle(again, V1)
    assert (tmp_path / "j" / "residual.bin").exists()
    assert Outbox(tmp_path / "j", SPEC).settled == V1


# Folders.


def test_a_new_folder_is_on_disk_before_an_update_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), tmp_path))

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(files, "_sync_data", note)
    outbox, _, body = filled(tmp_path / "jobs" / "j")
    assert synced == ["..", ".", "jobs", "jobs/j/update.bin", "jobs/j"]
    for number in (1, 2, 3):
        synced.clear()
        outbox.settle(Version(1, number - 1))
        outbox.put(offer(body, Version(1, number)), body, SKETCH)
    assert synced == ["jobs/j/update2.bin"], "once both are there a round costs one sync"


def test_a_deleted_job_is_gone_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "jobs" / "j")
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    forget(tmp_path / "jobs" / "j")
    assert synced == [tmp_path / "jobs"]


def test_a_job_that_the_disk_does_not_let_go_of_goes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "j")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", full)
        with pytest.raises(OSError, match="No space left"):
            forget(tmp_path / "j")
    forget(tmp_path / "j")
    assert not (tmp_path / "j").exists()


def test_the_jobs_that_have_a_folder_and_are_not_known_are_left_over(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    assert leftovers(jobs, ()) == []
    for job in ("b-2", "a-1", "c-3"):
        filled(jobs / job)
    (jobs / "a-file").write_bytes(b"")
    (jobs / "not a job").mkdir()
    (jobs / ".hidden").mkdir()
    (jobs / "link").symlink_to(jobs / "a-1")
    assert leftovers(jobs, {"c-3": "at work"}) == ["a-1", "b-2"]
    forget(jobs / "a-1")
    forget(jobs / "a-1")
    assert leftovers(jobs, ()) == ["b-2", "c-3"]


# Files with a right checksum, and hostile contents.

TRAIN, N_EXAMPLES, ROWS = TrainSpec(epochs=3, batch_size=4, momentum=0.9), 10, 77
RAW = b"\xa5@@RAW"
"""The string "@@RAW" in msgpack; a mutation puts other bytes in its place, which no encoder would write."""


def training() -> TrainingState:
    params = {tensor.name: np.ones(tensor.shape, np.float32) for tensor in SPEC}
    return TrainingState(params, dict(params), b"s" * 32, 1, 2, 3.5, 8)


def lived(folder: Path) -> None:
    """Leave what an agent leaves that has settled one update, offers the next, and was killed in a third training."""
    outbox, one, _ = filled(folder)
    settle(outbox, one.base)
    made = encoded(1)
    outbox.put(offer(made, V1), made, SKETCH)
    outbox.checkpoint(Version(1, 2), ROWS, training(), 0.4)


def test_what_an_honest_life_leaves_is_understood(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lived(tmp_path / "j")
    outbox = Outbox(tmp_path / "j", SPEC, job="j", device="d")
    assert outbox.offer is not None
    assert (outbox.offer.base, outbox.settled) == (V1, V0)
    found = outbox.resume(Version(1, 2), ROWS, TRAIN, N_EXAMPLES)
    assert found is not None
    assert (found[0].epoch, found[0].batch, found[1]) == (1, 2, 0.4)
    assert caplog.text == ""


@pytest.mark.parametrize(("job", "device"), [("other", "d"), ("j", "other")])
def test_an_update_of_another_job_or_device_is_absent(
    tmp_path: Path, job: str, device: str, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path / "j")
    outbox = Outbox(tmp_path / "j", SPEC, job=job, device=device)
    assert (outbox.offer, outbox.trained) == (None, None)
    assert (
        "update.bin is not understood and is ignored: CodecError: it is an update of device d to job j" in caplog.text
    )


def reseal(file: Path, change: Callable[[Any], Any]) -> None:
    """Change the msgpack tree of a file, and give it a right checksum."""
    tree = msgspec.msgpack.decode(files.overwritten(file) or b"")
    files.seal(file, msgspec.msgpack.encode(change(tree)))


def sealed(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little") + content


UPDATES: dict[str, Callable[[Any], Any]] = {
    "an older update": lambda tree: {"offer": tree["offer"], "pending": sealed(msgspec.msgpack.encode([[], b"?"]))},
    "no terms": lambda tree: {"offer": tree["offer"], "body": tree["body"]},
    "terms that there are not": lambda tree: tree | {"terms": [65, 1]},
    "terms of a larger net": lambda tree: tree | {"terms": [2**25, 1]},
    "terms beyond all numbers": lambda tree: tree | {"terms": [2**53, 1]},
    "terms below all numbers": lambda tree: tree | {"terms": [-64, 1]},
    "terms of too many bits": lambda tree: tree | {"terms": [64, 5]},
    "terms of no bits": lambda tree: tree | {"terms": [64, 0]},
    "the terms of another body": lambda tree: tree | {"terms": [128, 1]},
    "a report that builds on nothing": lambda tree: tree | {"probed": [[1, 0], None]},
    "a report that builds on no loss": lambda tree: tree | {"probed": [[1, 0], float("nan")]},
    "a report that builds on a loss beyond all": lambda tree: tree | {"probed": [[1, 0], -1e300]},
    "an empty body": lambda tree: tree | {"body": b""},
    "no body": lambda tree: {"offer": tree["offer"], "terms": tree["terms"]},
    "another body": lambda tree: tree | {"body": tree["body"][:-1] + b"?"},
    "a body that does not decode": lambda tree: {
        "body": b"\x10nonsense",
        "terms": tree["terms"],
        "offer": tree["offer"] | {"digest": chunks.digest(b"\x10nonsense"), "n_bytes": 9},
    },
    "a length that is not the body's": lambda tree: tree | {"offer": tree["offer"] | {"n_bytes": 2**40}},
    "a negative length": lambda tree: tree | {"offer": tree["offer"] | {"n_bytes": -1}},
    "two bodies": lambda tree: tree | {"offer": tree["offer"] | {"body": b"another"}},
    "a base beyond all numbers": lambda tree: tree | {"offer": tree["offer"] | {"base": [1, 2**64 - 1]}},
}


@pytest.mark.parametrize("change", UPDATES)
def test_an_update_that_nobody_could_send_is_absent_and_its_base_can_be_trained_again(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, one, body = filled(tmp_path / "j")
    reseal(tmp_path / "j" / "update.bin", UPDATES[change])
    outbox = Outbox(tmp_path / "j", SPEC)
    assert (outbox.offer, outbox.trained, outbox.body()) == (None, None, b"")
    assert f"file={tmp_path / 'j' / 'update.bin'} is not understood" in caplog.text
    outbox.put(one, body, SKETCH)
    assert Outbox(tmp_path / "j", SPEC).body() == body


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), LARGEST, -LARGEST, 1e308])
def test_a_settlement_with_a_loss_that_no_version_has_is_absent(
    tmp_path: Path, loss: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A report could say nothing of it that survives the journey."""
    outbox, one, _ = filled(tmp_path / "j")
    settle(outbox, one.base)
    assert Outbox(tmp_path / "j", SPEC).probed == Probed(V0, 0.5)
    reseal(tmp_path / "j" / "settled.bin", lambda tree: tree | {"probed": [[1, 0], loss]})
    again = Outbox(tmp_path / "j", SPEC)
    assert (again.settled, again.probed) == (None, None)
    assert "settled.bin is not understood" in caplog.text


def test_an_update_that_rots_while_it_is_offered_is_offered_no_more(tmp_path: Path) -> None:
    _, one, _ = filled(tmp_path / "j")
    outbox = Outbox(tmp_path / "j", SPEC)
    assert outbox.offer == one
    (tmp_path / "j" / "update.bin").write_bytes(b"")
    assert outbox.body() == b""
    assert (outbox.offer, outbox.trained) == (None, None)


def test_an_update_on_a_sector_that_cannot_be_read_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path / "j")

    def fail(_: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert Outbox(tmp_path / "j", SPEC).offer is None
    assert "update.bin is damaged" in caplog.text


PLACES = [
    {"epoch": 10**400},
    {"epoch": 4},
    {"epoch": 3, "batch": 1, "n_seen": 4},
    {"batch": 3, "n_seen": 12},
    {"n_seen": 7},
    {"batch": 0, "n_seen": 10**400},
    {"batch": 10**400, "n_seen": 4 * 10**400},
    {"loss_sum": 1e308},
    {"loss_sum": float("nan")},
    {"params": {tensor.name: np.full(tensor.shape, np.nan, np.float32) for tensor in SPEC}},
    {"momentum": {tensor.name: np.full(tensor.shape, 3e38, np.float32) for tensor in SPEC}},
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: " ".join(place))
def test_a_checkpoint_where_no_training_comes_to_is_absent(
    tmp_path: Path, place: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path / "j", SPEC)
    outbox.checkpoint(V0, ROWS, training()._replace(**place), 0.4)
    assert outbox.resume(V0, ROWS, TRAIN, N_EXAMPLES) is None
    assert "checkpoint.bin is not understood" in caplog.text


@pytest.mark.parametrize("place", [{}, {"epoch": 3, "batch": 0, "n_seen": 0}, {"epoch": 0, "batch": 1, "n_seen": 4}])
def test_a_checkpoint_where_training_comes_to_is_resumed(tmp_path: Path, place: dict[str, Any]) -> None:
    outbox = Outbox(tmp_path / "j", SPEC)
    outbox.checkpoint(V0, ROWS, training()._replace(**place), None)
    assert outbox.resume(V0, ROWS, TRAIN, N_EXAMPLES) is not None
    assert outbox.resume(V1, ROWS, TRAIN, N_EXAMPLES) is None
    assert outbox.resume(V0, ROWS + 1, TRAIN, N_EXAMPLES) is None


def test_a_training_goes_on_under_any_name_of_its_base(tmp_path: Path) -> None:
    """Of two stores that were one each has its own name for what they had in common."""
    outbox = Outbox(tmp_path / "j", SPEC)
    outbox.checkpoint(Version(588, 0), ROWS, training(), None, (V0,))

    def resumed(base: Version, *names: Version) -> bool:
        return outbox.resume(base, ROWS, TRAIN, N_EXAMPLES, names) is not None

    assert resumed(Version(588, 0))
    assert resumed(V0)
    assert resumed(Version(700, 0), V0)
    assert resumed(Version(900, 0), Version(588, 0))
    assert not resumed(Version(700, 0))
    assert not resumed(Version(700, 1), V1)
    assert not resumed(Version(700, 1), V0)  # no name of a version has another number


def test_the_names_of_its_base_are_kept_with_an_update(tmp_path: Path) -> None:
    outbox, body = Outbox(tmp_path / "j", SPEC), encoded()
    outbox.put(offer(body, Version(588, 0)), body, SKETCH, None, (V0,))
    assert (outbox.names, Outbox(tmp_path / "j", SPEC).names) == ((V0,), (V0,))


def test_a_checkpoint_with_a_loss_that_no_training_gives_is_absent(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "j", SPEC)
    for loss, kept in ((1e308, False), (float("nan"), False), (-1e308, False), (0.0, True), (2.5, True)):
        outbox.checkpoint(V0, ROWS, training(), loss)
        assert (outbox.resume(V0, ROWS, TRAIN, N_EXAMPLES) is not None) is kept


def test_an_epoch_that_is_at_its_end_is_no_place_within_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "j", SPEC)
    outbox.checkpoint(V0, ROWS, training()._replace(epoch=0, batch=2, n_seen=8), None)
    assert outbox.resume(V0, ROWS, TRAIN, 8) is None
    assert outbox.resume(V0, ROWS, TRAIN, 9) is not None


def test_an_update_that_is_on_disk_leaves_no_place_where_its_training_stood(tmp_path: Path) -> None:
    outbox, made = Outbox(tmp_path / "j", SPEC), encoded()
    outbox.checkpoint(V0, ROWS, training(), None)
    outbox.put(offer(made), made, SKETCH)
    assert not (tmp_path / "j" / "checkpoint.bin").exists()


LEAVES: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**53, 2**63, 2**64 - 1, 0.5, 1e300, float("nan"), float("inf"), float("-inf")),
    *("", "j", "x" * 3000, b"", b"\xff" * 64, [], {}, [[], []], {"a": 1}, [1, 2**53], "@@RAW"),
]
RAWS = [
    b"\xa5\xff\xfe\xfd\xfc\xfb",  # a string that is not UTF-8
    b"\x91" * 50_000 + b"\xc0",  # nesting
    b"\x81\xa1a" * 50_000 + b"\xc0",
    b"\xdd\xff\xff\xff\xff",  # four billion elements
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc1",  # never used
    b"\xd4\x01\x00",  # an extension
    b"",
]


@pytest.mark.parametrize("raw", RAWS, ids=range(len(RAWS)))
@pytest.mark.parametrize(
    ("name", "path"), [("update.bin", "offer.job"), ("settled.bin", "settled"), ("checkpoint.bin", "base")]
)
def test_a_file_with_a_right_checksum_that_msgpack_cannot_read_is_absent(
    tmp_path: Path, name: str, path: str, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    lived(tmp_path / "j")
    file = tmp_path / "j" / name
    tree = msgspec.msgpack.decode(files.overwritten(file) or b"")
    *branches, leaf = path.split(".")
    reduce(getitem, branches, tree)[leaf] = "@@RAW"
    files.seal(file, msgspec.msgpack.encode({"unknown": "@@RAW"} | tree).replace(RAW, raw))
    outbox = Outbox(tmp_path / "j", SPEC)
    absent = {
        "update.bin": outbox.offer is None and outbox.body() == b"",
        "settled.bin": outbox.settled is None or name == "settled.bin",  # the update says it too
        "checkpoint.bin": outbox.resume(Version(1, 2), ROWS, TRAIN, N_EXAMPLES) is None,
    }
    assert [what for what, gone in absent.items() if gone] == [name]
    assert f"file={file} is not understood and is ignored" in caplog.text


class Mutant:
    """What changes one file a little: near enough to an honest one that it is not thrown out at the first look."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def file(self, path: Path) -> None:
        tree = msgspec.msgpack.decode(files.overwritten(path) or b"")
        for _ in range(self.rng.choice([1, 1, 1, 2, 5])):
            tree = self.tree(tree)
        if self.rng.random() < 0.5:
            tree = self.fitted(tree)
        data = msgspec.msgpack.encode(tree).replace(RAW, self.rng.choice(RAWS))
        files.seal(path, self.noise(data) if self.rng.random() < 0.1 else data)

    def tree(self, tree: Any) -> Any:
        """Change one leaf, or put something else in the place of a branch."""
        if isinstance(tree, dict) and tree and self.rng.random() < 0.95:
            key = self.rng.choice(list(tree))
            if self.rng.random() < 0.05:
                return {name: value for name, value in tree.items() if name != key} | {"@@RAW": 1}
            return tree | {key: self.tree(tree[key])}
        if isinstance(tree, list) and tree and self.rng.random() < 0.95:
            at = self.rng.randrange(len(tree))
            return [*tree[:at], self.tree(tree[at]), *tree[at + 1 :]]
        if isinstance(tree, bytes) and len(tree) > 4 and self.rng.random() < 0.9:
            return self.bytes(tree)
        return self.rng.choice(LEAVES)

    def bytes(self, data: bytes) -> bytes:
        """Change what is in bytes: a sealed tree, a checkpoint, an array, or noise."""
        with contextlib.suppress(ValueError, RecursionError):  # it was made hostile before: noise then
            if data.startswith(checkpoint.MAGIC):
                return self.checkpoint(data)
            if int.from_bytes(data[:4], "little") == zlib.crc32(data[4:]):
                inner = msgspec.msgpack.encode(self.tree(msgspec.msgpack.decode(data[4:])))
                return sealed(inner.replace(RAW, self.rng.choice(RAWS)))
        if len(data) % 4 == 0 and self.rng.random() < 0.6:
            values = np.frombuffer(data, "<f4").copy()
            values[self.rng.randrange(len(values))] = self.rng.choice([np.nan, np.inf, -3e38, 3e38, 1e31, 1e-45, 0.0])
            return values.tobytes()
        return self.noise(data)

    def checkpoint(self, data: bytes) -> bytes:
        end = 12 + int.from_bytes(data[8:12], "little")
        header, arrays = data[12:end], data[end:-4]
        if self.rng.random() < 0.7:
            fields = msgspec.json.decode(header)
            fields[self.rng.choice(list(fields))] = self.rng.choice([None, -1, 0, 2, 9, 2**70, 1e300, "", [], {}])
            header = msgspec.json.encode(fields).replace(
                b"null", self.rng.choice([b"null", b"9" * 400, b'"\xff"', b"1e999", b'"\\ud800"', b"[" * 50_000])
            )
        else:
            arrays = self.bytes(arrays)
        content = data[:8] + len(header).to_bytes(4, "little") + header + arrays
        return content + zlib.crc32(content).to_bytes(4, "little")

    def noise(self, data: bytes) -> bytes:
        at = self.rng.randrange(len(data) + 1)
        return self.rng.choice([data[:at], data + b"\0", data[:at] + self.rng.randbytes(3) + data[at + 3 :]])

    def fitted(self, tree: Any) -> Any:
        """Have the offer say of its body what is so."""
        try:
            body = tree["body"]
            return tree | {"offer": tree["offer"] | {"digest": chunks.digest(body), "n_bytes": len(body)}}
        except (TypeError, ValueError, LookupError, RecursionError):
            return tree


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_files_hold_the_outbox_goes_on_and_names_what_it_ignores(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    mutant = Mutant(random.Random(seed))  # noqa: S311 -- a made-up life, no secret
    lived(tmp_path / "j")
    honest = {path.name: path.read_bytes() for path in (tmp_path / "j").iterdir()}
    survived = 0
    for _ in range(80):
        caplog.clear()
        for name, content in honest.items():
            (tmp_path / "j" / name).write_bytes(content)
        changed = mutant.rng.sample(sorted(honest), mutant.rng.choice([1, 1, 2, 3]))
        for name in changed:
            mutant.file(tmp_path / "j" / name)
        survived += live_on(tmp_path / "j", caplog)
    assert 5 < survived < 75  # neither all of them nor none is thrown out


def live_on(folder: Path, caplog: pytest.LogCaptureFixture) -> bool:
    """Do everything that an agent does with an outbox; tell whether it still had an update to offer."""
    outbox = Outbox(folder, SPEC, job="j", device="d")
    one, offered = outbox.offer, outbox.offer is not None
    if one is not None:
        assert (one.job, one.device) == ("j", "d")
        assert chunks.digest(outbox.body())[: len(one.digest)] == one.digest[:16]
        msgspec.json.encode(one)
        assert outbox.probed is None or abs(outbox.probed.loss) < LARGEST
    else:
        assert outbox.body() == b""
        assert outbox.settled is not None or str(folder / "update.bin") in caplog.text
    assert outbox.settled is not None or str(folder / "settled.bin") in caplog.text
    for base in (V0, V1, Version(1, 2)):
        found = outbox.resume(base, ROWS, TRAIN, N_EXAMPLES)
        if found is not None:
            checkpoint.to_bytes(found[0])
    settle(outbox, one.base if one is not None else V1)
    assert outbox.offer is None
    again = Outbox(folder, SPEC, job="j", device="d")
    assert (again.offer, again.settled) == (None, outbox.settled)
    made = encoded(3)
    base = Version(MOST_GENERATION, MOST_NUMBER)  # after whatever is said to have been settled last
    again.put(offer(made, base), made, SKETCH)
    assert Outbox(folder, SPEC, job="j", device="d").offer == offer(made, base)
    forget(again.folder)
    assert not folder.exists()
    folder.mkdir()
    return offered
