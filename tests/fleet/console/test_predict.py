"""`fedge agent predict`: every row has its answer, by the contract in the model's card."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from edge_agent.card import Release
from edge_agent.quantising import Wish
from edge_agent.slot import Slot
from edge_agent.slots import slot_path
from fleet.cli import main
from fleet.console import predict
from models.contract import NO_CONTRACT, ContractSpec, WindowSpec
from models.job import ModelSpec

CLASSES = ContractSpec(features=("temp", "vib"), label="state", classes=("all good", 'bad, "very"'))
DATA = "vib;state;temp\n{rows}"


class Device:
    """A device that serves a model which answers the second class where temp is above vib."""

    def __init__(self, folder: Path, contract: ContractSpec, model: ModelSpec, own: str, keys: str = "") -> None:
        self.folder = folder
        self.own = folder / "own.csv"
        self.own.write_text(own, encoding="utf-8")
        self.config = folder / "agent.toml"
        self.config.write_text(
            f'fleet = "f"\ndevice = "d"\nstate_dir = "{folder}"\n[data.job]\npath = "{self.own}"\n{keys}\n',
            encoding="utf-8",
        )
        weights = np.zeros((model.inputs, model.outputs), np.float32)
        weights[0, -1], weights[1, -1] = 1, -1
        params = {"weight": weights.T.copy(), "bias": np.zeros(model.outputs, np.float32)}
        slot = Slot(slot_path(folder, "job"))
        try:
            assert slot.install(Release("job", 1, 3, "0" * 64), model, params, contract) is None
        finally:
            slot.close()

    def ask(self, path: Path, *more: str) -> int:
        return main(["agent", "predict", "--config", str(self.config), "--input", str(path), *more])


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy answers: onnxruntime's own tests are elsewhere."""
    monkeypatch.setattr(predict.session, "probe", lambda: "not here")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    own = DATA.format(rows="1,5;all good;1\n2;bad;9,5\n3;;2\n")
    return Device(tmp_path, CLASSES, ModelSpec("linear", 2, (), 2), own, 'label = "state"')


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_its_own_file_is_answered_with_the_names_of_classes(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert device.ask(device.own) == 0
    found = lines(capsys)
    assert found[0] == "class,probability"
    assert [line.rpartition(",")[0] for line in found[1:]] == ["all good", '"bad, ""very"""', "all good"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "temp,vib\n1,2\n9,2\n"),
        ("x.csv", "vib|temp|more\n2|1|x\n2|9|y\n"),
        ("x.csv", "vib\ttemp\n2,0\t1,0\n2,0\t9,0\n"),
        ("x.csv", "1,2\n9,2\n"),
        ("x.jsonl", '{"vib": 2, "temp": 1}\n{"temp": 9, "vib": 2}\n'),
    ],
)
def test_any_order_and_any_way_of_writing_has_the_same_answers(
    device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert device.ask(tmp_path / name) == 0
    assert lines(capsys) == ["class,probability", "all good,0.731059", '"bad, ""very""",0.999089']


def test_a_database_and_arrays_are_answered(device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE t (vib, state, temp)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?)", [(2, "?", 1), (2, None, 9)])
    connection.close()
    np.savez(tmp_path / "x.npz", X=np.array([[1, 2], [9, 2]], np.float32), y=np.array([0, 1]))
    np.savez(tmp_path / "only.npz", X=np.array([[1, 2], [9, 2]], np.float32))
    for name in ("x.db", "x.npz", "only.npz"):
        assert device.ask(tmp_path / name) == 0
        assert [line.rpartition(",")[2] for line in lines(capsys)[1:]] == ["0.731059", "0.999089"], name


def test_a_row_with_a_hole_has_an_empty_answer_and_no_other_row_is_shifted(
    device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.csv").write_text("temp,vib\n1,2\n,3\n9,2\n", encoding="utf-8")
    assert device.ask(tmp_path / "x.csv") == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1:] == ["all good,0.731059", ",", '"bad, ""very""",0.999089']
    assert "1 of 3 rows are left out: 1 because 'temp' is empty (line 3)" in told.err
    assert device.ask(tmp_path / "x.csv", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["job"], found["version"], found["n_rows"]) == ("job", "1.3", 3)
    assert (found["rows"], found["lines"]) == ([0, 2], [2, 4])
    assert found["classes"] == list(CLASSES.classes)
    assert [round(max(answer), 3) for answer in found["answers"]] == [0.731, 0.999]


def test_a_hole_is_filled_with_the_mean_of_the_devices_own_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = ContractSpec(features=("temp", "vib"), label="kwh", missing="mean")
    own = "temp,vib,kwh\n10,1,5\n30,1,5\n"
    device = Device(tmp_path, contract, ModelSpec("linear", 2, (), 1, loss="mse"), own, 'label = "kwh"')
    (tmp_path / "x.csv").write_text("temp,vib\n7,2\n,2\n", encoding="utf-8")
    assert device.ask(tmp_path / "x.csv") == 0
    assert lines(capsys) == ["kwh", "5", "18"], "20, not 7"
    device.own.unlink()
    assert device.ask(tmp_path / "x.csv") == 0
    assert lines(capsys) == ["kwh", "5", "5"], "the mean of what is asked, where there is nothing better"


def test_several_values_have_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract = ContractSpec(features=("temp", "vib"), label=("heat, gas", "power"))
    model = ModelSpec("linear", 2, (), 2, loss="mse")
    device = Device(tmp_path, contract, model, 'temp,vib,"heat, gas",power\n3,1,0,0\n')
    assert device.ask(device.own) == 0
    assert lines(capsys) == ['"heat, gas",power', "0,2"]


def test_one_output_for_two_classes_is_answered_with_the_class_and_how_probable_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ModelSpec("linear", 2, (), 1, loss="binary")
    device = Device(tmp_path, CLASSES, model, "temp,vib,state\n3,1,all good\n1,3,all good\n,1,\n")
    assert device.ask(device.own) == 0
    assert lines(capsys) == ["class,probability", '"bad, ""very""",0.880797', "all good,0.880797", ","]
    assert device.ask(device.own, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == ["all good", 'bad, "very"']
    assert [one[0] for one in told["answers"]] == pytest.approx([0.880797, 0.119203], abs=1e-6)


def test_several_labels_a_row_are_answered_with_how_probable_each_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = ContractSpec(features=("temp", "vib"), label=("smoke", "heat, gas"))
    model = ModelSpec("linear", 2, (), 2, loss="multilabel")
    device = Device(tmp_path, contract, model, 'temp,vib,smoke,"heat, gas"\n3,1,0,1\n')
    assert device.ask(device.own) == 0
    assert lines(capsys) == ['smoke,"heat, gas"', "0.500000,0.880797"]
    assert device.ask(device.own, "--json") == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["smoke", "heat, gas"]


def test_quantiles_are_called_by_their_value_and_their_level(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = ContractSpec(features=("temp", "vib"), label="kwh")
    model = ModelSpec("linear", 2, (), 2, loss="quantile", loss_options={"quantiles": [0.05, 0.95]})
    device = Device(tmp_path, contract, model, "temp,vib,kwh\n3,1,0\n")
    assert device.ask(device.own) == 0
    assert lines(capsys) == ["kwh 0.05,kwh 0.95", "0,2"]


def test_windows_are_answered_with_the_line_of_their_last_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = ContractSpec(features=("temp",), label="y", window=WindowSpec(2, hop=2))
    device = Device(tmp_path, contract, ModelSpec("linear", 2, (), 1, loss="mse"), "temp,y\n1,0\n4,0\n9,0\n2,0\n8,0\n")
    assert device.ask(device.own) == 0
    assert lines(capsys) == ["last_row,y", "3,-3", "5,7"]


def test_more_keys_of_the_file_are_said_on_the_line(
    device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.csv").write_bytes("Temp °C;vib\n1;2\n".encode("cp1252"))
    assert device.ask(tmp_path / "x.csv") == 1
    assert "is no UTF-8" in (said := capsys.readouterr().err)
    assert """; here with --source 'encoding = "latin-1"'\n""" in said
    more = 'encoding = "cp1252", rename = { "Temp °C" = "temp" }'
    assert device.ask(tmp_path / "x.csv", "--source", more) == 0
    assert lines(capsys)[1:] == ["all good,0.731059"]
    assert device.ask(tmp_path / "x.csv", "--source", 'dilimiter = ";"') == 2
    assert 'no key "dilimiter"; did you mean "delimiter"?' in capsys.readouterr().err


def test_a_file_without_what_the_model_takes_says_what_it_has(
    device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.csv").write_text("temperature,vib\n1,2\n", encoding="utf-8")
    assert device.ask(tmp_path / "x.csv") == 1
    assert "no column 'temp'" in (said := capsys.readouterr().err)
    assert "the header has temperature, vib" in said


def test_a_model_that_was_to_be_in_int8_says_what_has_come_of_it(
    device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slot, params = Slot(slot_path(tmp_path, "job")), {"weight": np.eye(2, dtype=np.float32), "bias": np.zeros(2, "f4")}
    model, wish = ModelSpec("linear", 2, (), 2), Wish(0.01, None)
    assert slot.install(Release("job", 1, 4, "0" * 64), model, params, CLASSES, wish=wish) is None
    assert device.ask(device.own, "--json") == 0
    told = capsys.readouterr()
    assert "model.onnx: not in int8: this device has fewer than 20 rows" in told.err
    assert "fewer than 20 rows" in json.loads(told.out)["quantised"]["why_not"]


def test_without_a_contract_rows_go_by_position_as_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = Device(tmp_path, NO_CONTRACT, ModelSpec("linear", 2, (), 2), "a,b,y\n1,2,0\n9,2,1\n")
    (tmp_path / "x.csv").write_text("any,names\n1,2\n9,2\n", encoding="utf-8")
    (tmp_path / "none.csv").write_text("1,2\n9,2\n", encoding="utf-8")
    for path in (tmp_path / "x.csv", tmp_path / "none.csv", device.own):
        assert device.ask(path) == 0
        assert lines(capsys) == ["class,probability", "0,0.731059", "1,0.999089"], path
    (tmp_path / "x.csv").write_text("a,b,c\n1,2,3\n", encoding="utf-8")
    assert device.ask(tmp_path / "x.csv") == 1
    assert "3 columns where the model has inputs = 2" in capsys.readouterr().err
