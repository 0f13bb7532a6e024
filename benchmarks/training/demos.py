"""What `fedge demo` and each example train on a device: their own jobs and rows, as their READMEs start them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import structs

from fleet.demo.command import DEFAULT_JOB
from fleet.demo.given import Data, for_devices, problem_of
from fleet.parser import parser
from fleet.problems.examples import find_job
from fleet.problems.problem import Problem

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NAMES = ("demo", *sorted(path.parent.name for path in EXAMPLES.glob("*/job.toml")))
"""The demo that comes along, and the examples."""


def of_one_device(name: str, folder: Path) -> Problem:
    """Return a demo of `NAMES` whose fleet is the one of its devices that has most examples.

    folder: where its rows are made. Raises CalledProcessError, or what `fleet.demo.given.problem_of` does.
    """
    commands = _commands(name)
    for program, script, *_ in commands:
        if program == "python":
            subprocess.run([sys.executable, ROOT / script, folder], check=True, stdout=subprocess.DEVNULL)
    (options,) = [words[1:] for words in commands if words[:2] == ["fedge", "demo"]]
    asked = parser().parse_args(options)
    more = asked.partition, asked.features, asked.label, asked.source, asked.test
    job = find_job(DEFAULT_JOB if asked.job is None else ROOT / asked.job)
    with _inside(folder):  # a README names files as one who stands there does
        problem = problem_of(job, asked.devices, None if asked.data is None else Data(asked.data, *more))
    sizes = [len(share.y) for share in problem.shares]
    at = sizes.index(max(sizes))
    only = {"shares": problem.shares[at : at + 1], "files": problem.files[at : at + 1]}
    return structs.replace(problem, spec=for_devices(problem.spec, 1), **only)


def _commands(name: str) -> list[list[str]]:
    """Return the lines of a README's shell, as words."""
    if name == "demo":
        return [["fedge", "demo"]]
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
