"""Every example does what its README says: the commands run, the measure is reached, the lines for devices hold."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig
from fleet.cli import main
from models.job import JobSpec
from runtime.settings import convert, load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("air", "digits", "faces", "hum", "loan", "wrist")
DEMONSTRATED = ("hum", "wrist")
"""As a fleet of real processes; the others in one process, which is the same code and gives the same model sooner."""


def blocks(name: str, language: str) -> list[str]:
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(name: str) -> list[list[str]]:
    return [shlex.split(line) for block in blocks(name, "sh") for line in block.splitlines()]


def made(name: str, folder: Path) -> None:
    for program, script, *_ in commands(name):
        if program == "python":
            subprocess.run([sys.executable, EXAMPLES.parent / script, folder], check=True, stdout=subprocess.DEVNULL)


def job_of(name: str) -> JobSpec:
    return load(EXAMPLES / name / "job.toml", JobSpec)


def test_there_is_a_test_of_every_example() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/job.toml")} == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_example_reaches_its_measure(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    (options,) = [words[2:] for words in commands(name) if words[:2] == ["fedge", "demo"]]
    at = options.index("--job")
    job, others = str(EXAMPLES.parent / options[at + 1]), options[:at] + options[at + 2 :]
    if name in DEMONSTRATED:
        assert main(["demo", "--job", job, *others, "--out", "out", "--json"]) == 0
        summary = json.loads(Path("out/summary.json").read_text(encoding="utf-8"))
        rounds, value = summary["rounds"], summary["value"]
        assert summary["onnx_value"] == pytest.approx(value, abs=1e-3)
    else:
        data = [] if "--data" in others else ["--data", "digits", "--partition", "dirichlet:0.5"]
        assert main(["simulate", job, *data, *others, "--json", "run.json"]) == 0
        last = json.loads(Path("run.json").read_text(encoding="utf-8"))["rounds"][-1]
        rounds = last["round"]
        stop = job_of(name).rounds.stop.metric
        value = last[stop] if stop in last else last["measures"][stop]
    rules = job_of(name).rounds
    assert rules.stop.target is not None
    assert value >= rules.stop.target
    assert rounds <= rules.max_rounds


@pytest.mark.parametrize("name", NAMES)
def test_a_readme_states_the_measure_that_the_job_stops_at(name: str) -> None:
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    target = job_of(name).rounds.stop.target
    assert f"reaches {target} " in text.replace("\n", " ")


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_for_a_device_are_an_agents_and_name_the_jobs_source(name: str) -> None:
    (lines,) = blocks(name, "toml")
    config = convert({"fleet": "home", **tomllib.loads(lines)}, AgentConfig, "README.md")
    assert list(config.data) == [job_of(name).data_name]
    (label,) = config.labels.items()
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert f'[rounds] labels = {{ {label[0]} = "{label[1]}" }}' in text


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"digits"}))
def test_data_are_the_same_whenever_they_are_made(name: str, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        made(name, tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_command_in_a_job_is_that_of_its_readme(name: str) -> None:
    comment = (EXAMPLES / name / "job.toml").read_text(encoding="utf-8").partition('\nname = "')[0]
    lines = re.sub(r"\\\n#\s+", "", comment).splitlines()
    (said,) = [shlex.split(line.lstrip("# ")) for line in lines if "fedge demo" in line]
    assert said in commands(name)
