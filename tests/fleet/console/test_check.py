"""`--check`: what it says of good files, of bad ones, and of what strangers' files and code throw at it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.cli import main
from models.job import ModelSpec
from models.nets.losses import LOSSES
from models.nets.table import NETS, build
from models.params import n_parameters

Capture = pytest.CaptureFixture[str]

FACTORIES = """
import torch
from torch import nn

def good(width=4):
    print("a factory may print")
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))

def wrong():
    return nn.Linear(7, 2)

def narrow():
    return nn.Linear(3, 5)

def empty():
    return nn.ReLU()

def thrower():
    raise ZeroDivisionError("one over nothing")

def quitter():
    raise SystemExit(0)

hollow = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data of every kind, from which the commands are run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    np.savez("digits.npz", X=np.zeros((1797, 8, 8)), y=np.arange(1797) % 10)
    np.savez("odd.npz", X=np.zeros((4, 3)), y=np.array([0, 1, 0, 4]))
    np.savez("one.npz", X=np.zeros((1, 1)), y=np.zeros(1))
    np.savez("many.npz", X=np.zeros((2, 3)), y=np.array([[0.5, -1], [2, 3]]))
    Path("table.csv").write_text("a,b,y\n1,2,0.5\n3,4,1.25\n")
    Path("bad.csv").write_text("a,y\n")
    Path("broken.npz").write_bytes(Path("digits.npz").read_bytes()[:3000])
    Path("check_nets.py").write_text(FACTORIES)
    Path("check_thrower.py").write_text("print('hello')\nraise ZeroDivisionError('one over nothing')\n")
    Path("check_quitter.py").write_text("import sys\nsys.exit(0)\n")
    return tmp_path


def check(capsys: Capture, *words: str) -> tuple[int, list[str], list[str]]:
    """Run a command with --check; give its exit code and the lines that it printed and complained."""
    code = main([*words, "--check"])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out.splitlines(), said.err.splitlines()


def check_agent(capsys: Capture, text: str) -> tuple[int, list[str], list[str]]:
    Path("agent.toml").write_text(f'fleet = "f"\ndevice = "d"\n{text}\n', encoding="utf-8")
    return check(capsys, "agent", "run")


def job_toml(more: str = "", model: str = "inputs = 64\nhidden = [128]\noutputs = 10") -> str:
    Path("job.toml").write_text(f'name = "digits"\n{more}\n[model]\n{model}\n')
    return "job.toml"


def sources(**files: str) -> str:
    return "\n".join(f'[data.{name}]\npath = "{file}"' for name, file in files.items())


# Data.


def test_every_source_is_described(here: Path, capsys: Capture) -> None:
    text = sources(digits="digits.npz", odd="odd.npz", one="one.npz", many="many.npz", table="table.csv")
    code, lines, complaints = check_agent(capsys, text + '\nfeatures = "b"')
    assert lines == [
        "[data.digits] digits.npz: 1,797 rows of 8 x 8 = 64 features, labels 0..9 (10 classes)",
        "[data.odd] odd.npz: 4 rows of 3 features, labels 0..4 (3 classes of 5)",
        "[data.one] one.npz: 1 row of 1 feature, labels 0..0 (1 class)",
        "[data.many] many.npz: 2 rows of 3 features, 2 values a row, -1..3",
        "[data.table] table.csv: 2 rows of 1 feature, values 0.5..1.25",
        lines[5],
        "[broker] 127.0.0.1:1883",
        lines[-3],
        "state_dir agent-state: is not there, and is made by a start",
        "agent.toml: good",
    ]
    assert lines[5].startswith("[vitals] said when it changes, every 900 s at most; now: ")
    assert " bytes free, " in lines[5]
    assert lines[-3].startswith("[limits] for jobs: nets of up to 25,000,000 parameters, ")
    assert (code, complaints) == (0, [])
    assert not (here / "agent-state").exists()


def test_vitals_that_are_off_are_said_to_be_and_too_frequent_ones_are_refused(here: Path, capsys: Capture) -> None:
    assert check_agent(capsys, "[vitals]\nevery_s = 0")[1][0] == "[vitals] every_s = 0: how this device is is not said"
    code, lines, complaints = check_agent(capsys, "[vitals]\nevery_s = 0.5")
    assert (code, lines) == (2, [])
    assert complaints == ["fedge: agent.toml: [vitals] every_s: 0.5 is too often: 1 or more, or 0 for never"]


