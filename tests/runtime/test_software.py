from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

from runtime.software import VERSION

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_installed_has_the_version_that_stands_here() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "runtime.software.VERSION"}
    assert version("fedge") == VERSION
