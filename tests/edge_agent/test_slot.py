from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from msgspec import structs

import edge_agent.slot as slot_module
from edge_agent import files
from edge_agent.card import Card, Release, SlotError
from edge_agent.slot import Slot, open_slot
from models.agreement import Agreed
from models.contract import NO_CONTRACT, ContractSpec
from models.job import ModelSpec
from models.nets.table import NETS, build
from models.params import Params
from models.serving.export import to_onnx, write_file
from models.serving.session import Session
from models.serving.session import export as real_export
from runtime import formats

MODEL = ModelSpec(inputs=3, hidden=(5,), outputs=4)
NET = build(MODEL)
X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
DEAD = (sys.executable, "-c", "raise SystemExit(3)")


def make_params(seed: int) -> Params:
    generator = np.random.default_rng(seed)
    return {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in NET.spec}


def make_release(number: int) -> Release:
    return Release("digits", 1, number, f"{number:064x}")


@pytest.fixture(scope="module")
def child() -> Iterator[Session]:
    with Session() as session:
        yield session


@pytest.fixture(autouse=True)
def export_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export in this process, which takes milliseconds instead of half a second."""

    def export(
        model: ModelSpec,
        params: Path,
        target: Path,
        *,
        metadata: dict[str, str],
        contract: ContractSpec = NO_CONTRACT,
        agreed: bytes = b"",
    ) -> None:
        write_file(model, params, target, metadata=metadata, contract=contract, agreed=agreed)

    monkeypatch.setattr(slot_module, "export", export)


@pytest.fixture
def slot(tmp_path: Path, child: Session) -> Slot:
    return Slot(tmp_path, session=child)


def test_an_installed_version_answers_from_onnxruntime_as_numpy_does(
    slot: Slot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "export", real_export)
    assert slot.install(make_release(1), MODEL, make_params(1)) is None
    right = NET.predict(make_params(1), X)
    np.testing.assert_allclose(slot.predict(X), right, atol=1e-5)
    runtime = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(runtime.run(None, {"input": X})[0], right, atol=1e-5)
    assert runtime.get_modelmeta().custom_metadata_map["job"] == "digits"


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_every_built_in_kind_is_served_by_onnxruntime_and_by_numpy(
    child: Session, tmp_path: Path, kind: str, framework: Any
) -> None:
    others: dict[str, Any] = {"autoencoder": {"hidden": (2,)}}
    others["cnn2d"] = {"outputs": 4, "options": {"height": 1, "width": 1}}
    model = ModelSpec(kind, inputs=3, framework=framework, **others.get(kind, {"outputs": 4}))
    net = build(structs.replace(model, framework="numpy"))
    generator = np.random.default_rng(1)
    params = {t.name: generator.standard_normal(t.shape).astype(np.float32) for t in net.spec}
    for session in (child, None):
        slot = Slot(tmp_path / f"{session is None}", session=session)
        assert slot.install(make_release(1), model, params) is None
        assert slot.card is not None
        assert "model.onnx" in slot.card.files
        np.testing.assert_allclose(slot.predict(X), net.predict(params, X), atol=1e-5)


@pytest.mark.parametrize("why", ["died of SIGTERM", "died of SIGINT"])
def test_an_export_that_ends_with_its_service_leaves_the_model_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    slot = Slot(tmp_path)
    assert slot.install(make_release(1), MODEL, make_params(1)) is None
    monkeypatch.setattr(slot_module, "export", lambda *_, **__: why)
    refused = slot.install(make_release(2), MODEL, make_params(2))
    assert refused is not None
    assert why in refused
    card = open_slot(tmp_path).card
    assert card is not None
    assert (card.release.number, "model.onnx" in card.files) == (1, True)


@pytest.mark.parametrize("since", [None, 5])
def test_card_and_onnx_say_which_versions_a_mean_is_of(slot: Slot, tmp_path: Path, since: int | None) -> None:
    release = Release("digits", 1, 8, f"{8:064x}", since)
    assert slot.install(release, MODEL, make_params(1)) is None
    card = open_slot(tmp_path).card
    assert card is not None
    assert card.release == release
    said = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert (said["number"], said.get("averaged_since")) == ("8", None if since is None else "5")


def test_the_card_of_a_fedge_that_averaged_nothing_is_read(slot: Slot, tmp_path: Path) -> None:
    slot.install(make_release(1), MODEL, make_params(1))
    path = tmp_path / "model.json"
    tree = json.loads(path.read_text())
    del tree["release"]["averaged_since"], tree["format"], tree["checksum"]
    path.write_text(json.dumps(tree))
    card = open_slot(tmp_path).card
    assert card is not None
    assert card.release == make_release(1)


def test_another_process_reads_what_one_installed(slot: Slot, tmp_path: Path) -> None:
    slot.install(make_release(1), MODEL, make_params(1))
    other = open_slot(tmp_path)
    assert other.card == slot.card
    assert other.card is not None
    assert other.card.release == make_release(1)
    np.testing.assert_array_equal(other.predict(X), NET.predict(make_params(1), X))


def test_the_files_of_a_version_change_together_and_two_versions_stay(slot: Slot, tmp_path: Path) -> None:
    for number in range(1, 5):
        slot.install(make_release(number), MODEL, make_params(number))
    assert slot.card is not None
    for name, digest in slot.card.files.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    kept = sorted(path.name for path in (tmp_path / "versions").iterdir())
    assert [name.rsplit("-", 1)[0] for name in kept] == ["1-3", "1-4"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # each "export" writes one of two files of very different length
    bodies = [b"a" * 300_000, b"b" * 10]

    def export(_model: ModelSpec, _params: Path, target: Path, **_metadata: object) -> None:
        target.write_bytes(bodies[len(installed) % 2])

    monkeypatch.setattr(slot_module, "export", export)
    installed: list[int] = []
    slot = Slot(tmp_path)
    slot.install(make_release(0), MODEL, make_params(0))
    seen: set[bytes] = set()
    over = threading.Event()

    def keep_reading() -> None:
        while not over.is_set():
            seen.add((tmp_path / "model.onnx").read_bytes())

    reader = threading.Thread(target=keep_reading)
    reader.start()
    for number in range(1, 60):
        installed.append(number)
        assert slot.install(make_release(number), MODEL, make_params(0)) is None
    over.set()
    reader.join()
    assert seen == set(bodies)


def test_a_model_that_onnxruntime_answers_otherwise_is_not_installed(
    slot: Slot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slot.install(make_release(1), MODEL, make_params(1))

    def export_another(_slot: Slot, card: Card, _params: Path, target: Path, metadata: dict[str, str]) -> None:
        target.write_bytes(to_onnx(card.model, make_params(9), metadata=metadata))

    monkeypatch.setattr(Slot, "_export", export_another)
    assert "differ" in str(slot.install(make_release(2), MODEL, make_params(2)))
    assert "model=kept job=digits refused=1.2" in caplog.text
    assert slot.card is not None
    assert slot.card.release.number == 1
    np.testing.assert_allclose(slot.predict(X), NET.predict(make_params(1), X), atol=1e-5)


def test_a_file_that_onnxruntime_refuses_is_not_installed(
    slot: Slot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slot.install(make_release(1), MODEL, make_params(1))
    monkeypatch.setattr(
        Slot, "_export", lambda _slot, _model, _params, target, _about: target.write_bytes(b"no") and None
    )
    assert slot.install(make_release(2), MODEL, make_params(2)) is not None
    np.testing.assert_allclose(slot.predict(X), NET.predict(make_params(1), X), atol=1e-5)
    assert len(list((tmp_path / "versions").iterdir())) == 1


def test_params_that_do_not_fit_the_model_are_not_installed(slot: Slot, tmp_path: Path) -> None:
    params = make_params(1)
    params["0.bias"][2] = np.nan
    assert "0.bias" in str(slot.install(make_release(1), MODEL, params))
    assert slot.card is None
    assert not (tmp_path / "model.onnx").exists()


def test_a_child_that_dies_leaves_the_answers_to_numpy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    slot = Slot(tmp_path, session=Session(DEAD))
    assert slot.install(make_release(1), MODEL, make_params(1)) is None
    np.testing.assert_array_equal(slot.predict(X), NET.predict(make_params(1), X))
    assert "inference=numpy reason=the inference child ended with exit code 3" in caplog.text
    assert (tmp_path / "model.onnx").exists()


def test_a_child_killed_between_two_questions_is_started_again(tmp_path: Path) -> None:
    with Session() as session:
        slot = Slot(tmp_path, session=session)
        slot.install(make_release(1), MODEL, make_params(1))
        assert session._child is not None
        session._child.process.kill()
        np.testing.assert_allclose(slot.predict(X), NET.predict(make_params(1), X), atol=1e-5)
        assert slot._session is session


def test_without_onnx_the_parameters_are_installed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slot = Slot(tmp_path)
    slot.install(make_release(1), MODEL, make_params(1))
    monkeypatch.setattr(slot_module, "export", lambda *_, **__: "No module named 'onnx'")
    assert slot.install(make_release(2), MODEL, make_params(2)) is None
    assert "export=failed job=digits reason=No module named 'onnx'" in caplog.text
    assert not (tmp_path / "model.onnx").exists()  # no old model beside a new card
    np.testing.assert_array_equal(open_slot(tmp_path).predict(X), NET.predict(make_params(2), X))


def test_a_crash_at_any_point_of_an_install_leaves_a_whole_model(tmp_path: Path) -> None:
    Slot(tmp_path).install(make_release(1), MODEL, make_params(1))
    (tmp_path / "versions" / "1-2-torn").mkdir()
    (tmp_path / "versions" / "1-2-torn" / "model.npz").write_bytes(b"half")
    (tmp_path / ".current.new").symlink_to("versions/1-2-torn")
    slot = Slot(tmp_path)
    np.testing.assert_array_equal(slot.predict(X), NET.predict(make_params(1), X))
    assert slot.install(make_release(2), MODEL, make_params(2)) is None
    assert not (tmp_path / "versions" / "1-2-torn").exists()


@pytest.mark.parametrize("name", ["model.onnx", "model.npz", "model.json"])
def test_a_damaged_slot_is_reported_and_can_be_installed_over(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    Slot(tmp_path).install(make_release(1), MODEL, make_params(1))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SlotError, match="cannot be read"):
        open_slot(tmp_path)
    assert "model=unreadable" in caplog.text
    assert Slot(tmp_path).install(make_release(2), MODEL, make_params(2)) is None
    assert open_slot(tmp_path).card is not None


def test_an_empty_slot_and_rows_that_do_not_fit_are_slot_errors(tmp_path: Path) -> None:
    with pytest.raises(SlotError, match="no model"):
        Slot(tmp_path).predict(X)
    with pytest.raises(SlotError, match="no model"):
        open_slot(tmp_path / "nowhere")
    slot = Slot(tmp_path)
    slot.install(make_release(1), MODEL, make_params(1))
    with pytest.raises(SlotError, match="inputs = 3"):
        slot.predict(X[:, :2])
    with pytest.raises(SlotError, match="inputs = 3"):
        slot.predict(X[:0])


def test_rows_are_flattened_and_made_float32(slot: Slot) -> None:
    slot.install(make_release(1), MODEL, make_params(1))
    cubes = X.astype(np.float64).reshape(6, 1, 3)
    np.testing.assert_array_equal(slot.predict(cubes), slot.predict(X))


def test_importing_the_slot_and_training_loads_neither_torch_nor_onnx_nor_onnxruntime() -> None:
    code = (
        "import sys, edge_agent.slot, models.nets.table, models.nets.mlp\n"
        "import models.training.train, models.serving.session\n"
        "models.nets.table.build(__import__('models.job').job.ModelSpec())\n"
        "sys.exit(' '.join({'torch', 'onnx', 'onnxruntime', 'google.protobuf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_the_log_of_an_install_is_one_line(slot: Slot, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    slot.install(make_release(7), MODEL, make_params(7))
    assert [record.getMessage() for record in caplog.records] == ["model=installed job=digits version=1.7 onnx=True"]


def test_a_child_that_is_there_exports_without_another_process(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("another process was started to export")

    monkeypatch.setattr(slot_module, "export", never)
    assert slot.install(make_release(1), MODEL, make_params(1)) is None
    assert slot.card is not None
    assert "model.onnx" in slot.card.files


# Disks that are full, and exceptions that nobody expects.


def test_a_version_is_on_disk_with_its_entry_before_the_link_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    fsync, replace = os.fsync, os.replace

    def name(path: Path) -> str:
        return re.sub(r"1-1-\w+", "VERSION", os.path.relpath(path, tmp_path))

    def note_fsync(descriptor: int) -> None:
        fsync(descriptor)
        lines.append(f"sync {name(Path(f'/proc/self/fd/{descriptor}').readlink())}")

    def note_replace(source: Path, target: Path) -> None:
        replace(source, target)
        lines.append(f"move {name(Path(target))}")

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    assert Slot(tmp_path / "models" / "digits").install(make_release(1), MODEL, make_params(1)) is None
    slot = "models/digits"
    assert lines == [
        "sync ..",  # which holds the folder that was there
        "sync .",  # which holds models
        "sync models",
        f"sync {slot}",  # which holds versions
        *(f"sync {slot}/versions/VERSION/{file}" for file in ("model.npz", "model.onnx", "model.json")),
        f"sync {slot}/versions/VERSION",
        f"sync {slot}/versions",
        *(f"move {slot}/{link}" for link in ("model.onnx", "model.npz", "model.json", "current")),
        f"sync {slot}",
    ]


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["tempfile.mkdtemp", "os.fsync", "os.replace", "os.symlink", "numpy.savez"])
def test_a_full_disk_at_any_write_keeps_the_model_before_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    slot = Slot(tmp_path)
    slot.install(make_release(1), MODEL, make_params(1))
    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        assert slot.install(make_release(2), MODEL, make_params(2)) == "OSError: [Errno 28] No space left on device"
    assert slot.card == open_slot(tmp_path).card
    assert slot.card is not None
    assert slot.card.release.number == 1
    assert len(list((tmp_path / "versions").iterdir())) == 1
    assert slot.install(make_release(2), MODEL, make_params(2)) is None


def test_a_disk_with_no_room_for_onnx_refuses_the_model_which_may_fit_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = Slot(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(slot_module, "export", lambda *_, **__: "No space left on device")
        write_bytes = Path.write_bytes
        patch.setattr(
            Path, "write_bytes", lambda path, data: full() if path.suffix == ".onnx" else write_bytes(path, data)
        )
        assert "No space left" in str(slot.install(make_release(1), MODEL, make_params(1)))
    assert list((tmp_path / "versions").iterdir()) == []
    assert slot.install(make_release(1), MODEL, make_params(1)) is None
    assert (tmp_path / "model.onnx").exists()


def test_an_exception_that_nobody_expects_comes_through_and_keeps_the_model_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = Slot(tmp_path)
    slot.install(make_release(1), MODEL, make_params(1))

    def fail(*_: object) -> None:
        raise RuntimeError("a factory's own")

    with monkeypatch.context() as patch:
        patch.setattr(Slot, "_try", fail)
        with pytest.raises(RuntimeError, match="a factory's own"):
            slot.install(make_release(2), MODEL, make_params(2))
    assert len(list((tmp_path / "versions").iterdir())) == 1
    np.testing.assert_array_equal(slot.predict(X), NET.predict(make_params(1), X))


def test_an_exception_after_the_link_has_moved_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(point: str, _what: object) -> None:
        if point == "slot.switch.after":
            raise RuntimeError("too late")

    monkeypatch.setattr(slot_module, "reach", fail)
    with pytest.raises(RuntimeError, match="too late"):
        Slot(tmp_path).install(make_release(1), MODEL, make_params(1))
    card = open_slot(tmp_path).card
    assert card is not None
    assert card.release.number == 1


def test_a_version_whose_link_may_not_be_on_disk_costs_no_version_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = Slot(tmp_path)
    sync_folder = files.sync_folder
    slot.install(make_release(1), MODEL, make_params(1))
    monkeypatch.setattr(files, "sync_folder", lambda folder: full() if folder == tmp_path else sync_folder(folder))
    for number in range(2, 5):
        assert slot.install(make_release(number), MODEL, make_params(number)) is None
    kept = sorted(path.name for path in (tmp_path / "versions").iterdir())
    assert [name.rsplit("-", 1)[0] for name in kept] == ["1-1", "1-2", "1-3", "1-4"]


CARDS = [
    b"",
    b"\xff",
    b'{"release": {"job": "\xff\xfe"}}',
    b"[" * 100_000,
    b'{"x":' * 100_000,
    b'{"release": {"job": "j", "generation": 1, "number": 1, "sha256": ""}, "model": {}, "files": {"a\\u0000": ""}}',
    b'{"release": {"job": "j", "generation": 1, "number": 1, "sha256": ""}, "model": {}, "files": {"../../x": ""}}',
    b'{"release": {"job": "j", "generation": 1, "number": 1, "sha256": ""}, "model": {}, "files": {}}',
    b'{"release": {"job": "j", "generation": 1, "number": ' + b"9" * 5000 + b"}}",
]


@pytest.mark.parametrize("card", CARDS)
def test_a_hostile_card_is_a_slot_without_a_model(tmp_path: Path, card: bytes) -> None:
    Slot(tmp_path).install(make_release(1), MODEL, make_params(1))
    (tmp_path / "model.json").write_bytes(card)
    with pytest.raises(SlotError, match="cannot be read"):
        open_slot(tmp_path)
    assert Slot(tmp_path).install(make_release(2), MODEL, make_params(2)) is None


def test_links_in_a_circle_are_a_slot_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("current")
    with pytest.raises(SlotError, match="cannot be read"):
        open_slot(tmp_path)
    assert Slot(tmp_path).install(make_release(1), MODEL, make_params(1)) is None


# What the rows are.

STANDARD = ContractSpec(features=("a", "b", "c"), classes=("w", "x", "y", "z"), normalise="standard")
AGREED = Agreed(np.array([1e5, 0, -1e9], np.float32), np.array([1e-4, 1, 1e-2], np.float32))
RAW = (X.astype(np.float64) / AGREED.scale + AGREED.offset).astype(np.float32)


@pytest.mark.parametrize("runs", [True, False], ids=["onnxruntime", "numpy"])
def test_raw_rows_are_answered_by_what_the_fleet_has_agreed_on(tmp_path: Path, child: Session, runs: bool) -> None:
    slot = Slot(tmp_path, session=child if runs else None)
    params = make_params(1)
    assert slot.install(make_release(1), MODEL, params, STANDARD, AGREED) is None
    right = NET.predict(params, (RAW - AGREED.offset) * AGREED.scale)
    np.testing.assert_allclose(slot.predict(RAW), right, rtol=1e-5, atol=1e-6)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": RAW})[0], right, rtol=1e-5, atol=1e-6)
    again = open_slot(tmp_path)
    assert again.card is not None
    assert again.card.contract == STANDARD
    np.testing.assert_allclose(again.predict(RAW), right, rtol=1e-5, atol=1e-6)


def test_a_card_without_a_contract_is_as_an_older_fedge_reads_it(slot: Slot, tmp_path: Path) -> None:
    assert slot.install(make_release(1), MODEL, make_params(1)) is None
    card = json.loads((tmp_path / "model.json").read_bytes())
    assert card["format"] == 2
    assert card.keys() == {"release", "model", "files", "format", "checksum"}
    assert slot.install(make_release(2), MODEL, make_params(1), STANDARD, AGREED) is None
    assert json.loads((tmp_path / "model.json").read_bytes())["format"] == 3


def test_a_graph_that_normalises_otherwise_is_not_installed(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    def export_without(_slot: Slot, card: Card, _params: Path, target: Path, metadata: dict[str, str]) -> None:
        target.write_bytes(to_onnx(card.model, make_params(1), metadata=metadata))

    monkeypatch.setattr(Slot, "_export", export_without)
    assert "differ" in str(slot.install(make_release(2), MODEL, make_params(1), STANDARD, AGREED))


def test_a_card_whose_agreement_is_none_is_no_model(slot: Slot, tmp_path: Path) -> None:
    assert slot.install(make_release(1), MODEL, make_params(1), STANDARD, AGREED) is None
    path = tmp_path / "model.json"
    card = json.loads(path.read_bytes())
    card["agreed"] = card["agreed"][:-4]
    card["checksum"] = formats.ZEROS
    path.write_bytes(formats.stamped(json.dumps(card).encode()))
    with pytest.raises(SlotError, match="no model is installed, or it cannot be read"):
        open_slot(tmp_path)