def test_a_database_is_described_by_what_its_query_gives(here: Path, capsys: Capture) -> None:
    with contextlib.closing(sqlite3.connect("readings.db")) as connection:
        connection.execute("CREATE TABLE readings (t, v, y)")
        connection.execute("INSERT INTO readings VALUES (1, 2.5, 0), (3, 4, 1), (5, NULL, 1)")
        connection.commit()
    good = '[data.good]\npath = "readings.db"\nquery = "SELECT t, v, y FROM readings WHERE v IS NOT NULL"\n'
    code, lines, complaints = check_agent(capsys, good)
    assert lines[0] == "[data.good] readings.db: 2 rows of 2 features, labels 0..1 (2 classes)"
    assert (code, complaints) == (0, [])
    bad = '[data.bad]\npath = "readings.db"\nquery = "SELECT t, v, y FROM readings"\n'
    code, lines, complaints = check_agent(capsys, good + bad)
    left_out = "2 rows of 2 features, labels 0..1 (2 classes); about 30 % of the rows are left out, most because 'v' "
    left_out += "is empty"
    assert lines[1] == f"[data.bad] readings.db: {left_out} (row 2)"
    assert (code, complaints) == (0, [])
    code, lines, complaints = check_agent(capsys, f"{bad}max_skipped = 0.1")
    assert len(complaints) == 1
    assert complaints[0] == (
        "fedge: agent.toml: [data.bad]: readings.db: 1 of 3 rows cannot be used, more than max_skipped = 0.1 allows: 1 "
        "because 'v' is empty (row 2)"
    )
    assert code == 2
    code, lines, complaints = check_agent(capsys, '[data.none]\npath = "readings.db"')
    assert lines[0] == f"[data.none] readings.db: {left_out} (row 2)", "the only table is meant"


def test_a_table_that_only_a_job_with_a_contract_can_use_is_no_complaint(here: Path, capsys: Capture) -> None:
    Path("words.csv").write_text("a,y\n1,ok\n2,fault\n")
    code, lines, complaints = check_agent(capsys, sources(words="words.csv"))
    assert lines[0].startswith("[data.words] words.csv: only jobs that name their columns and classes can use it")
    assert "the label 'y' is no number: name the job's classes" in lines[0]
    assert (code, complaints) == (0, [])


def test_everything_that_is_wrong_is_said_at_once_with_its_place(here: Path, capsys: Capture) -> None:
    code, lines, complaints = check_agent(capsys, sources(digits="digits.npz", bad="bad.csv", broken="broken.npz"))
    assert code == 2
    assert [line.partition(" ")[0] for line in lines] == [
        "[data.digits]",
        "[vitals]",
        "[broker]",
        "[limits]",
        "state_dir",
    ]
    assert complaints == [
        "fedge: agent.toml: [data.bad]: bad.csv: no rows yet",
        "fedge: agent.toml: [data.broken]: broken.npz: cannot be read as NPZ: File is not a zip file",
    ]


def test_a_script_reads_the_same_as_json(here: Path, capsys: Capture) -> None:
    text = sources(digits="digits.npz", bad="bad.csv") + '\n[models]\nallow = ["check_nets:good", "check_thrower:x"]'
    Path("agent.toml").write_text(f'fleet = "f"\n{text}\n')
    assert main(["agent", "run", "--check", "--json"]) == 2
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert (report["file"], report["good"]) == ("agent.toml", False)
    facts = {"path": "digits.npz", "rows": 1797, "features": 64, "labels": "0..9", "classes": 10}
    assert report["lines"][0]["where"] == "[data.digits]"
    assert report["lines"][0]["facts"] == facts
    assert len(report["errors"]) == 2
    assert [f"fedge: {error}" for error in report["errors"]] == [
        line for line in said.err.splitlines() if line.startswith("fedge: ")
    ]


