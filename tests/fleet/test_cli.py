"""The command line: its help, its exit codes, and one line for every mistake."""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fleet import cli
from fleet.cli import main
from fleet.parser import parser
from fleet.problems.examples import JOBS

GOOD_JOB = 'name = "j"\n[model]\ninputs = 2\noutputs = 2\n'


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return every command there is, and every group."""
    yield words
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from commands(below, (*words, name))


@pytest.mark.parametrize("words", list(commands(parser())), ids=" ".join)
def test_every_help_has_an_example(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--help"])
    assert exit_.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert " ".join(["example: fedge", *words]) in said


def test_there_are_the_commands_that_the_documents_name() -> None:
    names = {" ".join(words) for words in commands(parser())}
    assert {"demo", "simulate", "agent run", "agent predict", "aggregator run", "codec measure"} <= names
    assert {"job submit", "job list", "job stop", "job export"} <= names


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["job"], ["demo", "--devices", "0"], ["demo", "--devices", "many"], ["simulate", "job.toml"]],
    ids=" ".join,
)
def test_a_command_line_that_is_none_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: fedge" in capsys.readouterr().err


def test_a_good_job_is_checked_without_a_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job.toml"
    job.write_text(GOOD_JOB)
    assert main(["job", "submit", str(job), "--check"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{job}: good"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GOOD_JOB + "hiden = [3]\n", '[model] has no key "hiden"; did you mean "hidden"?'),
        (GOOD_JOB.replace("inputs = 2", "inputs = 0"), "[model] inputs"),
        ("name = ", "is not TOML"),
        ('name = "j"\n', 'needs the key "model"'),
    ],
)
def test_a_bad_job_ends_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(text)
    assert main(["job", "submit", str(job), "--check"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fedge: {job}: ")
    assert why in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("job", sorted(JOBS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_job_that_comes_along_is_good(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "submit", str(job), "--check"]) == 0


def test_an_error_of_ours_is_told_in_its_own_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = tmp_path / "update.npz"
    assert main(["codec", "measure", str(missing)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"fedge: {missing} is not an NPZ")


@pytest.mark.parametrize("to_file", [True, False])
def test_a_codec_is_measured_for_people_and_for_scripts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, to_file: bool
) -> None:
    np.savez(tmp_path / "update.npz", w=np.random.default_rng(0).standard_normal((40, 20)))
    out = tmp_path / "rows.json"
    where = str(out) if to_file else "-"
    command = ["codec", "measure", str(tmp_path / "update.npz"), "--buckets", "384", "--json", where]
    assert main(command) == 0
    said = capsys.readouterr().out
    tree = json.loads(out.read_text() if to_file else said)
    first = tree["rows"][0]
    assert (first["codec"], first["buckets"], first["bits"], first["step"]) == ("sketch", 384, 1, None)
    assert set(first) == {
        *("codec", "step", "buckets", "bits", "bytes", "bits_per_coordinate", "nmse", "encode_ms", "decode_ms")
    }
    if to_file:
        assert said.splitlines()[0].split()[:4] == ["codec", "buckets", "bits", "bytes"]
        assert said.splitlines()[1].split()[:3] == ["sketch", "384", "1"]
        assert len(said.splitlines()) == 1 + len(tree["rows"])


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (("--codec", "adaptive"), "codec adaptive is none of sketch, float32, int8"),
        (("--buckets", "63"), "63 buckets are not 64 to 67108864"),
        (("--bits", "5"), "5 bits a bucket are not 1 to 4"),
    ],
)
def test_a_codec_that_there_is_not_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: tuple[str, str], why: str
) -> None:
    np.savez(tmp_path / "update.npz", w=np.ones(100))
    assert main(["codec", "measure", str(tmp_path / "update.npz"), *option]) == 1
    assert capsys.readouterr().err == f"fedge: {why}\n"


def test_what_nobody_expected_is_told_with_its_type_and_where_the_trace_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:

    def burst(_config: object, **_more: object) -> None:
        raise ZeroDivisionError("one over nothing")

    monkeypatch.setattr("fleet.console.operator.jobs", burst)
    config = tmp_path / "aggregator.toml"
    config.write_text('fleet = "f"\n')
    assert main(["job", "list", "--config", str(config)]) == 1
    assert "ZeroDivisionError: one over nothing (FEDGE_LOG=debug shows the trace)" in capsys.readouterr().err


def test_help_and_the_version_load_neither_numpy_nor_paho() -> None:
    program = (
        "import sys; sys.argv[1:] = ['--version']\nimport fleet.cli\ntry: fleet.cli.main()\nexcept SystemExit: pass\n"
    )
    program += "print(sorted({'numpy', 'paho', 'onnx', 'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.startswith("fedge ")


def test_a_line_of_the_log_has_its_date_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        record = logging.LogRecord("fleet.roles", logging.WARNING, "", 0, "disk=%s", ("full",), None)
        record.created = 1_700_000_000.9
        line = cli._LogLine(cli._LOG_LINE, cli._LOG_TIME).format(record)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert line == "2023-11-14T22:13:20Z W fleet.roles disk=full"


def test_the_log_of_a_command_has_dates() -> None:
    program = (
        "import argparse, logging, fleet.cli\n"
        "fleet.cli._start_log(argparse.Namespace(logs=True))\n"
        "logging.getLogger('x').info('y')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ I x y\n", done.stderr)
