"""The commands of README.md are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fleet.parser import parser

README = (Path(__file__).parents[2] / "deploy" / "README.md").read_text()
LINES = re.findall(r"^(?:sudo (?:-u fedge )?)?(?:/opt/fedge/bin/)?fedge (.*)$", README, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_readme_is_one(line: str) -> None:
    parser().parse_args(shlex.split(line.partition(" > ")[0], comments=True))


def test_there_are_some() -> None:
    assert len(LINES) > 5