def test_a_file_that_cannot_be_loaded_is_json_too(here: Path, capsys: Capture) -> None:
    Path("agent.toml").write_text("fleet = ")
    assert main(["agent", "run", "--check", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["good"] is False
    assert "is not TOML" in report["errors"][0]


@pytest.mark.parametrize(
    "words", [["agent", "run"], ["aggregator", "run"], ["job", "submit", "job.toml"]], ids=" ".join
)
def test_json_alone_is_refused(here: Path, words: list[str], capsys: Capture) -> None:
    assert main([*words, "--json"]) == 2
    assert capsys.readouterr().err == "fedge: --json goes with --check\n"


@given(cut=st.integers(0, 400), at=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_damaged_file_is_good_or_a_line(here: Path, capsys: Capture, cut: int, at: int, value: int) -> None:
    np.savez("hit.npz", X=np.ones((3, 2)), y=np.zeros(3))
    body = bytearray(Path("hit.npz").read_bytes())
    body[at % len(body)] = value
    Path("hit.npz").write_bytes(body[: len(body) - max(0, cut - 200)])
    code, lines, complaints = check_agent(capsys, sources(hit="hit.npz"))
    assert (code, len(complaints)) in ((0, 0), (2, 1))
    assert all(line.isprintable() for line in (*lines, *complaints))


def test_names_that_act_on_a_terminal_are_shown_harmless(here: Path, capsys: Capture) -> None:
    Path("evil.csv").write_text('"\x1b[2J\x1b[31m",a\n1,2\n')
    code, _, complaints = check_agent(capsys, sources(evil="evil.csv"))
    assert code == 2
    (complaint,) = complaints
    assert complaint.startswith("fedge: agent.toml: [data.evil]: evil.csv: no column 'y'; the header has �, a: is ")


# Factories.


def test_factories_are_imported_if_they_can_be_and_named_if_not(here: Path, capsys: Capture) -> None:
    code, lines, _ = check_agent(capsys, '[models]\nallow = ["check_nets:good", "nowhere.at_all:net"]')
    assert code == 0
    assert lines[1:3] == [
        "[models] allow check_nets:good: is there",
        "[models] allow nowhere.at_all:net: no job can use it here, it cannot be imported: No module named 'nowhere'",
    ]


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        ("check_nets:nothing", "module 'check_nets' has no attribute 'nothing'"),
        ("check_nets:hollow", "it is a int, which cannot be called"),
        ("check_thrower:net", "ZeroDivisionError: one over nothing (check_thrower.py, line 2)"),
        ("check_quitter:net", "SystemExit: 0 (check_quitter.py, line 2)"),
    ],
)
def test_a_factory_that_is_none_is_a_line(here: Path, capsys: Capture, factory: str, why: str) -> None:
    code, lines, complaints = check_agent(capsys, f'[models]\nallow = ["{factory}"]')
    assert code == 2
    assert complaints[-1] == f"fedge: agent.toml: [models] allow {factory}: {why}"
    assert "hello" not in lines


# The broker.


def test_password_and_certificates_are_tried(here: Path, capsys: Capture) -> None:
    Path("password").write_text("secret\n")
    code, lines, _ = check_agent(capsys, '[broker]\nhost = "broker.local"\nusername = "pi"\npassword_file = "password"')
    assert code == 0
    assert lines[1] == "[broker] broker.local:1883 as pi, with the password in password"
    assert not any("secret" in line for line in lines)
    assert any(line.startswith("[broker] without TLS: who listens on the way reads everything") for line in lines)


def test_by_loopback_nobody_listens_on_the_way(here: Path, capsys: Capture) -> None:
    _, lines, _ = check_agent(capsys, '[broker]\nhost = "127.0.0.1"')
    assert lines
    assert not any("TLS" in line for line in lines)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ('username = "u"\npassword_file = "empty"', "empty: its first line, the password, is empty"),
        ('username = "u"\npassword_file = "nowhere"', "nowhere cannot be read: No such file or directory"),
        ('password_file = "empty"', "[broker] password_file: no password is sent without a username"),
        ('ca_file = "noise"', "noise: OpenSSL says"),
        ('certificate_file = "noise"', "[broker] certificate_file: without a ca_file the connection is not encrypted"),
        ('ca_file = "noise"\nkey_file = "noise"', "[broker] key_file: a key is of no use without its certificate_file"),
        (f'host = "{"ü" * 63}"', "is no name of a host"),
    ],
)
def test_a_broker_that_cannot_be_reached_so_is_named(here: Path, capsys: Capture, keys: str, why: str) -> None:
    Path("empty").write_text("\n")
    Path("noise").write_text("-----BEGIN NOISE-----\n")
    code, _, complaints = check_agent(capsys, f"[broker]\n{keys}")
    assert code == 2
    assert len(complaints) == 1
    assert why in complaints[0]


# The state directory.


def test_a_state_directory_can_be_written_and_nothing_stays_there(here: Path, capsys: Capture) -> None:
    (here / "agent-state").mkdir()
    _, lines, _ = check_agent(capsys, "")
    assert lines[-2] == "state_dir agent-state: can be written"
    assert list((here / "agent-state").iterdir()) == []


def test_one_in_use_is_said_and_is_good_since_files_are_looked_at_before_a_restart(here: Path, capsys: Capture) -> None:
    (here / "agent-state").mkdir()
    with Path("agent-state/lock").open("w+") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, lines, _ = check_agent(capsys, "")
    assert code == 0
    assert lines[-2] == "state_dir agent-state: can be written, and is in use by process 4711 now"
    _, lines, _ = check_agent(capsys, "")
    assert lines[-2] == "state_dir agent-state: can be written"


def full(**_keys: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_named(here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "agent-state").mkdir()
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    code, _, complaints = check_agent(capsys, "")
    assert code == 2
    assert complaints == [
        "fedge: agent.toml: state_dir: agent-state cannot be written by this user: No space left on device"
    ]


def test_a_directory_that_the_service_manager_makes_need_not_be_ours_to_make(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    code, lines, _ = check_agent(capsys, 'state_dir = "/var/lib/no-such-fedge"')
    assert code == 0
    assert lines[-2].startswith("state_dir /var/lib/no-such-fedge: is not there, and must be made for this user")


def test_files_of_another_user_are_named(here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "agent-state").mkdir()
    Path("agent-state/boot").touch()
    monkeypatch.setattr(os, "access", lambda path, _mode: path.name != "boot")
    code, _, complaints = check_agent(capsys, "")
    assert code == 2
    assert "agent-state/boot cannot be written by this user: who started it last?" in complaints[0]


@pytest.mark.parametrize(
    ("folder", "why"), [("table.csv", "is no folder"), ("table.csv/x", ""), ("x" * 300, "too long")]
)
def test_a_state_directory_that_cannot_be_is_a_line(here: Path, capsys: Capture, folder: str, why: str) -> None:
    code, _, complaints = check_agent(capsys, f'state_dir = "{folder}"')
    assert code == 2
    assert len(complaints) == 1
    assert complaints[0].startswith("fedge: agent.toml: state_dir: ")
    assert why in complaints[0]


# The aggregator.


def test_the_test_splits_of_an_aggregator_are_described(here: Path, capsys: Capture) -> None:
    Path("aggregator.toml").write_text('fleet = "f"\n[tests.digits]\npath = "digits.npz"\n')
    code, lines, _ = check(capsys, "aggregator", "run")
    assert code == 0
    assert lines == [
        "[tests.digits] digits.npz: 1,797 rows of 8 x 8 = 64 features, labels 0..9 (10 classes)",
        "[broker] 127.0.0.1:1883",
        lines[-3],
        "state_dir aggregator-state: is not there, and is made by a start",
        "aggregator.toml: good",
    ]
    assert lines[-3].startswith("[limits] for jobs: nets of up to 25,000,000 parameters, ")
    Path("aggregator.toml").write_text('fleet = "f"\n[tests.digits]\npath = "broken.npz"\n')
    code, _, complaints = check(capsys, "aggregator", "run")
    assert code == 2
    assert complaints[0].startswith("fedge: aggregator.toml: [tests.digits]: broken.npz: cannot be read as NPZ")


# Jobs.


def test_a_job_says_how_large_its_net_is(here: Path, capsys: Capture) -> None:
    code, lines, _ = check(capsys, "job", "submit", job_toml())
    assert code == 0
    assert lines == [
        "[model] mlp: 9,610 parameters in 4 tensors, 38,440 bytes a version or an update in float32",
        lines[-2],
        "job.toml: good",
    ]
    assert lines[-2].startswith("[limits] the aggregator takes about ")


@pytest.mark.parametrize("loss", sorted(LOSSES.keys() - {row.loss for row in NETS.values()}))
@pytest.mark.parametrize("kind", [kind for kind, row in NETS.items() if row.loss is None])
def test_a_net_of_every_built_in_kind_takes_a_step_and_says_its_size(
    here: Path, capsys: Capture, kind: str, loss: str
) -> None:
    outputs = 1 if loss == "binary" else 9
    n = n_parameters(build(ModelSpec(kind, inputs=64, outputs=outputs)).spec)
    model = f'kind = "{kind}"\ninputs = 64\noutputs = {outputs}\nloss = "{loss}"'
    code, lines, _ = check(capsys, "job", "submit", job_toml(model=model))
    assert code == 0
    assert lines[0].startswith(f"[model] {kind}: {n:,} parameters in")
    assert lines[0].endswith(f"{4 * n:,} bytes a version or an update in float32")


def test_a_job_is_held_against_the_test_split_of_its_aggregator(here: Path, capsys: Capture) -> None:
    Path("server.toml").write_text('fleet = "f"\n[tests.digits]\npath = "digits.npz"\n')
    words = ("job", "submit", job_toml(), "--config", "server.toml")
    code, lines, _ = check(capsys, *words)
    assert code == 0
    described = "digits.npz: 1,797 rows of 8 x 8 = 64 features, labels 0..9 (10 classes)"
    assert lines[1] == f"[tests.digits] {described}, as the model takes them"
    for model, why in (
        ("inputs = 63\noutputs = 10", "64 features an example where the model has inputs = 63"),
        ("inputs = 64\noutputs = 5", "row 5: the label is not one of 0..4"),
        ('inputs = 64\noutputs = 3\nloss = "mse"', "1 values a row where the model has outputs = 3"),
    ):
        job_toml(model=model)
        code, lines, complaints = check(capsys, *words)
        assert code == 2
        assert "job.toml: good" not in lines
        assert complaints[0].startswith("fedge: server.toml: [tests.digits]: digits.npz")
        assert why in complaints[0]


def test_a_target_that_nobody_measures_is_said(here: Path, capsys: Capture) -> None:
    Path("aggregator.toml").write_text('fleet = "f"\n')
    code, lines, _ = check(capsys, "job", "submit", job_toml("rounds.stop.target = 0.9\nrounds.max_rounds = 7"))
    assert code == 0
    assert lines[1] == (
        "[rounds.stop] metric = accuracy: aggregator.toml has no [tests.digits], so nobody measures it, and this "
        "aggregator would refuse the job: add it, or validation = 0.1 to [contract]"
    )


def test_a_job_can_be_held_against_an_operators_own_file(here: Path, capsys: Capture) -> None:
    Path("operator.toml").write_text('fleet = "f"\nmine = 1\n[broker]\nport = 1884\n')
    assert check(capsys, "job", "submit", job_toml(), "--config", "operator.toml")[0] == 0
    Path("operator.toml").write_text("fleet = \n")
    code, _, complaints = check(capsys, "job", "submit", job_toml(), "--config", "operator.toml")
    assert code == 2
    assert complaints[0].startswith("fedge: operator.toml: is not TOML")


def test_updates_that_the_aggregator_would_not_assemble_are_said(here: Path, capsys: Capture) -> None:
    Path("aggregator.toml").write_text('fleet = "f"\n[limits]\nunassembled_bytes = 1048576\n')
    large = "inputs = 1000\nhidden = [300]\noutputs = 10"
    code, _, complaints = check(capsys, "job", "submit", job_toml('compression = "off"', large))
    assert code == 2
    assert "more than unassembled_bytes = 1,048,576 in [limits]" in complaints[0]
    assert check(capsys, "job", "submit", job_toml('compression = "strong"', large))[0] == 0


FACTORY = 'kind = "check_nets:{}"\ninputs = 3\noutputs = 2'


@pytest.mark.long
def test_a_factorys_net_that_fits_is_built_and_takes_a_step(here: Path, capsys: Capture) -> None:
    Path("aggregator.toml").write_text('fleet = "f"\n[limits]\nmodel_parameters = 1000\n')
    code, lines, complaints = check(
        capsys, "job", "submit", job_toml(model=FACTORY.format("good") + "\noptions = { width = 5 }")
    )
    assert (code, complaints) == (0, ["a factory may print"])
    assert lines[0] == (
        "[model] check_nets:good: 32 parameters in 4 tensors, 128 bytes a version or an update in float32; "
        "the aggregator refuses it until its [models] allow names it"
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("wrong", "RuntimeError: mat1 and mat2 shapes cannot be multiplied", marks=pytest.mark.long),
        ("narrow", "gave outputs of shape (8, 5) for 8 rows where the model has outputs = 2"),
        pytest.param("empty", 'kind = "check_nets:empty" has no parameters to train', marks=pytest.mark.long),
        pytest.param("thrower", "ZeroDivisionError: one over nothing", marks=pytest.mark.long),
        ("quitter", "SystemExit: 0"),
        pytest.param("hollow", "'int' object is not callable", marks=pytest.mark.long),
        ("nothing", "has no attribute 'nothing'"),
    ],
)
def test_a_factory_that_makes_no_net_is_a_line(here: Path, capsys: Capture, name: str, why: str) -> None:
    code, _, complaints = check(capsys, "job", "submit", job_toml(model=FACTORY.format(name)))
    assert code == 2
    assert complaints[-1].startswith("fedge: job.toml: [model]: ")
    assert why in complaints[-1]


def test_a_net_that_cannot_be_built_on_this_machine_is_named(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, lines, _ = check(capsys, "job", "submit", job_toml(model='kind = "nowhere:net"\ninputs = 3'))
    assert code == 0
    assert lines[0].startswith("[model] nowhere:net: cannot be built here, so its size is not known: ")
    monkeypatch.setattr("fleet.console.check.find_spec", lambda _name: None)
    _, lines, _ = check(capsys, "job", "submit", job_toml(model=FACTORY.format("good")))
    assert lines[0].endswith("its size is not known: no Torch is installed")


# Capacity.


def test_a_job_that_does_not_fit_is_an_error_with_the_numbers_and_nothing_of_it_is_made(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("aggregator.toml").write_text('fleet = "f"\n[limits]\nmemory_bytes = 200000000\n')
    monkeypatch.setattr("fleet.console.check._take_a_step", None)
    model = 'kind = "mlp"\ninputs = 64\nhidden = [4000, 4000]\noutputs = 10'
    code, lines, complaints = check(capsys, "job", "submit", job_toml(model=model))
    assert (code, lines) == (2, [])
    assert len(complaints) == 1
    assert "[limits]: the job does not fit here: its net of 16,304,010 parameters takes about" in complaints[0]
    assert "there are 200 MB (memory_bytes in [limits])" in complaints[0]


def test_where_the_aggregator_is_elsewhere_a_small_machine_is_worth_a_line_and_no_error(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.budget.machine.physical_bytes", lambda _root: 80_000_000)
    code, lines, complaints = check(capsys, "job", "submit", job_toml())
    assert (code, complaints) == (0, [])
    assert "; an aggregator on this machine would refuse it: the job does not fit here: " in lines[-2]
    Path("aggregator.toml").write_text('fleet = "f"\nstate_dir = "state"\n')
    assert check(capsys, "job", "submit", job_toml())[0] == 2


def test_a_factory_that_does_not_fit_is_an_error_too(here: Path, capsys: Capture) -> None:
    Path("aggregator.toml").write_text('fleet = "f"\n[limits]\nmodel_parameters = 1000\n')
    wide = FACTORY.format("good") + "\noptions.width = 1000000000"
    code, lines, complaints = check(capsys, "job", "submit", job_toml(model=wide))
    assert (code, lines) == (2, [])
    assert "its net has 6,000,000,002 parameters, where model_parameters = 1,000 in [limits]" in complaints[0]


@pytest.mark.parametrize(("role", "file"), [("agent", "agent.toml"), ("aggregator", "aggregator.toml")])
def test_what_there_is_for_jobs_is_said_as_numbers_too(here: Path, capsys: Capture, role: str, file: str) -> None:
    Path(file).write_text('fleet = "f"\n[limits]\nmemory_bytes = 200000000\ndisk_bytes = 3000000000\n')
    assert main([role, "run", "--check", "--json"]) == 0
    line = next(line for line in json.loads(capsys.readouterr().out)["lines"] if line["where"] == "[limits]")
    assert line["text"].startswith(
        "for jobs: nets of up to 25,000,000 parameters, 200 MB of memory, 3,000 MB of disk ("
    )
    assert line["facts"] == {"model_parameters": 25_000_000, "memory_bytes": 200_000_000, "disk_bytes": 3_000_000_000}
